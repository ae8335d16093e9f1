"""Argument checks, and the rules of every public function: finite in, finite out, nothing edited in place."""

from __future__ import annotations

import numpy as np
import pytest

from nearfar.backend import fit
from nearfar.bank import Bank
from nearfar.detector.system import PValue, Threshold, from_normals, rate_of
from nearfar.encoders import load as load_encoder
from nearfar.enhance import leakage_subtract, soft_mask
from nearfar.frames import suppress
from nearfar.fusion import align, fuse, statistics
from nearfar.metrics import auc, bootstrap, harmonic_mean, machine, partial_auc
from nearfar.pooling import POOLINGS, gem, mean, mean_std, peak, pool, quantile, rdp, rdp_gem
from nearfar.support import check
from nearfar.views import compose

rng = np.random.default_rng(0)
FRAMES = rng.normal(size=(2, 9, 5)).astype(np.float32)
Z, Q = rng.normal(size=(12, 6)).astype(np.float32), rng.normal(size=(4, 6)).astype(np.float32)
NEAR, FAR = rng.normal(size=(2, 1, 1500)).astype(np.float32)
SCORES = rng.normal(size=12)
ANOMALY, TARGET = np.arange(12) % 2 == 0, np.arange(12) % 3 == 0
LABELS = {"is_anomaly": ANOMALY, "is_target": TARGET}

