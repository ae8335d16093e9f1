"""Sessions from file names, folders and times: many forms of names, and names that tell nothing."""

from __future__ import annotations

import os
import random
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearfar.audio.sessions import extended, sessions

FORMS = [
    "{:%Y%m%d_%H%M%S}",
    "{:%Y%m%d-%H%M%S}",
    "{:%Y%m%dT%H%M%S}",
    "{:%Y%m%dT%H%M%SZ}",
    "{:%Y%m%d%H%M%S}",
    "pump3_{:%Y%m%d_%H%M}_ch2",
    "{:%Y-%m-%d_%H-%M-%S}",
    "{:%Y-%m-%d %H.%M.%S}",
    "{:%Y-%m-%dT%H:%M:%S}",
    "{:%Y-%m-%dT%H-%M-%S.250}",
    "{:%Y_%m_%d_%H_%M_%S}",
    "Recording {:%Y-%m-%d at %H.%M.%S}",
    "{:%Y-%m-%d, %Hh%Mm%Ss}",
    "{:%d.%m.%Y %H-%M}",
    "{:%d-%m-%Y_%H%M%S}",
    "{:%y%m%d_%H%M%S}",
    "{:%Y-%m-%d}/{:%H-%M-%S}",
    "{:%Y/%m/%d}/{:%H%M%S}",
    "{:%Y%m%d}/motor_{:%H-%M-%S}_near",
    "rec {:%Y%m%d_%H%M%S}123",
]
FIRST = datetime(2026, 3, 1, 14, 5, 33)
WANT = ["2026-03-01 14h"] * 3 + ["2026-03-01 20h"] * 2 + ["2026-03-13 06h"]
TIMES = [FIRST + timedelta(minutes=m) for m in (0, 50, 100, 360, 365)] + [datetime(2026, 3, 13, 6, 0, 1)]


@pytest.mark.parametrize("form", FORMS)
def test_times_in_names(form):
    assert sessions([f"/data/{form.format(t, t)}.wav" for t in TIMES]) == WANT


def test_seconds_since_1970():
    names = [f"/data/rec_{t.timestamp() * unit:.0f}.wav" for t, unit in zip(TIMES, (1, 1000, 1, 1, 1, 1), strict=True)]
    assert sessions(names) == WANT


