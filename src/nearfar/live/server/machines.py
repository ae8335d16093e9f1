"""Machines: their states, scores and models; set-points and shelving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import nlargest
from itertools import dropwhile, islice, takewhile
from typing import Annotated, Literal, TypeVar

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from nearfar.detector import Detector
from nearfar.detector.folder import read_card
from nearfar.detector.system import resolution_of
from nearfar.errors import BadInput, NotFound
from nearfar.live.history.archive import gain_db as playback_gain
from nearfar.live.history.recordings import recordings
from nearfar.live.history.records import ScoreRecord
from nearfar.live.machine import Machine
from nearfar.live.operator import normal_keys
from nearfar.live.rules.price import Price, price_of
from nearfar.live.rules.rhythm import DAY_S
from nearfar.live.rules.setpoint import expected_alarms, independent_per_week, rarest_rate, unusual_text
from nearfar.live.server import schemas
from nearfar.live.server.playback import heard_clip, is_stream, is_unchanged, normal_clip, sound_path
from nearfar.live.server.serializers import audit_entries, machine_state, next_page
from nearfar.live.server.service import ERRORS, HOUR_S, By, CallerDep, MachineDep, Service, ServiceDep, Time
from nearfar.live.server.sounds import PlayingDep, file_route, sound
from nearfar.support.words import plural, without_commands

router = APIRouter(prefix="/v1/machines", tags=["machines"], responses=ERRORS)
RATES = np.geomspace(0.2, 1e-6, 48)  # rates of false alarms, as shares of windows, along the curve
ODD = 3  # most unusual normals that are shown
SINCE_H = 24.0
SEVERITY = {"wrong": 3, "unusual": 2, "cannot judge": 1, "normal": 0}
HEARD_S = 30 * DAY_S
Row = TypeVar("Row")


@router.get("", operation_id="listMachines")
def machines(service: ServiceDep) -> schemas.Machines:
    """The states of all machines now."""
    return schemas.Machines(machines=[machine_state(service.plant, id) for id in service.plant.machines])


@router.get("/{id}", operation_id="getMachine")
def machine(service: ServiceDep, machine: MachineDep) -> schemas.MachineState:
    """The state of one machine now."""
    return machine_state(service.plant, machine.id)


@router.put("/{id}", operation_id="putMachine")
def put_machine(service: ServiceDep, by: By, id: str, body: schemas.NewMachine) -> schemas.MachineState:
    """Add a machine, or replace it, without a restart; audited. Its model lies beside those of the plant.

    A source is `mic` or a URL; paths, weights and options of ffmpeg are given in the configuration file.
    """
    service.broadcast(service.roster.put(id, body.table(), by(body.who)))
    return machine_state(service.plant, id)


@router.delete("/{id}", operation_id="deleteMachine")
def delete_machine(service: ServiceDep, machine: MachineDep, who: CallerDep) -> schemas.Done:
    """Stop watching a machine; audited. What is recorded of it stays."""
    audit = service.roster.remove(machine.id, who)
    return schemas.Done(message=f"{machine.name} is no longer watched. What was recorded stays.", audit_id=audit.id)


@router.get("/{id}/scores", operation_id="listScores")
def scores(
    service: ServiceDep,
    request: Request,
    machine: MachineDep,
    since: Time = None,
    until: Time = None,
    hours: Annotated[
        float | None, Query(gt=0, le=24 * 3660, description="Instead of `since`: a span in hours.")
    ] = None,
    points: Annotated[int, Query(ge=10, le=20_000, description="Most windows; every extreme is kept.")] = 1000,
    limit: Annotated[
        int | None, Query(ge=1, le=20_000, description="Instead of `points`: all windows, so many at a time.")
    ] = None,
) -> schemas.Scores:
    """The scores of a machine in [since, until), by default of the last day."""
    end = service.clock() + 60 if until is None else until
    start = max(0.0, end - 3600 * (SINCE_H if hours is None else hours)) if since is None else since
    history, id = service.plant.history, machine.id
    if limit is None:
        found, following = history.scores(id, start, end, points), None
    else:
        found, after = _page(history.iter_scores(id, start, end), limit, lambda row: row.t0)
        following = next_page(request, after is not None, since=repr(after and after.t0), until=repr(end))
    windows = [schemas.Window.of(row) for row in found]
    return schemas.Scores(machine=id, since=start, until=end, scores=windows, next=following)


@router.get("/{id}/drift", operation_id="getDrift")
def drift(service: ServiceDep, machine: MachineDep) -> schemas.Drift:
    """The median normal score of each day, and advice if it creeps. Nothing is adapted automatically."""
    found = service.drift(machine.id)
    days = [schemas.Day(start=start, median=value, windows=count) for start, value, count in found.days]
    text = without_commands(found.text(str(machine.model), str(service.plant.history.samples.folder / machine.id)))
    return schemas.Drift(creeping=found.creeping, text=text, days=days)


@router.get("/{id}/model", operation_id="getModel")
def model(service: ServiceDep, machine: MachineDep) -> schemas.Model:
    """The normal recordings and the set-point of a model, and the false alarms that other set-points would cause."""
    detector = machine.detector
    targets = int(detector.is_target.sum())
    counts = {"source": len(detector.normals) - targets, "target": targets}
    odd, gain = _odd(machine)
    return schemas.Model.of(
        detector,
        id=machine.id,
        name=machine.name,
        normals=len(detector.normals),
        minutes=sum(n.seconds for n in detector.normals) / 60,
        domains=[schemas.Domain(name=name, normals=count) for name, count in counts.items() if count],
        clip_seconds=detector.window_s,
        backing=str(detector.backing),
        remarks=[*map(without_commands, detector.doubts)],
        card=read_card(machine.model),
        set_point=_set_point(machine, detector),
        curve=_curve(machine),
        backed_per_week=machine.rhythm.per_week(rarest_rate(len(detector.normals))),
        odd_ones_out=odd,
        gain_db=gain,
        audit=audit_entries(service.plant, machine.id),
    )


@router.put("/{id}/threshold", operation_id="setThreshold")
def threshold(service: ServiceDep, by: By, machine: MachineDep, body: schemas.NewSetPoint) -> schemas.SetPoint:
    """Change the set-point without fitting again; audited, can be undone. `dry_run`: only say what it costs."""
    operator = service.plant.operator
    wish = {"false_alarms_per_week": body.false_alarms_per_week, "value": body.value}
    new = operator.with_set_point(machine, **wish)
    price = price_of(service.plant.history, machine.id, new.threshold.value, machine.alarm)
    if not body.dry_run:
        service.broadcast(operator.change_set_point(machine.id, who=by(body.who), **wish))
    return _set_point(machine, new, price)


@router.post("/{id}/shelve", operation_id="shelveMachine")
def shelve(service: ServiceDep, by: By, machine: MachineDep, body: schemas.Shelving) -> schemas.Done:
    """Raise no alarm for some hours; windows are still scored and kept."""
    audit = service.plant.operator.shelve(machine.id, body.hours, by(body.who))
    return service.done(audit, f"{machine.name} is shelved for {body.hours:g} h.")


@router.delete("/{id}/shelve", operation_id="unshelveMachine")
def unshelve(service: ServiceDep, machine: MachineDep, who: CallerDep) -> schemas.Done:
    """End the shelving of a machine."""
    audit = service.plant.operator.unshelve(machine.id, who)
    return service.done(audit, f"{machine.name} is watched again.")


@router.get("/{id}/heard", operation_id="listHeard")
def heard(
    service: ServiceDep,
    request: Request,
    machine: MachineDep,
    since: Time = None,
    until: Time = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    order: Literal["newest", "worst"] = "newest",
) -> schemas.HeardRecordings:
    """The recordings that a machine has heard, those that end in [since, until), by default of the last 30 days; of a
    stream, samples that were kept, one an hour at most. The worst first, or page by page the newest."""
    history, id = service.plant.history, machine.id
    end = service.clock() + 60 if until is None else until
    start = end - HEARD_S if since is None else since
    windows = history.scores_of_files(id, start - DAY_S, end + HOUR_S)  # those of recordings over a bound, too
    every = recordings(_samples(service, id, start, end) if is_stream(machine) else windows)
    every = takewhile(lambda heard: heard.t1 >= start, dropwhile(lambda heard: heard.t1 >= end, every))
    if order == "worst":
        every = iter(nlargest(limit, every, key=lambda heard: (SEVERITY[heard.status], heard.score)))
    found, after = _page(every, limit, lambda heard: heard.t1)
    shown = []
    for each in found:
        row = history.score_at(id, each.worst_t0)
        playable = row is not None and sound_path(history, machine, row) is not None
        expected = round(machine.detector.unusual_rate * each.judged, 1)
        shown.append(schemas.HeardRecording.of(each, expected=expected, playable=playable))
    following = next_page(request, after is not None, until=repr(found[-1].t1 if found else end))
    return schemas.HeardRecordings(recordings=shown, next=following)


@file_route(router, "/{id}/heard/{channel}", "getHeardSound")
def heard_sound(
    service: ServiceDep,
    machine: MachineDep,
    play: PlayingDep,
    t0: Annotated[float, Query(ge=0, le=1e11, description="When the recording begins.")],
    at: Annotated[float, Query(ge=0, le=1e6, description="Seconds from there on.")] = 0.0,
) -> Response:
    """One channel of a window of a recording that was heard."""
    history = service.plant.history
    first, row = history.score_at(machine.id, t0), history.score_at(machine.id, t0 + at)
    path = None if first is None or row is None or row.file != first.file else sound_path(history, machine, row)
    if path is None:
        raise NotFound("this recording is no longer kept, or its file has gone")
    clip = heard_clip(path, machine, at)
    return sound(clip, play, play.gain_db or playback_gain([clip]))


@router.get("/{id}/normals", operation_id="listNormals")
def normals(machine: MachineDep, limit: Annotated[int, Query(ge=1, le=10_000)] = 200) -> schemas.Normals:
    """The normal recordings of a model, the most unusual first."""
    detector = machine.detector
    order = [int(i) for i in np.argsort(-detector.train_values, kind="stable")]
    unlike, keys = {i for i, _ in detector.unlike_the_others()}, normal_keys(detector.normals)
    found = [
        schemas.Normal.of(
            detector.normals[i],
            key=keys[i],
            index=i,
            session=detector.sessions[i],
            domain="target" if detector.is_target[i] else "source",
            score=float(detector.train_values[i]),
            unlike=i in unlike,
            playable=is_unchanged(detector.normals[i]),
        )
        for i in order[:limit]
    ]
    channels: list[schemas.Channel] = ["near"] if detector.far is None else ["near", "far"]
    return schemas.Normals(normals=found, channels=channels, total=len(order))


@router.put("/{id}/normals", operation_id="changeNormals")
def change_normals(service: ServiceDep, by: By, machine: MachineDep, body: schemas.NormalsChange) -> schemas.Done:
    """Take normal recordings out of a model, or name their session; audited, and can be undone. Files stay."""
    operator, who = service.plant.operator, by(body.who)
    if body.remove == (body.session is not None):
        raise BadInput("give remove or session: one of them")
    was = machine.detector.threshold.value
    if body.session is None:
        audit = operator.remove_normals(machine.id, body.keys, who)
    else:
        audit = operator.tag_normals(machine.id, body.keys, body.session.strip(), who)
    what, session = plural(len(body.keys), "recording"), body.session
    done = f"{what}: session {session}" if session else f"{what}: no session"
    if session is None:
        done = f"{what} taken out of the normals"
    now = machine.detector.threshold.value
    return service.done(audit, f"{done}. Alarm above {now:.1f}, before {was:.1f}.")


def _page(rows: Iterator[Row], limit: int, time_of: Callable[[Row], float]) -> tuple[list[Row], Row | None]:
    """The first `limit` rows, with those at the time of the last of them; and the row after these, or None."""
    found = list(islice(rows, limit))
    for row in rows:
        if time_of(row) != time_of(found[-1]):
            return found, row
        found.append(row)
    return found, None


def _samples(service: Service, id: str, start: float, end: float) -> Iterator[ScoreRecord]:
    """The windows of a stream of which a sample is kept, newest first."""
    history = service.plant.history
    for at in history.samples.starts(id):
        if start <= at < end:
            yield from list(history.iter_scores(id, at, at + 1))[:1]


def _set_point(machine: Machine, detector: Detector, price: Price | None = None) -> schemas.SetPoint:
    """The set-point of `detector`, which is or would be the machine's."""
    point, rhythm = detector.threshold, machine.rhythm
    shown = resolution_of(detector.train_values, point, detector.method)
    return schemas.SetPoint.of(
        point,
        false_alarms_per_week=max(rhythm.per_week(point.rate), 1e-9),
        independent_per_week=independent_per_week(point.rate, rhythm),
        occasions_per_day=rhythm.occasions_per_day,
        rhythm=rhythm.text(),
        beyond_normals=shown.beyond,
        times_loudest=shown.times_loudest,
        lowest_value=shown.lowest_value,
        lowest_per_week=rhythm.per_week(shown.lowest_rate),
        promise=expected_alarms(detector, point, rhythm, machine.alarm),
        unusual_value=detector.unusual_threshold,
        unusual_promise=unusual_text(detector),
        price=None if price is None else schemas.Price.of(price, text=price.text()),
    )


def _curve(machine: Machine) -> list[schemas.CurvePoint]:
    detector, rhythm = machine.detector, machine.rhythm
    return [
        schemas.CurvePoint(
            value=detector.threshold_for(float(rate)).value, false_alarms_per_week=rhythm.per_week(float(rate))
        )
        for rate in RATES
    ]


def _odd(machine: Machine) -> tuple[list[schemas.OddNormal], int]:
    """The normals that are most unlike the others, and the gain in dB for playing them."""
    detector = machine.detector
    order = [int(i) for i in np.argsort(-detector.train_values, kind="stable")[:ODD]]
    clips = [normal_clip(detector.normals[i], detector) for i in order]
    odd = [
        schemas.OddNormal(
            index=i,
            name=detector.normals[i].name,
            score=float(detector.train_values[i]),
            playable=clip is not None,
            channels=[] if clip is None else ["near"] if clip.far is None else ["near", "far"],
        )
        for i, clip in zip(order, clips, strict=True)
    ]
    return odd, playback_gain(clips)
