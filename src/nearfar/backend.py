"""Back ends: embeddings of the normals in, a score for every new embedding out (report sections 2.2 and 2.7).

    raw          mean distance to the k nearest normals                                                     eq. 1
    ldn          min_r d / rho(r): distance over local density, one bank                                    [13]
    domain_z     min over domains of (d_k - mu) / sigma, statistics of the domain's own leave-one-out d_k   [12] eq. 3
    dldn         min over domains of that domain's LDN                                                      [12] eq. 5
    dbldn        w LDN_source + (1 - w) LDN_target: our reading of "weighted DB-LDN", which no source defines
    varmin       min_r d - alpha rho(r), alpha from the normals' own scores                    Matsumoto et al. 2025
    mahalanobis  distance from a Gaussian with shrunk covariance; with domains the smaller of the two
    pca          distance from the mean, outside the axes that hold the share `components` of the variance     [14]
    zmin         min over raw, ldn, mahalanobis and pca of (s - mu) / sigma, statistics of each one's exact    [14]
                 leave-one-out scores; domains and labels play no part
    kmeans       raw on the centres of `clusters` clusters of the source, and all targets                     ASDKit
    smote        raw with targets interpolated up to the number of sources (k = 5 neighbours, `seed`)          ASDKit
    memmixup     raw with 0.9 t + 0.1 s for each target t and its 990 nearest sources s               GenRep 2024
    as_is        the last number of the embedding, for encoders that measure a distance themselves (`rhythm`); metric, k
                 and whiten play no part

`Backend.train_scores` are what `score` would give each normal if the back end had been fitted without it: neighbours,
densities, means, deviations, whitening, all of it.

Conventions
    z (N, D)      normals, N >= 2              q (M, D)      queries
    z (N, F, D)   normals by frequency band    q (M, F, D)   queries by band: each band has a back end of its own, and
                  the score is the mean of theirs (BEAM), taken after each band's calibration
    is_target (N,)   True for normals of the target domain, or None
    attributes (N,)  text that says how the machine ran ("spd_1"), "" where nothing does, or None
    scores (M,)      float32; higher is more anomalous
    kmeans, smote and memmixup work on unit vectors if the metric is cosine; mahalanobis and pca know no metric. A bank
    of fewer than FEW clips has no leave-one-out statistics: zmin then takes mu = 0 and sigma = 1.
    Leave-one-out of zmin, kmeans and smote is N fits; that of all others has closed forms or lists. One fit of zmin on
    1,000 normals takes 0.2 s of a core with 128 features and 5 s with 768.
    [14] Zhou and Wang 2026, arXiv 2606.19269: it names the four back ends, standardised by the training scores, and the
    minimum. Its subspace's size, and whether a Gaussian belongs to a domain, are our choices.
    If all normals are of one domain, the methods that compare domains use one bank and warn. A domain with fewer than
    FEW clips has no spread of its own and borrows that of the other domain.
    banks = "attribute": the normals of each attribute have a back end of their own, and the score is the smallest of
    theirs. Attributes with fewer normals than `BackendConfig.fewest`, and normals without one, share a back end; where
    these are too few, the rarest other attribute joins them. Leave-one-out divides the normals anew without the clip.
    Whitening is that of all normals. With raw and k = 1 this is one bank; the densities, deviations and covariances of
    the other methods become those of an attribute.

>>> normals = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
>>> backend = fit(normals, method="ldn", metric="euclidean", density_k=1)
>>> backend.score([[1, 0], [0.5, 0.5]]).round(2).tolist()
[0.0, 4.0]
>>> backend.nearest([[1, 0.05]], k=1)[1].tolist()
[[0]]
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from nearfar.bank import METRICS, Bank, NeighbourIndex, bank_of, bank_of_vectors
from nearfar.gaussian import Gaussian, PrincipalSubspace, excluded_sets
from nearfar.ldn import AUTO, DensityBank, KnownNormals, VarMinBank, density_bank_of
from nearfar.support.arrays import on_host
from nearfar.support.check import Array, finite, flags, integer, number, one_of, switch
from nearfar.support.plugins import Plugins, accepted
from nearfar.support.threads import map_in_order, single_threaded_blas, threads
from nearfar.views import unit

ALTERED_BANKS = ("kmeans", "smote", "memmixup")  # raw kNN on other vectors than the normals
METHODS = ("raw", "ldn", "domain_z", "dldn", "dbldn", "varmin", "mahalanobis", "pca", "zmin", *ALTERED_BANKS, "as_is")
DOMAIN_AWARE = ("domain_z", "dldn", "dbldn")
ZMIN_PARTS = ("raw", "ldn", "mahalanobis", "pca")
SMOTE_K = 5  # neighbours of a target that another target is interpolated with
LLOYD = 100  # most rounds of k-means
MIXED, MIX = 990, 0.9  # MemMixup: sources that a target is mixed with, and the weight of the target
DENSITY_K = {"ldn": 16, "dldn": 16, "dbldn": 16, "varmin": 4}  # where density_k is None ([12]; VarMin: K = 4)
DENSITY_K_TARGET = 9  # of a target bank where density_k is None [12]
FEW = 3  # a domain with fewer clips has no spread of its own
JOINT, ATTRIBUTE = BANKS = ("joint", "attribute")
CHOICES = {
    "density_agg": ("mean", "sum"),
    "neighbour_selection": ("normalized", "raw"),
    "form": ("ratio", "difference"),
    "z_sigma": ("target", "own"),
    "banks": BANKS,
}
FEWEST = {"ldn": 3, "dldn": 3, "dbldn": 3, "domain_z": 4, "zmin": 4}  # normals, see `BackendConfig.fewest`; elsewhere 2
FEWEST_FOR_COVARIANCE = 4  # where Ledoit and Wolf's shrinkage is estimated
COUNTS = ("k", "density_k", "density_k_source", "density_k_target")


class FittedPlugin(Protocol):
    """What the fit of a back end of the user returns."""

    @property
    def train_scores(self) -> ArrayLike: ...

    def score(self, q: Array) -> ArrayLike: ...


FITS: dict[str, Callable[..., FittedPlugin]] = {}  # back ends of the user
PLUGINS = Plugins("back end", "nearfar.register_backend", FITS, lambda fit: fit)


def register_backend(name: str, fit: Callable[..., FittedPlugin]) -> None:
    """Add a back end to recipes as their method `name`.

    `fit(z, is_target, **options)` gets normals (N, D), their domains (N,) bool and those of the other keyword arguments
    of `backend.fit` that its signature names, or all for **options. What it returns has `score(q)`, (M, D) -> (M,), and
    `train_scores` (N,): what `score` would give each normal if fitted without it. Higher is more anomalous.
    ValueError for the name of a method of nearfar.
    """
    if name in METHODS:
        raise ValueError(f"{name!r} is a back end of nearfar: register yours under another name")
    PLUGINS.register(name, fit)


@dataclass(frozen=True)
class BackendConfig:
    """Every choice of a back end; names, meanings and defaults are those of `fit`."""

    method: str = "raw"
    metric: str = "cosine"
    k: int = 1
    density_k: int | str | None = None
    density_k_source: int | str | None = None
    density_k_target: int | str | None = None
    density_agg: str = "mean"
    neighbour_selection: str = "normalized"
    form: str = "ratio"
    exponent: float = 1.0
    z_sigma: str = "target"
    weight: float = 0.5
    shrinkage: float | str = "ledoit_wolf"
    standardize: bool = False
    whiten: bool = False
    ignore_domains: bool = False
    components: int | float = 0.95
    clusters: int = 16
    seed: int = 0
    banks: str = JOINT

    def __post_init__(self) -> None:
        one_of("method", self.method, [*METHODS, *FITS])
        one_of("metric", self.metric, METRICS)
        for name, choices in CHOICES.items():
            one_of(name, getattr(self, name), choices)
        number("weight", self.weight, low=0, high=1)
        number("exponent", self.exponent)
        if self.shrinkage != "ledoit_wolf":
            number("shrinkage", self.shrinkage, low=0, high=1)  # type: ignore[arg-type]
        for name in ("standardize", "whiten", "ignore_domains"):
            switch(name, getattr(self, name))
        for name in COUNTS:
            if name == "k" or getattr(self, name) not in (None, AUTO):
                integer(name, getattr(self, name))
        if isinstance(self.components, float):
            number("components", self.components, above=0, below=1)
        else:
            integer("components", self.components)
        integer("clusters", self.clusters)
        integer("seed", self.seed, low=0)

    @property
    def fewest(self) -> int:
        """Fewest normals whose leave-one-out scores have the scale of new clips' scores.

        The density of one clip, the spread of two distances and the shrinkage of two clips are not defined.
        """
        if self.whiten or (self.method == "mahalanobis" and self.shrinkage == "ledoit_wolf"):
            return FEWEST_FOR_COVARIANCE
        return FEWEST.get(self.method, 2)

    def density_settings(self, domain: str = "") -> dict[str, Any]:
        """Keyword arguments for the `DensityBank` of a domain ("source", "target") or of all clips ("")."""
        own = {"source": self.density_k_source, "target": self.density_k_target}.get(domain)
        default = DENSITY_K_TARGET if domain == "target" else DENSITY_K.get(self.method, 1)
        return {
            "k": self.k,
            "density_k": own or self.density_k or default,
            "density_agg": self.density_agg,
            "neighbour_selection": self.neighbour_selection,
            "form": self.form,
            "exponent": self.exponent,
        }


def fit(
    z: ArrayLike,
    is_target: ArrayLike | None = None,
    *,
    attributes: Sequence[str] | None = None,
    method: str = "raw",
    metric: str = "cosine",
    k: int = 1,
    density_k: int | str | None = None,
    density_k_source: int | str | None = None,
    density_k_target: int | str | None = None,
    density_agg: str = "mean",
    neighbour_selection: str = "normalized",
    form: str = "ratio",
    exponent: float = 1.0,
    z_sigma: str = "target",
    weight: float = 0.5,
    shrinkage: float | str = "ledoit_wolf",
    standardize: bool = False,
    whiten: bool = False,
    ignore_domains: bool = False,
    components: int | float = 0.95,
    clusters: int = 16,
    seed: int = 0,
    banks: str = JOINT,
    train_scores: ArrayLike | None = None,
) -> Backend:
    """Fit a back end on normals; `Backend` has `score(q)`, `train_scores` and `nearest(q)`.

        z                     (N, D) embeddings of the normals, N >= 2, or (N, F, D), one per frequency band
        is_target             (N,) bool, True for normals of the target domain; or None
        attributes            (N,) text that says how the machine ran, for banks "attribute"; "" where nothing does
        method                one of `METHODS`, such as "raw", "ldn", "dbldn" or "mahalanobis": see the module
        metric                "cosine", which is 1 - cos, or "euclidean"
        k                     neighbours of a query; clipped to the bank
        density_k, density_k_source, density_k_target
                              neighbours that make a density, of any bank and of each domain's; None: 16, varmin 4,
                              target 9; "auto": each normal's own, by cluster exit (`ldn`)
        density_agg           "mean" of these neighbours' distances, or "sum" (GenRep 2025)
        neighbour_selection   the k neighbours are chosen by "normalized", calibrated, or by "raw" distance
        form                  a density calibrates by "ratio" or by "difference"
        exponent              of the density (ratio), or factor of it (difference): 0 is raw, 1 is LDN
        z_sigma               deviation for both domains in domain_z: "target" (GenRep 2025), or each its "own"
        weight                in [0, 1], of the source domain in dbldn
        shrinkage             of the covariance in mahalanobis: "ledoit_wolf", or a number in [0, 1]
        standardize           whether mahalanobis divides the features by their standard deviations first
        whiten                whether embeddings are whitened before the bank, with Ledoit and Wolf's shrinkage
        ignore_domains        whether mahalanobis uses one Gaussian, whatever is_target is
        components            axes that pca leaves out, or the share in (0, 1) of the variance that the fewest hold
        clusters              centres of kmeans; clipped to the source clips
        seed                  of the draws of smote
        banks                 one back end of all normals, "joint", or one for each "attribute": see the module
        train_scores          (N,) leave-one-out scores of a former fit on these normals; None: computed at first use

    ValueError if an array is not finite, a name is unknown, a number is out of range, or banks are by attribute and no
    normal has one.
    """
    config = BackendConfig(
        method=method,
        metric=metric,
        k=integer("k", k),
        density_k=_count("density_k", density_k),
        density_k_source=_count("density_k_source", density_k_source),
        density_k_target=_count("density_k_target", density_k_target),
        density_agg=density_agg,
        neighbour_selection=neighbour_selection,
        form=form,
        exponent=exponent,
        z_sigma=z_sigma,
        weight=weight,
        shrinkage=shrinkage,
        standardize=standardize,
        whiten=whiten,
        ignore_domains=ignore_domains,
        components=components,
        clusters=integer("clusters", clusters),
        seed=integer("seed", seed, low=0),
        banks=banks,
    )
    z = finite("z", z)
    if z.ndim not in (2, 3) or len(z) < 2 or not z[0].size:
        raise ValueError(f"a back end needs at least 2 normal clips, and z has shape {z.shape}")
    target = np.zeros(len(z), bool) if is_target is None else flags("is_target", is_target, len(z))
    if method in (*DOMAIN_AWARE, "smote", "memmixup") and not (target.any() and not target.all()):
        warnings.warn(f"method {method!r} compares two domains and there is one: it works as one bank", stacklevel=2)
    elif method in DOMAIN_AWARE and min(target.sum(), (~target).sum()) < FEW:
        warnings.warn(f"a domain has fewer than {FEW} clips: it borrows the other domain's spread", stacklevel=2)
    named = np.zeros(len(z), str) if attributes is None else np.array(list(attributes), str)
    if len(named) != len(z):
        raise ValueError(f"attributes holds {len(named)} texts for {len(z)} normals")
    if banks == ATTRIBUTE and len(set(named.tolist())) == 1:
        if not named[0]:
            raise ValueError(
                f"banks = 'attribute' needs attributes of the normals, and none of these {len(z):,} has one: file "
                "names such as section_00_source_train_normal_0000_spd_1.wav say them, or attributes_00.csv beside "
                "the folder train; use banks = 'joint' for this machine"
            )
        warnings.warn(f"all normals have the attribute {str(named[0])!r}: they are one bank", stacklevel=2)
    # a copy, as the caller may reuse the array z
    return build(z.copy(), target, config, train_scores, named)


def build(
    z: Array,
    is_target: Array,
    config: BackendConfig,
    train_scores: ArrayLike | None = None,
    attributes: Array | None = None,
) -> Backend:
    """`fit` for arguments that were checked: z (N, D) or (N, F, D), is_target (N,) bool, attributes (N,) str."""
    attributes = np.zeros(len(z), str) if attributes is None else attributes
    given = None if train_scores is None else finite("train_scores", train_scores, ndim=1)
    if given is not None and len(given) != len(z):
        raise ValueError(f"train_scores holds {len(given)} scores for {len(z)} normals")
    if z.ndim == 3:
        return Backend(z, is_target, attributes, config, Beam(z, is_target, attributes, config), None, given)
    whitener = Gaussian(z) if config.whiten and config.method != "as_is" else None
    method = build_method(z if whitener is None else whitener.whiten(z), is_target, config, attributes)
    return Backend(z, is_target, attributes, config, method, whitener, given)


@dataclass(frozen=True, eq=False)
class Backend:
    """A fitted back end, made by `fit`.

    z, is_target   the normals (N, D) or (N, F, D) as given, and their domains (N,)
    attributes     (N,) of the normals, "" where there are none
    config         the choices that it was fitted with
    """

    z: Array
    is_target: Array
    attributes: Array
    config: BackendConfig
    _method: Method = field(repr=False)
    _whitener: Gaussian | None = field(repr=False)
    _given_train_scores: Array | None = field(repr=False)

    def score(self, q: ArrayLike) -> Array:
        """Scores (M,) float32 of queries q, (M, D) or (M, F, D) as the back end was fitted; higher is more anomalous.

        A score does not depend on the other queries. ValueError if q holds NaN or infinity, or has another shape.
        """
        return self._method.score(self._whitened(self._checked(q))).astype(np.float32)

    @cached_property
    def train_scores(self) -> Array:
        """Exact leave-one-out scores (N,) float32 of the normals: as `score` would give if fitted without the clip."""
        if self._given_train_scores is not None:
            return self._given_train_scores
        scores = self._method.leave_one_out() if self._whitener is None else self._refit_each(self._whitener)
        return scores.astype(np.float32)

    def scores_excluding(self, related: Array) -> Array:
        """Scores (N,) float32 of the normals, each as `score` gives it after a fit without the normal's relatives.

        `related` (N, N) bool says for each normal which clips are left out, as in `gaussian.excluded_sets`.

        These are the `train_scores` where a clip is related to itself alone. A Gaussian of standardized features that
        are not whitened keeps the scale of all normals. A domain that is left out plays no part; where one normal is
        left, it is at distance d with density 1, and a Gaussian measures it by Euclid.
        """
        if isinstance(self._method, Beam):
            return self._method.excluding(related).astype(np.float32)
        if isinstance(self._method, Mahalanobis) and self._whitener is None:
            return self._method.excluding(related).astype(np.float32)
        sets = list(excluded_sets(related, len(self.z)))
        if isinstance(self._method, AsIs):
            return self.train_scores
        out = np.empty(len(self.z), np.float32)
        several = [pair for pair in sets if len(pair[0]) > 1]
        by_vectors = self._whitener is not None or not isinstance(self._method, FROM_DISTANCES)
        score = self._score_without if by_vectors or not several else self._by_distances()
        for left_out, members in sets:
            if len(left_out) == 1:
                out[members] = self.train_scores[members]
        for (_, members), scores in zip(several, map_in_order(score, several, threads()), strict=True):
            out[members] = scores
        return out

    def _score_without(self, pair: tuple[Array, Array]) -> Array:
        """Scores of clips by a back end without others; the pair is one of `excluded_sets`."""
        left_out, members = pair
        rest = np.delete(np.arange(len(self.z)), left_out)
        return self._of(rest).score(self.z[members])

    def _of(self, rows: Array) -> Backend:
        """The back end of some of the normals."""
        return build(self.z[rows], self.is_target[rows], self.config, attributes=self.attributes[rows])

    def _by_distances(self) -> Callable[[tuple[Array, Array]], Array]:
        """`_score_without` for methods of neighbours, from the distances between all normals, measured once."""
        normals = KnownNormals.of(self.z, self.config.metric)

        def score(pair: tuple[Array, Array]) -> Array:
            left_out, members = pair
            rest = np.delete(np.arange(len(self.z)), left_out)
            method = build_method(normals[rest], self.is_target[rest], self.config)
            assert isinstance(method, FROM_DISTANCES)
            return method.score_distances(normals.distances[np.ix_(members, rest)])

        return score

    def nearest(self, q: ArrayLike, k: int = 3) -> tuple[Array, Array]:
        """The k normals nearest to each query by plain distance, for a person to listen to; k is clipped to the bank.

        q, (M, D) or (M, F, D) -> distances (M, k) float64, ascending, and indices (M, k) of the normals. Of bands, the
        distance is over all of them.
        """
        return self._bank.nearest(self._transform(self._checked(q)), k)

    def score_with_nearest(self, q: Array, k: int = 3) -> tuple[Array, Array, Array]:
        """`score` (M,) and `nearest` (M, k) twice, of one or a few clips, from one pass over the bank, to the last bit.

        The queries q, (M, D) or (M, F, D), are finite, as `embedding.vectors` gives them. Each is measured against all
        normals directly, which is slow for many queries.
        """
        self._check_length(q)
        distances = self._bank.distances(self._transform(q))
        if isinstance(self._method, FROM_DISTANCES):
            scores = self._method.score_distances(distances)
        else:
            scores = self._method.score(self._whitened(q))
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :k]
        return scores.astype(np.float32), np.take_along_axis(distances, nearest, axis=1), nearest

    def _checked(self, q: ArrayLike) -> Array:
        q = finite("q", q, ndim=self.z.ndim)
        self._check_length(q)
        return q

    def _check_length(self, q: Array) -> None:
        if q.shape[1:] != self.z.shape[1:]:
            length, fitted = (" x ".join(map(str, x.shape[1:])) for x in (q, self.z))
            raise ValueError(f"q holds vectors of length {length}, the back end was fitted on {fitted}")

    @cached_property
    def _bank(self) -> Bank:
        metric = "euclidean" if isinstance(self._method, Mahalanobis) else self.config.metric
        return bank_of_vectors(self._transform(self.z), metric)

    def _transform(self, q: Array) -> Array:
        # Vectors in the space whose distances the method uses; for a Gaussian, whitened by it.
        q = self._whitened(q.reshape(len(q), -1))
        return self._method.parts[0].whiten(q) if isinstance(self._method, Mahalanobis) else q

    def _whitened(self, q: Array) -> Array:
        return q if self._whitener is None else self._whitener.whiten(q)

    def _refit_each(self, whitener: Gaussian) -> Array:
        # Leaving a clip out changes the whitening, and so all distances.
        def one(i: int) -> float:
            others = np.arange(len(self.z)) != i
            if isinstance(self._method, OF_VECTORS):  # not in the rotated axes below, which are fewer
                return float(self._of(others).score(self.z[i : i + 1])[0])
            y = whitener.whiten_excluding(i).astype(np.float32)
            method = build_method(y[others], self.is_target[others], self.config)
            return float(method.score(y[i : i + 1])[0])

        return np.array(list(map_in_order(one, range(len(self.z)), threads())))


class Method(Protocol):
    """A fitted method: it scores vectors, and its own training vectors as if it had been fitted without each."""

    def score(self, q: Any) -> Array: ...
    def leave_one_out(self) -> Array: ...


def build_method(z: Any, is_target: Array, config: BackendConfig, attributes: Array | None = None) -> Method:
    """The method of `config`, fitted on normals z: vectors (N, D), or normals given by the distances between them."""
    if config.banks == ATTRIBUTE and attributes is not None:
        return AttributeBanks(z, is_target, attributes, config)
    if config.method in FITS:
        return PluginMethod(z, is_target, config)
    return BUILT[config.method](z, is_target, config)


def bank_names(attributes: Array, fewest: int) -> Array:
    """The bank (N,) of each normal: its attribute, or "" for the bank that those with too few normals share."""
    names, name_of, counts = np.unique(attributes, return_inverse=True, return_counts=True)
    shared = (counts < fewest) | (names == "")
    if 0 < counts[shared].sum() < fewest and not shared.all():
        shared[np.where(shared, len(attributes), counts).argmin()] = True
    return np.where(shared, "", names)[name_of]


class AttributeBanks:
    """A method for the normals of each attribute; a score is the smallest of theirs."""

    def __init__(self, z: Any, is_target: Array, attributes: Array, config: BackendConfig) -> None:
        self.z, self.is_target, self.attributes = z, is_target, attributes
        self.config, self.fewest = replace(config, banks=JOINT), config.fewest
        self.names = bank_names(attributes, self.fewest)
        self.rows = [np.flatnonzero(self.names == name) for name in np.unique(self.names)]
        self.parts = [self._method_of(rows) for rows in self.rows]

    def score(self, q: Any) -> Array:
        return np.asarray(np.min([part.score(q) for part in self.parts], axis=0))

    def leave_one_out(self) -> Array:
        out, every = np.full(len(self.z), np.inf), np.arange(len(self.z))
        for rows, part in zip(self.rows, self.parts, strict=True):
            out[rows] = np.minimum(out[rows], part.leave_one_out())
            if len(others := np.delete(every, rows)):
                out[others] = np.minimum(out[others], part.score(self.z[others]))
        for same in (np.flatnonzero(self.attributes == each) for each in np.unique(self.attributes)):
            without = np.delete(every, same[0])
            if (bank_names(self.attributes[without], self.fewest) != self.names[without]).any():
                out[same] = [self._score_without(i) for i in same.tolist()]  # they have another bank then
        return out

    def _score_without(self, i: int) -> float:
        """The score of a normal by the banks that the others have."""
        others = np.delete(np.arange(len(self.z)), i)
        names = bank_names(self.attributes[others], self.fewest)
        known = {rows.tobytes(): part for rows, part in zip(self.rows, self.parts, strict=True)}
        banks = [others[names == name] for name in np.unique(names)]
        parts = [known.get(rows.tobytes()) or self._method_of(rows) for rows in banks]
        return min(float(part.score(self.z[i : i + 1])[0]) for part in parts)

    def _method_of(self, rows: Array) -> Method:
        return build_method(self.z[rows], self.is_target[rows], self.config)


class PerDomain:
    """A bank for each domain that is present; a subclass combines what they find. 0 is the source, 1 the target."""

    def __init__(self, z: Any, is_target: Array) -> None:
        self.z, self.rows = z, [np.flatnonzero(~is_target), np.flatnonzero(is_target)]
        self.banks: dict[int, Any] = {}

    def score(self, q: Any) -> Array:
        return self._combine({d: bank.score(q) for d, bank in self.banks.items()})

    def score_distances(self, distances: Array) -> Array:
        """`score` (M,) from the distances (M, N) of the queries to all normals."""
        return self._combine({d: bank.score_distances(distances[:, self.rows[d]]) for d, bank in self.banks.items()})

    def leave_one_out(self) -> Array:
        out = np.empty(len(self.z))
        for d, bank in self.banks.items():
            own = {d: bank.leave_one_out()} if len(self.rows[d]) > 1 else {}
            out[self.rows[d]] = self._combine(own | {o: self._beside(o, d) for o in self.banks if o != d})
        return out

    def _combine(self, found: dict[int, Any]) -> Array:
        raise NotImplementedError

    def _beside(self, other: int, d: int) -> Any:
        """What the other domain's bank finds for each clip of domain d, which is left out there."""
        return self.banks[other].score(self.z[self.rows[d]])


