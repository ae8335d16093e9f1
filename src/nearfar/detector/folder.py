"""A detector as a folder that a person can read: JSON, CSV, Markdown and safetensors; no pickle, nothing that runs.

    detector.json          format, versions, channels, clip length, set-point, weights, `audio.checks.UsualSetup`
    recipe.json            everything that changes a score
    bank.safetensors       embeddings z0, z1, ... (N, D) of each leaf ("beam": N, F, D), the normals' scores own0, ...
                           and lone0, ... (N,), domains, band levels, what groups are found by, rows of `audio.checks`
    normals.csv            one row per normal: name, domain, sha256, seconds, path, session, groups, and with banks by
                           attribute the attributes
    card.md                the same for people

The folder appears whole or not at all: it is written beside its place and renamed. A detector that was read from a
folder is written back only if nobody else has written there since. Everything that is read back is checked (types,
shapes, finite numbers) before it is used, so a damaged or hostile folder is a ValueError.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nearfar.audio import CHANNELS
from nearfar.audio.checks import ROW, UsualSetup
from nearfar.backend import ATTRIBUTE
from nearfar.detector.members import NO_ROWS, Members
from nearfar.detector.odd import OddNormal
from nearfar.detector.system import SAFETY, THRESHOLD_METHODS, Threshold
from nearfar.embedding.embedder import Origin
from nearfar.embedding.facts import BandLevels, GroupFeatures
from nearfar.encoders import PRECISIONS
from nearfar.encoders.loading import WeightsId
from nearfar.errors import Conflict, MissingPlugin
from nearfar.recipe import BEAM, System, from_json, leaves, plugins_of, require_plugins
from nearfar.support import files
from nearfar.support.cells import escaped, unescaped
from nearfar.support.check import Array, finite, integer, number, one_of

FORMAT = 3
READABLE = (1, 2, 3)  # 1: other p-values of a watch's normals, so its set-point is found anew; 1 and 2: no groups
FILES = ("detector.json", "recipe.json", "bank.safetensors", "normals.csv", "card.md")
COLUMNS = ("name", "domain", "sha256", "seconds", "path", "session", "machine_group", "noise_group")
OLD_COLUMNS = COLUMNS[:5]  # of formats 1 and 2
ATTRIBUTES = ("attributes",)  # a further column where a recipe has banks by attribute
Version = tuple[tuple[int, int, int], ...]  # inode, size and time of change of each file; () without a detector
DAMAGED = (KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError, ValueError, csv.Error)


@dataclass(frozen=True)
class DetectorState:
    """All that a fitted detector has to remember; `banks` (N, D), `own` and `lone` (N,) come per leaf of `system`."""

    system: System
    near: int
    far: int | None
    window_s: float
    why: str
    threshold: Threshold
    method: str
    false_alarm_rate: float | None
    members: Members
    banks: Sequence[Array]
    own: Sequence[Array]
    lone: Sequence[Array]
    band_levels: BandLevels
    weights: Mapping[str, WeightsId] = field(default_factory=dict)  # of each encoder
    by_default: bool = False
    calibration: str = "clips"
    groups: Array = field(default_factory=lambda: np.zeros((0, 2), int))  # (N, 2), or (0, 2) where there are none
    safety: float = 1.0  # of `FittedSystem`
    setup: UsualSetup = field(default_factory=UsualSetup)
    backing: str = ""  # of the normals, for the card
    remarks: Sequence[str] = ()  # about the normals of the last fit or add
    format: int = FORMAT
    version: Version = ()  # of the folder when it was read


def version(folder: str | os.PathLike[str]) -> Version:
    """What differs between a folder and the same folder after it was written again; () if it holds no detector."""
    try:
        found = [(Path(folder) / name).stat() for name in FILES[:4]]
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple((status.st_ino, status.st_size, status.st_mtime_ns) for status in found)


def digest(folder: str | os.PathLike[str]) -> str:
    """A hash of the contents of a detector folder, the same for every copy of it."""
    hashes = [files.hash_file(Path(folder) / name) for name in FILES[:4]]
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def check_place(folder: str | os.PathLike[str]) -> Path:
    """`folder`, if a detector can be written there. FileExistsError if it holds other things, or PermissionError."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or {p.name for p in folder.iterdir()} - set(FILES)):
        raise FileExistsError(f"{folder} exists and is not a detector; choose another name or remove it yourself")
    there = next(p for p in folder.absolute().parents if p.exists())
    if not os.access(there, os.W_OK):
        raise PermissionError(
            errno.EACCES, f"no detector can be written here ({os.strerror(errno.EACCES)})", str(there)
        )
    return folder


