"""One Gaussian over the normals: Mahalanobis distance with a shrunk covariance, and whitening by it (report 2.7).

    A = (1 - rho) S + rho (tr S / D) I,   S: covariance (ddof 0) of the training clips x (N, D)
    s(q) = sqrt((q - mean)^T A^-1 (q - mean))

rho is a number, or Ledoit and Wolf's (2004). With `standardize`, features are first divided by their standard
deviations, but by at least a tenth of the median one: a feature that hardly varied must not become the loudest.

Leave-one-out is exact. With d = x_i - mean, the mean and the covariance without clip i are

    mean - d / (N - 1)    and    a S - b d d^T,   a = N / (N - 1),  b = N / (N - 1)^2

a rank-one change of S, so Sherman and Morrison's formula gives all N distances in one pass. With `standardize` the
scales of the features change too, and every clip has a linear system of its own. All of them are close to the system
of all clips, whose inverse is the preconditioner of conjugate gradients: these reach the exact distance in a few steps.

`excluding` leaves a set R of clips out, exactly too: mean, covariance and rho are those of the n = N - |R| others, the
scales those of all clips. With the clips y in principal axes, m the mean of the others and w = 1 - rho, it is

    2 |R| >= r   d_i^2 = (y_i - m)^T (w C + iso I)^-1 (y_i - m),   C = (Y^T Y - Y_R^T Y_R) / n - m m^T
    2 |R| <  r   d_i^2 = n / w (B^-1 - I - 1 1^T / n)_ii,   B = I - 1 1^T / N - Y_R (Y^T Y + l I)^-1 Y_R^T

with l = n iso / w.

`PrincipalSubspace` measures what a clip has outside the axes in which the normals vary most. Without clip i the
covariance is C = diag(d) - b y y^T in principal axes, d = a S. Its eigenvalues mu_k are the roots of a secular
equation, one between each two of d, and the part of y along eigenvector k follows from the root alone:

    1 = b sum_j y_j^2 / (d_j - mu_k)        (y . v_k)^2 = 1 / (b^2 sum_j y_j^2 / (d_j - mu_k)^2)

so the exact leave-one-out needs no eigenvectors: N root searches for each axis that is kept.

Conventions
    x (N, D)   training clips     q (M, D)   queries     distances (M,) float64
    D may be far above N: everything is computed in the r <= min(N, D) principal axes of x.
    If all clips coincide there is no covariance, and the distance is Euclidean.

>>> gaussian = Gaussian(np.array([[1.0, 0], [-1, 0], [0, 2], [0, -2]]), shrinkage=0)  # variances 0.5 and 2
>>> gaussian.distance(np.array([[1.0, 0], [0, 4]])).round(2).tolist()
[1.41, 2.83]

References: Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices"; Golub 1973,
"Some modified matrix eigenvalue problems" (secular equation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np
from scipy import linalg  # here, so that its BLAS is loaded when `single_threaded_blas` begins

from nearfar.support.check import Array, number
from nearfar.support.threads import single_threaded_blas

SCALE_FLOOR = 0.1  # smallest scale of a feature, as a share of the median standard deviation
RHO_FLOOR = 1e-6  # smallest rho: with D >= N, a direction in which no clip varies would have an infinite distance
RANK = 1e-10  # axes whose singular value is below this share of the largest one are rounding
SOLVABLE = 1e-7  # a smaller denominator in Sherman and Morrison's formula has lost too many digits
CANCELLED = 1e-6  # if less than this share of a variance is left without some clips, it has lost too many digits
MOST_SETS = 128  # sets of clips whose scatter is kept while others are left out
ROWS = 256  # clips that are left out in one pass
STEPS = 60  # most steps of conjugate gradients
ENOUGH = 1e-13  # largest share of the squared distance that may be missing after them
SHARE_ROUNDING = 1e-9  # a share of the variance is reached to rounding
CERTAIN = 1e-6  # if less than this share of a squared distance is left outside the axes, it has lost too many digits
NO_AXIS = 1e-10  # a variance below this share of all is that of no axis, or of one that is refitted to be sure
ROUNDING = 1e-12  # deviations from the mean below this share of a feature's largest value are rounding and become 0


class Gaussian:
    """A Gaussian with shrunk covariance.

    x             (N, D) training clips
    shrinkage     rho: "ledoit_wolf" or a number in [0, 1]
    standardize   whether features are divided by their standard deviations first
    """

    def __init__(self, x: Array, *, shrinkage: float | str = "ledoit_wolf", standardize: bool = False) -> None:
        if isinstance(shrinkage, str):
            if shrinkage != "ledoit_wolf":
                raise ValueError(f"shrinkage must be 'ledoit_wolf' or a number in [0, 1], not {shrinkage!r}")
        else:
            number("shrinkage", shrinkage, low=0, high=1)
        self.shrinkage, self.standardize = shrinkage, standardize
        self.x = x.astype(np.float64)
        self.mean = self.x.mean(axis=0)
        self.rounding = ROUNDING * np.abs(self.x).max(axis=0)
        centred = self._deviation(self.x)
        self.scale = scale_of(centred.std(axis=0)) if standardize else np.ones(x.shape[1])
        _, singular, axes = np.linalg.svd(centred / self.scale, full_matrices=False)
        keep = singular > RANK * max(singular[0], np.finfo(float).tiny)
        self.axes = np.ascontiguousarray(axes[keep])  # (r, D)
        self.variances = singular[keep] ** 2 / len(x)  # (r,)
        self.coordinates = _rows_times(centred / self.scale, self.axes)  # (N, r): the clips in principal axes
        quartic = float((_squares(self.coordinates) ** 2).sum())
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
        return self._solve_each() if self.standardize else self._excluding_each()

    def excluding(self, related: Array) -> Array:
        """Distance (N,) of each training clip from the Gaussian of the clips that are not related to it.

        related   (N, N) bool: clip j is left out for clip i, as in `excluded_sets`

        Features keep the scale of all clips; everything else is that of the rest.
        """
        out = np.empty(len(self.x))
        alone: list[Array] = []
        scatters = _Scatters(self.coordinates)
        with single_threaded_blas():  # many small systems
            for left_out, members in excluded_sets(related, len(self.x)):
                if len(left_out) == 1:
                    alone.append(members)
                else:
                    squared = self._excluding_set(left_out, members, scatters)
                    out[members] = (
                        self.distance_excluding(self.x[members], left_out) if squared is None else np.sqrt(squared)
                    )
        if alone:
            rows = np.concatenate(alone)
            out[rows] = self._excluding_each()[rows]
        return out

    def distance_excluding(self, q: Array, left_out: Array | list[int]) -> Array:
        """Distances (M,) of q (M, D) from the Gaussian without the clips `left_out`; the scale is that of all."""
        rest = np.delete(self.x, left_out, axis=0) / self.scale
        return Gaussian(rest, shrinkage=self.shrinkage).distance(q / self.scale)

    def _excluding_each(self) -> Array:
        n = len(self.x)
        weight, isotropic = self._shrink_excluding
        h = (self.coordinates**2 / (n / (n - 1) * weight[:, None] * self.variances + isotropic[:, None])).sum(axis=1)
        left = 1 - weight * n / (n - 1) ** 2 * h
        out = n / (n - 1) * np.sqrt(h / np.maximum(left, SOLVABLE))
        for i in np.flatnonzero(left < SOLVABLE):
            out[i] = self.distance_excluding(self.x[[i]], [int(i)])[0]
        return np.asarray(out)

    def whiten(self, q: Array) -> Array:
        """A^-1/2 (q - mean), (M, D) -> (M, D); Euclidean distances of the results are Mahalanobis distances."""
        y = self._deviation(q) / self.scale
        inside = _rows_times(y, self.axes)
        spread, rest = (self.weight * self.variances + self.isotropic) ** -0.5, self.isotropic**-0.5
        return rest * y + _rows_times(inside * (spread - rest), np.ascontiguousarray(self.axes.T))

    def whiten_excluding(self, i: int) -> Array:
        """The training clips (N, r) whitened by the Gaussian without clip i, in rotated axes."""
        n = len(self.x)
        weight, isotropic = (float(v[i]) for v in self._shrink_excluding)
        root = (n / (n - 1) * weight * self.variances + isotropic) ** -0.5
        v = self.coordinates[i] * root
        b, length = weight * n / (n - 1) ** 2, float(v @ v)
        y = self.coordinates + self.coordinates[i] / (n - 1)  # deviations from the mean without clip i
        y = np.where(np.abs(y) > ROUNDING * np.abs(self.coordinates).max(initial=0), y, 0) * root
        if 1 - b * length < SOLVABLE:
            return Gaussian(np.delete(self.x, i, axis=0), shrinkage=self.shrinkage).whiten(self.x)
        if length > 0:
            y += np.outer(y @ v, v) * (((1 - b * length) ** -0.5 - 1) / length)
        return y if y.shape[1] else np.zeros((n, 1))

    def _deviation(self, q: Array) -> Array:
        y: Array = q - self.mean
        return np.where(np.abs(y) > self.rounding, y, 0)

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

    @cached_property
    def _shrink_excluding(self) -> tuple[Array, Array]:
        """`_shrink` (N,), (N,) of the covariances without each clip; a and b as in the module."""
        n = len(self.x)
        a, b = n / (n - 1), n / (n - 1) ** 2
        square = _squares(self.coordinates)
        trace = a * self.variances.sum() - b * square
        squares = (
            a**2 * (self.variances**2).sum() - 2 * a * b * (self.coordinates**2 @ self.variances) + b**2 * square**2
        )
        quartic = np.empty(n)
        step = max(1, (1 << 22) // n)
        for start in range(0, n if self.shrinkage == "ledoit_wolf" else 0, step):
            rows = slice(start, start + step)
            moved = (
                square + 2 * (self.coordinates[rows] @ self.coordinates.T) / (n - 1) + square[rows, None] / (n - 1) ** 2
            )
            moved[np.arange(len(moved)), np.arange(start, start + len(moved))] = 0
            quartic[rows] = (moved**2).sum(axis=1)
        flat = trace <= 1e-13 * a * self.variances.sum()  # the other clips coincide
        weight, isotropic = self._shrink(n - 1, np.where(flat, 0, trace), np.maximum(squares, 0), quartic)
        return weight, isotropic

    def _solve_each(self) -> Array:
        """Leave-one-out with `standardize`: one linear system per clip, preconditioned by that of all clips."""
        n, d = self.x.shape
        a, b = n / (n - 1), n / (n - 1) ** 2
        c = self._deviation(self.x) / self.scale
        covariance = c.T @ c / n
        preconditioner = np.linalg.inv(a * self.weight * covariance + self.isotropic * np.eye(d))
        out, found = np.zeros(n), np.zeros(n, bool)
        for start in range(0, n, ROWS):
            rows = slice(start, start + ROWS)
            own, whole = c[rows], np.diag(covariance)
            variances = a * whole - b * own**2  # (rows, D): of each feature, without the clip
            cancelled = (variances <= CANCELLED * whole) & (whole > 0)  # the other clips coincide, nearly
            safe = ~cancelled.any(axis=1)
            variances = np.where(safe[:, None], variances, whole)
            scale = scale_of(self.scale * np.sqrt(variances)) / self.scale
            weight, isotropic = self._shrink_scaled(c, covariance, rows, variances, scale**-2)

            def times(
                x: Array, own: Array = own, w: Array = weight[:, None], ridge: Array = isotropic[:, None] * scale**2
            ) -> Array:
                return w * (a * (x @ covariance) - b * own * _dot(own, x)[:, None]) + ridge * x

            squared, solved = _energies(times, a * own, preconditioner, isotropic[:, None] * scale**2)
            out[rows], found[rows] = np.sqrt(squared), solved & safe
        with single_threaded_blas():
            for i in np.flatnonzero(~found):
                rest = np.delete(self.x, i, axis=0)
                refit = Gaussian(rest, shrinkage=self.shrinkage, standardize=self.standardize)
                out[i] = refit.distance(self.x[i : i + 1])[0]
        return out

    def _shrink_scaled(self, c: Array, s: Array, rows: slice, variances: Array, u: Array) -> tuple[Array, Array]:
        """`_shrink` without each clip of `rows`: covariance s of clips c, features then divided by u^-1/2 (M, D)."""
        n = len(c)
        a, b = n / (n - 1), n / (n - 1) ** 2
        own = c[rows]
        trace, square = _dot(variances, u), _dot(own**2, u)
        if self.shrinkage != "ledoit_wolf":
            return self._shrink(n - 1, trace, trace, trace)
        squares = a**2 * _dot(u @ s**2, u) - 2 * a * b * _dot((own * u) @ s, own * u) + b**2 * square**2
        lengths = u @ (c**2).T + 2 / (n - 1) * ((own * u) @ c.T) + square[:, None] / (n - 1) ** 2
        lengths[np.arange(len(own)), np.arange(n)[rows]] = 0
        return self._shrink(n - 1, trace, np.maximum(squares, 0), (lengths**2).sum(axis=1))

    def _excluding_set(self, left_out: Array, members: Array, scatters: _Scatters) -> Array | None:
        """Squared distances of `members` without the clips `left_out`; None if too many digits cancel."""
        y, squares = self.coordinates, self._squared_lengths
        own, n, rank = y[left_out], len(y) - len(left_out), y.shape[1]
        towards = own.sum(axis=0) / n  # from the mean of the rest to that of all clips
        kept = np.delete(squares, left_out).sum()
        total = kept - n * (towards @ towards)
        if total <= CANCELLED * kept:
            return None
        adaptive = self.shrinkage == "ledoit_wolf"
        if adaptive or 2 * len(left_out) >= rank:
            covariance = (np.diag(len(y) * self.variances) - scatters.of(left_out)) / n - np.outer(towards, towards)
            trace_squared = np.array([(covariance**2).sum()]) if adaptive else np.zeros(1)
            lengths = np.delete(squares + 2 * y @ towards, left_out) + towards @ towards if adaptive else np.zeros(1)
            weight, isotropic = self._shrink(n, np.array([total / n]), trace_squared, (lengths**2).sum()[None])
            covariance *= weight
            covariance[np.diag_indices(rank)] += isotropic
            factor = _cholesky(covariance, len(y) / n * self.variances[0])
            return None if factor is None else _squares(_solve_lower(factor, (y[members] + towards).T).T)
        unused = np.zeros(1)  # a fixed rho needs the trace alone
        weight, isotropic = self._shrink(n, np.array([total / n]), unused, unused)
        if not weight[0]:
            return np.asarray(_squares(y[members] + towards) / isotropic)
        axes, values = own / np.sqrt(len(y) * self.variances), len(y) * self.variances
        ridge = n * isotropic / weight
        own_part = (axes * (values / (values + ridge))) @ axes.T  # Y_R (Y^T Y + l I)^-1 Y_R^T
        b = (axes * (ridge / (values + ridge))) @ axes.T
        if rank < len(y) - 1:  # else the clips span all but the mean, and the next line adds 0
            b += np.eye(len(own)) - 1 / len(y) - axes @ axes.T
        factor = _cholesky(b, b.diagonal().max())
        if factor is None:
            return None
        # B^-1 - I - 1 1^T / n, as a product: the difference would cancel where the ridge is large
        index = np.searchsorted(left_out, members)
        inverse_rows = _solve_lower(factor, _solve_lower(factor, np.eye(len(own))[:, index]), transposed=True).T
        product = inverse_rows @ own_part
        return np.asarray(n / weight * (product[np.arange(len(index)), index] + product.sum(axis=1) / n))

    @cached_property
    def _squared_lengths(self) -> Array:  # (N,) squared lengths of the clips
        return _squares(self.coordinates)


class _Scatters:
    """Y_R^T Y_R of sets R of clips y (N, r): from that of an earlier set, if the two differ in few clips."""

    def __init__(self, y: Array) -> None:
        self.y = y
        self.sets, self.scatters = np.zeros((0, len(y)), bool), list[Array]()

    def of(self, left_out: Array) -> Array:
        row = np.zeros(len(self.y), bool)
        row[left_out] = True
        if len(self.sets):
            different = (self.sets != row).sum(axis=1)
            nearest = int(different.argmin())
            if 3 * different[nearest] <= len(left_out):
                more, less = (self.y[part] for part in (row & ~self.sets[nearest], self.sets[nearest] & ~row))
                return np.asarray(self.scatters[nearest] + more.T @ more - less.T @ less)
        scatter = self.y[left_out].T @ self.y[left_out]
        if len(self.sets) < MOST_SETS:
            self.sets = np.concatenate([self.sets, row[None]])
            self.scatters.append(scatter)
        return np.asarray(scatter)


class PrincipalSubspace:
    """The distance of clips from the mean of x, outside the axes in which x varies most.

    x            (N, D) training clips
    components   number of axes, or the share in (0, 1) of the variance that the fewest possible axes hold. They are at
                 most D - 1, and at most as many as x varies in: else no clip would be outside
    """

    def __init__(self, x: Array, components: float = 0.95) -> None:
        self.x, self.components = x, components
        self.gaussian = Gaussian(x, shrinkage=0.0)  # mean and principal axes
        variances = self.gaussian.variances
        if isinstance(components, float):
            least = components * variances.sum() * (1 - SHARE_ROUNDING)
            asked = int(np.searchsorted(variances.cumsum(), least)) + 1
        else:
            asked = components
        self.count = min(asked, len(variances), x.shape[1] - 1)
        self.axes = self.gaussian.axes[: self.count]

    def score(self, q: Array) -> Array:
        """Distances (M,) of q (M, D) from the subspace."""
        y = self.gaussian._deviation(q)
        inside = _rows_times(_rows_times(y, self.axes), np.ascontiguousarray(self.axes.T))
        return np.asarray(np.sqrt(_squares(y - inside)))

    def leave_one_out(self) -> Array:
        """Distance (N,) of each training clip from the subspace of the others."""
        y, n = self.gaussian.coordinates, len(self.x)
        a, b = n / (n - 1), n / (n - 1) ** 2
        d, weights, square = a * self.gaussian.variances, b * y**2, _squares(y)
        total = d.sum() - b * square  # variance of the others
        rest, held, unsure = square.copy(), np.zeros(n), np.zeros(n, bool)
        flat = total <= NO_AXIS * d.sum() if len(d) else np.ones(n, bool)  # the others coincide, nearly
        unsure |= flat
        share = isinstance(self.components, float)
        open_rows = np.flatnonzero(~flat)
        most = self.x.shape[1] - 1 if share else min(int(self.components), self.x.shape[1] - 1)
        for k in range(min(most, len(d))):
            if share:
                least = self.components * total[open_rows] * (1 - SHARE_ROUNDING)
                open_rows = open_rows[held[open_rows] < least]
            if not len(open_rows):
                break
            if k == len(d) - 1:  # there is no axis below it to end the search
                unsure[open_rows] = True
                break
            mu, along = _secular_root(d, weights[open_rows], k)
            unsure[open_rows[mu <= NO_AXIS * total[open_rows]]] = True
            held[open_rows] += mu
            rest[open_rows] -= along / b
        unsure |= rest <= CERTAIN * square
        out = a * np.sqrt(np.maximum(rest, 0))
        for i in np.flatnonzero(unsure):
            out[i] = PrincipalSubspace(np.delete(self.x, i, axis=0), self.components).score(self.x[[i]])[0]
        return np.asarray(out)


def _secular_root(d: Array, weights: Array, k: int) -> tuple[Array, Array]:
    """(mu, along), both (M,): eigenvalue k of diag(d) - w w^T, and (w . v_k)^2, for weights w^2 (M, r); d descends.

    Each step matches the poles on either side of the root by one pole each, value and slope, and bisects where that
    leaves the bracket. An axis that w does not touch stays, and its `along` is 0.
    """
    gap = float(d[k] - d[k + 1])
    t, along = np.full(len(weights), gap / 2), np.zeros(len(weights))  # mu = d_k - t
    if not gap:
        return d[k] - t, along
    above, below = d[: k + 1] - d[k], d[k] - d[k + 1 :]
    low, high, rows = np.zeros(len(t)), np.full(len(t), gap), np.arange(len(t))
    for _ in range(STEPS):
        left = 1 / (above + t[rows, None])
        right = 1 / (below - t[rows, None])
        upper, lower = weights[rows, : k + 1] * left, weights[rows, k + 1 :] * right
        psi, phi = upper.sum(axis=1), lower.sum(axis=1)
        slope_psi, slope_phi = _dot(upper, left), _dot(lower, right)  # of -psi and of phi
        value, now = 1 - psi + phi, t[rows]
        found = np.abs(value) <= 1e-13 * (1 + psi + phi)
        along[rows] = np.where(np.abs(value) <= 1e-7 * (1 + psi + phi), 1 / (slope_psi + slope_phi), 0)
        low[rows] = np.where(value < 0, now, low[rows])
        high[rows] = np.where(value < 0, high[rows], now)
        q, s = slope_psi * now**2, slope_phi * (gap - now) ** 2
        c = 1 - psi + slope_psi * now + phi - slope_phi * (gap - now)
        sum_ = c * gap + q + s
        new = 2 * q * gap / (sum_ + np.sqrt(np.maximum(sum_**2 - 4 * c * q * gap, 0)))
        inside = (new > low[rows]) & (new < high[rows])
        middle = (low[rows] + high[rows]) / 2
        new = np.where(inside, new, middle)
        stuck = (new <= low[rows]) | (new >= high[rows]) | (new >= gap)
        t[rows] = np.where(found | stuck, now, new)
        rows = rows[~(found | stuck)]
        if not len(rows):
            break
    return d[k] - t, along


def excluded_sets(related: Array, count: int) -> Iterator[tuple[Array, Array]]:
    """(clips left out, the clips whose row this is), both ascending, for each distinct row of related (N, N) bool.

    ValueError if `related` is not (count, count), or a clip is not related to itself, or to all clips.
    """
    if related.shape != (count, count) or related.dtype != bool:
        raise ValueError(f"related must be ({count}, {count}) bool, not {related.shape} {related.dtype}")
    if not related.diagonal().all():
        raise ValueError(f"related: clip {int(np.argmin(related.diagonal()))} is not related to itself")
    if related.all(axis=1).any():
        clip = int(related.all(axis=1).argmax())
        raise ValueError(f"related: clip {clip} is related to all {count} clips, so none is left")
    rows: dict[bytes, list[int]] = {}
    for i, row in enumerate(related):
        rows.setdefault(np.packbits(row).tobytes(), []).append(i)
    for members in rows.values():
        yield np.flatnonzero(related[members[0]]), np.array(members)


def scale_of(deviations: Array) -> Array:
    """Scales of features from their standard deviations, (..., D) -> (..., D): at least a tenth of the median one."""
    floor = SCALE_FLOOR * np.median(deviations, axis=-1, keepdims=True)
    most = deviations.max(axis=-1, keepdims=True)
    return np.maximum(deviations, np.where(floor > 0, floor, np.where(most > 0, most, 1.0)))


def _energies(times: Callable[[Array], Array], y: Array, preconditioner: Array, ridge: Array) -> tuple[Array, Array]:
    """y^T B^-1 y (M,) by conjugate gradients, each row of y (M, D) with its own matrix B; and which rows converged.

    `times` multiplies each row by its B. `preconditioner` (D, D) is close to the inverse of every B. B - diag(ridge) is
    positive semidefinite, so the missing part, r^T B^-1 r with the residual r, is at most sum r^2 / ridge.
    """
    energy, r, z = np.zeros(len(y)), y, y @ preconditioner
    p, rz = z, _dot(r, z)
    for _ in range(STEPS):
        mp = times(p)
        length = _dot(p, mp)
        step = rz / np.where(length > 0, length, 1)
        energy += step * rz
        r = r - step[:, None] * mp
        solved = _dot(r, r / ridge) <= ENOUGH * energy
        if solved.all():
            break
        z = r @ preconditioner
        before, rz = rz, _dot(r, z)
        p = z + (rz / np.where(before > 0, before, 1))[:, None] * p
    return energy, np.asarray(solved)


def _cholesky(a: Array, unit: float) -> Array | None:
    """The lower factor of a (n, n); None if a pivot is below CANCELLED times `unit`, the scale of its rounding."""
    try:
        factor: Array = linalg.cholesky(a, lower=True, check_finite=False)
    except linalg.LinAlgError:
        return None
    return factor if (factor.diagonal() ** 2).min(initial=np.inf) > CANCELLED * unit else None


def _solve_lower(factor: Array, y: Array, *, transposed: bool = False) -> Array:
    solved: Array = linalg.solve_triangular(factor, y, trans=int(transposed), lower=True, check_finite=False)
    return solved


def _dot(a: Array, b: Array) -> Array:  # (M, D), (M, D) -> (M,)
    return np.asarray(np.einsum("md,md->m", a, b))


def _squares(y: Array) -> Array:
    return _dot(y, y)


def _rows_times(rows: Array, axes: Array) -> Array:
    # One matrix-vector product per row, so that the bits of a row do not depend on the number of rows.
    return np.matmul(rows[:, None, :], axes.T)[:, 0]