class DualDensity(PerDomain):
    """dldn and dbldn: calibrated banks."""

    def __init__(self, z: Any, is_target: Array, config: BackendConfig) -> None:
        super().__init__(z, is_target)
        self.weights = (config.weight, 1 - config.weight) if config.method == "dbldn" else None
        small, large = sorted((0, 1), key=lambda d: (len(self.rows[d]), -d))
        # A domain with one clip has no density, nor has one with two clips once one of them is left out: it borrows the
        # other domain's. With two clips per domain each borrows from the other; elsewhere only the smaller one does.
        pair = len(self.rows[small]) == len(self.rows[large]) == 2
        self.banks[large] = self._bank(config, large, self._bank(config, small, None) if pair else None)
        if len(self.rows[small]):
            self.banks[small] = self._bank(config, small, self.banks[large])

    def _bank(self, config: BackendConfig, d: int, other: DensityBank | None) -> DensityBank:
        fallback = other.densities.mean if other is not None and len(other) > 1 else 1.0
        settings = config.density_settings(("source", "target")[d])
        return density_bank_of(self.z[self.rows[d]], config.metric, fallback_density=fallback, **settings)

    def _beside(self, other: int, d: int) -> Any:
        fallback = self.banks[d].mean_density_excluding()
        return self.banks[other].score(self.z[self.rows[d]], fallback_density=fallback)

    def _combine(self, found: dict[int, Any]) -> Array:
        absent = np.full(len(next(iter(found.values()))), np.inf)
        both = np.stack([found.get(d, absent) for d in (0, 1)])
        lowest: Array = both.min(axis=0)
        if self.weights is None:
            return lowest
        missing = np.isinf(both).any(axis=0)  # one domain is absent, or is without the clip that is left out
        return np.where(missing, lowest, self.weights[0] * both[0] + self.weights[1] * np.where(missing, 0, both[1]))


