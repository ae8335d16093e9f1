"""A scikit-learn estimator: normals in, +1 (normal) or -1 (anomalous) out.

    X   vectors (N, D), or recordings: a list of N paths or `Clip`s

Signs are scikit-learn's: `score_samples` and `decision_function` are higher for what is more normal. It is a novelty
detector: a normal of the bank is at distance 0 from itself, so there is no `fit_predict`. The exact leave-one-out
scores of the normals are `backend_.train_scores` and `detector_.train_values`, higher for what is more anomalous.

>>> normals = np.random.default_rng(0).normal(size=(40, 3)) + [5, 0, 0]
>>> AnomalyDetector().fit(normals).predict([[5.0, 0, 0], [0, 5, 0]]).tolist()
[1, -1]
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from nearfar import backend
from nearfar.audio import Clip
from nearfar.detector import Detector
from nearfar.detector.detector import RATE
from nearfar.detector.system import from_normals
from nearfar.recipe import Recipe, System, by_name
from nearfar.support.check import Array

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:
    raise ImportError('this needs scikit-learn 1.6 or newer, an extra: pip install "nearfar[sklearn]"') from None


class AnomalyDetector(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Novelty detector fitted on normals alone.

    Parameters
    ----------
    recipe : Recipe, Fusion, Watch, str or None
        Of recordings as in `Detector`. Of vectors only its back end counts; None: distance to the nearest normal.
    weights, near, far, device
        As in `Detector`, for recordings.
    false_alarm_rate : float or None
        Share of normal clips that may be called anomalous; None: 0.05, or 1 / (N + 1) with fewer than 19 normals.

    Attributes
    ----------
    offset_ : float
        `decision_function` is `score_samples` minus this.
    detector_ : Detector
        Of recordings. `backend_` : Backend, of vectors.
    """

    def __init__(
        self,
        recipe: System | str | None = None,
        *,
        weights: Any = None,
        near: int = 0,
        far: int | None = 1,
        device: str = "cpu",
        false_alarm_rate: float | None = None,
    ) -> None:
        self.recipe = recipe
        self.weights = weights
        self.near = near
        self.far = far
        self.device = device
        self.false_alarm_rate = false_alarm_rate

    def fit(self, X: Any, y: Any = None) -> AnomalyDetector:
        """Fit on normals; `y` is ignored. ValueError for fewer than 2 of them."""
        if are_recordings(X):
            self.detector_ = Detector(
                self.recipe,
                self.weights,
                near=self.near,
                far=self.far,
                device=self.device,
                false_alarm_rate=self.false_alarm_rate,
            ).fit(X, copies=True)
            self.offset_ = -self.detector_.threshold.value
            return self
        z = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        system = by_name(self.recipe) if isinstance(self.recipe, str) else self.recipe
        system = Recipe(metric="euclidean") if system is None else system
        if not isinstance(system, Recipe):
            raise ValueError("of vectors, recipe must be a single Recipe, whose back end is used")
        self.backend_ = backend.fit(z, **vars(system.backend))
        rate = self.false_alarm_rate or max(RATE, 1 / (1 + len(z)))
        self.offset_ = -from_normals(self.backend_.train_scores, rate, "conformal").value
        return self

    def score_samples(self, X: Any) -> Array:
        """(M,) float64: how normal each sample is. A long recording counts as its most unusual window."""
        check_is_fitted(self)
        if are_recordings(X):
            windows = self._of_recordings().iter_scores(X)
            return np.array([-max(score.score for score in scores) for scores in windows])
        return -self.backend_.score(self._checked(X)).astype(np.float64)

    def decision_function(self, X: Any) -> Array:
        """(M,) float64: `score_samples` minus `offset_`; negative is anomalous."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> Array:
        """(M,) int: 1 normal, -1 anomalous."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def transform(self, X: Any) -> Array:
        """(M, D): the vectors of recordings, those of a fusion or watch concatenated; vectors as they are.

        Of a long recording, that of its first window.
        """
        check_is_fitted(self)
        if are_recordings(X):
            clips = self._of_recordings().embedder.embed_many(list(X))
            return np.stack([np.concatenate([v.ravel() for v in each[0].vectors]) for each in clips])
        return self._checked(X)

    def _checked(self, X: Any) -> Array:
        x: Array = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return x

    def _of_recordings(self) -> Detector:
        if "detector_" not in vars(self):
            raise ValueError("this estimator was fitted on vectors, and recordings are given")
        return self.detector_


def are_recordings(X: Any) -> bool:
    """Whether X is a sequence of paths or clips."""
    return isinstance(X, list | tuple | np.ndarray) and len(np.shape(X)) == 1 and all(_is_recording(x) for x in X)


def _is_recording(x: Any) -> bool:
    return isinstance(x, str | os.PathLike | Clip)
