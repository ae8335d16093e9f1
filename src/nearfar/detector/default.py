"""The recipe of a detector without the weights of a network, chosen from the normals.

It is a `Watch` of two parts on log-mel spectra with half of the false-alarm budget each:

    steady     25 % quantile and mean power of every band: a changed tone, hiss, load
    transient  maximum over time minus the mean of every band: a knock

The rarer of the two p-values decides. The normals decide the rest (docs/decisions.md gives reasons and figures):

    far channel   used if every normal has one and it is neither dead (`microphones`) nor a copy of near
    window        of the leakage subtraction: the longest that the shortest normal allows, at best as long as the room's
                  response; the inside of the subtracted wave is used (`w1i_*`)
    guard         nothing is subtracted if far receives the machine directly (`direct_sound_ratio`)
    domains       one Gaussian over all normals, labelled or not
    shrinkage     less with fewer normals than features

References: Carter et al. 1973 (smoothed coherence transform); `enhance.leakage_subtract`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import fft

from nearfar.audio import Clip, microphones
from nearfar.embedding.vectors import ENHANCE_RATE
from nearfar.enhance import longest_window
from nearfar.recipe import Recipe, System, Watch
from nearfar.support.check import Array

MAX_DIRECT = 0.45  # above this `direct_sound_ratio`, far is taken to receive the machine itself
CSD_WINDOW = 2048  # samples at 16 kHz: 128 ms
MAX_DELAY = 320  # samples: 20 ms
PEAK_HALF_WIDTH = 8  # samples: 0.5 ms
MAX_NEAR_DELAY = 16  # samples: 1 ms
MIN_BIN_POWER = 1e-8  # of the strongest bin's: below it a bin holds rounding errors alone
MAX_FAULTY = 0.1  # share of normals with a dead or copied far channel, above which far is not used
FEATURES = 256  # of the steady part; fewer normals than features need less shrinkage
LONGEST_TRANSIENT = 8192  # half a second: a longer window smears a knock


def choose_recipe(clips: Sequence[Clip], count: int | None = None) -> tuple[System, str]:
    """The default system for some normals, and a paragraph for the user: the choice and its reasons.

    `clips` are the normals or an even sample of them, `count` the number of all normals (None: of `clips`).
    """
    if not clips:
        raise ValueError("the default recipe is chosen from normals, and there are none")
    few = (len(clips) if count is None else count) < FEATURES
    window = longest_window(min(round(clip.seconds * ENHANCE_RATE) for clip in clips))
    steady, transient = f"w1i_{window}", f"w1i_{min(window, LONGEST_TRANSIENT)}"
    subtract, why = _subtract_far(clips)
    if subtract:
        shortest = min(clip.seconds for clip in clips)
        why += f" The window is {window / ENHANCE_RATE:.2g} s, as the shortest recording lasts {shortest:.3g} s."
    else:
        steady = transient = "near_only"
    why += " Two watches share the false-alarm budget equally: one for steady changes of the sound, one for knocks."
    if few:
        why += f" The watch for steady changes is set for few normal recordings (fewer than {FEATURES})."
    parts = (
        ("steady", 0.5, _gaussian(steady, "quantile", 0.03 if few else 0.1)),
        ("transient", 0.5, _gaussian(transient, "peak", 0.1)),
    )
    return Watch(parts), why


def direct_sound_ratio(near: Array, far: Array) -> float:
    """Energy ratio in [0, 1] of `coherent_peak`; 0 if the sound reaches far more than `MAX_NEAR_DELAY` before near."""
    ratio, delay = coherent_peak(near, far)
    return 0.0 if delay > MAX_NEAR_DELAY else ratio


def coherent_peak(near: Array, far: Array) -> tuple[float, int]:
    """The highest peak of the smoothed coherence transform of near and far (N,): (energy ratio, delay).

    ratio   energy within `PEAK_HALF_WIDTH` of the peak / energy of the whole response, in [0, 1]
    delay   samples by which near follows far, at most `MAX_DELAY` either way
    """
    from scipy import signal  # slow to import, and only needed where a default is chosen

    near, far = near.astype(np.float64), far.astype(np.float64)
    length = min(CSD_WINDOW, len(near))
    cross = signal.csd(far, near, nperseg=length)[1]
    power = [signal.csd(x, x, nperseg=length)[1].real for x in (near, far)]
    loud = np.all([p > MIN_BIN_POWER * p.max() for p in power], axis=0)
    if not loud.any():
        return 0.0, 0
    response = fft.irfft(np.where(loud, cross / np.sqrt(np.where(loud, power[0] * power[1], 1)), 0))
    centre = len(response) // 2
    energy = np.roll(response**2, centre)
    furthest = min(MAX_DELAY, centre - PEAK_HALF_WIDTH - 1)
    peak = centre - furthest + int(np.argmax(energy[centre - furthest : centre + furthest + 1]))
    around = energy[peak - PEAK_HALF_WIDTH : peak + PEAK_HALF_WIDTH + 1]
    return float(around.sum() / energy.sum()), peak - centre


def _subtract_far(clips: Sequence[Clip]) -> tuple[bool, str]:
    """Whether to subtract the far channel, and the reason in words."""
    near_only = "so the near microphone is used alone."
    count, mono = len(clips), sum(clip.far is None for clip in clips)
    if mono:
        which = f"{mono} of {count} recordings {'has' if mono == 1 else 'have'}"
        return False, f"{which if mono < count else 'Every recording has'} one channel, {near_only}"
    found = [p for clip in clips for p in microphones.problems(clip.near, clip.far, clip.rate)]
    dead = [p.kind for p in found if p.fatal and p.channel == "far"]  # silent, stuck, saturated
    if len(dead) > MAX_FAULTY * count:
        kinds = " or ".join(sorted(set(dead)))
        return False, f"The far microphone is {kinds} in {len(dead)} of {count} recordings, {near_only}"
    same = sum(p.kind == "one_cable" for p in found)
    if same > MAX_FAULTY * count:
        return False, f"Near and far carry the same signal in {same} of {count} recordings, {near_only}"
    pairs = [(clip.near, clip.far) for clip in (clip.at(ENHANCE_RATE) for clip in clips)]
    ratio = float(np.median([direct_sound_ratio(near, far) for near, far in pairs if far is not None]))
    direct = f"{ratio:.0%} of what the two microphones have in common is one direct sound that near hears first"
    if ratio > MAX_DIRECT:
        return False, (
            f"The far microphone hears the machine itself: {direct} (limit {MAX_DIRECT:.0%}). Subtracting would cancel"
            f" the machine, {near_only} A far microphone further from the machine would help."
        )
    return True, (
        "Both microphones are used: what far hears of the surroundings is subtracted from near. Far hears the room more"
        f" than the machine: {direct} (limit {MAX_DIRECT:.0%})."
    )


def _gaussian(view: str, pooling: str, shrinkage: float) -> Recipe:
    return Recipe(
        view=view,
        pooling=pooling,
        method="mahalanobis",
        shrinkage=shrinkage,
        standardize=True,
        ignore_domains=True,
        normalize=False,
    )
