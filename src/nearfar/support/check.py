"""Argument checks of the public functions. An error names the argument, its value and the allowed values.

A NaN must be refused at the entrance: further down it becomes a score that looks valid.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
Item = TypeVar("Item")


def finite(name: str, values: ArrayLike, *, ndim: int | None = None) -> Array:
    """`values` as a float32 array (float64 stays); NaN, infinity or a wrong shape is a ValueError.

    A tensor of torch stays a tensor where it is.
    """
    if is_torch_array(values):
        return _finite_tensor(name, values, ndim)
    array = np.asarray(values)
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool) or np.iscomplexobj(array):
        raise ValueError(f"{name} must hold real numbers, not {array.dtype}")
    if array.dtype != np.float64:
        array = array.astype(np.float32, copy=False)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, not {array.ndim} (shape {array.shape})")
    # Finite terms have a finite sum unless it overflows, so the usual case needs no mask.
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum()
    if not np.isfinite(total) and not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"{name} holds {array[where]} at index {where}; every value must be finite")
    return array


def _finite_tensor(name: str, x: Any, ndim: int | None) -> Any:
    x = x if str(x.dtype) == "torch.float64" else x.float()
    if (ndim is not None and x.ndim != ndim) or not bool(x.sum().isfinite()):
        finite(name, x.detach().cpu().numpy(), ndim=ndim)  # raises, unless the sum has overflowed
    return x


def number(
    name: str,
    value: float,
    *,
    low: float = -np.inf,
    high: float = np.inf,
    above: float = -np.inf,
    below: float = np.inf,
) -> float:
    """`value` if low <= value <= high and above < value < below, else a ValueError with the range."""
    if not _is_number(value):
        raise ValueError(f"{name} must be a finite number, not {value!r}")
    if not (low <= value <= high and above < value < below):
        limits = [
            f"{sign} {limit:g}"
            for sign, limit in ((">=", low), (">", above), ("<=", high), ("<", below))
            if np.isfinite(limit)
        ]
        raise ValueError(f"{name} must be {' and '.join(limits)}, not {value!r}")
    return value


def integer(name: str, value: int, *, low: float = 1, high: float = np.inf) -> int:
    """`value` as an int with low <= value <= high, else a ValueError."""
    if not _is_number(value) or value != int(value) or not low <= value <= high:
        limit = f" and <= {high:g}" if np.isfinite(high) else ""
        raise ValueError(f"{name} must be a whole number >= {low:g}{limit}, not {value!r}")
    return int(value)


def switch(name: str, value: bool) -> bool:
    """`value` if it is True or False, else a ValueError."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, not {value!r}")
    return bool(value)


def flags(name: str, values: ArrayLike, count: int) -> Array:
    """`values` as a bool array (count,); other values than True, False, 1 and 0 are a ValueError."""
    array = np.asarray(values)
    if array.shape != (count,):
        raise ValueError(f"{name} has shape {array.shape}; give one flag for each of the {count} clips")
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name} must hold True and False (or 1 and 0) alone")
    return array.astype(bool)


def one_of(what: str, name: str, choices: Iterable[str]) -> str:
    """`name` if it is one of `choices`, else a ValueError that lists them."""
    if not isinstance(name, str) or name not in choices:
        raise ValueError(f"unknown {what} {name!r}; choose one of: {', '.join(choices)}")
    return name


def choose(what: str, name: str, table: Mapping[str, Item]) -> Item:
    """`table[name]`, else a ValueError that lists the names."""
    return table[one_of(what, name, table)]


def _is_number(value: Any) -> bool:
    if not isinstance(value, (int, float, np.integer, np.floating)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int larger than any float
        return False