class DomainZ(PerDomain):
    """domain_z: kNN distance to each domain's bank, in standard deviations of that domain's own distances."""

    def __init__(self, z: Any, is_target: Array, config: BackendConfig) -> None:
        super().__init__(z, is_target)
        self.own_sigma = config.z_sigma == "own"
        each = {d: bank_of(z[rows], config.metric) for d, rows in enumerate(self.rows) if len(rows)}
        self.banks |= {d: MeasuredBank(bank, int(config.k)) for d, bank in each.items()}

    def _combine(self, found: dict[int, Any]) -> Array:
        if len(found) == 2:
            (_, mu_s, sigma_s), (_, mu_t, sigma_t) = found[0], found[1]
            mu = [_fill_nan(mu_s, mu_t, 0.0), _fill_nan(mu_t, mu_s, 0.0)]
            sigma = [_fill_nan(sigma_s, sigma_t, 1.0), _fill_nan(sigma_t, sigma_s, 1.0)]
            if not self.own_sigma:
                sigma[0] = sigma[1]
        else:
            ((_, only_mu, only_sigma),) = found.values()
            mu, sigma = [_fill_nan(only_mu, np.nan, 0.0)] * 2, [_fill_nan(only_sigma, np.nan, 1.0)] * 2
        scores = [(each[0] - mu[d]) / _at_least_rounding(sigma[d], mu[d]) for d, each in found.items()]
        return np.asarray(np.min(np.stack(scores), axis=0))


