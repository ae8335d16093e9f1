"""What the normals show: vectors that do not vary, two groups, too few.

    check_vectors   ValueError where an encoder hears no difference between recordings that differ
    exchanged       recordings whose near and far are the reverse of the others'
    splits          two groups of recordings, by rate, channels, length, codec, level or sound, that may not belong
                    together
    too_few         a sentence where the normals are so few that no set-point keeps a promise

Two groups have at least LEAST_SHARE of the recordings and LEAST_COUNT each. By sound, Ward's method cuts the recordings
in two by the levels of their bands, each recording's mean over bands taken off:

    two microphones   by near minus far; the same two groups must lie apart in far too, because a machine that changes
                      its speed changes near, and another place or machine changes what far hears and their difference
    one microphone    by near, in groups of SMOOTH neighbouring bands; the same two groups must lie apart in the upper
                      half of the bands too, which a change of speed moves less

They lie apart if the root mean square difference of their means is at least LEAST_DB, and if along the line between the
means the gap between the groups is at least LEAST_GAP standard deviations within them. docs/decisions.md has the rates
on machines with several speeds and on pairs of machines.

Conventions
    near, far (N, D)   dB, mean level of each band of each recording; far is None where there is one microphone
    members (N,)       bool, True for the smaller of two groups

References: Ward 1963, "Hierarchical grouping to optimize an objective function".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nearfar.audio import LONG_S, WINDOW_S
from nearfar.audio.checks import LEVEL_DB, UsualSetup, stored
from nearfar.embedding.embedder import EmbeddedClip
from nearfar.embedding.facts import BandLevels
from nearfar.encoders import TABLE
from nearfar.encoders.loading import with_weights
from nearfar.recipe import Recipe
from nearfar.support.arrays import namespace
from nearfar.support.check import Array
from nearfar.support.words import plural, shown

SAME_VECTOR = 1e-5  # vectors that differ by less than this share of the largest feature are one vector
SAME_DB = 1e-3  # recordings whose bands all differ by less are one sound
TOO_FEW = 6  # normals: fewer can promise nothing
LEAST_SHARE, LEAST_COUNT = 0.1, 3  # of a group
LEAST_DB, LEAST_GAP, SMOOTH = 1.8, 3.5, 16
MOST = 2000  # recordings that are clustered at once
LONGER = 1.5  # lengths on both sides of a larger ratio are two groups
NAMED = 3  # files of a group that a sentence names
ASK = {
    "rate": "another recorder or setting?",
    "channels": "another recorder or setting?",
    "length": "another setting, or cut off?",
    "codec": "converted by another program?",
    "level": "another gain, or samples in another scale?",
    "sound": "another machine, or was a microphone moved?",
    "name": "another machine?",
}


@dataclass(frozen=True)
class Split:
    """Two groups of recordings that may not belong together.

    kind      "rate" | "channels" | "length" | "codec" | "level" | "sound"
    members   (N,) bool, True for the smaller group
    values    what the larger and the smaller group have, in words; empty by sound
    """

    kind: str
    members: Array
    values: tuple[str, str] = ("", "")

    def is_same(self, other: Array) -> bool:
        """Whether these are the two groups of `other` (N,) bool, or of its opposite."""
        return bool((self.members == other).all() or (self.members != other).all())

    def files(self, names: Sequence[str]) -> tuple[list[str], list[str]]:
        """Those of `names` (N,) in the larger and in the smaller group, each once."""
        pairs = list(zip(names, self.members, strict=True))
        larger, smaller = ([name for name, member in pairs if member == group] for group in (False, True))
        return list(dict.fromkeys(larger)), list(dict.fromkeys(smaller))

    def text(self, names: Sequence[str]) -> str:
        """The groups and the question in one sentence; `names` (N,) of the recordings."""
        groups = [
            f"{plural(len(files), 'recording')}{f' of {value}' if value else ''} ({_some(files)})"
            for files, value in zip(self.files(names), self.values, strict=True)
        ]
        return f"the normals fall into two groups by {self.kind}, {groups[0]} and {groups[1]}: {ASK[self.kind]}"


def splits(
    rates: Sequence[int],
    channels: Sequence[int],
    seconds: Sequence[float],
    near: Array,
    far: Array | None,
    codecs: Sequence[str] = (),
) -> list[Split]:
    """The two groups that N recordings fall into, by each kind that shows any; by level and sound only other ones.

    rates, channels, seconds, codecs   (N,) of the recordings
    near, far                          (N, D) see the module
    """
    lengths = np.array([s if s <= LONG_S else WINDOW_S for s in seconds])  # long ones are cut into windows
    found = [
        _by_value("rate", [f"{rate:,} Hz" for rate in rates]),
        _by_value("channels", [plural(count, "channel") for count in channels]),
        _by_length(lengths),
        _by_value("codec", [stored(codec) for codec in codecs]),
    ]
    known = [split for split in found if split is not None]
    members = by_sound(near, far)
    for split in (_by_level(near.mean(axis=1)), None if members is None else Split("sound", members)):
        if split is not None and not any(other.is_same(split.members) for other in known):
            known.append(split)
    return known


def by_sound(near: Array, far: Array | None) -> Array | None:
    """The smaller (N,) of two groups by sound, or None; see the module."""
    if len(near) < 2 * LEAST_COUNT:
        return None
    near = near - near.mean(axis=1, keepdims=True)
    if far is None:
        cut = near[:, : near.shape[1] // SMOOTH * SMOOTH].reshape(len(near), -1, SMOOTH).mean(axis=2)
        upper = near[:, near.shape[1] // 2 :]
        apart = [near, upper - upper.mean(axis=1, keepdims=True)]
    else:
        far = far - far.mean(axis=1, keepdims=True)
        cut, apart = near - far, [near - far, far]
    members = _smaller(_halves(cut))
    return members if _enough(members) and all(_apart(x, members) for x in apart) else None


def remarks(clips: Sequence[EmbeddedClip], is_target: Array) -> list[str]:
    """What to say of clips that were embedded as normals, is_target (N,): two groups that are not the two domains."""
    levels = [clip.levels for clip in clips]
    if not clips or not all(each.sums for each in levels):
        return []
    near, far = band_means(levels)
    facts = [c.rate for c in clips], [len(e.sums) for e in levels], [c.origin.seconds for c in clips]
    found = splits(*facts, near, far, [c.codec for c in clips])
    names = [_name(clip) for clip in clips]
    fit_each = "If they do not belong together, fit each group for itself (nearfar doctor lists the files)."
    return [f"{split.text(names)} {fit_each}" for split in found if not split.is_same(is_target)]


def exchanged(clips: Sequence[EmbeddedClip], setup: UsualSetup) -> list[str]:
    """A sentence if near and far of some clips are the reverse of most normals', as `setup` tells."""
    names = [_name(clip) for clip in clips if clip.setup.size and setup.exchanged(clip.setup)]
    if not names:
        return []
    many, listed = plural(len(names), "normal"), _some(list(dict.fromkeys(names)))
    return [
        f"in {many} near and far seem to be exchanged, by their levels or by the order of "
        f"arrival ({listed}): swapped plugs? Exchange their channels, or leave them out (nearfar fit --without FILE)."
    ]


