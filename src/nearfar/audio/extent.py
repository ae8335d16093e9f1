"""Whether a recording may be heard, on every path: its rate, channels and length, and whether its file is whole.

`Limits()` is for files given by path: a rate or a number of channels that no microphone has is a damaged header, and
would cost minutes. The server adds a length and a number of samples, because its senders are strangers.

`missing_s` compares the bytes or pages that a header promises with those of the file, container by container: WAV
(RIFF, RIFX, RF64, BW64), W64, CAF, AIFF, AU, VOC, NIST, OGG, MP3. A FLAC file is measured by its decoder, see `clip`.

References: EBU Tech 3306 (RF64), Apple's AIFF-C draft, RFC 3533 (OGG), ISO 11172-3 (MP3 frames), the Xing and LAME
tags.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from nearfar.errors import AudioError
from nearfar.support.check import number
from nearfar.support.words import shown

RATES_HZ = (1_000, 384_000)  # of a recording
STREAMED = 0x7FFF_0000  # 32-bit data sizes from here on are what tools write that cannot go back to the header
UNKNOWN_S = float("inf")  # the end is missing, and how much it is cannot be told
MP3_KBIT = {  # bit rates by (MPEG 1, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
MP3_HZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # by version bits

Extent = tuple[int, int]  # bytes of sound: promised by the header, held by the file


@dataclass(frozen=True)
class Limits:
    """The largest recording: `seconds`, `channels`, and `samples` of all channels that are used together.

    Both checks raise AudioError with the kind "rate", "channel" or "too_long".
    """

    seconds: float = math.inf
    channels: int = 256
    samples: float = math.inf

    def check(self, name: str, rate: int, channels: int) -> None:
        """AudioError if the file called `name` cannot be a recording by its `rate` in Hz and its `channels`."""
        if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
            check_rate(name, rate)
        if channels > self.channels:
            what = f"has {channels} channels, and at most {self.channels} are allowed: is its header damaged?"
            raise AudioError(f"{shown(name)}: {what}", "channel")

    def check_length(self, name: str, seconds: float, samples: float) -> None:
        """AudioError if the recording called `name` is too long, by its header or by what was read so far."""
        if seconds > self.seconds and math.isfinite(seconds):
            what = f"lasts longer than {self.seconds / 60:g} min, which is the limit; send it in parts"
            raise AudioError(f"{shown(name)}: {what}", "too_long")
        if samples > self.samples and math.isfinite(samples):
            what = f"holds more than {self.samples / 1e6:g} million samples, which is the limit; send it in parts"
            raise AudioError(f"{shown(name)}: {what}", "too_long")


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
        raise AudioError(f"{shown(name)}: a rate of {rate:,} Hz is out of range; {allowed}", "rate")
    return rate


def missing_s(path: Path, seconds: float) -> float:
    """Seconds of sound that the header promises and the file lacks; `seconds` is the length that can be read.

    Below 0: the file holds so much more than its header says. `UNKNOWN_S`: its end is missing, of unknown length.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        start = file.read(12)
        if start[:4] in CHUNKS:
            extent = _chunks(file, CHUNKS[start[:4]], size)
        elif start[:4] in (b".snd", b"dns."):
            extent = _au(start, size)
        elif start[:4] == b"Crea":
            extent = _voc(file, size)
        elif start[:7] == b"NIST_1A":
            extent = _nist(file, size)
        elif start[:4] == b"OggS":
            return 0.0 if _ogg_ends(file, size) else UNKNOWN_S
        elif start[:3] == b"ID3" or (len(start) > 1 and start[0] == 0xFF and start[1] >= 0xE0):
            return 0.0 if _mp3_ends(file, start, size) else UNKNOWN_S
        else:
            return 0.0
    if extent is None or not (heard := min(extent)):
        return 0.0
    return (extent[0] - extent[1]) / heard * seconds


@dataclass(frozen=True)
class Layout:
    """How a container lays out its chunks: a name, a size, the content.

    first    where the first chunk begins
    name     bytes of a name
    head     bytes of name and size
    order    of the bytes of the size
    pad      a content is padded to a multiple of so many bytes
    whole    the size counts the head too
    data     name of the chunk of sound
    """

    first: int
    name: int
    head: int
    order: Literal["big", "little"]
    pad: int
    whole: bool = False
    data: bytes = b"data"

    def length(self, head: bytes) -> int:
        """Bytes of the content of the chunk that begins with `head`."""
        size = int.from_bytes(head[self.name :], self.order)
        return max(0, size - self.head) if self.whole else size

    def end(self, at: int, length: int) -> int:
        """Where a content of `length` bytes at `at` ends, with its padding."""
        return at + length + -length % self.pad


CHUNKS = {
    b"RIFF": Layout(12, 4, 8, "little", 2),
    b"RF64": Layout(12, 4, 8, "little", 2),
    b"BW64": Layout(12, 4, 8, "little", 2),
    b"RIFX": Layout(12, 4, 8, "big", 2),
    b"FORM": Layout(12, 4, 8, "big", 2, data=b"SSND"),
    b"caff": Layout(8, 4, 12, "big", 1),
    b"riff": Layout(40, 16, 24, "little", 8, whole=True),
}