Measured = tuple[Array, Array, Array]  # kNN distances (M,), mean and deviation of the bank's own; NaN: too few give one


class MeasuredBank:
    """kNN distances to a bank, beside mean and deviation of its members' own, also without each of them."""

    def __init__(self, bank: NeighbourIndex, k: int) -> None:
        self.bank, self.asked, self.n = bank, k, len(bank)
        self.k = min(k, self.n - 1)
        if self.n > 1:
            self.distances, self.nearest = bank.nearest(None, k + 1)  # (N, k + 1), or (N, N - 1) in a small bank
            self.mean_distance = self.distances[:, : self.k].mean(axis=1)
        else:
            self.distances, self.nearest = np.empty((1, 0)), np.empty((1, 0), int)
            self.mean_distance = np.array([np.nan])
        self.mean = self.mean_distance.mean()
        self.sigma = np.asarray(self.mean_distance.std() if self.n >= FEW else np.nan)

    def score(self, q: Any) -> Measured:
        return self.bank.nearest(q, self.asked)[0].mean(axis=1), self.mean, self.sigma

    def score_distances(self, distances: Array) -> Measured:
        return np.sort(distances, axis=1)[:, : self.asked].mean(axis=1), self.mean, self.sigma

    def leave_one_out(self) -> Measured:
        n, listed = self.n, self.distances.shape[1]
        left = self.k if listed > self.k else n - 2  # neighbours that a member has without one of them
        if left == 0:  # one member would be left, without a distance of its own
            return self.mean_distance, np.full(n, np.nan), np.full(n, np.nan)
        centre, nearest = self.mean, self.nearest[:, : self.k]
        base = self.mean_distance - centre
        # (N, k): the distance of a member whose k nearest lose one of them
        changed = (self.distances.sum(axis=1, keepdims=True) - self.distances[:, : self.k]) / left
        shifted = changed - centre
        # sums of base and of its square over the other members
        first, second = base.sum() - base, (base**2).sum() - base**2
        np.add.at(first, nearest, shifted - base[:, None])
        np.add.at(second, nearest, shifted**2 - base[:, None] ** 2)
        mean = first / (n - 1)
        mu, sigma = centre + mean, np.sqrt(np.maximum(second / (n - 1) - mean**2, 0))
        for out in np.flatnonzero(np.minimum(mu, sigma) < 1e-6 * centre):  # cancellation: computed from its terms
            hit = nearest == out
            each = np.delete(np.where(hit.any(axis=1), (changed * hit).sum(axis=1), self.mean_distance), out)
            mu[out], sigma[out] = each.mean(), each.std()
        return self.mean_distance, mu, sigma if n - 1 >= FEW else np.full(n, np.nan)


