"""The report of `check_recordings`, as data and as text.

Every kind of problem is one sentence of advice and the files that have it. The only term of statistics is "standard
deviation", which a plant engineer uses every day.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

from nearfar.audio import SHORTEST_S, WINDOW_S, Problem
from nearfar.detector.review import ASK, TOO_FEW, too_few
from nearfar.support.words import plural, quoted

UNLIKE = 3.0  # robust standard deviations from which on a recording is called unlike the others
FEWEST, FEW_NORMALS = 2, 20  # clips: a fit needs the first number, an alarm to be trusted the second
NAMED = 5  # files that the text names for each problem

# kind -> meaning and advice, in the order of the text, for several files
ADVICE = {
    "unreadable": "cannot be read: copy again from the recorder, or export as WAV",
    "disk": "not given by the disk or network share: connect it again, or let this user read there",
    "empty": "hold no sound: record again",
    "too_short": f"are shorter than {SHORTEST_S} s: record again",
    "nan": "hold invalid samples: export again with another tool",
    "channel": "lack a channel: check --near and --far, counted from 0",
    "silent": "have a dead microphone: check plug, power and mute, and record again",
    "stuck": "have a stuck channel: check the cable and the driver, and record again",
    "saturated": "are overdriven throughout: lower the gain and record again",
    "miscoded": "have bytes in another order, or another sign, than their header says: export again with another tool",
    "incomplete": "are incomplete: was the recording, or the copying of it, cut off?",
    "gap": "have a gap: trim it if it is the start, else check the cable and whether the recorder keeps up",
    "clipped": "clip: lower the gain for the next recordings",
    "coarse": "are recorded far too quietly: raise the gain for the next recordings",
    "offset": "have a constant offset: harmless here, but check the sound card",
    "one_cable": "carry one signal on both channels: is the second microphone plugged in?",
    "swapped": "are louder at far than at near: swapped plugs, or something loud or windy at far?",
    "exchanged": "have near and far exchanged, as levels or the order of arrival show: exchange their channels",
    "duplicate": "repeat another recording: keep one, or the normal sound seems narrower than it is",
    "odd_rate": "have another sampling rate than most: another recorder or setting?",
    "odd_channels": "have another number of channels than most: another recorder or setting?",
    "odd_length": "have another length than most: cut off, or another setting?",
}
SINGULAR = {
    "are": "is",
    "carry": "carries",
    "clip": "clips",
    "have": "has",
    "hold": "holds",
    "lack": "lacks",
    "repeat": "repeats",
}


@dataclass
class FileReport:
    """One file and its problems; `usable` is False if a detector cannot use it."""

    file: str
    machine: str = ""
    usable: bool = True
    seconds: float = 0.0
    rate: int = 0
    channels: int = 0
    codec: str = ""
    near_minus_far_db: float | None = None
    near_later_ms: float | None = None  # delay of near behind far
    clips: int = 1  # windows of a long file, else 1
    copy_of: str = ""
    left_out: str = ""  # why a fit does not take it
    problems: list[Problem] = field(default_factory=list)

    def add(self, kind: str, text: str, fatal: bool = False, channel: str = "") -> None:
        """Add a problem; a fatal one makes the file unusable."""
        self.problems.append(Problem(kind, text, fatal, channel))
        self.usable = self.usable and not fatal


@dataclass(frozen=True)
class Outlier:
    """A recording that sounds least like the others; `at_s` is the start of the window in a long file, else None."""

    file: str
    machine: str
    at_s: float | None
    robust_z: float  # robust standard deviations above the median
    compared: int  # number of clips that were compared


@dataclass(frozen=True)
class TwoGroups:
    """Recordings of a machine that fall into two groups, by `kind`: rate, channels, length, codec, level,
    sound, or machines in their names.

    `values` are what the larger and the smaller group have, "" by sound; `files` are the recordings of both.
    """

    kind: str
    machine: str
    values: tuple[str, str]
    files: tuple[list[str], list[str]]


@dataclass(frozen=True)
class Deaf:
    """Recordings of a machine that would make a detector deaf to sounds like theirs; see `Detector.deafening`.

    `scores` are those by a detector of the others, in standard deviations, as the set-points with and without them.
    """

    machine: str
    files: list[str]
    scores: list[float]
    set_point: float
    set_point_without: float


@dataclass(frozen=True)
class Report:
    """Each file, notes, outliers, groups that may not belong together, recordings that would make a detector deaf."""

    files: list[FileReport]
    notes: list[str]
    outliers: list[Outlier]
    two_groups: list[TwoGroups] = field(default_factory=list)
    deaf: list[Deaf] = field(default_factory=list)

    @property
    def usable(self) -> int:
        """Number of recordings that can be used."""
        return sum(f.usable for f in self.files)

    @property
    def clips(self) -> int:
        """Number of clips for a fit: usable recordings that it takes, and the usable windows of long ones."""
        return sum(f.clips for f in self.files if f.usable and not f.left_out)

    @property
    def ok(self) -> bool:
        """True if every file is usable and none exchanged, they are enough, and none would make the detector deaf."""
        unspoilt = self.usable == len(self.files) and not self.exchanged
        return unspoilt and self.clips >= FEWEST and not self.deaf

    @property
    def exchanged(self) -> list[str]:
        """The files whose near and far are the reverse of most."""
        return [f.file for f in self.files if any(p.kind == "exchanged" for p in f.problems)]

    @property
    def verdict(self) -> str:
        """Ready to fit, or what has to be done first."""
        total, bad = len(self.files), len(self.files) - self.usable
        if self.clips < FEWEST:
            taken = sum(f.usable and not f.left_out for f in self.files)
            can = f"{taken:,} of {plural(total, 'recording')} can be used"
            return f"Not ready: {can}, and {FEWEST} are needed."
        if bad:
            others = f"The other {self.usable:,} can."
            return f"Fix these first: {bad:,} of {plural(total, 'recording')} cannot be used. {others}"
        if names := self.exchanged:
            return (
                f"Not ready: near and far are exchanged in {plural(len(names), 'recording')}. Exchange their channels, "
                f"or leave them out: nearfar fit ... {_without(names)}"
            )
        if self.two_groups:
            return (
                f"One question first: do all {total:,} recordings belong together? If so, they are ready to fit; if "
                "not, fit each group for itself: nearfar fit FILES -o MODEL."
            )
        if self.deaf:
            names = [name for each in self.deaf for name in each.files]
            return (
                f"Not ready: {plural(len(names), 'recording')} would make the detector deaf to sounds like "
                f"{'its own' if len(names) == 1 else 'theirs'}. Listen first; what is no normal sound is left out by "
                f"nearfar fit ... {_without(names)}"
            )
        doubtful = sum(bool(f.problems) and not f.left_out for f in self.files)
        if total == 1:
            return f"Ready to fit: the recording can be used{', and is worth a look first' if doubtful else ''}."
        look = f", {doubtful:,} of them worth a look first" if doubtful else ""
        reasons = Counter(f.left_out for f in self.files if f.left_out)
        what = f"all {total:,} recordings can be used"
        if reasons:
            why = " and ".join(f"{count:,} {reason}" for reason, count in reasons.items())
            what = f"{total - sum(reasons.values()):,} of {total:,} recordings are taken, without {why}"
        if self.clips < TOO_FEW:
            return f"Too few for an alarm that can be trusted, though they can be fitted: {what}{look}."
        return f"Ready to fit: {what}{look}."

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "doctor": 1,
            "ok": self.ok,
            "verdict": self.verdict,
            "recordings": len(self.files),
            "usable": self.usable,
            "seconds": sum(f.seconds for f in self.files),
            "notes": self.notes,
            "two_groups": [asdict(groups) for groups in self.two_groups],
            "listen_to": [asdict(outlier) for outlier in self.outliers],
            "deafening": [asdict(each) for each in self.deaf],
            "files": [asdict(f) for f in self.files],
        }

    def lines(self) -> list[str]:
        """The report as text: problems grouped by kind, with the first files of each."""
        out = [_summary(self.files)]
        for title, fatal in (("Cannot be used:", True), ("Worth a look:", False)):
            groups = _by_kind(self.files, fatal)
            out += ["", title] if groups else []
            for kind, found in groups.items():
                out.append(f"  {plural(len(found), 'recording')} {_agree(ADVICE[kind], len(found))}")
                out += [f"      {name}: {brief(text)}" for name, text in found[:NAMED]]
                out += [f"      and {len(found) - NAMED:,} more"] if len(found) > NAMED else []
        for apart in self.two_groups:
            of = f" of {apart.machine}" if apart.machine else ""
            out += ["", f"Two groups{of} by {apart.kind}: {ASK[apart.kind]}"]
            for value, names in zip(apart.values, apart.files, strict=True):
                out.append(f"  {plural(len(names), 'recording')}{f' of {value}' if value else ''}")
                out += [f"      {name}" for name in names[:NAMED]]
                out += [f"      and {len(names) - NAMED:,} more"] if len(names) > NAMED else []
        machines = list(dict.fromkeys(outlier.machine for outlier in self.outliers))
        for machine in machines:
            mine = [outlier for outlier in self.outliers if outlier.machine == machine]
            of = f" of {machine}" if len(machines) > 1 else ""
            compared = f"the least usual of {mine[0].compared:,} compared{of}"
            out += ["", f"Listen to these: are they really normal? ({compared})"]
            out += [f"  {_place(outlier)}: {_unlike(outlier.robust_z)}" for outlier in mine]
        for each in self.deaf:
            of = f" of {each.machine}" if len(machines) > 1 else ""
            out += ["", f"A fault among the normals{of}? A detector of the others alarms on these:"]
            pairs = zip(each.files, each.scores, strict=True)
            out += [f"  {name}: {score:.1f}, set-point {each.set_point_without:.2f}" for name, score in pairs]
            out.append(f"  With them among the normals the set-point is {each.set_point:.2f}, and they are no alarm.")
        if self.notes:
            out += ["", "In general:", *(f"  {note}" for note in self.notes)]
        return [*out, "", self.verdict]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def few(count: int, seconds: float) -> str:
    """Advice if `count` usable recordings of `seconds` in all are few for a detector, else ""."""
    if note := too_few(count):
        return note
    if count >= FEW_NORMALS or seconds >= FEW_NORMALS * WINDOW_S:
        return ""
    return (
        f"{count} recordings are few: record {FEW_NORMALS} or more, at every speed and load the machine runs at when "
        "it is healthy, for an alarm that can be trusted."
    )


def clock(seconds: float) -> str:
    """ "3:20 min", "1:03:20 h"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h" if minutes >= 60 else f"{minutes}:{rest:02d} min"


