"""One Gaussian over the normals: Mahalanobis distance with a shrunk covariance, and whitening by it.

    A = (1 - rho) S + rho (tr S / D) I,   S = covariance (ddof 0) of the training clips x (N, D)
    s(q) = sqrt((q - mean)^T A^-1 (q - mean))

rho is a number or Ledoit and Wolf's (2004). With `standardize` features are divided by their standard deviation first
(never by less than a tenth of the median one: a band that hardly moved must not become the loudest).
Everything is held in principal axes, so D may be far above N. Leave-one-out is exact and costs one pass: taking
clip i out is a rank-one change of S, solved by Sherman and Morrison's formula.
If all clips coincide there is no covariance; the distance is then Euclidean.

References: Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices".
"""

from __future__ import annotations

import numpy as np
from scipy import linalg

from nearfar.blas import one_thread
from nearfar.check import Array, number

SCALE_FLOOR = 0.1  # of the median standard deviation
RHO_FLOOR = 1e-6  # of the shrinkage: with D >= N a direction that no clip ever took would cost infinitely much
RANK = 1e-10  # principal axes with less of the largest singular value than this are rounding
SOLVABLE = 1e-7  # a smaller denominator in Sherman and Morrison's formula has lost too many digits
ROUNDING = 1e-12  # of a feature's largest value: a smaller deviation from the mean is none