class PluginMethod:
    """A back end of the user; its scores are checked."""

    def __init__(self, z: Array, is_target: Array, config: BackendConfig) -> None:
        self.name, self.count, function = config.method, len(z), FITS[config.method]
        options = {key: value for key, value in vars(config).items() if key not in ("method", "whiten")}
        self.fitted = function(z, is_target, **accepted(function, options))
        missing = [name for name in ("score", "train_scores") if name not in dir(self.fitted)]
        if missing:
            raise ValueError(
                f"the back end {self.name!r} gives a {type(self.fitted).__name__} without {' and '.join(missing)}: it "
                "needs score(q), (M, D) -> (M,), and train_scores (N,), what score would give each normal if it had "
                "been fitted without it; without a formula for them, fit once for each normal that is left out"
            )

    def score(self, q: Array) -> Array:
        return self._checked("scores", self.fitted.score(q), len(q))

    def leave_one_out(self) -> Array:
        return self._checked("train_scores", self.fitted.train_scores, self.count)

    def _checked(self, what: str, scores: ArrayLike, count: int) -> Array:
        found = on_host(finite(f"{what} of the back end {self.name!r}", scores))
        if found.shape != (count,):
            raise ValueError(f"{what} of the back end {self.name!r} have shape {found.shape} for {count} clips")
        return found


