"""Setting up machines while the plant runs: their recordings, and the jobs `doctor` and `fit`.

A detector is written whole to the plant's folder of models, and only then the machine is live. A machine that is fitted
again keeps its old detector beside the new one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nearfar.audio.recordings import select_normals
from nearfar.detector import Detector
from nearfar.detector.folder import keep_old
from nearfar.doctor import check_recordings
from nearfar.doctor.report import UNLIKE, Report, brief
from nearfar.errors import Conflict
from nearfar.live.roster import Roster
from nearfar.live.setup.collection import Collection, Collections
from nearfar.live.setup.jobs import Job, Jobs
from nearfar.live.setup.microphones import Microphones, Session
from nearfar.support.progress import Progress, titled
from nearfar.support.words import plural, without_commands

RECORDINGS, JOBS = "recordings", "jobs.json"  # beside the folder of models; in the history
DOCTOR, FIT = "doctor", "fit"  # kinds of jobs


class Preparation:
    """The collections, jobs and microphones of a plant whose configuration has a folder of models.

    `here`: its users are at this computer, and may name folders. `on_job`, `on_session` and `live(id)` are called with
    what has changed.
    """

    def __init__(
        self,
        roster: Roster,
        *,
        here: bool,
        on_job: Callable[[Job], None],
        on_session: Callable[[Session], None],
        live: Callable[[str], None],
    ) -> None:
        models = roster.config.models
        if models is None:
            raise Conflict("this server sets up no machines: start it as `nearfar`, or set models in its configuration")
        self.roster, self.models, self.here, self.live = roster, models, here, live
        self.collections = Collections(models.parent / RECORDINGS)
        self.microphones = Microphones(roster.plant.clock, on_session)
        works = {DOCTOR: self._doctor, FIT: self._fit}
        self.jobs = Jobs(roster.config.history.folder / JOBS, works, on_job)
        self.jobs.begin()

    def create(self, id: str, name: str) -> Collection:
        """Begin to set up a machine. Conflict if a machine or a detector has this id."""
        if id in self.roster.plant.machines:
            raise Conflict(f"there is a machine {id!r} already: choose another name")
        if (self.models / id).exists():
            raise Conflict(f"{self.models / id} is there already: choose another name, or move that folder away")
        return self.collections.create(id, name, self.roster.plant.machines)

    def start(self, kind: str, id: str, who: str) -> Job:
        """Begin a job on a machine's recordings; Conflict if it has none."""
        collection = self.collections.get(id)
        if not self.collections.normals(id):
            raise Conflict(f"{collection.name} has no recordings yet: record it, or drop files on its page")
        return self.jobs.start(kind, id, collection.name, who)

    def close(self) -> None:
        """Stop the microphones and the jobs."""
        self.microphones.close()
        self.jobs.close()

    def _doctor(self, job: Job, progress: Progress) -> list[str]:
        """Check the recordings, and keep what was found."""
        names = {r.path.absolute(): r.name for r in self.collections.normals(job.machine)}
        collection = self.collections.get(job.machine)
        report = check_recordings(
            list(names), far=None if collection.mono else 1, progress=titled(progress, "listening to the recordings")
        )
        again = _names_again(names)
        self.collections.keep_findings(job.machine, findings(report, again))
        return []

    def _fit(self, job: Job, progress: Progress) -> list[str]:
        """Fit, save and put the machine into the plant."""
        collection, left_out = self.collections.get(job.machine), list[str]()
        recordings, notes = select_normals(self.collections.normals(job.machine))
        detector = Detector(threads=1, far=None if collection.mono else 1)
        detector.fit(
            [r.path for r in recordings],
            [bool(r.is_target) for r in recordings],
            skip=lambda name, error: left_out.append(str(error)),
            progress=titled(progress, "listening to the normal recordings"),
        )
        if collection.sessions:
            named = dict(
                zip((str(r.path) for r in recordings), self.collections.sessions(job.machine, recordings), strict=True)
            )
            sessions = [named.get(n.path) or s for n, s in zip(detector.normals, detector.sessions, strict=True)]
            detector = detector.select(range(len(sessions)), sessions)
        progress(len(recordings), len(recordings), "putting it to work")
        self._put(collection, detector, job.who)
        self.live(job.machine)
        unlike = [
            f"{detector.normals[i].name} sounds unlike all others: listen to it"
            for i, _ in detector.unlike_the_others()
        ]
        left = [f"left out: {text}" for text in left_out]
        thrown = [f"{plural(len(collection.left_out), 'recording')} thrown out"] if collection.left_out else []
        doubts = map(without_commands, detector.doubts)
        return [f"Behind it: {detector.backing}", detector.why, *doubts, *unlike, *left, *thrown, *notes]

    def _put(self, collection: Collection, detector: Detector, who: str) -> None:
        """Save a detector and let the plant use it; on an error everything is as before."""
        old = self.roster.configs.get(collection.id)
        model = self.models / collection.id if old is None else old.model
        table: dict[str, Any] = {"name": collection.name} if old is None else old.model_dump(exclude_defaults=True)
        if old is None or collection.source:
            table["source"] = list(collection.source)
        kept = keep_old(model) if model.exists() else None
        detector.save(model)
        try:
            self.roster.put(collection.id, table | {"model": model}, who, here=self.here)
        except BaseException:
            shutil.rmtree(model, ignore_errors=True)
            if kept is not None:
                kept.replace(model)
            raise


def findings(report: Report, names: dict[str, str]) -> dict[str, Any]:
    """What a report says of each recording, of groups and in general, as plain data; `names` are those to use.

    verdict   ready, or what comes first: few, unusable, exchanged (near and far), deaf (listen first),
              groups (do they belong together?)
    """
    scores = dict(pair for each in report.deaf for pair in zip(each.files, each.scores, strict=True))
    deaf = {file: f"a detector without it alarms on it ({score:.1f}): is it a fault?" for file, score in scores.items()}
    unlike = {
        o.file: f"unlike the others, {o.robust_z:.1f} standard deviations out"
        for o in report.outliers
        if o.robust_z > UNLIKE
    }
    files = []
    for f in report.files:
        texts = [brief(p.text) for p in f.problems] + [t[f.file] for t in (unlike, deaf) if f.file in t]
        if texts:
            files.append(
                {"file": names.get(f.file, f.file), "usable": f.usable, "deaf": f.file in deaf, "texts": texts}
            )
    groups = [
        {"kind": g.kind, "values": list(g.values), "files": [[names.get(n, n) for n in part] for part in g.files]}
        for g in report.two_groups
    ]
    bad = len(report.files) - report.usable
    in_order = (report.clips < 2, bad, report.exchanged, deaf, groups)
    words = ("few", "unusable", "exchanged", "deaf", "groups")
    verdict = next((word for word, applies in zip(words, in_order, strict=True) if applies), "ready")
    counts = {"recordings": len(report.files), "usable": report.usable, "seconds": sum(f.seconds for f in report.files)}
    order = sorted(files, key=lambda f: (f["usable"], not f["deaf"]))
    return {
        **counts,
        "verdict": verdict,
        "files": order,
        "groups": groups,
        "notes": [*map(without_commands, report.notes)],
    }


def _names_again(names: dict[Path, str]) -> dict[str, str]:
    """{the name by which `find` knows a file among these alone: its name in the collection}."""
    from nearfar.audio.recordings import find

    return {r.name: names[r.path.absolute()] for r in find(list(names))}
