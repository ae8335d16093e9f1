"""How often a machine is heard, and so how many occasions for a false alarm a day has.

    p   share of healthy windows above the set-point      m   windows above it that an alarm needs (`on_delay`)
    w   windows a day      c   clips a day: seconds of sound / seconds of a window (overlapping windows share sound)

    alarms a day <= p max(c, w / m)

Every alarm uses up m windows above the set-point that no other alarm uses, so there are at most p w / m of them,
however the scores of neighbouring windows depend on each other. A wish "at most r a day" therefore is the share
p = r / max(c, w / m): the same for a recorded clip and for a stream, whose windows overlap by half.

w and c are what the history of the machine shows of its last days; where there is no such history, a day of clips
end to end.
"""

from __future__ import annotations

from dataclasses import dataclass

from nearfar.support.check import number

DAY_S = 86_400.0
RECENT_DAYS = 7.0  # of the history that are counted
FEWEST_WINDOWS = 20  # in at least a day, else the rhythm is that of the clip length


@dataclass(frozen=True)
class Rhythm:
    """How often a machine is heard; `heard` says in words where the figures are from."""

    windows_per_day: float
    clips_per_day: float
    clip_seconds: float
    on_delay: int
    heard: str

    @property
    def occasions_per_day(self) -> float:
        """How many healthy clips a day could each be a false alarm."""
        return max(self.clips_per_day, self.windows_per_day / self.on_delay)

    @property
    def unit(self) -> str:
        """What an occasion is, in the plural."""
        return "clips" if self.clips_per_day >= self.windows_per_day / self.on_delay else "windows"

    def rate_for(self, false_alarms_per_week: float) -> float:
        """The share of healthy clips above the set-point that makes at most this many false alarms a week."""
        most = 7 * self.occasions_per_day
        return number("false alarms per week", false_alarms_per_week, above=0, below=most) / most

    def per_week(self, rate: float) -> float:
        """The most false alarms a week if a share `rate` of healthy clips lies above the set-point."""
        return rate * 7 * self.occasions_per_day

    def text(self) -> str:
        """The rhythm in words: "8,640 clips of 10 s a day, if it is heard all day"."""
        return f"{count_text(self.occasions_per_day)} {self.unit} of {self.clip_seconds:.3g} s a day, {self.heard}"


@dataclass(frozen=True)
class Listening:
    """Windows of a history that were judged: their number, the seconds of sound, the first and the last start."""

    windows: int
    sound_s: float
    first: float
    last: float

    def rhythm(self, clip_seconds: float, on_delay: int) -> Rhythm | None:
        """The rhythm in which the windows came, or None if they are too few to tell."""
        if self.windows < FEWEST_WINDOWS or self.last - self.first < DAY_S:
            return None
        days = (self.last - self.first) / DAY_S * self.windows / (self.windows - 1)
        clips = self.sound_s / clip_seconds / days
        heard = f"as it was heard in the last {days:.2g} days"
        return Rhythm(self.windows / days, clips, clip_seconds, on_delay, heard)


def all_day(clip_seconds: float, hop_s: float | None = None, on_delay: int = 1) -> Rhythm:
    """The rhythm of a machine that is heard without a gap, a window every `hop_s`; None: windows end to end."""
    clips = DAY_S / number("clip_seconds", clip_seconds, above=0)
    return Rhythm(DAY_S / (hop_s or clip_seconds), clips, clip_seconds, on_delay, "if it is heard all day")


def count_text(x: float) -> str:
    """A number of clips or alarms with two digits, or all before the point."""
    return f"{x:,.0f}" if x >= 9.95 else f"{x:.2g}"