class AsIs:
    """The last number of each embedding; the other normals play no part, so leaving a clip out changes nothing."""

    def __init__(self, z: Array) -> None:
        self.z = z

    def score(self, q: Array) -> Array:
        return q[:, -1]

    def leave_one_out(self) -> Array:
        return self.z[:, -1]


class Mahalanobis:
    """Distance from the nearer of two Gaussians, one per domain; a domain with fewer than FEW clips joins the other."""

    def __init__(self, z: Any, is_target: Array, config: BackendConfig) -> None:
        self.z, self.config, self.rows = z, config, [np.flatnonzero(~is_target), np.flatnonzero(is_target)]
        self.fewest = min(len(rows) for rows in self.rows)
        self.two = self.fewest >= FEW and not config.ignore_domains
        self.parts = [self._gaussian(z[rows]) for rows in self.rows] if self.two else [self._gaussian(z)]

    def score(self, q: Any) -> Array:
        return np.asarray(np.min([part.distance(q) for part in self.parts], axis=0))

    def leave_one_out(self) -> Array:
        if not self.two:
            return self.parts[0].leave_one_out()
        out = np.empty(len(self.z))
        joined = self._gaussian(self.z).leave_one_out() if self.fewest == FEW else None
        for d, rows in enumerate(self.rows):
            if joined is not None and len(rows) == FEW:
                out[rows] = joined[rows]
            else:
                out[rows] = np.minimum(self.parts[d].leave_one_out(), self.parts[1 - d].distance(self.z[rows]))
        return out

    def excluding(self, related: Array) -> Array:
        """Scores (N,) of the normals without their relatives, related (N, N); scales of features stay."""
        if not self.two:
            return self.parts[0].excluding(related)
        out, whole, alone = np.empty(len(self.z)), self._gaussian(self.z), None
        for left_out, members in excluded_sets(related, len(self.z)):
            if len(left_out) == 1 and not self.config.standardize:
                alone = self.leave_one_out() if alone is None else alone
                out[members] = alone[members]
                continue
            q, missing = self.z[members], [np.flatnonzero(np.isin(rows, left_out)) for rows in self.rows]
            if min(len(rows) - len(gone) for rows, gone in zip(self.rows, missing, strict=True)) < FEW:
                out[members] = whole.distance_excluding(q, left_out)
            else:
                pairs = zip(self.parts, missing, strict=True)
                out[members] = np.min([part.distance_excluding(q, gone) for part, gone in pairs], axis=0)
        return out

    def _gaussian(self, x: Array) -> Gaussian:
        return Gaussian(x, shrinkage=self.config.shrinkage, standardize=self.config.standardize)