# What is called, and the arrays it is given by name. Every array is tried with every kind of bad value.
CALLS = {
    "suppress": (lambda frames: suppress(frames, 0.1, 0.3), {"frames": FRAMES}),
    "mean": (mean, {"frames": FRAMES}),
    "gem": (gem, {"frames": FRAMES}),
    "rdp": (rdp, {"frames": FRAMES}),
    "rdp_gem": (rdp_gem, {"frames": FRAMES}),
    "quantile": (quantile, {"frames": FRAMES}),
    "peak": (peak, {"frames": FRAMES}),
    "mean_std": (mean_std, {"frames": FRAMES}),
    **{f"pool {kind}": (lambda frames, kind=kind: pool(frames, kind), {"frames": FRAMES}) for kind in POOLINGS},
    "compose n_f": (lambda near, far: compose("n_f", near, far), {"near": Z, "far": Z + 1}),
    "compose near_only": (lambda near, far: compose("near_only", near, far), {"near": Z, "far": Z + 1}),
    "soft_mask": (lambda near, far: soft_mask(near, far, alpha=0.5, floor=0.7), {"near": NEAR, "far": FAR}),
    "leakage_subtract": (leakage_subtract, {"near": NEAR, "far": FAR}),
    "weighted": (lambda near, far: leakage_subtract(near, far, weighted=True), {"near": NEAR, "far": FAR}),
    "Bank": (lambda z: Bank(z).nearest(None, 2)[0], {"z": Z}),
    "Bank.nearest": (lambda q: Bank(Z).nearest(q, 2)[0], {"q": Q}),
    "fit": (lambda z: fit(z, whiten=True).train_scores, {"z": Z}),
    "Backend.score": (lambda q: fit(Z, method="ldn").score(q), {"q": Q}),
    "Backend.score whitened": (lambda q: fit(Z, method="varmin", whiten=True).score(q), {"q": Q}),
    "Backend.score mahalanobis": (lambda q: fit(Z, TARGET, method="mahalanobis").score(q), {"q": Q}),
    "Backend.nearest": (lambda q: fit(Z).nearest(q)[0], {"q": Q}),
    "fuse": (
        lambda train_scores, scores, weights: fuse([(train_scores, scores), (SCORES, SCORES)], weights),
        {"train_scores": SCORES, "scores": SCORES + 1, "weights": np.array([0.5, 0.5])},
    ),
    "align": (align, {"train_scores": SCORES, "scores": SCORES + 1}),
    "statistics": (statistics, {"train_scores": SCORES}),
    "machine": (lambda scores: list(machine(scores, **LABELS)), {"scores": SCORES}),
    "auc": (lambda scores: auc(scores, ANOMALY), {"scores": SCORES}),
    "partial_auc": (lambda scores: partial_auc(scores, ANOMALY), {"scores": SCORES}),
    "bootstrap": (
        lambda scores: bootstrap({"fan": (scores, ANOMALY, TARGET)}, rounds=5)[1].low,
        {"scores": SCORES},
    ),
    "Tail": (lambda scores: PValue(scores).score_at(0.1), {"scores": SCORES}),
    "Tail.log_p": (lambda scores: PValue(SCORES).log_p(scores), {"scores": SCORES}),
    **{
        f"from_normals {method}": (
            lambda scores, method=method: from_normals(scores, 0.1, method).value,
            {"scores": SCORES},
        )
        for method in ("conformal", "gamma", "quantile")
    },
    "logmel": (lambda waves: load_encoder("logmel").grid(waves), {"waves": NEAR}),
}
FLAGS = {
    "fit": (lambda flags: fit(Z, flags), "is_target"),
    "machine, anomaly": (lambda flags: machine(SCORES, flags, TARGET), "is_anomaly"),
    "machine, target": (lambda flags: machine(SCORES, ANOMALY, flags), "is_target"),
    "auc": (lambda flags: auc(SCORES, flags), "is_anomaly"),
    "bootstrap": (lambda flags: bootstrap({"fan": (SCORES, ANOMALY, flags)}, rounds=2), "is_target"),
    "fuse": (lambda flags: fuse([(SCORES, SCORES)], [1.0], flags), "is_target"),
}
OUT_OF_RANGE = {
    "gem p": lambda: gem(FRAMES, p=0),
    "rdp_gem p": lambda: rdp_gem(FRAMES, p=-1),
    "pool p": lambda: pool(FRAMES, "gem", p=float("nan")),
    "rdp alpha": lambda: rdp(FRAMES, alpha=-0.1),
    "quantile q": lambda: quantile(FRAMES, q=1.5),
    "pooling": lambda: pool(FRAMES, "median"),
    "spike under low": lambda: suppress(FRAMES, 0.3, 0.3),
    "low": lambda: suppress(FRAMES, float("inf")),
    "view": lambda: compose("both", Z, Z),
    "alpha": lambda: soft_mask(NEAR, FAR, alpha=1.1, floor=0.5),
    "floor": lambda: soft_mask(NEAR, FAR, alpha=0.5, floor=1.1),
    "floor under 0": lambda: soft_mask(NEAR, FAR, alpha=0.5, floor=-0.1),
    "n_fft too short": lambda: leakage_subtract(NEAR, FAR, n_fft=255),
    "n_fft too long": lambda: leakage_subtract(NEAR, FAR, n_fft=32769),
    "n_fft not whole": lambda: leakage_subtract(NEAR, FAR, n_fft=1024.5),
    "hop 0": lambda: leakage_subtract(NEAR, FAR, hop=0),
    "hop too long": lambda: soft_mask(NEAR, FAR, alpha=0.5, floor=0.5, hop=1024),
    "lengths differ": lambda: soft_mask(NEAR, FAR[:, 1:], alpha=0.5, floor=0.5),
    "k": lambda: fit(Z, k=0),
    "k infinite": lambda: fit(Z, k=float("inf")),
    "density_k": lambda: fit(Z, method="ldn", density_k=0),
    "density_k_target": lambda: fit(Z, TARGET, method="dldn", density_k_target=-1),
    "weight": lambda: fit(Z, TARGET, method="dbldn", weight=1.1),
    "shrinkage": lambda: fit(Z, method="mahalanobis", shrinkage=2),
    "shrinkage name": lambda: fit(Z, method="mahalanobis", shrinkage="oas"),
    "exponent": lambda: fit(Z, method="ldn", exponent=float("nan")),
    "method": lambda: fit(Z, method="lof"),
    "metric": lambda: fit(Z, metric="manhattan"),
    "form of another method": lambda: fit(Z, method="raw", form="product"),
    "density_agg of another method": lambda: fit(Z, method="raw", density_agg="max"),
    "one clip": lambda: fit(Z[:1]),
    "no features": lambda: fit(np.zeros((5, 0))),
    "z of one axis": lambda: fit(Z[0]),
    "q of another width": lambda: fit(Z).score(Q[:, 1:]),
    "is_target too short": lambda: fit(Z, TARGET[1:]),
    "weights sum": lambda: fuse([(SCORES, SCORES), (SCORES, SCORES)], [0.5, 0.6]),
    "weights negative": lambda: fuse([(SCORES, SCORES), (SCORES, SCORES)], [1.5, -0.5]),
    "weights too few": lambda: fuse([(SCORES, SCORES), (SCORES, SCORES)], [1.0]),
    "parts of different length": lambda: fuse([(SCORES, SCORES), (SCORES, SCORES[1:])], [0.5, 0.5]),
    "no parts": lambda: fuse([], []),
    "no training scores": lambda: fuse([([], SCORES)], [1.0]),
    "max_fpr 0": lambda: partial_auc(SCORES, ANOMALY, 0),
    "max_fpr over 1": lambda: partial_auc(SCORES, ANOMALY, 1.1),
    "rounds": lambda: bootstrap({"fan": (SCORES, ANOMALY, TARGET)}, rounds=0),
    "no anomalies": lambda: machine(SCORES, np.zeros(12, bool), TARGET),
    "no normals": lambda: machine(SCORES, np.ones(12, bool), TARGET),
    "rate 0": lambda: from_normals(SCORES, 0),
    "rate 1": lambda: from_normals(SCORES, 1),
    "threshold method": lambda: from_normals(SCORES, 0.1, "sigma"),
    "one normal": lambda: PValue([1.0]),
    "one normal, quantile": lambda: from_normals([1.0], 0.1, "quantile"),
    "p": lambda: PValue(SCORES).score_at(1.0),
    "clip of no length": lambda: Threshold(1.0, 0.1, "quantile").false_alarms_per_day(0),
    "rate_of without length": lambda: rate_of(1, 0),
    "more alarms than clips": lambda: rate_of(8641, 10),
}


