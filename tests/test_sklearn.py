"""The scikit-learn estimator: on vectors as any other, on paths in a pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import IsolationForest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import nearfar
from conftest import hum, write_wav
from nearfar import backend
from nearfar.recipe import BASELINE, Recipe
from nearfar.sklearn import AnomalyDetector


@pytest.mark.parametrize("recipe", [None, Recipe(method="mahalanobis")], ids=["nearest", "mahalanobis"])
def test_it_passes_scikit_learn_s_own_checks(recipe):
    check_estimator(AnomalyDetector(recipe))


def test_vectors_are_scored_by_the_back_end_with_the_other_sign():
    rng = np.random.default_rng(0)
    z, q = rng.normal(size=(200, 4)), np.vstack([rng.normal(size=(50, 4)), [[9, 9, 9, 9]]])
    made = AnomalyDetector(Recipe(method="ldn", metric="euclidean", density_k=4)).fit(z)
    fitted = backend.fit(z, method="ldn", metric="euclidean", density_k=4)
    assert np.array_equal(made.score_samples(q), -fitted.score(q).astype(float))
    assert np.array_equal(made.decision_function(q), made.score_samples(q) - made.offset_)
    assert made.predict(q)[-1] == -1 and (made.predict(q)[:-1] == 1).mean() > 0.8
    assert (fitted.train_scores > -made.offset_).mean() <= 0.05
    assert np.array_equal(made.transform(q), q)


def test_paths_go_through_a_pipeline(tmp_path: Path):
    paths = [write_wav(tmp_path / f"n{i}.wav", hum(i)) for i in range(12)]
    odd = write_wav(tmp_path / "odd.wav", hum(99, fault="hiss"))
    whole = Pipeline([("nearfar", AnomalyDetector(BASELINE, false_alarm_rate=0.1))]).fit(paths)
    assert whole.predict([*paths[:3], odd]).tolist()[-1] == -1
    detector = nearfar.Detector(BASELINE, false_alarm_rate=0.1).fit(paths)
    assert whole.score_samples([odd])[0] == -detector.score([odd])[0].score
    assert whole.decision_function([str(odd)])[0] == detector.threshold.value - detector.score([odd])[0].score
    steps = [("vectors", AnomalyDetector(BASELINE)), ("scale", StandardScaler()), ("forest", IsolationForest())]
    forest = Pipeline(steps).fit(paths)
    assert forest.predict([odd, paths[0]]).shape == (2,)
    assert forest[0].transform([odd]).shape == (1, 256)
    with pytest.raises(ValueError, match="fitted on vectors"):
        AnomalyDetector().fit(np.eye(4)).predict([odd])


def test_keys_of_the_recipe_are_searched_by_scikit_learn():
    rng = np.random.default_rng(0)
    z, q = rng.normal(size=(60, 3)), rng.normal(size=(20, 3))
    made = AnomalyDetector(Recipe(method="raw", metric="euclidean")).set_params(recipe__k=5, false_alarm_rate=0.1)
    assert made.recipe == Recipe(method="raw", metric="euclidean", k=5) and made.false_alarm_rate == 0.1
    wanted = -backend.fit(z, method="raw", metric="euclidean", k=5).score(q)
    assert np.allclose(made.fit(z).score_samples(q), wanted)
    search = GridSearchCV(
        Pipeline([("scale", StandardScaler()), ("detector", AnomalyDetector(Recipe(metric="euclidean")))]),
        {"detector__recipe__k": [1, 3, 7]},
        scoring=lambda pipeline, x, y=None: pipeline.score_samples(x).mean(),  # the nearer, the better: k = 1
        cv=3,
        error_score="raise",
    ).fit(z)
    assert search.best_params_ == {"detector__recipe__k": 1}
    with pytest.raises(ValueError, match="the normals choose here"):
        AnomalyDetector().set_params(recipe__k=3)
    with pytest.raises(ValueError, match="unknown recipe keys"):
        AnomalyDetector("logmel-floor").set_params(recipe__q=3)


def test_recordings_come_in_a_series_or_an_array_and_not_as_one_folder(tmp_path: Path):
    pandas = pytest.importorskip("pandas")
    paths = [str(write_wav(tmp_path / f"n{i}.wav", hum(i, seconds=0.5))) for i in range(8)]
    plain = AnomalyDetector("logmel-floor").fit(paths[:6]).score_samples(paths)
    for kind in (np.array, pandas.Series, lambda each: pandas.Series(each, index=range(50, 50 + len(each)))):
        assert np.array_equal(AnomalyDetector("logmel-floor").fit(kind(paths[:6])).score_samples(kind(paths)), plain)
    for one in (tmp_path, str(tmp_path), hum(0)):
        with pytest.raises(ValueError, match="give a list of recordings"):
            AnomalyDetector("logmel-floor").fit(one)