class ZMin:
    """zmin: the smallest of several scores, each in standard deviations of its own leave-one-out scores."""

    def __init__(self, z: Array, is_target: Array, config: BackendConfig) -> None:
        self.z, self.is_target, self.config = z, is_target, config
        self.parts = [build_method(z, is_target, replace(config, method=m, ignore_domains=True)) for m in ZMIN_PARTS]

    def score(self, q: Array) -> Array:
        scores = zip(self.parts, self.statistics, strict=True)
        return np.asarray(np.min([(part.score(q) - mu) / sigma for part, (mu, sigma) in scores], axis=0))

    def leave_one_out(self) -> Array:
        return refitted(self.z, self.is_target, self.config)

    @cached_property
    def statistics(self) -> list[tuple[Array, Array]]:
        """Mean and standard deviation of each part's leave-one-out scores."""
        if len(self.z) < FEW:
            return [(np.zeros(()), np.ones(()))] * len(self.parts)
        own = [part.leave_one_out() for part in self.parts]
        return [(each.mean(), _at_least_rounding(each.std(), each.mean())) for each in own]


class AlteredBank:
    """kmeans, smote and memmixup: raw kNN on a bank that is made of the normals."""

    def __init__(self, z: Array, is_target: Array, config: BackendConfig) -> None:
        self.z, self.is_target, self.config = z, is_target, config
        x = unit(z) if config.metric == "cosine" else z
        source, target = x[~is_target], x[is_target]
        if config.method == "kmeans":
            source = cluster_centres(source, config.clusters)
        elif config.method == "smote":
            target = np.concatenate([target, interpolated(target, len(source) - len(target), config.seed)])
        else:
            target = np.concatenate([target, mixed(source, target)])
        bank = np.concatenate([source, target]).astype(z.dtype)
        self.bank = DensityBank(bank, config.metric, k=config.k, density_k=1, exponent=0.0)

    def score(self, q: Array) -> Array:
        return self.bank.score(q)

    def leave_one_out(self) -> Array:
        source, target = np.flatnonzero(~self.is_target), np.flatnonzero(self.is_target)
        if self.config.method != "memmixup" or not 0 < len(source) <= MIXED:
            return refitted(self.z, self.is_target, self.config)
        # Every target is mixed with every source, so the bank without a source lacks the rows made of it, no others.
        out = np.empty(len(self.z))
        each = np.arange(len(source))
        made_of = np.concatenate([each, np.full(len(target), -1), np.tile(each, len(target))])
        distances, found = self.bank.index.nearest(self.z[source], self.config.k + 1 + len(target))
        kept = made_of[found] != each[:, None]
        first = kept & (np.cumsum(kept, axis=1) <= self.config.k)
        out[source] = np.where(first, distances, 0).sum(axis=1) / first.sum(axis=1)
        out[target] = refitted(self.z, self.is_target, self.config, target)
        return out


