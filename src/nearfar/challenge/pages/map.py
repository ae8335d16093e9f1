"""Maps of a data set's vectors: the clips of each machine as points of a plane.

    pca    the two axes in which the machine's clips vary most, with their shares of the variance
    umap   neighbours stay neighbours, distances between groups mean nothing; with the extra `umap`. The first map of a
           process takes about a minute, as umap-learn compiles itself

The axes are those of all clips, test clips and anomalies too: a map shows what vectors tell apart, and scores nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from nearfar.challenge.pages.paper import write_figure
from nearfar.challenge.pages.pictures import MAP_KINDS, clip_map, png, vectors
from nearfar.explain.render import Figure, figure, render
from nearfar.support.check import Array
from nearfar.support.words import plural

PACKAGE = "nearfar.challenge.pages"
NEIGHBOURS, FEWEST = 15, 5  # of UMAP: neighbours of a clip, and clips that it can draw


def pca(z: Array) -> tuple[Array, Array]:
    """(points (n, 2), shares (2,) of the variance) of vectors z (n, D); 0 on an axis in which nothing varies."""
    centred = z.astype(np.float64).reshape(len(z), -1)
    centred -= centred.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    points, total = np.zeros((len(z), 2)), max(float((singular**2).sum()), 1e-300)
    count = min(2, len(singular))
    signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(left.shape[1])])[:count]  # the same on every machine
    points[:, :count] = left[:, :count] * singular[:count] * signs
    shares = np.zeros(2)
    shares[:count] = singular[:count] ** 2 / total
    return points, shares


def kinds(arrays: Mapping[str, Array]) -> list[str]:
    """What each clip is, one of `MAP_KINDS`; `arrays` are those of `challenge.vectors`."""
    out = []
    for split, domain, label in zip(arrays["splits"], arrays["domains"], arrays["labels"], strict=True):
        if split == "train":
            out.append(f"{domain or 'source'} normal")
        else:
            out.append({"normal": "normal test clip", "anomaly": "anomaly"}.get(str(label), "not labelled"))
    return out


def maps(arrays: Mapping[str, Array]) -> Iterator[tuple[str, str, Array, list[str]]]:
    """(file name, caption, points (n, 2), kinds) of each machine, each array of vectors and each kind of map."""
    every = np.array(kinds(arrays))
    for machine in dict.fromkeys(arrays["machines"].tolist()):
        mine = arrays["machines"] == machine
        for name in (each for each in arrays if each.startswith("vectors")):
            z, shown = arrays[name][mine], every[mine].tolist()
            points, shares = pca(z)
            title = f"{machine}, {name}" if "vectors" not in arrays else machine
            first, second = (f"{100 * share:.0f} %" for share in shares)
            caption = f"{title}: PCA of {plural(len(z), 'clip')}; the axes hold {first} and {second} of the variance."
            yield f"{title} pca", caption, points, shown
            if (near := umap(z)) is not None:
                yield f"{title} umap", f"{title}: UMAP, seed 0; distances between groups mean nothing.", near, shown


def umap(z: Array) -> Array | None:
    """Points (n, 2) of vectors z (n, D) by UMAP; None without umap-learn, or for fewer than `FEWEST` vectors."""
    try:
        from umap import UMAP
    except ImportError:
        return None
    if len(z) < FEWEST:
        return None
    made = UMAP(n_neighbors=min(NEIGHBOURS, len(z) - 1), random_state=0, n_jobs=1).fit_transform(z.reshape(len(z), -1))
    return np.asarray(made, np.float64)


def map_page(arrays: Mapping[str, Array], title: str) -> str:
    """The page of all maps."""
    shown: list[Figure] = []
    for _, caption, points, of in maps(arrays):
        counts = ", ".join(f"{of.count(kind)} {kind}" for kind in MAP_KINDS if kind in of)
        shown.append(figure(png, clip_map, points, of, alt=f"{caption} {counts}", caption=caption))
    return render("map.html.j2", PACKAGE, title=title, maps=shown)


def write_maps(folder: Path, arrays: Mapping[str, Array]) -> None:
    """Write FOLDER/map-MACHINE-pca.pdf and .svg, and those of UMAP where it is installed."""
    for name, _, points, of in maps(arrays):
        write_figure(folder, f"map {name}", vectors(clip_map, points, of))
