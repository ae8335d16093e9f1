"""Every exception of the package stands in one tree, and callers may catch the built-in class instead."""

from __future__ import annotations

import inspect

import pytest

import nearfar
from nearfar import errors

CLASSES = {name: c for name, c in vars(errors).items() if inspect.isclass(c) and c.__module__ == errors.__name__}
BUILT_IN = {
    "AudioError": ValueError,
    "ConfigError": ValueError,
    "DamagedHistory": ValueError,
    "DownloadError": OSError,
    "StoreError": OSError,
}


def test_the_docstring_draws_the_tree():
    drawn = [line.split("+--")[1].split()[0] for line in (errors.__doc__ or "").splitlines() if "+--" in line]
    assert drawn == sorted(drawn) and {"NearfarError", *drawn} == set(CLASSES)


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_exception_is_public_and_is_caught_as_the_built_in_class_too(name):
    assert getattr(nearfar, name) is CLASSES[name] and name in nearfar.__all__
    for kind in (BUILT_IN[name], nearfar.NearfarError):
        with pytest.raises(kind, match=r"^what is wrong$"):
            raise CLASSES[name]("what is wrong")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.AudioError("x", "rate"), "rate"),
        (errors.MissingPlugin("x"), "missing_plugin"),
        (errors.NotFound("x"), "not_found"),
        (errors.Conflict("x"), "conflict"),
        (errors.BadInput("x"), "invalid"),
        (FileNotFoundError("x"), "no_such_file"),
        (OSError("x"), "disk"),
        (ValueError("x"), "invalid"),
        (MemoryError(), "memory"),
        (RecursionError(), "nested"),
        (KeyError("x"), "failed"),
    ],
)
def test_every_error_has_a_stable_code(error, code):
    assert errors.code_of(error) == code