def cluster_centres(x: Array, clusters: int) -> Array:
    """Lloyd's centres (K, D) of x (N, D), K = min(clusters, N); N may be 0.

    The first centre is the clip nearest to the mean, each next one the clip farthest from those before: no seed. A
    cluster that loses all clips keeps its centre.
    """
    if len(x) <= clusters:
        return x
    x = x.astype(np.float64)
    first = int(((x - x.mean(axis=0)) ** 2).sum(axis=1).argmin())
    nearest = ((x - x[first]) ** 2).sum(axis=1)
    chosen = [first]
    while len(chosen) < clusters:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, ((x - x[chosen[-1]]) ** 2).sum(axis=1))
    centres, of = x[chosen], np.full(len(x), -1)
    for _ in range(LLOYD):
        before, of = of, Bank(centres, "euclidean").nearest(x, 1)[1][:, 0]
        if (of == before).all():
            break
        for cluster in np.unique(of):
            centres[cluster] = x[of == cluster].mean(axis=0)
    return centres


def interpolated(x: Array, count: int, seed: int) -> Array:
    """SMOTE (Chawla et al. 2002): `count` vectors between a drawn row of x (N, D) and one of its SMOTE_K nearest."""
    if len(x) < 2 or count < 1:
        return x[:0]
    x = x[np.lexsort(x.T[::-1])]  # the draws do not depend on the order of the rows
    nearest = Bank(x, "euclidean").nearest(None, SMOTE_K)[1]
    rng = np.random.default_rng(seed)
    row, column = rng.integers(len(x), size=count), rng.integers(nearest.shape[1], size=count)
    share = rng.random(count)[:, None]
    return np.asarray(x[row] + share * (x[nearest[row, column]] - x[row]))


def mixed(source: Array, target: Array) -> Array:
    """MemMixup: MIX t + (1 - MIX) s for each target t and its MIXED nearest sources s, (rows, D)."""
    if not len(source) or not len(target):
        return target[:0]
    nearest = np.sort(Bank(source, "euclidean").nearest(target, MIXED)[1], axis=1)  # by source
    return np.asarray((MIX * target[:, None] + (1 - MIX) * source[nearest]).reshape(-1, target.shape[1]))


def refitted(z: Array, is_target: Array, config: BackendConfig, rows: Array | None = None) -> Array:
    """Leave-one-out scores of all normals, or of some rows (n,), by fitting a method of vectors once for each."""

    def one(i: int) -> float:
        others = np.arange(len(z)) != i
        return float(build_method(z[others], is_target[others], config).score(z[i : i + 1])[0])

    each = range(len(z)) if rows is None else rows.tolist()
    with single_threaded_blas():  # the fits run side by side
        return np.array(list(map_in_order(one, each, threads())))


class Beam:
    """A back end for each band of z (N, F, D); a score is the mean of theirs, and so is the exact leave-one-out."""

    def __init__(self, z: Array, is_target: Array, attributes: Array, config: BackendConfig) -> None:
        each = (np.ascontiguousarray(band) for band in np.moveaxis(z, 1, 0))
        self.bands = [build(band, is_target, config, attributes=attributes) for band in each]

    def score(self, q: Array) -> Array:
        return beam_score([band.score(q[:, f]) for f, band in enumerate(self.bands)])

    def leave_one_out(self) -> Array:
        return beam_score([band.train_scores for band in self.bands])

    def excluding(self, related: Array) -> Array:
        """Scores (N,) of the normals without their relatives, related (N, N)."""
        return beam_score([band.scores_excluding(related) for band in self.bands])


BUILT: dict[str, Callable[[Any, Array, BackendConfig], Method]] = {  # of nearfar's own methods
    "raw": lambda z, _, config: density_bank_of(z, config.metric, k=config.k, density_k=1, exponent=0.0),
    "ldn": lambda z, _, config: density_bank_of(z, config.metric, **config.density_settings()),
    "domain_z": DomainZ,
    "dldn": DualDensity,
    "dbldn": DualDensity,
    "varmin": lambda z, _, config: VarMinBank(
        z, config.metric, k=config.k, density_k=config.density_settings()["density_k"]
    ),
    "mahalanobis": Mahalanobis,
    "pca": lambda z, _, config: PrincipalSubspace(z, config.components),
    "zmin": ZMin,
    **dict.fromkeys(ALTERED_BANKS, AlteredBank),
    "as_is": lambda z, *_: AsIs(z),
}
# Rotating the vectors into fewer axes changes these.
OF_VECTORS = (Mahalanobis, PrincipalSubspace, ZMin, AlteredBank, AttributeBanks)
FROM_DISTANCES = (DensityBank, PerDomain)  # the distances to all normals give their scores


def beam_score(bands: Sequence[Array]) -> Array:
    """The score (M,) of BEAM, float64, from the scores of each band."""
    return np.asarray(np.mean(np.stack(bands), axis=0, dtype=np.float64))


def _fill_nan(own: Array, other: Array | float, default: float) -> Array:
    value = np.where(np.isnan(own), other, own)
    return np.where(np.isnan(value), default, value)


def _at_least_rounding(sigma: Array, mu: Array) -> Array:
    floor = 1e-6 * np.abs(mu)
    return np.maximum(sigma, np.where(floor > 0, floor, 1e-6))


def _count(name: str, value: int | str | None) -> int | str | None:
    return value if value is None or value == AUTO else integer(name, value)  # type: ignore[arg-type]
