"""The road of one recording from path to score stays short: named calls, files, changes of file, and no thread."""

import sys
import threading
from itertools import pairwise
from pathlib import Path

import nearfar
from conftest import hum, write_wav
from nearfar.recipe import Recipe

PACKAGE = Path(nearfar.__file__).parent
CALLS = 95
FILES = 12
CHANGES = 20


def test_one_clip_takes_a_short_road_from_path_to_score(normals, tmp_path):
    detector = nearfar.Detector(Recipe(view="n_0.5f", pooling="rdp", method="ldn"), threads=1).fit(normals)
    path = write_wav(tmp_path / "a.wav", hum(1))
    wanted = detector.score([path])
    steps: list[str] = []
    threads = set()

    def count(frame, event, argument):
        code = frame.f_code
        file = Path(code.co_filename)
        if event == "call" and PACKAGE in file.parents and not code.co_name.startswith("<"):
            steps.append(code.co_filename)
            threads.add(threading.get_ident())

    threading.setprofile(count)
    sys.setprofile(count)
    try:
        scores = list(detector.score_file(path))
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    assert scores == wanted and threads == {threading.get_ident()}
    assert len(steps) <= CALLS
    assert len(set(steps)) <= FILES
    assert sum(a != b for a, b in pairwise(steps)) <= CHANGES


def test_a_clip_in_memory_takes_the_same_road_as_its_file(normals, tmp_path):
    detector = nearfar.Detector(Recipe(view="n_f")).fit(normals)
    path = write_wav(tmp_path / "a.wav", hum(1), "FLOAT")
    assert [detector.score_clip(clip) for clip in detector.embedder.clips(path)] == list(detector.score_file(path))
