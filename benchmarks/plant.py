"""An hour at a plant in two minutes: what breaks, what a person sees, what arrives, and what is lost.

Three synthetic machines (`nearfar.demo.synth`), windows of ten seconds, simulated time; broker, webhook receiver, full
disk and `kill -9` are real. The listening process is a child of this one and goes on minute by minute when told to.

    minute 10  the fan's bearing begins to fail, severity 0 to 1 until minute 60
    minute 25  the MQTT broker is stopped, and started again at minute 29
    minute 26  the gearbox's near microphone dies, until minute 30
    minute 28  the webhook's receiver is down, until minute 32
    minute 34  no file may grow (a full disk), until minute 37
    minute 34  the valve's stream stops, until minute 36
    minute 48  the process is killed with SIGKILL, and started again
    at the end `nearfar serve` of the three machines with live streams gets SIGTERM while the broker hangs

    python benchmarks/plant.py       writes results/plant.md; needs mosquitto
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from measure import RESULTS
from nearfar.audio import Clip
from nearfar.demo.synth import GAIN, LOADS, SPEEDS, Machine, machine, render
from nearfar.demo.waves import RATE
from nearfar.detector import Detector
from nearfar.live.config import AlarmConfig, MachineConfig, MqttConfig
from nearfar.live.history.history import History
from nearfar.live.history.records import Event
from nearfar.live.machine import open_machine
from nearfar.live.plant import Plant
from nearfar.live.sinks.mqtt import Mqtt
from nearfar.live.sinks.webhook import Webhook
from nearfar.live.sources.windows import Window

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

MACHINES = ("fan", "gearbox", "valve")
T0, MINUTES, WINDOW_S, NORMALS, LEVEL = 1_800_000_000.0, 60, 10.0, 150, 0.03
SECRET, SILENCE_S = "shared secret", 30.0
DEAD, FULL, STALLED = range(26, 30), range(34, 37), range(34, 36)
BROKER_DOWN, BROKER_UP, HOOK_DOWN, HOOK_UP, KILL = 25, 29, 28, 32, 48


def sound(kind: str, seed: int, fault: str | None = None, severity: float = 0.0) -> Any:
    """(2, N) float32 of a machine at one of its operating points; the level is the machine's own."""
    rng = np.random.default_rng([MACHINES.index(kind), seed])
    speed, load = rng.choice(SPEEDS["source"]) * rng.uniform(0.98, 1.02), rng.choice(LOADS)
    near, far = render(_drawn(kind), rng, WINDOW_S, speed=speed, load=load, fault=fault, severity=severity)
    return np.round(np.stack([near, far]) * LEVEL / GAIN[kind] * 32768).clip(-32768, 32767).astype(np.float32) / 32768


def _drawn(kind: str) -> Machine:
    return machine(kind, np.random.default_rng([7, MACHINES.index(kind)]))


def fit(folder: Path) -> None:
    """A detector per machine, on 25 minutes of its normals."""
    for kind in MACHINES:
        pairs = [sound(kind, 10_000 + i) for i in range(NORMALS)]
        normals = [Clip(near, far, RATE, f"{kind}_{i:02d}") for i, (near, far) in enumerate(pairs)]
        Detector().fit(normals).save(folder / kind)


def heard(kind: str, minute: int) -> list[Any]:
    """The six windows of a machine's minute, with what is broken then."""
    failing = kind == "fan" and minute >= 10
    fault = "bearing" if failing else None
    out = []
    for i in range(6):
        out.append(sound(kind, 6 * minute + i, fault, (minute - 10 + i / 6) / 50 if failing else 0.0))
        if kind == "gearbox" and minute in DEAD:
            out[-1][0] = 0
    return out


