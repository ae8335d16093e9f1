"""Which recordings may be heard: rate, channels, length and number of samples, on every path.

`Limits()` is for files given by path: a rate or a number of channels that no microphone has is a damaged header, and
would cost minutes. The server adds a length and a number of samples, because its senders are strangers. Raises
AudioError with the kind "rate", "channel" or "too_long".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from nearfar.errors import AudioError
from nearfar.support.check import number

RATES_HZ = (1_000, 384_000)


@dataclass(frozen=True)
class Limits:
    """The largest recording: `seconds`, `channels`, and `samples` of all channels that are used together."""

    seconds: float = math.inf
    channels: int = 256
    samples: float = math.inf

    def check(self, name: str, rate: int, channels: int) -> None:
        """AudioError if the file called `name` cannot be a recording by its `rate` in Hz and its `channels`."""
        if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
            check_rate(name, rate)
        if channels > self.channels:
            what = f"has {channels} channels, and at most {self.channels} are allowed: is its header damaged?"
            raise AudioError(f"{name}: {what}", "channel")

    def check_length(self, name: str, seconds: float, samples: float) -> None:
        """AudioError if the recording called `name` is too long, by its header or by what was read so far."""
        if seconds > self.seconds and math.isfinite(seconds):
            what = f"lasts longer than {self.seconds / 60:g} min, which is the limit; send it in parts"
            raise AudioError(f"{name}: {what}", "too_long")
        if samples > self.samples and math.isfinite(samples):
            what = f"holds more than {self.samples / 1e6:g} million samples, which is the limit; send it in parts"
            raise AudioError(f"{name}: {what}", "too_long")


def whole_rate(name: str, rate: float) -> int:
    """`rate` in Hz as an int; ValueError if it is no whole number above 0."""
    if number(f"the rate of {name!r}", rate, above=0) != int(rate):
        raise ValueError(f"the rate of {name!r} must be a whole number of Hz, not {rate!r}")
    return int(rate)


def check_rate(name: str, rate: float) -> int:
    """`whole_rate`; AudioError out of `RATES_HZ`."""
    rate = whole_rate(name, rate)
    if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
        allowed = f"{RATES_HZ[0]:,} to {RATES_HZ[1]:,} Hz are allowed"
        raise AudioError(f"{name}: a rate of {rate:,} Hz is out of range; {allowed}", "rate")
    return rate