class Gaussian:
    """A Gaussian with shrunk covariance over x (N, D); `shrinkage` is "ledoit_wolf" or a number in [0, 1]."""

    def __init__(self, x: Array, *, shrinkage: float | str = "ledoit_wolf", standardize: bool = False) -> None:
        if isinstance(shrinkage, str):
            if shrinkage != "ledoit_wolf":
                raise ValueError(f"shrinkage must be 'ledoit_wolf' or a number in [0, 1], not {shrinkage!r}")
        else:
            number("shrinkage", shrinkage, low=0, high=1)
        self.shrinkage, self.standardize = shrinkage, standardize
        self.x = x.astype(np.float64)
        self.mean = self.x.mean(axis=0)
        self.least = ROUNDING * np.abs(self.x).max(axis=0)
        centred = self._deviation(self.x)
        self.scale = _scale(centred.std(axis=0)) if standardize else np.ones(x.shape[1])
        _, singular, axes = np.linalg.svd(centred / self.scale, full_matrices=False)
        keep = singular > RANK * max(singular[0], np.finfo(float).tiny)
        self.axes = np.ascontiguousarray(axes[keep])  # (r, D)
        self.variances = singular[keep] ** 2 / len(x)  # (r,)
        self.own = _rows_times(centred / self.scale, self.axes)  # (N, r): the clips in principal axes
        quartic = float((_squares(self.own) ** 2).sum())
        weight, isotropic = self._shrink(
            len(x), self.variances.sum()[None], (self.variances**2).sum()[None], np.array([quartic])
        )
        self.weight, self.isotropic = float(weight[0]), float(isotropic[0])

    def distance(self, q: Array) -> Array:
        """Mahalanobis distances (M,) of q (M, D)."""
        y = self._deviation(q) / self.scale
        inside = _rows_times(y, self.axes)
        spread = self.weight * self.variances + self.isotropic
        outside = np.maximum(_squares(y) - _squares(inside), 0)
        if len(self.variances) == y.shape[1]:
            outside = np.zeros_like(outside)
        return np.sqrt((inside**2 / spread).sum(axis=1) + outside / self.isotropic)

    def leave_one_out(self) -> Array:
        """Distance (N,) of each training clip from the Gaussian of the others."""
        n = len(self.x)
        if self.standardize:
            with one_thread():
                return self._solve_each() if self.shrinkage != "ledoit_wolf" else self._refit_each()
        weight, isotropic = self._shrink_without()
        h = (self.own**2 / (n / (n - 1) * weight[:, None] * self.variances + isotropic[:, None])).sum(axis=1)
        left = 1 - weight * n / (n - 1) ** 2 * h
        out = n / (n - 1) * np.sqrt(h / np.maximum(left, SOLVABLE))
        for i in np.flatnonzero(left < SOLVABLE):
            out[i] = self._refit(int(i))
        return np.asarray(out)

    def whiten(self, q: Array) -> Array:
        """A^-1/2 (q - mean): (M, D) -> (M, D); between whitened vectors Euclidean distance is Mahalanobis'."""
        y = self._deviation(q) / self.scale
        inside = _rows_times(y, self.axes)
        spread, rest = (self.weight * self.variances + self.isotropic) ** -0.5, self.isotropic**-0.5
        return rest * y + _rows_times(inside * (spread - rest), np.ascontiguousarray(self.axes.T))

    def whiten_without(self, i: int) -> Array:
        """The training clips (N, r) as `whiten` of a Gaussian without clip i gives them, in rotated axes."""
        n = len(self.x)
        if not hasattr(self, "_without"):
            self._without = self._shrink_without()
        weight, isotropic = (float(v[i]) for v in self._without)
        root = (n / (n - 1) * weight * self.variances + isotropic) ** -0.5
        v = self.own[i] * root
        b, length = weight * n / (n - 1) ** 2, float(v @ v)
        y = self.own + self.own[i] / (n - 1)  # the mean moves too
        y = np.where(np.abs(y) > ROUNDING * np.abs(self.own).max(initial=0), y, 0) * root
        if 1 - b * length < SOLVABLE:
            return Gaussian(np.delete(self.x, i, axis=0), shrinkage=self.shrinkage).whiten(self.x)
        if length > 0:
            y += np.outer(y @ v, v) * (((1 - b * length) ** -0.5 - 1) / length)
        return y if y.shape[1] else np.zeros((n, 1))

    def _deviation(self, q: Array) -> Array:
        y: Array = q - self.mean
        return np.where(np.abs(y) > self.least, y, 0)

    def _shrink(self, n: int, trace: Array, squares: Array, quartic: Array) -> tuple[Array, Array]:
        """(1 - rho) and rho tr S / D for covariances given by tr S, tr S^2 and sum |x|^4 over their n clips."""
        d = self.x.shape[1]
        mu = trace / d
        if self.shrinkage == "ledoit_wolf":
            beta = (quartic / n - squares) / (d * n)
            delta = (squares - 2 * mu * trace + d * mu**2) / d
            beta = np.clip(beta, 0, delta)
            rho = np.where(beta > 0, beta / np.where(delta > 0, delta, 1), 0)
        else:
            rho = np.full_like(trace, float(self.shrinkage))
        isotropic = np.maximum(rho, RHO_FLOOR) * mu
        flat = trace <= np.finfo(float).tiny
        return np.where(flat, 0, 1 - rho), np.where(flat, 1, isotropic)

    def _shrink_without(self) -> tuple[Array, Array]:
        n = len(self.x)
        a, b = n / (n - 1), n / (n - 1) ** 2  # S_-i = a S - b d_i d_i^T
        square = _squares(self.own)
        trace = a * self.variances.sum() - b * square
        squares = a**2 * (self.variances**2).sum() - 2 * a * b * (self.own**2 @ self.variances) + b**2 * square**2
        quartic = np.empty(n)
        step = max(1, (1 << 22) // n)
        for start in range(0, n if self.shrinkage == "ledoit_wolf" else 0, step):
            rows = slice(start, start + step)
            moved = square + 2 * (self.own[rows] @ self.own.T) / (n - 1) + square[rows, None] / (n - 1) ** 2
            moved[np.arange(len(moved)), np.arange(start, start + len(moved))] = 0
            quartic[rows] = (moved**2).sum(axis=1)
        flat = trace <= 1e-13 * a * self.variances.sum()  # all that is left coincides
        weight, isotropic = self._shrink(n - 1, np.where(flat, 0, trace), np.maximum(squares, 0), quartic)
        return weight, isotropic

    def _solve_each(self) -> Array:
        n, d = self.x.shape
        a, b = n / (n - 1), n / (n - 1) ** 2
        centred = self._deviation(self.x)
        covariance, rho = centred.T @ centred / n, float(self.shrinkage)
        out = np.empty(n)
        for i in range(n):
            s = a * covariance - b * np.outer(centred[i], centred[i])
            variances = np.diag(s)
            if (variances <= 1e-10 * np.diag(covariance)).any():  # a feature in which the others coincide, or nearly
                out[i] = self._refit(int(i))
                continue
            scale = _scale(np.sqrt(variances))
            s = s / scale / scale[:, None]
            s = (1 - rho) * s + max(rho, RHO_FLOOR) * np.trace(s) / d * np.eye(d)
            y = a * centred[i] / scale
            out[i] = np.sqrt(max(y @ linalg.solve(s, y, assume_a="pos", check_finite=False), 0.0))
        return out

    def _refit_each(self) -> Array:
        return np.array([self._refit(i) for i in range(len(self.x))])

    def _refit(self, i: int) -> float:
        others = Gaussian(np.delete(self.x, i, axis=0), shrinkage=self.shrinkage, standardize=self.standardize)
        return float(others.distance(self.x[i : i + 1])[0])


def _scale(deviations: Array) -> Array:
    floor = SCALE_FLOOR * float(np.median(deviations))
    return np.maximum(deviations, floor if floor > 0 else (1.0 if not deviations.any() else deviations.max()))


def _squares(y: Array) -> Array:
    return np.einsum("nd,nd->n", y, y)


def _rows_times(rows: Array, axes: Array) -> Array:
    # One matrix-vector product a row: the result of a row does not depend on how many rows come with it.
    return np.matmul(rows[:, None, :], axes.T)[:, 0]