@pytest.mark.parametrize(
    "form", ["{:%Y-%m-%d}", "{:%Y%m%d}_AB", "rec {:%d.%m.%Y}", "{:%Y%m%d}_{n:04}", "{:%Y%m%d}/{n:04}"]
)
@pytest.mark.parametrize("count", [20, 70])
def test_days_in_names_and_files_that_are_counted(form, count):
    days = [datetime(2026, 3, 1 + i // 10) for i in range(count)]
    names = [form.format(day, n=i) + (f" {i:03}" if "n" not in form else "") for i, day in enumerate(days)]
    assert sessions([f"/data/{n}.wav" for n in names]) == [f"{day:%Y-%m-%d}" for day in days]


def test_folders_below_the_common_one():
    files = [
        "/d/pump/train/day 1/a.wav",
        "/d/pump/train/day 1/b.wav",
        "/d/pump/train/day 2/x/c.wav",
        "/d/pump/train/e.wav",
    ]
    assert sessions(files) == ["day 1", "day 1", "day 2/x", ""]
    assert sessions(["/d/monday/normal/1.wav", "/d/monday/normal/2.wav", "/d/friday/normal/1.wav"]) == [
        "monday",
        "monday",
        "friday",
    ]
    assert sessions(["/d/A/20260301_1400.wav", "/d/A/20260301_1900.wav", "/d/B/20260301_1401.wav"]) == [
        "A 2026-03-01 14h",
        "A 2026-03-01 19h",
        "B 2026-03-01 14h",
    ]


def test_a_date_and_none():
    assert sessions(["/d/20260301_1400.wav", "/d/old.wav", ""]) == ["2026-03-01 14h", "", ""]


@pytest.mark.parametrize(
    "names",
    [
        [],
        [""] * 3,
        ["/d/a.wav"],
        [f"/d/section_00_source_train_normal_{i:04}_thr_{20 + 10 * (i % 4)}_spd_{i % 5}.wav" for i in range(99)],
        [f"/d/normal_id_00_{i:08}.wav" for i in range(1200, 1300)],
        [f"/d/clip_thr_40_{i}.wav" for i in range(9)],
        [f"/d/{i:06}.wav" for i in range(130000, 130100)],
        [f"/d/20260301_{140000 + i}.wav" for i in range(59)],  # one hour
        [f"/d/20260301/{i}.wav" for i in range(9)],
        [f"/d/{split}/{i}.wav" for i in range(4) for split in ("train", "test")],
        [f"/d/take {i}/near.wav" for i in range(9)],  # a folder for every file
        [f"/d/model 20261345 {i}.wav" for i in range(9)],  # no such day
        [f"/d/serial 4711-{2000 + i}-12.wav" for i in range(9)],
    ],
)
def test_names_that_tell_no_session(names):
    assert sessions(names) == [""] * len(names)


def written(folder, names, minutes):
    paths = []
    for name, minute in zip(names, minutes, strict=True):
        path = folder / name
        path.touch()
        at = (FIRST + timedelta(minutes=minute)).timestamp()
        os.utime(path, (at, at))
        paths.append(str(path))
    return paths


def test_times_at_which_files_were_written(tmp_path):
    paths = written(tmp_path, [f"{i}.wav" for i in range(6)], [0, 5, 50, 360, 365, 1000])
    assert sessions([*paths, str(tmp_path / "gone.wav"), ""]) == (
        ["2026-03-01 14h"] * 3 + ["2026-03-01 20h"] * 2 + ["2026-03-02 06h", "", ""]
    )
    assert sessions(paths[:3]) == [""] * 3  # a copy
    pieces = [paths[0]] * 4 + [paths[4]] * 2
    assert sessions(pieces) == ["2026-03-01 14h"] * 4 + ["2026-03-01 20h"] * 2


def test_times_of_the_challenge_s_files_are_those_of_its_making(tmp_path):
    names = [f"section_00_source_train_normal_{i:04}_spd_{i}.wav" for i in range(6)]
    assert sessions(written(tmp_path, names, [0, 5, 50, 360, 365, 1000])) == [""] * 6


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_a_gap_of_more_than_an_hour_starts_a_session(minutes, rng: random.Random):
    def name(m):
        return f"/d/{FIRST + timedelta(minutes=m):%Y%m%d_%H%M}.wav"

    found = dict(zip(minutes, sessions([name(m) for m in minutes]), strict=True))
    ordered = sorted(found)
    gaps = [b - a for a, b in pairwise(ordered)]
    if max(gaps, default=0) <= 60:
        assert set(found.values()) == {""}
        return
    for a, b in pairwise(ordered):
        assert (found[a] != found[b]) == (b - a > 60)
    rng.shuffle(minutes)
    assert sessions([name(m) for m in minutes]) == [found[m] for m in minutes]


def test_new_files_get_the_sessions_of_known_ones_or_new_names(tmp_path):
    days = [f"/d/2026030{day}_{hour}0500.wav" for day in (1, 2) for hour in (14, 15)]
    assert extended([], [], days) == sessions(days)
    assert extended(days[:2], ["", ""], days[2:]) == ["2026-03-01 14h"] * 2 + ["2026-03-02 14h"] * 2
    assert extended(days[1:2], ["2026-03-01 15h"], [days[0], days[2]]) == (
        ["2026-03-01 15h", "2026-03-01 15h", "2026-03-02 14h"]
    )
    assert extended(["/d/monday/1.wav", "/d/monday/2.wav"], ["", ""], ["/d/night/3.wav", "/d/night/4.wav"]) == (
        ["monday"] * 2 + ["night"] * 2
    )
    assert extended(days[:1], [""], days[1:2]) == ["", ""]
    first, second = (written(tmp_path, names, at) for names, at in ((["a", "b"], [0, 5]), (["c", "d"], [900, 905])))
    assert extended(first, ["", ""], second) == ["2026-03-01 14h"] * 2 + ["2026-03-02 05h"] * 2


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3000), min_size=2, max_size=20), st.data())
def test_adding_files_in_two_steps_tells_the_same_sessions_as_all_at_once(minutes, data):
    paths = [f"/d/{FIRST + timedelta(minutes=m):%Y%m%d_%H%M}.wav" for m in sorted(minutes)]
    cut = data.draw(st.integers(1, len(paths) - 1))
    both = extended(paths[:cut], sessions(paths[:cut]), paths[cut:])
    assert both == sessions(paths)
