"""One code for numpy arrays and torch tensors: a function of the method computes where its argument is.

`xp = namespace(x)` is numpy, or torch for a tensor. What both call alike is called directly: xp.where, xp.asarray,
xp.amax, methods with `axis` and `keepdims` (torch takes numpy's names). What they call differently is here. numpy is
the reference; a tensor on a GPU gives the same to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array

from nearfar.support.check import Array

namespace = partial(array_namespace, use_compat=False)  # numpy, or torch for a tensor
Place = Any  # "cpu": numpy; else the name of a device of torch, or a torch.device


def place(x: Array, device: Place) -> Any:
    """A numpy array where it will be computed on: itself for "cpu", else a tensor on the device."""
    if isinstance(device, str) and device == "cpu":
        return x
    import torch

    return torch.from_numpy(np.ascontiguousarray(x)).to(device)


def on_host(x: Any) -> Array:
    """An array as a numpy array; of a tensor without its gradient."""
    return np.asarray(x.detach().cpu() if is_torch_array(x) else x)


def like(x: Any, values: Array) -> Any:
    """A numpy array in the library and on the device of x."""
    return place(values, x.device) if is_torch_array(x) else values


def new(x: Any, shape: Sequence[int], value: float = 0.0) -> Any:
    """An array of `shape` filled with a value, in the library, on the device and of the type of x."""
    return x.new_full(tuple(shape), value) if is_torch_array(x) else np.full(shape, value, x.dtype)


def take(x: Any, index: Array, axis: int) -> Any:
    """Rows or columns of x by their numbers."""
    return x.index_select(axis, like(x, index)) if is_torch_array(x) else x.take(index, axis=axis)


def ranked(x: Any, at: Sequence[int]) -> Any:
    """The values (..., len(at), D) with these ranks among x (..., T, D), ranks counted from 0 up, over T."""
    ordered = x.sort(-2).values if is_torch_array(x) else np.partition(x, at, axis=-2)
    return ordered[..., list(at), :]


def fill_diagonal(x: Any, value: float) -> None:
    """Set the diagonal of a matrix, in place."""
    if is_torch_array(x):
        x.fill_diagonal_(value)
    else:
        np.fill_diagonal(x, value)


def windows(x: Any, size: int, hop: int = 1) -> Any:
    """(..., N) -> (..., 1 + (N - size) // hop, size), without a copy."""
    if is_torch_array(x):
        return x.unfold(-1, size, hop)
    return np.lib.stride_tricks.sliding_window_view(x, size, axis=-1)[..., ::hop, :]


def moving_mean(x: Any, size: int) -> Any:
    """Means over `size` (odd) neighbours on the last axis; beyond the two ends there are zeros."""
    if is_torch_array(x):
        edge = new(x, (*x.shape[:-1], size // 2))
        return windows(namespace(x).concatenate([edge, x, edge], axis=-1), size).mean(axis=-1)
    from scipy.ndimage import uniform_filter1d  # slow to import

    return uniform_filter1d(x, size, axis=-1, mode="constant")


def rfft(x: Any) -> Any:
    """(..., N) -> (..., 1 + N // 2) complex, in the precision of x."""
    return _fft(x).rfft(x)


def irfft(x: Any, n: int) -> Any:
    """(..., 1 + n // 2) complex -> (..., n), in the precision of x."""
    return _fft(x).irfft(x, n)


def _fft(x: Any) -> Any:
    if is_torch_array(x):
        return namespace(x).fft
    from scipy import fft  # numpy's computes in float64 before version 2

    return fft