def band_means(levels: Sequence[BandLevels]) -> tuple[Array, Array | None]:
    """Mean levels (N, D) of the bands of N recordings at near, and at far, or None where one of them has no far."""
    near = np.stack([each.usual("near")[0] for each in levels])
    far = np.stack([each.usual("far")[0] for each in levels]) if all("far" in each.sums for each in levels) else None
    return near, far


def check_vectors(recipes: Sequence[Recipe], banks: Sequence[Array], levels: Sequence[BandLevels]) -> None:
    """ValueError if all vectors of a leaf are the same though the recordings are not: every clip would score 0.

    recipes   leaves of the system
    banks     (N, ...) vectors of the normals, per leaf
    levels    of the recordings; those without levels are ignored
    """
    usual = [each.usual("near")[0] for each in levels if each.sums]
    if len(usual) < 2 or np.ptp(np.stack(usual), axis=0).max() < SAME_DB:
        return
    for recipe, z in zip(recipes, banks, strict=True):
        if recipe.method == "as_is" or not is_flat(z):
            continue
        largest = np.abs(z).max()
        what = "the same vector" if largest else "a vector of zeros"
        causes = []
        if not largest:
            causes.append(f"the recipe leaves nothing of the sound (low {recipe.low}, pooling {recipe.pooling})")
        if largest and z.shape[-1] == 1 and recipe.normalize:
            causes.append(
                "a single number becomes 1 or -1 where vectors are scaled to length 1 (--set normalize=false)"
            )
        elif TABLE[recipe.encoder].weights == "plug-in":
            causes.append("the encoder, which is yours, gives the same for every wave")
        elif with_weights([recipe.encoder]):
            causes.append(
                "its weights file is damaged or cut off: compare it with the published one (nearfar weights "
                f"{recipe.encoder}), or bring it again (nearfar weights {recipe.encoder} --pull)"
            )
        raise ValueError(
            f"{recipe.encoder} gives {what} for all {len(z)} recordings, though they differ, so every clip would be "
            f"normal. Likely cause: {', or '.join(causes) or 'the recipe takes out all in which they differ'}"
        )