def child(folder: Path, port: int, hook: str, first: int) -> None:
    """The process that listens: one minute for each line on stdin, answered by one line of facts."""
    now = [T0 + 60 * first]
    clock = lambda: now[0]  # noqa: E731
    often = AlarmConfig(false_alarms_per_week=7)
    machines = [open_machine(k, MachineConfig(model=folder / k, hop_s=WINDOW_S, alarm=often)) for k in MACHINES]
    history = History(folder / "history")
    mqtt = Mqtt(MqttConfig(host="127.0.0.1", port=port), machines, history, longest_wait_s=1)
    webhook = Webhook(hook, history, clock=clock, secret=SECRET, first_wait_s=0.05)
    plant = Plant(machines, history, [mqtt, webhook], clock=clock, steady=clock)
    plant.end_interrupted_events()
    for each in machines:
        each.source_health.silence_s = SILENCE_S
        each.source_health.start(clock())
    for line in sys.stdin:
        minute = int(line)
        if minute < 0:
            break
        limit = 0 if minute in FULL else resource.RLIM_INFINITY
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        sounds = {kind: heard(kind, minute) for kind in MACHINES}
        taken = 0
        for i in range(6):
            at = T0 + 60 * minute + WINDOW_S * i
            now[0] = at + WINDOW_S
            for kind in MACHINES:
                if kind == "valve" and minute in STALLED:
                    plant.check_source(kind)
                    continue
                gap = kind == "valve" and minute == STALLED.stop and i == 0
                plant.machines[kind].source_health.on_window(now[0])
                plant.check_source(kind)
                plant.process_window(kind, Window(at, sounds[kind][i], RATE, gap))
                taken += 1
        problems = [p for p in (history.problem, mqtt.problem, webhook.problem) if p]
        states = {kind: state_of(plant, kind) for kind in MACHINES}
        print(json.dumps({"minute": minute, "taken": taken, "problems": problems, "states": states}), flush=True)
    plant.close()
    mqtt.close()
    webhook.close()
    history.close()


def main() -> None:
    from brokers import Listener, Mosquitto, free_port, wait_for
    from test_sinks import Receiver

    with tempfile.TemporaryDirectory() as name:
        folder, start = Path(name), time.perf_counter()
        fit(folder)
        memory = ["persistence true", f"persistence_location {folder}/"]
        broker, port = Mosquitto(folder, *memory, "user root"), free_port()
        broker.start()
        listener, receiver = Listener(broker.port, "nearfar/#", session="scada"), Receiver(port=port)
        posts, said, before_kill = [], [], 0
        where = [str(folder), str(broker.port), f"http://127.0.0.1:{port}/"]
        process = begin(where, 0)
        for minute in range(MINUTES):
            if minute == BROKER_DOWN:
                broker.stop()
            if minute == BROKER_UP:
                broker.start()
                wait_for(listener.client.is_connected, 5)
            if minute == HOOK_DOWN:
                receiver.close()
                posts += receiver.taken
            if minute == HOOK_UP:
                receiver = Receiver(port=port)
            if minute == KILL:
                before_kill = recorded(folder)
                process.kill()
                process.wait()
                process = begin(where, minute)
            said.append(json.loads(tell(process, minute)))
            print(f"minute {minute}", file=sys.stderr)
        wait_for(lambda: len({e["event"]["id"] for e in _events(listener)}) >= recorded(folder), 10)
        tell(process, -1)
        process.wait(30)
        receiver.close()
        stopped_s = stop_with_a_hung_broker(folder, broker)
        history = History(folder / "history")
        report(history, said, listener, [*posts, *receiver.taken], before_kill, stopped_s, time.perf_counter() - start)
        listener.close()
        broker.stop()
        history.close()


