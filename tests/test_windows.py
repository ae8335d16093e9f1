"""Windows: every sample once per hop, never across a gap; and the last minute of a stream."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearfar.live.sources.windows import LARGEST_DRIFT_S, RingBuffer, SampleBlock, SampleClock, Window, Windower

RATE = 100


def blocks(sizes, gaps=()):
    """Blocks of a stream whose samples are their own numbers; after a gap 1000 samples are missing."""
    at, out = 0, []
    for i, size in enumerate(sizes):
        at += 1000 if i in gaps else 0
        out.append(SampleBlock(at / RATE, np.arange(at, at + size, dtype=np.float32)[None], RATE, i in gaps))
        at += size
    return out


@given(st.lists(st.integers(1, 90), min_size=1, max_size=60), st.sets(st.integers(1, 59)), st.integers(10, 100))
def test_windows_are_whole_evenly_spaced_and_never_span_a_gap(sizes, gaps, size):
    hop = max(1, size // 2)
    windower = Windower(size / RATE, hop / RATE)
    stream = blocks(sizes, gaps)
    got = [w for b in stream for w in windower.put(b)]
    want = []  # brute force: of every unbroken run, windows at each hop
    runs, start = [], 0
    for i in range(1, len(stream) + 1):
        if i == len(stream) or stream[i].gap:
            runs.append(np.concatenate([b.samples[0] for b in stream[start:i]]))
            start = i
    for run in runs:
        want += [run[a : a + size] for a in range(0, len(run) - size + 1, hop)]
    assert len(got) == len(want)
    for window, samples in zip(got, want, strict=True):
        assert np.array_equal(window.samples[0], samples)
        assert window.t0 == pytest.approx(samples[0] / RATE)


def test_the_window_after_a_gap_says_so():
    windower = Windower(1.0, 0.5)
    got = [w for b in blocks([120, 130, 200], {1}) for w in windower.put(b)]
    assert [w.gap for w in got] == [False, True, False, False, False, False]


def test_a_gap_that_the_clock_does_not_show_is_a_gap_all_the_same():
    windower, buffer = Windower(1.0, 0.5), RingBuffer(60.0)
    samples = np.arange(400, dtype=np.float32)[None]
    got = list(windower.put(SampleBlock(0.0, samples[:, :170], RATE)))
    got += windower.put(SampleBlock(1.7, samples[:, 170:400], RATE, gap=True))
    assert [w.samples[0, 0] for w in got] == [0, 50, 170, 220, 270] and [w.gap for w in got] == [0, 0, 1, 0, 0]
    for window in got:
        buffer.add(window)
    before, after = buffer.cut(1.2, 60, 60), buffer.cut(2.5, 60, 60)
    assert np.array_equal(before.samples[0], np.arange(150)) and np.array_equal(after.samples[0], np.arange(170, 370))
    assert (before.t0, after.t0) == (0.0, 1.7)


def test_another_rate_or_number_of_channels_begins_anew():
    windower = Windower(1.0, 0.5)
    list(windower.put(SampleBlock(0.0, np.zeros((1, 60), np.float32), RATE)))
    list(windower.put(SampleBlock(0.6, np.zeros((2, 60), np.float32), RATE)))
    (window,) = windower.put(SampleBlock(1.2, np.zeros((2, 60), np.float32), RATE))
    assert window.samples.shape == (2, 100) and window.gap


@given(st.lists(st.integers(20, 60), min_size=3, max_size=80), st.sets(st.integers(1, 79), max_size=3), st.data())
def test_the_buffer_gives_back_what_was_heard_around_a_moment(sizes, gaps, data):
    windower, buffer = Windower(0.4, 0.2), RingBuffer(8.0)
    given_out = []
    for block in blocks(sizes, gaps):
        for window in windower.put(block):
            buffer.add(window)
            given_out.append(window)
    if not given_out:
        return
    window = given_out[data.draw(st.integers(max(0, len(given_out) - 30), len(given_out) - 1))]
    cut = buffer.cut(window.t0, 3.0, 1.0)
    assert cut is not None
    numbers = cut.samples[0]
    assert np.array_equal(numbers, np.arange(numbers[0], numbers[0] + len(numbers)))  # nothing glued
    assert numbers[0] == pytest.approx(cut.t0 * RATE, abs=0.01)
    assert window.t0 * RATE >= numbers[0] - 0.01 and len(numbers) <= 401
    assert buffer.cut(-50.0, 1, 1) is None


def test_the_buffer_is_bounded():
    buffer = RingBuffer(5.0)
    for i in range(200):
        buffer.add(Window(float(i), np.full((2, RATE), i, np.float32), RATE))
    assert sum(p.samples.nbytes for _, p in buffer._pieces) <= 6 * 2 * RATE * 4


def test_the_timeline_follows_the_samples_and_gently_the_clock():
    now = [0.0]
    line = SampleClock(lambda: now[0], RATE)
    stamps = []
    for i in range(20_000):  # the sound card runs 100 ppm slow: an hour and a half
        now[0] = (i + 1) * 0.25 * (1 + 1e-4)
        stamps.append(line.stamp(25))
    assert abs(stamps[-1] + 0.25 - now[0]) < 0.05
    assert np.abs(np.diff(stamps) - 0.25).max() < 1e-3
    now[0] += LARGEST_DRIFT_S + 1
    before = stamps[-1]
    assert line.stamp(25) == pytest.approx(before + 0.25, abs=1e-3)  # a backlog: the sound is as old as it is
    assert line.stamp(25, gap=True) == pytest.approx(now[0] - 0.25)


@pytest.mark.parametrize("step", [-3600.0, 30.0, 8 * 3600.0])
def test_the_timeline_is_told_anew_when_the_clock_was_set(step):
    now, stamps = [0.0], []
    line = SampleClock(lambda: now[0], RATE)
    for i in range(1200):
        now[0] = 0.25 * (i + 1) + (step if i >= 400 else 0.0)
        stamps.append(line.stamp(RATE // 4))
    jumps = np.diff(stamps) - 0.25
    assert stamps[-1] + 0.25 == pytest.approx(now[0]) and np.count_nonzero(np.abs(jumps) > 1e-3) == 1
    assert 400 < np.argmax(np.abs(jumps)) < 1000


@pytest.mark.parametrize("speed", [0.5, 1.2, 50.0])
def test_a_file_that_is_read_faster_or_slower_than_it_was_recorded_sets_no_clock(speed):
    now, stamps = [0.0], []
    line = SampleClock(lambda: now[0], RATE)
    for i in range(8000):
        now[0] = 0.25 * (i + 1) / speed
        stamps.append(line.stamp(RATE // 4))
    assert np.abs(np.diff(stamps) - 0.25).max() < 1e-2


def test_levels_are_rms_without_offset():
    t = np.arange(RATE) / RATE
    window = Window(0.0, np.stack([0.3 + np.sin(2 * np.pi * 5 * t), 0 * t]).astype(np.float32), RATE)
    assert window.level_dbfs(0) == pytest.approx(-3.01, abs=0.01) and window.level_dbfs(1) == -140
    assert window.level_dbfs(2) is None


@pytest.mark.parametrize(("rate", "kept_s"), [(16_000, 60.0), (48_000, 60.0), (384_000, 7.5)])
def test_a_minute_in_memory_takes_no_more_at_a_high_sampling_rate(rate, kept_s):
    buffer, size = RingBuffer(60.0), rate // 8
    for i in range(560):
        buffer.add(Window(i / 8, np.zeros((2, size), np.float32), rate))
    kept = buffer.cut(560 / 8 - 0.1, 1e9, 1e9)
    assert kept.seconds == pytest.approx(kept_s, abs=0.13) and kept.samples.nbytes <= 60 * 96_000 * 4 + 8 * size
