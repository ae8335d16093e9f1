"""The examples in the docstrings of the report's modules run and print what they show."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import nearfar

WITHOUT = ("__init__", "__main__", "errors", "score")
MODULES = sorted(p.stem for p in Path(nearfar.__file__).parent.glob("*.py") if p.stem not in WITHOUT)
MODULES += ["sklearn", "live.language"]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_run(name):
    failed, tried = doctest.testmod(import_module(f"nearfar.{name}"))
    assert failed == 0
    assert tried >= 1, f"nearfar.{name} has no example"