def is_flat(z: Array) -> bool:
    """Whether the vectors z (N, ...) are all the same, to rounding: a back end that compares them would be deaf."""
    xp = namespace(z)
    spread = xp.amax(z, axis=0) - xp.amin(z, axis=0)
    return bool(spread.max() <= SAME_VECTOR * abs(z).max())


def too_few(count: int) -> str:
    """A sentence if so few normals can promise nothing, else ""."""
    if count >= TOO_FEW or count < 2:  # one alone is refused
        return ""
    return (
        f"{count} normals can promise nothing: their spread is a guess, and so are the score's unit and the set-point. "
        "Record 20 or more, at every speed and load the machine runs at when it is healthy."
    )


def _by_value(kind: str, values: Sequence[str]) -> Split | None:
    """The most common value and all others, if another one is common enough to be a group."""
    if len(most := Counter(values).most_common()) < 2:
        return None
    usual, *others = [value for value, _ in most]
    members = np.array([value != usual for value in values])
    common = _enough(members) and _enough(np.array([value == others[0] for value in values]))
    return Split(kind, members, (usual, " or ".join(others))) if common else None


def _by_length(lengths: Array) -> Split | None:
    if not len(lengths) or lengths.min() <= 0:
        return None
    in_order = np.sort(lengths)
    ratios = in_order[1:] / in_order[:-1]
    if not len(ratios) or ratios.max() <= LONGER:
        return None
    limit = in_order[int(ratios.argmax())]
    short = lengths <= limit
    within = max(lengths[part].max() / lengths[part].min() for part in (short, ~short))
    members = _smaller(short)
    if within >= ratios.max() or not _enough(members):
        return None
    return Split("length", members, (f"{np.median(lengths[~members]):.3g} s", f"{np.median(lengths[members]):.3g} s"))


def _by_level(levels: Array) -> Split | None:
    """Levels (N,) in dB with one gap that is wider than LEVEL_DB and than each of the groups beside it."""
    in_order = np.sort(levels)
    gaps = np.diff(in_order)
    if not len(gaps) or gaps.max() <= LEVEL_DB:
        return None
    quiet = levels <= in_order[int(gaps.argmax())]
    members = _smaller(quiet)
    if max(np.ptp(levels[part]) for part in (quiet, ~quiet)) >= gaps.max() or not _enough(members):
        return None
    apart = float(np.median(levels[~members]) - np.median(levels[members]))
    return Split("level", members, ("the usual level", f"{abs(apart):.0f} dB {'less' if apart > 0 else 'more'}"))


def _halves(x: Array) -> Array:
    """One of the two Ward clusters (N,) of x (N, D); above MOST rows, those of an even sample, joined by the others."""
    from scipy.cluster.hierarchy import fcluster, linkage

    step = -(-len(x) // MOST)
    first = fcluster(linkage(x[::step], "ward"), 2, "maxclust") == 1
    if step == 1:
        return np.asarray(first)
    away = [((x - x[::step][part].mean(axis=0)) ** 2).sum(axis=1) for part in (first, ~first)]
    return np.asarray(away[0] < away[1])


def _smaller(members: Array) -> Array:
    return members if 2 * members.sum() <= len(members) else ~members


def _enough(members: Array) -> bool:
    smaller = min(members.sum(), (~members).sum())
    return bool(smaller >= max(LEAST_COUNT, LEAST_SHARE * len(members)))


def _apart(x: Array, members: Array) -> bool:
    between = x[members].mean(axis=0) - x[~members].mean(axis=0)
    distance = float(np.sqrt((between**2).sum()))
    if distance < LEAST_DB * np.sqrt(x.shape[1]):
        return False
    low, high = (x[part] @ between / distance for part in (~members, members))
    within = np.sqrt((len(low) * low.var() + len(high) * high.var()) / len(x))
    return bool(high.min() - low.max() >= LEAST_GAP * within)


def _name(clip: EmbeddedClip) -> str:
    return shown(Path(clip.origin.path).name) or clip.origin.name


def _some(files: Sequence[str]) -> str:
    more = [f"{len(files) - NAMED} more"] if len(files) > NAMED else []
    return ", ".join([*files[:NAMED], *more])
