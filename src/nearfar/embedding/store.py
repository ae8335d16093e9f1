"""Grids and pooled vectors of encoders on disk: each is computed once.

    key    all that a grid depends on: bytes of the audio, channels, window, waveform, encoder, its weights, layer
    file   FOLDER/ab/cdef....safetensors, named by the hash of its key: a grid (T, F, D), or a pooled vector (D,)
    note   FOLDER/ab/cdef....json, text with a checksum: what is known of a recording beside its vectors, or its hash

Safe for several processes at once and to be killed at any moment: a file appears whole, under a name that says what is
in it, so two that write it write the same. Every file carries a checksum; one that is damaged counts as absent.

A store keeps float32, and a score does not depend on it. A float16 store, half as large, is for networks: it rounds a
value x by at most 2^-11 |x| (0.05 %), and by 3e-8 where |x| < 6e-5. What no network made (decibels), a pooled vector
and a grid that does not fit (above 65,504) are kept as float32 there too. `write` returns the grid as `read` will, so
results never depend on what was there.
"""

from __future__ import annotations

import json
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import sha256
from os import PathLike
from os.path import realpath
from pathlib import Path
from typing import Any

import numpy as np

from nearfar.encoders import Layers
from nearfar.support.check import Array, finite, one_of
from nearfar.support.files import SETTLED_NS, atomic_write, hash_file

FORMAT = 1  # raise it when the output of decoding, resampling, enhancement or an encoder changes
DTYPES = ("float32", "float16")
SETTINGS, DRAFTS, NOTE = "store.json", "drafts", ".json"
STALE_S = 3600  # a draft older than this was left by a process that was killed


