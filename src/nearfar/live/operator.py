"""What people do to the plant: acknowledge, shelve, give a verdict, write notes, add normals, change a set-point, undo.

Every action becomes an audit entry. The verdict "fine" puts the windows of the event that crossed the set-point into
the bank. Before an action changes a model, the model folder is copied below `history/undo`; `undo` brings it back byte
for byte. Changes are undone from the newest to the oldest, unless another process has changed the folder since
(`nearfar add`): that change would be lost. A folder that another process has changed is read again before it is changed
here, which is an audit entry too. A model folder changes whole or not at all, and the detector in memory is replaced as
a whole.
"""

from __future__ import annotations

import copy
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from nearfar import audio
from nearfar.detector import Detector, load
from nearfar.detector.detector import GROUPS
from nearfar.detector.folder import digest
from nearfar.embedding.embedder import ClipEmbedder, Origin
from nearfar.errors import BadInput, Conflict, NotFound
from nearfar.live.events import EventRecorder
from nearfar.live.history.archive import write_flac
from nearfar.live.history.history import History
from nearfar.live.history.records import ALARM, FAULT, FINE, NOTE, UNUSUAL, Audit, Event
from nearfar.live.machine import Machine
from nearfar.score import domain_shift_warning
from nearfar.support import files
from nearfar.support.check import number, one_of
from nearfar.support.words import join_sentences

UNDO, NORMALS = "undo", "normals"  # folders of the history
CHANGES = ("fine", "add", "set-point", "remove", "tag")  # the actions that change a model, and can be undone
KEEP = 20  # newest changes of each machine that can be undone
FEW = 10  # about this many new normals are scored, to warn if they may be of another machine
BEYOND = 1.5  # times the highest normal score: all windows of an event alarm, so only higher ones cause a warning
MOST_SHELVED_H = 24.0 * 31


