"""Frame preprocessing (report 2.5)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import oracles
from nearfar.frames import suppress
from nearfar.recipe import SPACE

frames_of = arrays(np.float64, (3, 4), elements=st.floats(-2, 2))


@settings(max_examples=40, deadline=None)
@given(frames_of, st.sampled_from(SPACE["preprocessing"]))
def test_the_six_configurations_are_the_report_s_rule(x, pair):
    np.testing.assert_array_equal(suppress(x, *pair), oracles.suppress(x, *pair))


def test_the_thresholds_themselves_are_kept():
    x = np.array([[0.15, 0.3, 0.1, -0.2]])
    np.testing.assert_allclose(suppress(x, 0.15, 0.3), [[0.15, 0.3, 0, 0]])


def test_negatives_vanish_as_soon_as_low_is_set_and_stay_otherwise():
    x = np.array([[-0.5, 0.5]])
    assert suppress(x, low=0.1)[0, 0] == 0
    assert suppress(x, spike=0.2)[0, 0] == -0.5


def test_it_is_not_monotone_just_above_the_spike_threshold():
    below, above, back = suppress(np.array([[0.2999, 0.3001, 0.3096]]), spike=0.3)[0]
    assert above < below < back
    assert suppress(np.array([[50.0]]), spike=0.3) == pytest.approx(1)


def test_the_continuous_reading_does_not_jump_and_the_symmetric_one_knows_no_sign():
    below, above = suppress(np.array([[0.3, 0.3 + 1e-9]]), spike=0.3, continuous=True)[0]
    assert 0 < above - below < 2e-9
    x = np.array([[-0.5, 0.5, -0.05, 0.05]])
    np.testing.assert_allclose(suppress(x, 0.1, 0.3, symmetric=True), [[-np.tanh(0.5), np.tanh(0.5), 0, 0]])
    edge = 0.3 + np.tanh(0.2)
    np.testing.assert_allclose(suppress(x[:, :2], spike=0.3, symmetric=True, continuous=True), [[-edge, edge]])


def test_nothing_set_changes_nothing_and_gives_a_new_array():
    x = np.ones((2, 3), np.float32)
    out = suppress(x)
    assert out is not x and out.dtype == np.float32
    np.testing.assert_array_equal(out, x)