@dataclass(frozen=True)
class Key:
    """All that a grid depends on: equal keys stand for equal grids.

    `audio`: SHA-256 of the file; `channels`: those that the waveform is made of; `window`: (first sample, most samples)
    of a long file, None for the whole; `weights`: SHA-256 of the encoder's file or ""; `layer`: None for the final one;
    `pooled`: "" for a grid, or the settings by which its frames were pooled.
    """

    audio: str
    channels: tuple[int, ...]
    window: tuple[int, int] | None
    waveform: str
    encoder: str
    weights: str
    layer: Layers = None
    pooled: str = ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the key, in hexadecimal."""
        return sha256(json.dumps({"format": FORMAT, **self.facts}, sort_keys=True).encode()).hexdigest()

    @property
    def facts(self) -> dict[str, Any]:
        """The fields by name; `asdict` would copy each of them deeply."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Store:
    """Grids by key below `folder`, which is made if need be; `dtype` "float16" or "float32", None for the folder's own.

    Raises ValueError if the folder keeps another dtype, FileExistsError if it holds other things.
    """

    def __init__(self, folder: str | PathLike[str], dtype: str | None = None) -> None:
        self.folder = Path(folder)
        kept = self._dtype_on_disk()
        if dtype is not None:
            one_of("dtype", dtype, DTYPES)
        if kept and dtype and kept != dtype:
            raise ValueError(f"{self.folder} keeps {kept}, not {dtype}: name another folder for {dtype}")
        self.dtype = dtype or kept or DTYPES[0]
        if not kept:
            settings = {"format": FORMAT, "dtype": self.dtype, "what": "grids of encoders, made by nearfar"}
            atomic_write(self.folder / SETTINGS, json.dumps(settings, indent=2) + "\n")
        self._remove_stale_drafts()

    def path(self, key: Key) -> Path:
        """Where the file of a key is, or would be."""
        return self.folder / key.digest[:2] / f"{key.digest[2:]}.safetensors"

    def has(self, key: Key) -> bool:
        """Whether the key's file is there and of the right length; only `read` checks all of it."""
        try:
            with self.path(key).open("rb") as file:
                start, header = _header(file.read(4096))
                return file.seek(0, 2) == start + header["x"]["data_offsets"][1]
        except (OSError, ValueError, KeyError):
            return False

    def read(self, key: Key) -> Array | None:
        """The grid (T, F, D) or vector (D,) as float32; None if it is absent, or damaged (with a warning)."""
        path = self.path(key)
        try:
            return _read(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"{path} is damaged ({error}) and counts as absent", stacklevel=2)
            return None

    def write(self, key: Key, grid: Array) -> Array:
        """Keep a grid or vector, replacing what was there; returns it as `read` will. OSError if the disk is full.

        Without weights in its key, or pooled, it is kept as float32, whatever the store's dtype.
        """
        from safetensors.numpy import save

        kept: Array = np.ascontiguousarray(finite("grid", grid), np.float32)
        half = self.dtype == "float16" and key.weights and not key.pooled
        if half and np.abs(kept).max(initial=0) <= np.finfo(np.float16).max:
            kept = kept.astype(np.float16)
        about = json.dumps({"crc32": zlib.crc32(kept.data), **key.facts})  # one entry: of several the order varies
        atomic_write(self.path(key), save({"x": kept}, {"nearfar": about}), drafts=self.folder / DRAFTS)
        return kept.astype(np.float32, copy=False)

    def read_note(self, key: Key) -> str | None:
        """The text that is kept under a key; None if it is absent or damaged."""
        try:
            checksum, _, text = self.path(key).with_suffix(NOTE).read_text(encoding="utf-8").partition("\n")
        except (OSError, ValueError):
            return None
        return text if checksum == str(zlib.crc32(text.encode())) else None

    def write_note(self, key: Key, text: str) -> None:
        """Keep a text under a key. OSError if the disk is full."""
        kept = f"{zlib.crc32(text.encode())}\n{text}"
        atomic_write(self.path(key).with_suffix(NOTE), kept, drafts=self.folder / DRAFTS)

    def hash_of(self, path: str | PathLike[str]) -> str:
        """SHA-256 of a recording; it is read only if its path, inode, size or times are not those that the store knows.

        One that changed less than `SETTLED_NS` ago is read: the clock of the disk may not tell two changes apart.
        """
        status = Path(path).stat()
        changed = max(status.st_mtime_ns, status.st_ctime_ns)  # no program sets the second one
        if time.time_ns() - changed < SETTLED_NS:
            return hash_file(path)
        facts = [realpath(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        key = Key(sha256(json.dumps(facts).encode()).hexdigest(), (), None, "file", "", "")
        known = self.read_note(key)
        if known is None:
            known = hash_file(path)
            with suppress(OSError):
                self.write_note(key, known)
        return known

    def size(self) -> int:
        """Bytes that all files of the store hold together."""
        return sum(path.stat().st_size for path in (*self._files(), *self._files(NOTE)))

    def verify(self) -> list[Path]:
        """Read every file and remove the damaged ones, which are returned; the next pass computes them again."""
        damaged = []
        for path in self._files():
            try:
                _read(path)
            except (OSError, ValueError, KeyError, TypeError):
                path.unlink(missing_ok=True)
                damaged.append(path)
        return damaged

    def _dtype_on_disk(self) -> str:
        """The dtype in the folder's settings, "" if the folder is new."""
        path = self.folder / SETTINGS
        if not path.exists():
            drafts = f".{SETTINGS}."  # of the settings, which another process may be writing or have left there
            others = self.folder.is_dir() and any(not p.name.startswith(drafts) for p in self.folder.iterdir())
            if others or (self.folder.exists() and not self.folder.is_dir()):
                raise FileExistsError(f"{self.folder} exists and is not a store of grids: name another folder")
            return ""
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            if settings["format"] != FORMAT:
                raise ValueError(f"its format is {settings['format']}, and this version keeps {FORMAT}")
            return one_of("dtype", settings["dtype"], DTYPES)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: {error}; name another folder") from None

    def _files(self, suffix: str = ".safetensors") -> Iterator[Path]:
        return self.folder.glob(f"[0-9a-f][0-9a-f]/*{suffix}")

    def _remove_stale_drafts(self) -> None:
        """Remove what processes that were killed had begun to write."""
        for draft in (self.folder / DRAFTS).glob("*"):
            with suppress(FileNotFoundError):  # another process was faster
                if time.time() - draft.stat().st_mtime > STALE_S:
                    draft.unlink()


def _header(data: bytes) -> tuple[int, dict[str, Any]]:
    """(where the numbers begin, the header) of a safetensors file; ValueError if it is cut short."""
    start = 8 + int.from_bytes(data[:8], "little")
    return start, json.loads(data[8:start])


def _read(path: Path) -> Array:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = path.read_bytes()
    start, header = _header(data)
    if zlib.crc32(memoryview(data)[start:]) != json.loads(header["__metadata__"]["nearfar"])["crc32"]:
        raise ValueError("its checksum is wrong")
    try:
        grid: Array = load(data)["x"].astype(np.float32, copy=False)
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    return grid
