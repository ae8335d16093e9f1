"""Cells that a spreadsheet would run are escaped in every CSV file, and unescaped where it is read back."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nearfar
from commands import nearfar as run
from conftest import hum, write_wav
from nearfar.audio.recordings import find
from nearfar.live.sinks.lines import _csv
from nearfar.recipe import Recipe
from nearfar.support.cells import escaped, unescaped

FORMULAS = ['=HYPERLINK("x")', "@SUM(1)", "-2+3", "+1", "\tx", "\rx", "'=1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_text_and_numbers_stay_numbers(text):
    assert escaped([text, -2.5, -3, None, "pump-3.wav", "it's"]) == ["'" + text, -2.5, -3, None, "pump-3.wav", "it's"]


@given(st.text())
def test_what_is_escaped_is_read_back(text):
    (cell,) = escaped([text])
    assert unescaped(cell) == text
    assert not cell or cell[0] not in "=+-@\t\r\n"


def test_names_of_recordings_reach_every_csv_escaped_and_come_back(tmp_path):
    for i, name in enumerate(("=1+1.wav", "@SUM(1).wav", "-2+3.wav", "a.wav", "b.wav", "c.wav")):
        write_wav(tmp_path / "normals" / name, hum(i))
    names = [r.name for r in find(tmp_path / "normals")]
    detector = nearfar.Detector(Recipe()).fit(tmp_path / "normals")
    detector.save(tmp_path / "m")
    assert "\n'=1+1.wav," in (tmp_path / "m" / "normals.csv").read_text().replace("\r", "")
    assert [n.name for n in nearfar.load(tmp_path / "m").normals] == names
    code, _, _ = run("score", tmp_path / "m", tmp_path / "normals", "--csv", tmp_path / "scores.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "scores.csv").read_text())))
    assert code == 0 and [unescaped(row["file"]) for row in rows] == names
    assert not any(cell[:1] in "=+@" or cell[:2] == "-2+" for row in rows for cell in row.values() if cell)
    assert [r.name for r in find(tmp_path / "normals", tmp_path / "scores.csv")] == names
    assert _csv(["=1", -1.5]) == "'=1,-1.5\n"
