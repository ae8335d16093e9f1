"""The notebook of the examples runs from nothing to its table, and shows what it prints."""

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOK = Path(__file__).parents[1] / "examples" / "paper.ipynb"


def shown(notebook):
    """What each cell prints, with # for every number: another processor may round differently."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [
        [o.get("text") or o["data"].get("text/markdown") or o["data"]["text/plain"] for o in c.outputs] for c in cells
    ]
    return [[re.sub(r"-?\d+(\.\d+)?", "#", text) for text in each] for each in outputs]


@pytest.mark.slow
def test_the_notebook_goes_from_nothing_to_a_table(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "error::DeprecationWarning:nearfar")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    before = shown(notebook)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert shown(notebook) == before
    assert r"\toprule" in before[-1][0] and "| official score |" in before[-2][0]
    assert NOTEBOOK.stat().st_size < 20_000
