"""A scikit-learn estimator: normals in, +1 (normal) or -1 (anomalous) out.

    X   vectors (N, D), or recordings: a list, array or pandas Series of N paths or `Clip`s

Signs are scikit-learn's: `score_samples` and `decision_function` are higher for what is more normal. It is a novelty
detector: a normal of the bank is at distance 0 from itself, so there is no `fit_predict`. The exact leave-one-out
scores of the normals are `backend_.train_scores` and `detector_.train_values`, higher for what is more anomalous.

>>> normals = np.random.default_rng(0).normal(size=(40, 3)) + [5, 0, 0]
>>> AnomalyDetector().fit(normals).predict([[5.0, 0, 0], [0, 5, 0]]).tolist()
[1, -1]
"""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

import numpy as np

from nearfar import backend
from nearfar.audio import Clip
from nearfar.detector import Detector
from nearfar.detector.detector import RATE
from nearfar.detector.system import from_normals
from nearfar.recipe import Recipe, System, by_name, with_settings
from nearfar.support.check import Array
from nearfar.support.words import shown

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:
    raise ImportError('this needs scikit-learn 1.6 or newer, an extra: pip install "nearfar[sklearn]"') from None


INSIDE = "recipe__"  # before a key of the recipe, as scikit-learn names a parameter of a part


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

    def set_params(self, **params: Any) -> AnomalyDetector:
        """Set parameters; `recipe__k=3` sets a key of the recipe, or of every recipe of a fusion."""
        settings = {key: params.pop(key) for key in [*params] if key.startswith(INSIDE)}
        super().set_params(**params)
        if settings:
            system = self._system()
            if system is None:
                raise ValueError("recipe__KEY changes a recipe, and the normals choose here: name a recipe")
            self.recipe = with_settings(system, {key.removeprefix(INSIDE): v for key, v in settings.items()})
        return self

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
            ).fit(list(X), copies=True)
            self.offset_ = -self.detector_.threshold.value
            return self
        z = validate_data(self, X, dtype=[np.float64, np.float32], ensure_min_samples=2)
        system = self._system() or Recipe(metric="euclidean")
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
            windows = self._of_recordings().iter_scores(list(X))
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

    def _system(self) -> System | None:
        return by_name(self.recipe) if isinstance(self.recipe, str) else self.recipe

    def _checked(self, X: Any) -> Array:
        x: Array = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return x

    def _of_recordings(self) -> Detector:
        if "detector_" not in vars(self):
            raise ValueError("this estimator was fitted on vectors, and recordings are given")
        return self.detector_


def are_recordings(X: Any) -> bool:
    """Whether X is a list, array or pandas Series of paths or clips. ValueError for a single one."""
    if _is_recording(X):
        raise ValueError(
            f"X is a single recording or folder ({shown(getattr(X, 'name', X))}): give a list of recordings"
        )
    samples: Any = X if isinstance(X, Collection) else None
    return len(np.shape(samples)) == 1 and all(_is_recording(x) for x in samples)


def _is_recording(x: Any) -> bool:
    return isinstance(x, str | os.PathLike | Clip)