def brief(text: str) -> str:
    """The finding without the likely cause after it, which the advice contains already."""
    return text.split(": ")[0].split("; ")[0]


def _without(names: list[str]) -> str:
    options = " ".join(f"--without {quoted(name)}" for name in names[:NAMED])
    return f"{options}{' ...' if len(names) > NAMED else ''}"


def _by_kind(files: list[FileReport], fatal: bool) -> dict[str, list[tuple[str, str]]]:
    found = defaultdict(list)
    for f in files:
        for problem in f.problems:
            if problem.fatal == fatal:
                found[problem.kind].append((f.file, problem.text))
    return {kind: found[kind] for kind in ADVICE if kind in found}


def _summary(files: list[FileReport]) -> str:
    readable = [f for f in files if f.rate]
    machines = sorted({f.machine for f in files if f.machine})
    of = f" of {len(machines)} machines" if len(machines) > 1 else f" of {machines[0]}" if machines else ""
    if not readable:
        return f"{plural(len(files), 'recording')}{of}, none of which can be read"
    rates = " and ".join(f"{rate:,} Hz" for rate, _ in Counter(f.rate for f in readable).most_common(3))
    channels = " or ".join(str(n) for n, _ in Counter(f.channels for f in readable).most_common(3))
    lengths = [f.seconds for f in readable if f.seconds] or [0.0]
    each = _lengths(min(lengths), max(lengths))
    ending = "" if channels == "1" else "s"
    sound = f"{plural(len(files), 'recording')}{of}: {clock(sum(lengths))} in all, {each} each"
    return f"{sound}, {rates}, {channels} channel{ending}"


def _lengths(shortest: float, longest: float) -> str:
    """ "10 s", "5 to 10 s", "0:10 min to 1:00:00 h"."""
    many = longest - shortest > 0.05
    if longest >= 100:
        return f"{clock(shortest)} to {clock(longest)}" if many else clock(longest)
    return f"{shortest:.3g} to {longest:.3g} s" if many else f"{longest:.3g} s"


def _agree(advice: str, n: int) -> str:
    verb, _, rest = advice.partition(" ")
    return f"{SINGULAR.get(verb, verb)} {rest}" if n == 1 else advice


def _unlike(robust_z: float) -> str:
    if robust_z < UNLIKE:
        return f"within the usual scatter ({robust_z:.1f} standard deviations out)"
    return f"UNLIKE THE OTHERS ({robust_z:.1f} standard deviations out; more than {UNLIKE:g} is rare)"


def _place(outlier: Outlier) -> str:
    return outlier.file if outlier.at_s is None else f"{outlier.file} at {clock(outlier.at_s)}"