def everything(result):
    return np.concatenate(
        [np.ravel(np.asarray(part, float)) for part in (result if isinstance(result, tuple) else (result,))]
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", CALLS)
def test_a_value_that_is_not_finite_is_refused_by_the_name_of_its_argument(name, bad):
    call, arrays = CALLS[name]
    for argument in arrays:
        broken = {key: value.copy() for key, value in arrays.items()}
        broken[argument].flat[-1] = bad
        with pytest.raises(ValueError, match=argument):
            call(**broken)


@pytest.mark.parametrize("name", CALLS)
def test_no_function_edits_its_arguments_or_returns_anything_but_finite_numbers(name):
    call, arrays = CALLS[name]
    given = {key: value.copy() for key, value in arrays.items()}
    for value in given.values():
        value.setflags(write=False)
    assert np.isfinite(everything(call(**given))).all()
    for key, value in given.items():
        np.testing.assert_array_equal(value, arrays[key])


@pytest.mark.parametrize("name", FLAGS)
def test_flags_are_true_and_false_and_nothing_else(name):
    call, argument = FLAGS[name]
    for bad in (np.full(12, np.nan), np.full(12, 2), np.zeros(11, bool), np.zeros((12, 1), bool), np.array(["a"] * 12)):
        with pytest.raises(ValueError, match=argument):
            call(bad)


@pytest.mark.parametrize("name", OUT_OF_RANGE)
def test_a_parameter_out_of_range_is_a_value_error(name):
    with pytest.raises(ValueError, match=r"\w"):
        OUT_OF_RANGE[name]()


@pytest.mark.parametrize("scale", [1e-12, 1e6, 1e18])
def test_frames_of_any_size_pool_to_finite_numbers(scale):
    frames = (np.abs(FRAMES) * scale).astype(np.float32)
    for kind in ("mean", "gem", "rdp", "rdp_gem"):
        for alpha, p in ((0, 0.1), (20, 9), (500, 200)):
            assert np.isfinite(pool(frames, kind, alpha=alpha, p=p)).all()


def test_finite_keeps_float64_and_makes_everything_else_float32():
    assert check.finite("x", np.zeros(2, np.float64)).dtype == np.float64
    for other in (np.float32, np.float16, np.int16, bool):
        assert check.finite("x", np.zeros(2, other)).dtype == np.float32
    for nonsense in (["a"], [None], [1j]):
        with pytest.raises(ValueError, match="x must hold real numbers"):
            check.finite("x", nonsense)


def test_finite_says_where_the_bad_value_is_even_if_infinities_cancel_in_a_sum():
    with pytest.raises(ValueError, match=r"x holds inf at index \(0, 1\)"):
        check.finite("x", [[0, np.inf], [-np.inf, 0]])
    assert check.finite("x", [1e308, 1e308]).shape == (2,)  # a sum that overflows is not a bad value


def test_number_and_whole_refuse_what_is_not_a_number():
    for bad in (True, "3", None, [3], {}, np.nan, np.inf, 1j, 10**400):
        with pytest.raises(ValueError, match="p must be"):
            check.number("p", bad)
        with pytest.raises(ValueError, match="p must be"):
            check.integer("p", bad)
    assert check.number("p", np.float32(2), low=2, high=2) == 2
    assert check.integer("k", 3.0) == 3 and isinstance(check.integer("k", np.int64(3)), int)
    with pytest.raises(ValueError, match="whole number >= 1, not 0"):
        check.integer("k", 0)


def test_an_unknown_name_is_answered_with_the_names_there_are():
    for bad in ("c", ["a"], None, 3):
        with pytest.raises(ValueError, match="choose one of: a, b"):
            check.choose("letter", bad, {"a": 1, "b": 2})


def test_a_zero_among_rates_does_not_divide():
    assert harmonic_mean([0.5, 0.0]) > 0
