"""The vectors of a data set by a recipe, for other programs.

    array                                            shape
    names, machines, splits                          (n,) text
    domains, labels, attributes                      (n,) text, "" where it is unknown
    vectors, or vectors0, vectors1 ... of a fusion   (n, D) float32, or (n, F, D) for "beam"
    train_scores, or train_scores0 ...               (n,) float32: leave-one-out scores of the normals, else NaN

Recordings are in the order of machines, then train and test clips. numpy reads the file without pickle.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nearfar.audio.recordings import Recording
from nearfar.backend import fit
from nearfar.challenge.data import layout
from nearfar.embedding.embedder import ClipEmbedder
from nearfar.embedding.store import Store
from nearfar.encoders.loading import load_encoders
from nearfar.encoders.table import NetworkOptions
from nearfar.recipe import System, leaves
from nearfar.support.check import Array
from nearfar.support.files import atomic_write
from nearfar.support.progress import Progress, titled

if TYPE_CHECKING:
    from typing_extensions import Unpack

WHOLE_S = 600.0  # a recording up to this length is one clip


def vectors(
    data: str | os.PathLike[str],
    system: System,
    weights: Any = None,
    *,
    truth: str | os.PathLike[str] | None = None,
    only: Sequence[str] = (),
    near: int = 0,
    far: int | None = 1,
    store: Store | None = None,
    progress: Progress | None = None,
    **networks: Unpack[NetworkOptions],
) -> dict[str, Array]:
    """The arrays of the module for DATA/<machine>/{train,test}; the arguments are those of `evaluate`.

    ValueError if recordings give vectors of different lengths, and as reading and embedding do.
    """
    recipes = list(leaves(system))
    encoders = load_encoders(sorted({r.encoder for r in recipes}), weights, **networks)
    threads = networks.get("threads")
    embedder = ClipEmbedder(near, far, WHOLE_S, recipes, encoders, threads, store, whole_s=WHOLE_S)
    units = layout.read(data, truth, only).units
    rows: list[tuple[str, Recording]] = [(u.name, r) for u in units for r in [*u.train, *u.test]]
    read = embedder.embed_many([r.path for _, r in rows], progress=titled(progress, "embedding"))
    clips = [each[0] for each in read]
    is_train = np.array([r.split == "train" for _, r in rows])
    out: dict[str, Array] = {
        "names": np.array([r.path.name for _, r in rows]),
        "machines": np.array([name for name, _ in rows]),
        "splits": np.where(is_train, "train", "test"),
        "domains": np.array([r.domain for _, r in rows]),
        "labels": np.array([r.label for _, r in rows]),
        "attributes": np.array([r.attributes for _, r in rows]),
    }
    for i, recipe in enumerate(recipes):
        suffix = str(i) if len(recipes) > 1 else ""
        z = np.stack([clip.vectors[i] for clip in clips])
        scores = np.full(len(rows), np.nan, np.float32)
        for unit in units:
            mine = is_train & (out["machines"] == unit.name)
            is_target, attributes = out["domains"][mine] == "target", out["attributes"][mine].tolist()
            fitted = fit(z[mine], is_target, attributes=attributes, **vars(recipe.backend))
            scores[mine] = fitted.train_scores
        out |= {f"vectors{suffix}": z, f"train_scores{suffix}": scores}
    return out


def write(path: str | os.PathLike[str], arrays: dict[str, Array]) -> Path:
    """Write arrays as a compressed npz without pickle."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return atomic_write(path, content.getvalue())