def keep_old(folder: Path) -> Path:
    """Copy the detector in `folder` beside it, as pump3.old or pump3.old-2; returns the path of the copy."""
    count = 1
    while (kept := folder.with_name(f"{folder.name}.old{f'-{count}' if count > 1 else ''}")).exists():
        count += 1
    with files.atomic_folder(kept) as draft:
        files.copy_files(folder, draft)
    return kept


def write(folder: str | os.PathLike[str], state: DetectorState, odd: Sequence[OddNormal]) -> Path:
    """Write a state to `folder`, replacing a detector there; the card names the `odd` normals.

    Raises as `check_place` does, and Conflict if the state was read from this folder (it has a `version`) that
    has been written since.
    """
    from safetensors.numpy import save

    folder = check_place(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with files.folder_lock(folder.parent), files.atomic_folder(folder) as draft:
        if state.version and folder.exists() and version(folder) != state.version:
            raise Conflict(
                f"{folder} has been changed since it was read, by the server or by another command; "
                "nothing was written: run the command again"
            )
        (draft / "bank.safetensors").write_bytes(save(_arrays(state)))  # a full disk is then an OSError like any other
        settings, recipe = json.dumps(_settings(state), indent=2), state.system.to_json()
        texts = {"detector.json": settings, "recipe.json": recipe, "card.md": card(state, odd)}
        for name, text in texts.items():
            (draft / name).write_text(text, encoding="utf-8")
        with (draft / "normals.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as table:
            rows = csv.writer(table)
            rows.writerow(_columns(state.system, COLUMNS))
            members = state.members
            groups = state.groups.tolist() or [["", ""]] * len(members)
            each = zip(members.origins, members.is_target, members.sessions, groups, strict=True)
            for n, target, session, pair in each:
                domain = "target" if target else "source"
                about = [n.attributes] * len(_columns(state.system, ()))
                rows.writerow(escaped([n.name, domain, n.sha256, f"{n.seconds:.6g}", n.path, session, *pair, *about]))
    return folder


def read(folder: str | os.PathLike[str]) -> DetectorState:
    """The state in `folder`. FileNotFoundError if there is none, ValueError if it is damaged."""
    folder = Path(folder)
    while True:
        before = version(folder)
        try:
            state = _read_once(folder)
        except (ValueError, FileNotFoundError):
            if version(folder) == before:
                raise
        else:
            if version(folder) == before:  # all files are of one writing
                return replace(state, version=before)


def _read_once(folder: Path) -> DetectorState:
    missing = [name for name in FILES[:4] if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder} is not a detector: {_advice(folder, missing)}")
    try:
        for name in FILES:
            inside(folder, name)
        return _read(folder)
    except MissingPlugin as error:
        raise MissingPlugin(f"{folder}: {error}") from None
    except DAMAGED as error:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{folder} is damaged or no detector of this version: {reason}") from None


def inside(folder: Path, name: str) -> Path:
    """The path of a file of a detector. ValueError if it is a link to a file outside of the folder."""
    path = folder / name
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{name} is a link to {path.readlink()}, and no link out of a detector folder is followed")
    return path


def read_card(folder: Path) -> str:
    """The text of the card in a folder, "" if there is none or if it is a link to another file."""
    try:
        return inside(folder, "card.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def card(state: DetectorState, odd: Sequence[OddNormal]) -> str:
    """The detector in words, as Markdown, with the `odd` normals."""
    members, point = state.members, state.threshold
    target, total = int(members.is_target.sum()), len(members)
    minutes = sum(n.seconds for n in members.origins) / 60
    far = "none" if state.far is None else f"channel {state.far}"
    lines = [
        "# What this detector is",
        "",
        f"- Fitted on {total} normal recordings, {minutes:.1f} minutes: {total - target} source, {target} target.",
        *([f"- Behind them: {state.backing}."] if state.backing else []),
        f"- The near microphone is channel {state.near}, the far one {far}.",
        f"- Method: {state.why}",
        "",
        "# Set-point",
        "",
        f"Alarm above {point.value:.2f} standard deviations of the normals ({point.method}). "
        f"Expected of healthy clips: 1 alarm in {1 / max(point.rate, 1e-12):.4g}, or "
        f"{point.false_alarms_per_day(state.window_s):.4g} a day if the machine is heard all day "
        f"in clips of {state.window_s:g} s.",
        "",
        "# Normals to listen to",
        "",
        "Listen to them: are they really normal? The detector is deaf to a fault that is one of them. To leave one "
        "out: nearfar fit with --without FILE.",
        "",
        *(f"- {members.origins[each.index].name} ({each.reason})" for each in odd),
        "",
    ]
    return "\n".join(lines)


def _settings(state: DetectorState) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "format": FORMAT,
        "nearfar": version("nearfar"),
        "near": state.near,
        "far": state.far,
        "clip_seconds": state.window_s,
        "why": state.why,
        "remarks": list(state.remarks),
        "by_default": state.by_default,
        "threshold": vars(state.threshold),
        "method": state.method,
        "calibration": state.calibration,
        "safety": state.safety,
        "false_alarm_rate": state.false_alarm_rate,
        "encoders": {n: {"weights_sha256": w.sha256, "precision": w.precision} for n, w in state.weights.items()},
        "plugins": plugins_of(state.system),
        "setup": state.setup.to_dict(),
    }


def _columns(system: System, columns: tuple[str, ...]) -> tuple[str, ...]:
    """The columns of normals.csv for a system."""
    return (*columns, *ATTRIBUTES) if any(leaf.banks == ATTRIBUTE for leaf in leaves(system)) else columns


def _arrays(state: DetectorState) -> dict[str, Array]:
    members = state.members
    arrays: dict[str, Array] = {"is_target": members.is_target.astype(np.uint8)}
    for i, (z, own, lone) in enumerate(zip(state.banks, state.own, state.lone, strict=True)):
        arrays[f"z{i}"] = np.ascontiguousarray(z, np.float32)
        arrays[f"own{i}"], arrays[f"lone{i}"] = own.astype(np.float32), lone.astype(np.float32)
    if members.group_features:
        for name in ("machine", "noise"):
            arrays[f"group_{name}"] = np.stack([getattr(f, name) for f in members.group_features])
    if len(members.setup_rows):
        arrays["setup"] = members.setup_rows
    for channel, sums in state.band_levels.sums.items():
        arrays[f"profile_{channel}"] = np.ascontiguousarray(sums, np.float64)
    arrays["profile_rates"] = np.array(sorted(state.band_levels.rates), np.int64)
    return arrays


def _read(folder: Path) -> DetectorState:
    settings = _parse_file(folder / "detector.json", json.loads)
    if settings.get("format") not in READABLE:
        raise ValueError(f"its format is {settings.get('format')!r} and this version reads {READABLE}; upgrade nearfar")
    require_plugins(settings.get("plugins", {}))
    system = _parse_file(folder / "recipe.json", from_json)
    new = settings["format"] >= 3
    rows = _rows(folder / "normals.csv", _columns(system, COLUMNS if new else OLD_COLUMNS))
    pairs = [[int(row["machine_group"]), int(row["noise_group"])] for row in rows if new and row["machine_group"]]
    arrays = _load_arrays(folder / "bank.safetensors")
    members = _members(rows, arrays)
    axes = [3 if recipe.freq == BEAM else 2 for recipe in leaves(system)]
    count = len(axes)
    banks = [finite(f"z{i}", arrays[f"z{i}"], ndim=ndim) for i, ndim in enumerate(axes)]
    own, lone = (
        [finite(name, arrays[f"{name}{i}"], ndim=1) for i in range(count)]
        for name in (("own", "lone") if new else ("train", "train"))
    )
    lengths = [len(a) for a in (*banks, *own, *lone)] + [len(x) for x in (pairs, members.group_features) if x]
    for i, length in enumerate(lengths):
        if length != len(members):
            raise ValueError(f"array {i % count} of the bank holds {length} normals, normals.csv {len(members)}")
    profile = {c: finite(c, arrays[f"profile_{c}"], ndim=2) for c in CHANNELS if f"profile_{c}" in arrays}
    levels = BandLevels(profile, frozenset(arrays.get("profile_rates", np.zeros(0, np.int64)).ravel().tolist()))
    point = settings["threshold"]
    far, rate = settings["far"], settings["false_alarm_rate"]
    return DetectorState(
        system=system,
        near=integer("near", settings["near"], low=0),
        far=None if far is None else integer("far", far, low=0),
        window_s=number("clip_seconds", settings["clip_seconds"], above=0),
        why=str(settings["why"]),
        remarks=[str(text) for text in settings.get("remarks", [])],
        threshold=Threshold(
            number("the threshold", point["value"]),
            number("its rate", point["rate"], low=0, high=1),
            str(point["method"]),
        ),
        method=one_of("threshold method", settings["method"], THRESHOLD_METHODS),
        false_alarm_rate=None if rate is None else number("false_alarm_rate", rate, above=0, below=1),
        members=members,
        banks=banks,
        own=own,
        lone=lone,
        band_levels=levels,
        weights={name: _weights(data) for name, data in settings.get("encoders", {}).items()},
        by_default=bool(settings.get("by_default", False)),
        calibration=one_of("calibration", settings.get("calibration", "clips"), ("groups", "clips")),
        groups=np.array(pairs, int).reshape(-1, 2),
        safety=number("safety", settings.get("safety", SAFETY if pairs else 1.0), low=1),
        setup=UsualSetup.from_dict(settings["setup"]) if "setup" in settings else UsualSetup(levels.rates),
        format=settings["format"],
    )


def _members(rows: Sequence[Mapping[str, str]], arrays: Mapping[str, Array]) -> Members:
    """The normals of a table and a bank; ValueError if the two do not list the same ones."""
    origins = [
        Origin(row["name"], row["path"], row["sha256"], float(row["seconds"]), row.get("attributes", ""))
        for row in rows
    ]
    domains = [one_of("domain", row["domain"], ("source", "target")) for row in rows]
    is_target = arrays["is_target"].astype(bool)
    if domains != ["target" if t else "source" for t in is_target]:
        raise ValueError("normals.csv and bank.safetensors do not list the same normals")
    machine, noise = (
        finite(name, arrays.get(f"group_{name}", np.zeros((0, 0), np.float32)), ndim=2) for name in ("machine", "noise")
    )
    features = [GroupFeatures(*pair) for pair in zip(machine, noise, strict=True)]
    setups = finite("setup", arrays.get("setup", NO_ROWS))
    if setups.shape != (len(origins), ROW):  # of a version with other rows
        setups = NO_ROWS
    return Members(origins, is_target, [row.get("session", "") for row in rows], features, setups)


def _advice(folder: Path, missing: Sequence[str]) -> str:
    """What is wrong with a folder that is no detector, and what to do."""
    if not folder.exists():
        return f"there is no such folder. Make one with: nearfar fit NORMALS -o {folder}"
    if not folder.is_dir():
        return "it is a file. Give the folder that nearfar fit made"
    if len(missing) < 4:
        return f"it lacks {', '.join(missing)}. Was it copied in part? Copy it again, or fit anew under another name"
    return f"it holds no {missing[0]}. The folder that nearfar fit made comes first, then the recordings"


def _weights(data: Mapping[str, Any]) -> WeightsId:
    found = WeightsId.parse(str(data["weights_sha256"]))  # early folders have the precision in there
    return WeightsId(found.sha256, one_of("precision", data.get("precision", found.precision), PRECISIONS))


def _parse_file(path: Path, read: Callable[[str], Any]) -> Any:
    try:
        return read(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be read ({error})") from None


def _load_arrays(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays: dict[str, Array] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} cannot be read ({error})") from None
    return arrays


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.DictReader(file)
        if tuple(rows.fieldnames or ()) != tuple(columns):
            raise ValueError(f"normals.csv has columns {rows.fieldnames}, expected {list(columns)}")
        return [{key: unescaped(value) for key, value in row.items()} for row in rows]