class Operator:
    """What people do to `machines`; `who` is the name that the audit shows."""

    def __init__(
        self,
        machines: Mapping[str, Machine],
        recorders: Mapping[str, EventRecorder],
        history: History,
        clock: Callable[[], float],
    ) -> None:
        self.machines, self.recorders, self.history, self.clock = machines, recorders, history, clock

    def acknowledge(self, event_id: int, who: str) -> Event:
        """Note that somebody has seen an event."""
        with self._locked(event_id) as (_, event):
            if event.acknowledged is None:
                event = self._change(event, "acknowledged", acknowledged=self.clock(), acknowledged_by=who)
                self.audit(who, event.machine, "acknowledge", event=event_id)
            self._acknowledge_alarm(event)
            return event

    def acknowledge_newest(self, machine_id: str, who: str) -> Event:
        """Acknowledge the newest alarm of a machine. Conflict if all are acknowledged."""
        for event in self.history.events(self.machines[machine_id].id, kind=ALARM, limit=1):
            if event.acknowledged is None:
                return self.acknowledge(event.id, who)
        raise Conflict(f"no alarm of {self.machines[machine_id].name} waits to be acknowledged")

    def shelve(self, machine_id: str, hours: float, who: str) -> Audit:
        """Raise no alarm for some hours; windows are scored and kept all the same."""
        if not 0 < hours <= MOST_SHELVED_H:
            raise BadInput(f"a machine is shelved for more than 0 and at most {MOST_SHELVED_H:g} hours, not {hours!r}")
        return self._shelve(machine_id, self.clock() + hours * 3600, who, "shelve", hours=hours)

    def unshelve(self, machine_id: str, who: str) -> Audit:
        """End the shelving; if the alarm condition holds, the next window raises the alarm."""
        return self._shelve(machine_id, -math.inf, who, "unshelve")

    def mark_fine(self, event_id: int, who: str, *, said: str = "") -> Audit:
        """The event was no fault: its windows above the set-point go into the bank. Conflict without audio.

        Of an event "unusual" these are its windows above the set-point of unusual ones.
        """
        with self._locked(event_id) as (machine, event):
            if event.verdict == FINE:
                raise Conflict(f"event {event_id} was called fine already, by {event.verdict_by}")
            with self._locked_model(machine):
                clips = self._crossings(machine, event)
                audit = self._add_to_bank(machine, clips, False, who, "fine", event=event_id, **_given(said=said))
            self._set_verdict(event, FINE, who)
            return audit

    def mark_fault(self, event_id: int, who: str, *, fault: str = "", said: str = "") -> Audit:
        """The event was a real fault, of a kind such as "bearing", with a remark; only the verdict changes."""
        with self._locked(event_id) as (_, event):
            if event.verdict == FINE:
                raise Conflict(f"event {event_id} was called fine and is in the bank: undo that first")
            self._set_verdict(event, FAULT, who)
            return self.audit(who, event.machine, "fault", event=event_id, **_given(fault=fault, said=said))

    def write_note(self, machine_id: str, said: str, who: str, *, at: float) -> Audit:
        """Write a note on the time line of a machine. BadInput for an empty one."""
        if not said:
            raise BadInput("a note says something")
        return self.audit(who, self.machines[machine_id].id, NOTE, at=at, said=said)

    def name_event(self, event_id: int, said: str, who: str) -> Audit:
        """Give an event a name, as a note at its beginning; "" takes the name away."""
        event = self.history.event(event_id)
        known = next((note.id for note in self.history.notes(event.machine) if note.event == event_id), None)
        return self.audit(who, event.machine, NOTE, at=event.started, said=said, event=event_id, **_given(of=known))

    def change_note(self, machine_id: str, note_id: int, said: str, who: str) -> Audit:
        """Change the text of a note, or delete it with "". NotFound if there is none."""
        for note in self.history.notes(machine_id):
            if note.id == note_id:
                event = _given(event=note.event)
                return self.audit(who, machine_id, NOTE, at=note.at, said=said, of=note_id, **event)
        raise NotFound(f"{self.machines[machine_id].name} has no note {note_id}")

    def add_normals(self, machine_id: str, clips: Sequence[Any], domain: str, who: str) -> Audit:
        """Put more normals into the bank; `domain` is "source" or "target"."""
        one_of("domain", domain, ("source", "target"))
        machine = self.machines[machine_id]
        with self._locked_model(machine):
            return self._add_to_bank(machine, clips, domain == "target", who, "add", domain=domain)

    def remove_normals(self, machine_id: str, normals: Sequence[str], who: str) -> Audit:
        """Take normals, named by their keys, out of the bank; their files stay. NotFound for an unknown one."""
        machine = self.machines[machine_id]
        with self._locked_model(machine):
            old, out = machine.detector, _rows(machine.detector, normals)
            new = _selected(old, [i for i in range(len(old.normals)) if i not in out])
            return self._replace_model(machine, new, who, "remove", normals=_names(old, out))

    def tag_normals(self, machine_id: str, normals: Sequence[str], session: str, who: str) -> Audit:
        """Name the session of normals, named by their keys: relatives are left out together when they are scored."""
        machine = self.machines[machine_id]
        with self._locked_model(machine):
            old, rows = machine.detector, _rows(machine.detector, normals)
            sessions = [session if i in rows else known for i, known in enumerate(old.sessions)]
            new = _selected(old, range(len(sessions)), sessions)
            return self._replace_model(machine, new, who, "tag", normals=_names(old, rows), session=session)

    def change_set_point(
        self, machine_id: str, *, who: str, false_alarms_per_week: float | None = None, value: float | None = None
    ) -> Audit:
        """Change the set-point, in the model too: to at most some false alarms a week, or to a value."""
        machine = self.machines[machine_id]
        with self._locked_model(machine):
            new = self.with_set_point(machine, false_alarms_per_week=false_alarms_per_week, value=value)
            values = {"was": machine.detector.threshold.value, "value": new.threshold.value}
            return self._replace_model(machine, new, who, "set-point", **values, asked=machine.configured_per_week)

    def with_set_point(
        self, machine: Machine, *, false_alarms_per_week: float | None = None, value: float | None = None
    ) -> Detector:
        """The detector of a machine as it would be with another set-point; nothing is changed."""
        if (false_alarms_per_week is None) == (value is None):
            raise BadInput("a set-point is given by false_alarms_per_week or by value: one of them")
        try:
            rate = None if false_alarms_per_week is None else machine.rhythm.rate_for(false_alarms_per_week)
            if value is not None:
                number("value", value)
        except ValueError as error:
            raise BadInput(str(error)) from error
        new = copy.copy(machine.detector)
        new.set_threshold(rate=rate, value=value)
        return new

    def undo(self, audit_id: int, who: str) -> Audit:
        """Bring back the model from before a change; only the newest change that is not undone can be undone."""
        entries = self.history.audit(id=audit_id)
        if not entries:
            raise NotFound(f"there is no audit entry {audit_id}")
        change = entries[0]
        if change.action not in CHANGES:
            raise Conflict(f"audit entry {audit_id} did not change the model, so there is nothing to undo")
        machine = self.machines[change.machine]
        with machine.lock:
            standing = self.history.standing_changes(machine.id, CHANGES)
            if change.id not in standing:
                raise Conflict(f"audit entry {audit_id} has been undone already, or is too old to be undone")
            if change.id != standing[0]:
                raise Conflict(f"later changes are not undone: undo the newest first, which is entry {standing[0]}")
            before = self._model_before(change)
            if not before.is_dir():
                raise Conflict(f"the model before audit entry {audit_id} is no longer kept (only the last {KEEP} are)")
            after = _after(before)
            if after.is_file() and after.read_text() != digest(machine.model):
                raise Conflict(
                    f"{machine.model} has been changed by somebody else since audit entry {audit_id}, such as by "
                    "`nearfar add`: undoing the entry would lose that change too"
                )
            with files.atomic_folder(machine.model) as draft:
                files.copy_files(before, draft)
            machine.configured_per_week = change.detail.get("asked", machine.configured_per_week)
            machine.use_detector(load(machine.model, machine.weights, device=machine.device, threads=1))
            for name in change.detail.get("files", []):
                (self.history.folder / NORMALS / machine.id / name).unlink(missing_ok=True)
            if (event := change.detail.get("event")) is not None:
                self._change(self.history.event(event), "verdict", verdict="", verdict_by="")
            audit = self.audit(who, machine.id, "undo", of=audit_id, **_given(event=event))
            _forget(before)
            return audit

    def follow(self, machine: Machine) -> None:
        """Use the model in a machine's folder if another process has changed it, with an entry in the audit."""
        with machine.lock:
            was = machine.detector
            if machine.reload():
                now = machine.detector
                counts = {"normals": len(now.normals), "normals_before": len(was.normals)}
                values = {"was": was.threshold.value, "value": now.threshold.value}
                self.audit("another command", machine.id, "reload", **counts, **values)

    @contextmanager
    def _locked_model(self, machine: Machine) -> Iterator[None]:
        """Lock a machine whose model is going to change, after taking over what somebody else has changed."""
        with machine.lock:
            self.follow(machine)
            if machine.outdated:
                raise Conflict(
                    f"{machine.model} has been replaced by a model with other windows or channels, and is being opened "
                    "anew: try again in a few seconds"
                )
            yield

    @contextmanager
    def _locked(self, event_id: int) -> Iterator[tuple[Machine, Event]]:
        """An event and its machine, while nobody else can change either."""
        machine = self.machines[self.history.event(event_id).machine]
        with machine.lock:
            yield machine, self.history.event(event_id)

    def _change(self, event: Event, what: str, **changes: Any) -> Event:
        return self.recorders[event.machine].change(event, what, self.clock(), **changes)

    def audit(self, who: str, machine: str, action: str, **detail: Any) -> Audit:
        """Write down what somebody did to a machine."""
        return self.history.record_audit(Audit(0, self.clock(), who, machine, action, detail))

    def _set_verdict(self, event: Event, verdict: str, who: str) -> None:
        seen = {} if event.acknowledged is not None else {"acknowledged": self.clock(), "acknowledged_by": who}
        self._acknowledge_alarm(self._change(event, "verdict", verdict=verdict, verdict_by=who, **seen))

    def _acknowledge_alarm(self, event: Event) -> None:
        """Acknowledge the machine's alarm, unless it belongs to another event than `event`."""
        machine, recorder = self.machines[event.machine], self.recorders[event.machine]
        newest = recorder.newest(ALARM)
        another = newest is not None and newest.id != event.id
        if event.kind == ALARM and not another and not machine.alarm.acknowledged:
            machine.alarm.acknowledge()
            recorder.report_state(self.clock())

    def _shelve(self, machine_id: str, until: float, who: str, action: str, **detail: Any) -> Audit:
        machine = self.machines[machine_id]
        with machine.lock:
            machine.alarm.shelve(until)
            self.recorders[machine_id].report_state(self.clock())
            return self.audit(who, machine_id, action, **detail)

    def _crossings(self, machine: Machine, event: Event) -> list[audio.Clip]:
        """The windows of an event's audio, end to end from its peak, that cross its set-point; the peak at least."""
        path = self.history.event_audio.path(event.audio)
        if path is None:
            raise Conflict(
                f"event {event.id} has no audio, or it has been deleted, so there is nothing to add to the normals"
            )
        size = round(machine.detector.window_s * audio.header(path).rate)
        whole = audio.read(path)
        peak = min(max(0, round((event.peak_t0 - event.audio_t0) * whole.rate)), max(0, len(whole.near) - size))
        clips = []
        for start in range(peak % size, len(whole.near) - size + 1, size):
            far = None if whole.far is None else whole.far[start : start + size]
            clip = audio.Clip(whole.near[start : start + size], far, whole.rate, f"{path.stem}@{start / whole.rate:g}s")
            score = machine.detector.score([clip])[0]
            if start == peak or (score.unusual if event.kind == UNUSUAL else score.anomalous):
                clips.append(clip)
        return clips or [whole]

    def _add_to_bank(
        self, machine: Machine, clips: Sequence[Any], is_target: bool, who: str, action: str, **detail: Any
    ) -> Audit:
        """Write clips to files whose channels are near and far, and add these files: they can be played later."""
        folder = self.history.folder / NORMALS / machine.id
        beyond = BEYOND * float(machine.detector.train_values.max()) if action == "fine" else -math.inf
        scores = machine.detector.score(clips[:: max(1, len(clips) // FEW)])
        remarks = dict.fromkeys(text for score in scores for text in score.warnings)
        note = join_sentences(filter(None, [domain_shift_warning(scores, beyond), *remarks]))
        paths: list[Path] = []
        old = machine.detector
        reader = ClipEmbedder(
            0, 1, old.window_s, old.recipes, old.encoders, old.threads, old.store, whole_s=old.whole_s,
            groups=old.calibration == GROUPS,
        )  # fmt: skip
        new = copy.copy(old)
        try:
            for number, clip in enumerate(map(audio.as_clip, clips), len(old.normals)):
                paths.append(folder / f"{number:05d}-{_plain(clip.name)}.flac")
                write_flac(paths[-1], clip.samples, clip.rate, clip.codec)
            known = old.members.keys
            new.fit_embedded(*reader.embed_normals(paths, np.full(len(paths), is_target), known, None, None))
        except BaseException:
            for path in paths:
                path.unlink(missing_ok=True)
            raise
        unusual = {"unusual_was": old.unusual_threshold, "unusual": new.unusual_threshold}
        names = [path.name for path in paths]
        return self._replace_model(machine, new, who, action, files=names, note=note, **unusual, **detail)

    def _replace_model(self, machine: Machine, new: Detector, who: str, action: str, **detail: Any) -> Audit:
        undo = self.history.folder / UNDO / machine.id
        undo.mkdir(parents=True, exist_ok=True)
        before = Path(tempfile.mkdtemp(prefix="before-", dir=undo))
        audit = None
        try:
            files.copy_files(machine.model, before)
            # first, so that no change lacks one
            audit = self.audit(who, machine.id, action, kept=before.name, **detail)
            new.save(machine.model)
        except (OSError, Conflict) as error:
            if audit is not None:
                self.audit(who, machine.id, "undo", of=audit.id, problem=str(error))
            _forget(before)
            raise
        with suppress(OSError):  # the disk is full now: `undo` cannot tell whether somebody else changed the folder
            _after(before).write_text(digest(machine.model))
        if action == "set-point":
            machine.configured_per_week = None  # the set-point of the model counts from now on
        machine.use_detector(new)
        for old in self.history.standing_changes(machine.id, CHANGES)[KEEP:]:
            _forget(self._model_before(self.history.audit(id=old)[0]))
        return audit

    def _model_before(self, change: Audit) -> Path:
        """The copy of the model folder from before a change."""
        return self.history.folder / UNDO / change.machine / str(change.detail["kept"])


def normal_keys(normals: Sequence[Origin]) -> list[str]:
    """What normals are called in requests: by their content, and copies by a number, wherever they stand."""
    seen, keys = Counter[str](), []
    for normal in normals:
        keys.append(f"{normal.sha256[:12]}-{seen[normal.sha256]}")
        seen[normal.sha256] += 1
    return keys


def _given(**detail: Any) -> dict[str, Any]:
    """The details that there are."""
    return {key: value for key, value in detail.items() if value}


def _rows(detector: Detector, keys: Sequence[str]) -> set[int]:
    """The rows of normals with these keys; NotFound for an unknown one."""
    rows = {key: i for i, key in enumerate(normal_keys(detector.normals))}
    if not set(keys) <= set(rows):
        raise NotFound("the normal recordings have changed meanwhile: load the page again")
    return {rows[key] for key in keys}


def _names(detector: Detector, rows: set[int]) -> list[str]:
    return [detector.normals[i].name for i in sorted(rows)]


def _selected(detector: Detector, rows: Sequence[int], sessions: Sequence[str] | None = None) -> Detector:
    try:
        return detector.select(rows, sessions)
    except ValueError as error:
        raise Conflict(str(error)) from None


def is_written_here(normal: Origin) -> bool:
    """Whether the file of a normal was written by `Operator` (near channel first), and not by a recorder."""
    return Path(normal.path).parent.parent.name == NORMALS


def _after(before: Path) -> Path:
    """The file with the digest of the model folder after the change whose model before is in the folder `before`."""
    return before.with_name(f"{before.name}.after")


def _forget(before: Path) -> None:
    _after(before).unlink(missing_ok=True)
    shutil.rmtree(before, ignore_errors=True)


def _plain(name: str) -> str:
    """A name that is safe in a file name."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_.@") else "_" for c in name)[-80:] or "clip"
