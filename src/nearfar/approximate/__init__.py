"""Approximate neighbours by faiss, for banks that are too large for an exact search: back ends for recipes.

    ivf      inverted lists, vectors as they are: 4 bytes a number
    ivf_pq   inverted lists, product quantisation: 1 byte for 8 numbers

    from nearfar.approximate import ivf
    Recipe(encoder="beats", method=ivf, density_k=16)       nearfar --plugin nearfar.approximate ... --set method=ivf

The index names CANDIDATES members that are likely to be near. They are measured exactly and scored as `backend.fit`'s
"raw", or with a `density_k` as its "ldn" in the ratio form. A neighbour that the index misses makes a score too high.
`recall` says how many of the true neighbours are found. Domains are not used. The index is trained with a seed.
Source: Douze et al. 2024, "The Faiss library".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nearfar.backend import register_backend
from nearfar.bank import Bank
from nearfar.support.check import Array
from nearfar.views import unit

CANDIDATES = 64
PROBED = 32  # lists that are read for a query
ROUNDS = 10  # of the k-means that trains them
CODE = 8  # numbers that one byte stands for
TRAINED_PER_LIST = 40  # vectors, at most, that the centres of the lists are made of


class Inverted:
    """Normals z (N, D) in inverted lists, scored by the k nearest of CANDIDATES; see the module.

    The arguments are those of `backend.fit`.
    """

    compress = False

    def __init__(
        self,
        z: Array,
        is_target: Array,
        k: int = 1,
        metric: str = "cosine",
        density_k: int | None = None,
        exponent: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.z = unit(z) if metric == "cosine" else z
        self.k, self.metric, self.exponent = k, metric, exponent
        self.index = _index(self.z, seed, self.compress)
        self.others: Array | None = None
        if density_k is not None:
            distances, _ = self.search(None, density_k + 1)
            self.others = distances

    def search(self, q: Array | None, k: int) -> tuple[Array, Array]:
        """(M, k) distances, ascending, inf where the index names too few, and indices, -1 there.

        None: the members, each without itself.
        """
        points = self.z if q is None else unit(q) if self.metric == "cosine" else q
        distances, members = np.full((len(points), k), np.inf), np.full((len(points), k), -1)
        wanted = max(CANDIDATES, 2 * k) + (q is None)
        for start in range(0, len(points), 256):
            rows = slice(start, start + 256)
            found = self.index.search(np.ascontiguousarray(points[rows], np.float32), min(wanted, len(self.z)))[1]
            absent = found < 0
            if q is None:
                absent |= found == np.arange(len(self.z))[rows, None]
            difference = points[rows, None] - self.z[found]
            squared = np.einsum("mkd,mkd->mk", difference, difference, dtype=np.float64)
            exact = np.where(absent, np.inf, squared / 2 if self.metric == "cosine" else np.sqrt(squared))
            order = np.argsort(exact, axis=1, kind="stable")[:, :k]
            distances[rows, : order.shape[1]] = np.take_along_axis(exact, order, axis=1)
            members[rows, : order.shape[1]] = np.take_along_axis(np.where(absent, -1, found), order, axis=1)
        return distances, members

    def score(self, q: Array) -> Array:
        """Scores (M,) of queries (M, D)."""
        return self._scored(q)

    @property
    def train_scores(self) -> Array:
        """Scores (N,) of the members, each as if it were not in the bank."""
        return self._scored(None)

    def recall(self, q: Array, k: int) -> float:
        """Share of the k true nearest members of q (M, D) that the index finds."""
        true = Bank(self.z, self.metric).nearest(q, k)[1]
        return float(np.mean([np.isin(a, b).mean() for a, b in zip(true, self.search(q, k)[1], strict=True)]))

    def _scored(self, q: Array | None) -> Array:
        distances, members = self.search(q, self.k if self.others is None else CANDIDATES)
        if self.others is not None:
            near = self.others[members]  # (M, K, density_k + 1) distances to the nearest others
            own = (near == distances[..., None]) & (q is None)  # the query among them, or a tie with it
            farthest = near.shape[-1] - 1
            out = np.where(own.any(-1), own.argmax(-1), farthest)[..., None]
            kept = np.take_along_axis(near, np.arange(farthest) + (np.arange(farthest) >= out), -1)
            density = kept.mean(-1)
            distances = np.sort(distances / np.maximum(density, np.finfo(float).tiny) ** self.exponent, axis=1)
        return np.asarray(distances[:, : self.k].mean(axis=1))


class Compressed(Inverted):
    """`Inverted` with vectors compressed to a 32nd in the index; those that are measured stay as they are."""

    compress = True


ivf, ivf_pq = Inverted, Compressed


def _index(z: Array, seed: int, compress: bool) -> Any:
    """A trained faiss index of z (N, D) with about 2 sqrt(N) lists; ImportError naming the extra."""
    try:
        import faiss
    except ImportError:
        raise ImportError("approximate neighbours need faiss: pip install 'nearfar[faiss]'") from None
    count, width = z.shape
    lists = max(1, min(2 * int(count**0.5), count // TRAINED_PER_LIST))
    centres = faiss.IndexFlatL2(width)
    index: Any
    if compress and width % CODE == 0 and count >= 256 * TRAINED_PER_LIST:
        index = faiss.IndexIVFPQ(centres, width, lists, width // CODE, 8)
    else:
        index = faiss.IndexIVFFlat(centres, width, lists)
    index.cp.seed, index.cp.niter, index.cp.max_points_per_centroid = seed, ROUNDS, TRAINED_PER_LIST
    index.nprobe = PROBED
    rows = np.random.default_rng(seed).permutation(count)[: max(TRAINED_PER_LIST * lists, 256 * TRAINED_PER_LIST)]
    index.train(np.ascontiguousarray(z[np.sort(rows)], np.float32))
    for start in range(0, count, 1 << 16):
        index.add(np.ascontiguousarray(z[start : start + (1 << 16)], np.float32))
    return index


register_backend("ivf", ivf)
register_backend("ivf_pq", ivf_pq)