def stop_with_a_hung_broker(folder: Path, broker: Any) -> float:
    """Seconds from SIGTERM to the end of a whole plant, when its broker hangs and the webhook's receiver is away."""
    from brokers import free_port, wait_for

    tables = [f'[history]\nfolder = "{folder}/live"', f'[mqtt]\nhost = "127.0.0.1"\nport = {broker.port}']
    tables += [f'[webhook]\nurl = "http://127.0.0.1:{free_port()}/"', f"[metrics]\nport = {free_port()}"]
    tables += [f'[opcua]\nendpoint = "opc.tcp://127.0.0.1:{free_port()}/"', f'[jsonl]\nfile = "{folder}/all.jsonl"']
    noise = 'source = "anoisesrc=r=16000:a=0.1"\nffmpeg = ["-re", "-f", "lavfi"]'
    tables += [f'[machines.{kind}]\nmodel = "{folder / kind}"\nhop_s = 2\n{noise}' for kind in MACHINES]
    (folder / "plant.toml").write_text("\n".join(tables))
    port = free_port()
    command = [sys.executable, "-m", "nearfar", "serve", "--config", str(folder / "plant.toml"), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def hears() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/machines", timeout=2) as answer:
                return all(machine["last_heard"] for machine in json.load(answer)["machines"])
        except OSError:
            return False

    assert wait_for(hears, 90), "the plant hears nothing"
    os.kill(broker.process.pid, signal.SIGSTOP)
    time.sleep(5)
    start = time.perf_counter()
    process.terminate()
    process.wait(60)
    seconds = time.perf_counter() - start
    os.kill(broker.process.pid, signal.SIGCONT)
    return seconds


def state_of(plant: Plant, kind: str) -> dict[str, Any]:
    """The alarm's state, the newest score with its set-point, and the microphones' health."""
    watched = plant.machines[kind]
    last = watched.last
    return {
        "state": watched.alarm.state(plant.clock()),
        "health": "problem" if watched.health else "ok",
        "score": 0.0 if last is None else last.score,
        "threshold": watched.detector.threshold.value,
    }


def begin(where: list[str], first: int) -> subprocess.Popen[str]:
    """The listening process, from minute `first` on."""
    command = [sys.executable, __file__, "--child", *where, str(first)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def tell(process: subprocess.Popen[str], minute: int) -> str:
    """Let it live through a minute; what it says of it."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{minute}\n")
    process.stdin.flush()
    return process.stdout.readline()


def recorded(folder: Path) -> int:
    """How many events are in the history."""
    history = History(folder / "history")
    count = len(history.events(limit=1000))
    history.close()
    return count


def _events(listener: Any) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in listener.of("/event")]


def report(
    history: History,
    said: list[dict],
    listener: Any,
    posts: list,
    before_kill: int,
    stopped_s: float,
    seconds: float,
) -> None:
    """results/plant.md."""
    events = sorted(history.events(limit=1000), key=lambda e: e.id)
    raised_mqtt = {(e["event"]["id"]) for e in _events(listener) if e["what"] == "raised"}
    raised_hook = {b["event"]["id"] for _, body in posts if (b := json.loads(body)).get("what") == "raised"}
    ids = {e.id for e in events}
    scores = {k: len(history.scores(k, 0, 1e12)) for k in MACHINES}
    lines = ["# An hour at a plant", "", __doc__.split("\n\n")[1].replace("\n", " "), ""]
    lines += ["## What a person saw, minute by minute", "", "| minute | " + " | ".join(MACHINES) + " | trouble |"]
    lines += ["| --- " * (len(MACHINES) + 2) + "|"]
    last: list[str] = []
    for s in said:
        cells = [_cell(s["states"][k]) for k in MACHINES] + ["; ".join(s["problems"])]
        if [c.split(" (")[0] for c in cells] != last:
            last = [c.split(" (")[0] for c in cells]
            lines.append(f"| {s['minute']} | " + " | ".join(cells) + " |")
    lines += ["", "## The history afterwards", "", "| event | machine | kind | from | to | peak | audio | text |"]
    lines += ["| --- " * 8 + "|", *(_row(history, e) for e in events), ""]
    lines += [f"Windows recorded: {', '.join(f'{k} {n}' for k, n in scores.items())}.", ""]
    lines += ["## What arrived", "", "| where | what | how many |", "| --- | --- | --- |"]
    for kind in ("score", "state", "event", "health"):
        lines.append(f"| MQTT | nearfar/plant/+/{kind} | {len(listener.of('/' + kind))} |")
    lines += [f"| webhook | POST, signed | {len(posts)} |", ""]
    lines += ["An MQTT event, as it came:", "", "```json", json.dumps(_events(listener)[0]), "```", ""]
    lines += ["A webhook, as it came:", "", "```"]
    shown = ("X-Nearfar-Id", "X-Nearfar-Signature", "Content-Type")
    lines += [f"{h}: {posts[0][0].get(h)}" for h in shown] + [posts[0][1].decode(), "```", ""]
    lines += _faults(history, events, ids, raised_mqtt, raised_hook, said, before_kill)
    lines += ["", f"SIGTERM with live streams, a hung broker and no receiver of the webhook: {stopped_s:.1f} s.", ""]
    lines += [f"The hour took {seconds:.0f} s, {sum(s['taken'] for s in said)} windows heard.", ""]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "plant.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


def _faults(
    history: History, events: list[Event], ids: set[int], mqtt: set[int], hook: set[int], said: list[dict], before: int
) -> list[str]:
    def minutes(kind: str, name: str) -> str:
        found = [e for e in events if (e.machine, e.kind) == (name, kind)]
        return ", ".join(f"{(e.started - T0) / 60:.1f} to {_minute(e.ended)}" for e in found) or "never"

    lost_rows = sum(s["taken"] for s in said) - sum(len(history.scores(k, 0, 1e12)) for k in MACHINES)
    noticed = sum(bool(s["problems"]) for s in said if s["minute"] in FULL)
    kept = sum(i <= before for i in ids)
    rows = [
        ("fan's bearing from minute 10", f"alarm in minutes {minutes('alarm', 'fan')}", "nothing"),
        ("gearbox's microphone, 26 to 30", f"health in minutes {minutes('health', 'gearbox')}", "4 minutes of sound"),
        (
            "broker away, 25 to 29",
            "events waited, health told again",
            _lost("event", ids - mqtt) + "; scores of those minutes, as said",
        ),
        ("webhook's receiver, 28 to 32", "events waited on disk", _lost("event", ids - hook)),
        ("full disk, 34 to 37", f"said so in {noticed} minutes of 3", _lost("score row", lost_rows)),
        ("valve's stream, 34 to 36", f"health in minutes {minutes('health', 'valve')}", "2 minutes of sound"),
        ("kill -9 at 48", f"{before} events before, as many after", _lost("event", before - kept)),
    ]
    false = [e for e in events if e.kind == "alarm" and e.machine != "fan"]
    table = ["## What was broken, what happened, what was lost", "", "| broken | happened | lost |"]
    return [
        *table,
        "| --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"False alarms: {len(false)}.",
    ]


def _lost(what: str, missing: Any) -> str:
    count = missing if isinstance(missing, int) else len(missing)
    return "nothing" if not count else f"{count} {what}{'s' * (count != 1)}"


def _cell(state: dict[str, Any]) -> str:
    shown = state["state"] if state["health"] == "ok" else f"{state['state']}, microphone trouble"
    return f"{shown} ({state['score']:.1f} of {state['threshold']:.1f})"


def _row(history: History, e: Event) -> str:
    kept = "yes" if history.event_audio.path(e.audio) else ""
    start, peak = f"{(e.started - T0) / 60:.1f}", f"{e.peak_score:.1f}" if e.kind == "alarm" else ""
    return f"| {e.id} | {e.machine} | {e.kind} | {start} | {_minute(e.ended)} | {peak} | {kept} | {e.text} |"


def _minute(at: float | None) -> str:
    return "(stands)" if at is None else f"{(at - T0) / 60:.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--child", nargs=4)
    given = parser.parse_args().child
    if given:
        child(Path(given[0]), int(given[1]), given[2], int(given[3]))
    else:
        main()
