"""The recipe of a detector without the weights of a network, chosen from the normals.

It is a `Watch` of up to four parts, each with a Gaussian and p-values of its own, combined as a root sum of squares:

    clean        the quietest quarter of every band after the cleaning, and its mean power unless that follows the noise
    near         the quietest quarter of every band of the near microphone itself, with a lower weight beside clean
    burst        maximum over time minus the mean of every fourth band, after the cleaning: a knock
    modulation   how strongly and how fast the level of near's bands swings: bearings, teeth, blades, cavitation
    rhythm       how far the weakest beat of a machine that ticks falls short of the others: a missing stroke

The cleaning is the weighted leakage subtraction with a window as long as the room's response. The normals decide the
rest (docs/decisions.md gives reasons and figures):

    far channel   used if every normal has one and it is neither dead (`audio.checks`) nor a copy of near
    guard         nothing is subtracted if far receives the machine directly (`direct_sound_ratio`) or stands beside
                  near (`stands_beside`): no clean watch
    window        of the cleaning: as long as the shortest normal allows, 1 s from clips of 2 s on
    mean power    joins the clean watch if it follows the noise hardly more than the quietest quarter does
    rhythm        watched if nearly all normals tick
    modulation    watched otherwise, from ENOUGH normals on, from MANY on with its whole weight; of ticks, the level
                  swings with speed and room
    domains       one Gaussian over all normals, labelled or not

References: Carter et al. 1973 (smoothed coherence transform); `enhance.leakage_subtract`; `pooling`; `encoders.rhythm`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy import fft

from nearfar import audio
from nearfar.audio import Clip
from nearfar.detector.calibration import follows
from nearfar.embedding.embedder import EmbeddedClip
from nearfar.embedding.vectors import ENHANCE_RATE
from nearfar.enhance import longest_window
from nearfar.recipe import ROOT_SUM, Recipe, Watch
from nearfar.support.check import Array

MAX_DIRECT = 0.45  # above this `direct_sound_ratio`, far is taken to receive the machine itself
MAX_APART = 10  # samples: 0.6 ms, 0.2 m; within it sound reaches both microphones of a head or a phone from anywhere
BESIDE = 0.9  # share of recordings with at most that delay, from which far is taken to stand beside near
CSD_WINDOW = 2048  # samples at 16 kHz: 128 ms
MAX_DELAY = 320  # samples: 20 ms
PEAK_HALF_WIDTH = 8  # samples: 0.5 ms
SPEED_OF_SOUND = 343.0  # m/s
MAX_NEAR_DELAY = 16  # samples: 1 ms
MIN_BIN_POWER = 1e-8  # of the strongest bin's: below it a bin holds rounding errors alone
MAX_FAULTY = 0.1  # share of normals with a dead or copied far channel, above which far is not used
MAX_FOLLOWS = 0.06  # the mean power joins the clean watch while it follows the noise less than this more
TICKS, FEW = 0.4, 0.1  # the rhythm is watched if all but this share of the normals tick at least so strongly
NEAR_BESIDE_CLEAN = 0.7  # weight of the near watch beside the clean one
STEADY = 0.6  # weight of clean, near and modulation where all listen; all other weights are 1
ENOUGH, MANY = 31, 40  # normals from which on the modulation joins, and has its whole weight: fewer raise more alarms
SHRINKAGE = {"clean": 0.1, "near": 0.1, "burst": 0.3, "modulation": 0.1}


def features(clips: Sequence[Clip]) -> tuple[dict[str, Recipe], str]:
    """The recipes whose vectors `choose_system` needs, by name, and the reason for the choice of microphones.

    `clips` are the normals or an even sample of them.
    """
    if not clips:
        raise ValueError("the default recipe is chosen from normals, and there are none")
    subtract, why = _subtract_far(clips)
    recipes = {
        "near": Recipe(encoder="logmel-4096", pooling="quiet", normalize=False),
        "burst": Recipe(pooling="burst", normalize=False),
        "modulation": Recipe(encoder="modulation", normalize=False),
        "rhythm": Recipe(encoder="rhythm", normalize=False, method="as_is"),
    }
    if not subtract:
        return recipes, why
    shortest = min(clip.seconds for clip in clips)
    window = longest_window(round(shortest * ENHANCE_RATE))
    view = f"w1w_{window}"
    quiet = replace(recipes["near"], view=view)
    recipes |= {
        "quiet": quiet,
        "loud": replace(quiet, pooling="power"),
        "mean": Recipe(view=view, pooling="power", normalize=False),
        "burst": replace(recipes["burst"], view=view),
    }
    why += f" The window is {window / ENHANCE_RATE:.2g} s, as the shortest recording lasts {shortest:.3g} s."
    return recipes, why


def choose_system(
    features: Mapping[str, Recipe], normals: Sequence[EmbeddedClip], why: str
) -> tuple[Watch, str, list[EmbeddedClip]]:
    """The default system, a paragraph for the user, and the normals with a vector per leaf of the system.

    `normals` have a vector for each of `features`, in their order; `why` is the reason of `features`.
    """
    names = list(features)
    x = {name: np.stack([clip.vectors[i] for clip in normals]) for i, name in enumerate(names)} if normals else {}
    watches: dict[str, list[str]] = {"near": ["near"], "burst": ["burst"]}
    if "quiet" in features:
        noise = np.stack([clip.features.noise for clip in normals if clip.features])
        steady = len(normals) < 2 or follows(x["loud"], noise) - follows(x["quiet"], noise) < MAX_FOLLOWS
        watches = {"clean": ["quiet", "mean"] if steady else ["quiet"], **watches}
    if normals and np.quantile(x["rhythm"][:, 0], FEW) >= TICKS:
        watches["rhythm"] = ["rhythm"]
    elif len(normals) >= ENOUGH:
        watches["modulation"] = ["modulation"]
    weights = {"clean": 1.0, "near": NEAR_BESIDE_CLEAN if "clean" in watches else 1.0, "modulation": 0.0}
    share = min(1.0, (len(normals) - ENOUGH + 1) / (MANY - ENOUGH + 1)) if "modulation" in watches else 0.0
    weights = {name: (1 - share) * weight + share * STEADY for name, weight in weights.items()}
    parts = []
    for name, vectors in watches.items():
        first, *plus = (features[each] for each in vectors)
        recipe = replace(first, plus=tuple(plus))
        if name in SHRINKAGE:
            recipe = replace(
                recipe, method="mahalanobis", shrinkage=SHRINKAGE[name], standardize=True, ignore_domains=True
            )
        parts.append((name, weights.get(name, 1.0), recipe))
    chosen = [[names.index(each) for each in vectors] for vectors in watches.values()]
    kept = [replace(c, vectors=[np.concatenate([c.vectors[i] for i in each]) for each in chosen]) for c in normals]
    return Watch(tuple(parts), ROOT_SUM), f"{why} {_listens_for(watches)}", kept


def direct_sound_ratio(peaks: Sequence[tuple[float, int]]) -> float:
    """Median energy ratio in [0, 1] of the `coherent_peak` of every recording.

    A recording whose sound reaches far more than `MAX_NEAR_DELAY` before near counts as 0.
    """
    return float(np.median([0.0 if delay > MAX_NEAR_DELAY else ratio for ratio, delay in peaks]))


def stands_beside(peaks: Sequence[tuple[float, int]]) -> bool:
    """Whether far stands beside near, by the `coherent_peak` of every recording: it is early whatever sounds."""
    return float(np.mean([abs(delay) <= MAX_APART for _, delay in peaks])) >= BESIDE


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
    found = [p for clip in clips for p in audio.problems(clip)]
    dead = [p.kind for p in found if p.fatal and p.channel == "far"]  # silent, stuck, saturated
    if len(dead) > MAX_FAULTY * count:
        kinds = " or ".join(sorted(set(dead)))
        return False, f"The far microphone is {kinds} in {len(dead)} of {count} recordings, {near_only}"
    same = sum(p.kind == "one_cable" for p in found)
    if same > MAX_FAULTY * count:
        return False, f"Near and far carry the same signal in {same} of {count} recordings, {near_only}"
    pairs = [(clip.near, clip.far) for clip in (clip.at(ENHANCE_RATE) for clip in clips)]
    peaks = [coherent_peak(near, far) for near, far in pairs if far is not None]
    ratio = direct_sound_ratio(peaks)
    direct = f"{ratio:.0%} of what the two microphones have in common is one direct sound that near hears first"
    if ratio > MAX_DIRECT:
        return False, (
            f"The far microphone hears the machine itself: {direct} (limit {MAX_DIRECT:.0%}). Subtracting would cancel"
            f" the machine, {near_only} A far microphone further from the machine would help."
        )
    if stands_beside(peaks):
        return False, (
            f"The far microphone stands within {100 * MAX_APART * SPEED_OF_SOUND / ENHANCE_RATE:.0f} cm of the near"
            " one: every sound reaches both at nearly the same time. Subtracting would cancel the machine,"
            f" {near_only} A far microphone further from the machine would help."
        )
    return True, (
        "Both microphones are used: what far hears of the surroundings is subtracted from near. Far hears the room more"
        f" than the machine: {direct} (limit {MAX_DIRECT:.0%})."
    )


def _listens_for(watches: Mapping[str, Sequence[str]]) -> str:
    steady = "a change of the steady sound"
    if "rhythm" in watches:
        return f"It listens for {steady}, knocks, and missing strokes, because the machine ticks."
    if "modulation" in watches:
        return f"It listens for {steady} and of how its level swings, and for knocks."
    return (
        f"It listens for {steady} and knocks; with {ENOUGH} normals or more, also for a change of how its level swings."
    )