def _chunks(file: IO[bytes], layout: Layout, size: int) -> Extent | None:
    """The extent of the chunk of sound; what follows it is sound too, unless it is chunks."""
    at, long_data = layout.first, 0
    while at < size:  # a damaged length points anywhere
        file.seek(at)
        head = file.read(layout.head)
        if len(head) < layout.head:
            return None
        at += layout.head
        length = layout.length(head)
        if head[:4] == b"ds64":  # the 64-bit sizes of an RF64
            long_data = int.from_bytes(file.read(16)[8:], "little")
        if head[:4] == layout.data:
            break
        at = layout.end(at, length)
    else:
        return None
    if layout.head == 8 and length >= STREAMED:
        length = long_data
    if not length or length >= 1 << 62:
        return None
    end = layout.end(at, length)
    held = length if _are_chunks(file, layout, end, size) else size - at
    return length, min(held, length) if layout.whole else held  # libsndfile reads a W64 to the end of the file


def _are_chunks(file: IO[bytes], layout: Layout, at: int, size: int) -> bool:
    """Whether the file ends at `at`, or holds whole chunks from there on."""
    last = at
    while at < size:
        file.seek(at)
        head = file.read(layout.head)
        if len(head) < layout.head or not (head[:4].isascii() and head[:4].decode().isprintable()):
            return size - at < layout.head and at != last
        at = layout.end(at + layout.head, layout.length(head))
    return at - size < layout.pad


def _au(start: bytes, size: int) -> Extent | None:
    order: Literal["big", "little"] = "big" if start[:4] == b".snd" else "little"
    offset, length = (int.from_bytes(start[at : at + 4], order) for at in (4, 8))
    return None if length >= STREAMED else (length, max(0, size - offset))


def _voc(file: IO[bytes], size: int) -> Extent:
    """Blocks: a kind, a size of 24 bits, the content; kind 0 ends the file."""
    file.seek(20)
    at, promised, held = int.from_bytes(file.read(2), "little"), 0, 0
    while at < size:
        file.seek(at)
        head = file.read(4)
        length = int.from_bytes(head[1:], "little")
        if not head[0]:
            break
        at += 4
        promised, held = promised + length, held + min(length, size - at)
        at += length
    return promised, held


def _nist(file: IO[bytes], size: int) -> Extent | None:
    """A header of lines such as "sample_count -i 80000", as long as its second line says."""
    file.seek(8)
    length = file.readline().strip()
    if not length.isdigit():
        return None
    lines = [line.split() for line in file.read(max(0, int(length) - file.tell())).splitlines()]
    facts = {line[0]: int(line[2]) for line in lines if len(line) == 3 and line[1] == b"-i" and line[2].isdigit()}
    block = facts.get(b"sample_n_bytes", 0) * facts.get(b"channel_count", 0)
    return (facts.get(b"sample_count", 0) * block, size - int(length)) if block else None


def _ogg_ends(file: IO[bytes], size: int) -> bool:
    """Whether the last page is whole and says that it is the last of its stream."""
    file.seek(max(0, size - (1 << 17)))  # a page has at most 65,307 bytes
    tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27 or len(tail) < at + 27 + tail[at + 26]:
        return False
    length = 27 + tail[at + 26] + sum(tail[at + 27 : at + 27 + tail[at + 26]])
    return bool(tail[at + 5] & 4) and len(tail) >= at + length


def _mp3_ends(file: IO[bytes], start: bytes, size: int) -> bool:
    """Whether the last frame is whole, and whether the file has the bytes that its Xing or Info tag promises."""
    at = 0
    if start[:3] == b"ID3":  # the size is in seven bits of each of four bytes
        at = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(start[6:10], (21, 14, 7, 0), strict=True))
    first = True
    while at + 4 <= size:
        file.seek(at)
        head = file.read(200 if first else 4)
        length = _mp3_frame(head)
        if not length:  # a tag, or what no decoder reads
            return True
        if first and (tag := max(head.find(b"Xing"), head.find(b"Info"))) > 0 and head[tag + 7] & 2:
            after = tag + 8 + 4 * (head[tag + 7] & 1)
            if at + int.from_bytes(head[after : after + 4], "big") > size:
                return False
        at, first = at + length, False
    return at <= size


def _mp3_frame(head: bytes) -> int:
    """Bytes of the frame that begins with `head`, 0 if it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return 0
    version, layer, rate = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3), head[2] >> 2 & 3
    kbit = head[2] >> 4
    if version == 1 or layer == 4 or rate == 3 or not 0 < kbit < 15:
        return 0
    bits, hz, pad = 1000 * MP3_KBIT[version == 3, layer][kbit], MP3_HZ[version][rate], head[2] >> 1 & 1
    if layer == 1:
        return (12 * bits // hz + pad) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // hz + pad
