"""The recipe of a detector without the weights of a network, chosen from the normals.

It is a `Watch` of two parts on log-mel spectra with half of the false-alarm budget each:

    steady     25 % quantile and mean power of every band: a changed tone, hiss, load
    transient  maximum over time minus the mean of every band: a knock

The rarer of the two p-values decides. The normals decide the rest (docs/decisions.md gives reasons and figures):

    far channel   used if every normal has one and it is neither dead (`microphones`) nor a copy of near
    window        of the leakage subtraction: the longest that the shortest normal allows, at best as long as the room's
                  response; the inside of the subtracted wave is used (`w1i_*`)
    guard         nothing is subtracted if far receives the machine directly (`direct_share`)
    domains       one Gaussian over all normals, labelled or not
    shrinkage     less with fewer normals than features

References: Carter et al. 1973 (smoothed coherence transform); `enhance.leakage_subtract`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import fft

from nearfar.audio import Clip, microphones
from nearfar.embedding.vectors import ENHANCE_RATE
from nearfar.enhance import longest_window
from nearfar.recipe import Recipe, System, Watch
from nearfar.support.check import Array

DIRECT = 0.45  # share of one sharp sound in what the microphones have in common, above which far hears the machine
WINDOW = 2048  # samples at 16 kHz: 128 ms
REACH = 320  # samples: delays up to 20 ms
WIDTH = 8  # samples: +-0.5 ms around a delay
LATE = 16  # samples: 1 ms
QUIET_BIN = 1e-8  # of the strongest bin's power: below it a bin holds rounding, not sound
FAULTY = 0.1  # share of normals with a dead or copied far channel that makes it unusable
FEATURES = 256  # of the steady part; fewer normals than that are few
LONGEST_TRANSIENT = 8192  # half a second: a longer window smears a knock


def choose(clips: Sequence[Clip], count: int | None = None) -> tuple[System, str]:
    """The default system for these normals, and one paragraph in plain words that says what was chosen and why.

    `clips` are the normals or an even sample of them, `count` is how many normals there are in all (those given).
    """
    if not clips:
        raise ValueError("the default is chosen by listening to normals, and there are none")
    few = (len(clips) if count is None else count) < FEATURES
    window = longest_window(min(round(clip.seconds * ENHANCE_RATE) for clip in clips))
    steady, transient = f"w1i_{window}", f"w1i_{min(window, LONGEST_TRANSIENT)}"
    subtract, why = _far(clips)
    if subtract:
        shortest = min(clip.seconds for clip in clips)
        why += f" The window is {window / ENHANCE_RATE:.2g} s, as the shortest recording lasts {shortest:.3g} s."
    else:
        steady = transient = "near_only"
    why += " Two watches share the false-alarm budget equally: one for steady changes of the sound, one for knocks."
    if few:
        why += f" The watch for steady changes is set for few normal recordings (fewer than {FEATURES})."
    parts = ("steady", 0.5, _steady(steady, few)), ("transient", 0.5, _recipe(transient, "peak", 0.1))
    return Watch(parts), why


def direct_share(near: Array, far: Array) -> float:
    """Share in [0, 1] of one sharp sound in what near and far (N,) have in common; 0 if far hears it first."""
    share, late = sharpest(near, far)
    return 0.0 if late > LATE else share


def sharpest(near: Array, far: Array) -> tuple[float, int]:
    """The sharpest sound that near and far (N,) have in common: its share in [0, 1], and samples that near is later."""
    from scipy import signal  # slow to import, and only needed where a default is chosen

    near, far = near.astype(np.float64), far.astype(np.float64)
    length = min(WINDOW, len(near))
    cross = signal.csd(far, near, nperseg=length)[1]
    power = [signal.csd(x, x, nperseg=length)[1].real for x in (near, far)]
    heard = np.all([p > QUIET_BIN * p.max() for p in power], axis=0)
    if not heard.any():
        return 0.0, 0
    response = fft.irfft(np.where(heard, cross / np.sqrt(np.where(heard, power[0] * power[1], 1)), 0))
    centre = len(response) // 2
    energy = np.roll(response**2, centre)
    reach = min(REACH, centre - WIDTH - 1)
    top = centre - reach + int(np.argmax(energy[centre - reach : centre + reach + 1]))
    return float(energy[top - WIDTH : top + WIDTH + 1].sum() / energy.sum()), top - centre


def _far(clips: Sequence[Clip]) -> tuple[bool, str]:
    """Whether to subtract what far hears, and why."""
    near_only = "so the near microphone is used alone."
    count, mono = len(clips), sum(clip.far is None for clip in clips)
    if mono:
        which = f"{mono} of {count} recordings {'has' if mono == 1 else 'have'}"
        return False, f"{which if mono < count else 'What is heard has'} one channel, {near_only}"
    found = [p for clip in clips for p in microphones.problems(clip.near, clip.far, clip.rate)]
    dead = [p.kind for p in found if p.fatal and p.channel == "far"]  # silent, stuck, saturated
    if len(dead) > FAULTY * count:
        kinds = " or ".join(sorted(set(dead)))
        return False, f"The far microphone is {kinds} in {len(dead)} of {count} recordings, {near_only}"
    same = sum(p.kind == "one_cable" for p in found)
    if same > FAULTY * count:
        return False, f"Near and far carry the same signal in {same} of {count} recordings, {near_only}"
    pairs = [(clip.near, clip.far) for clip in (clip.at(ENHANCE_RATE) for clip in clips)]
    share = float(np.median([direct_share(near, far) for near, far in pairs if far is not None]))
    direct = f"{share:.0%} of what the two microphones have in common is one direct sound that near hears first"
    if share > DIRECT:
        return False, (
            f"The far microphone hears the machine itself: {direct} (limit {DIRECT:.0%}). Subtracting would cancel the"
            f" machine, {near_only} A far microphone further from the machine would help."
        )
    return True, (
        "Both microphones are used: what far hears of the surroundings is subtracted from near. Far hears the room more"
        f" than the machine: {direct} (limit {DIRECT:.0%})."
    )


def _steady(view: str, few: bool) -> Recipe:
    return _recipe(view, "quantile", 0.03 if few else 0.1)


def _recipe(view: str, pooling: str, shrinkage: float) -> Recipe:
    gaussian: dict[str, Any] = {
        "method": "mahalanobis",
        "standardize": True,
        "ignore_domains": True,
        "normalize": False,
    }
    return Recipe(view=view, pooling=pooling, shrinkage=shrinkage, **gaussian)
