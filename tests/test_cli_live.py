"""nearfar monitor, config and history, as they are typed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile

import commands
from brokers import Listener, Mosquitto, free_port, wait_for
from conftest import RATE, hum, write_wav
from nearfar.cli.live import Sinks
from nearfar.live.history.history import History
from nearfar.live.history.records import ScoreRecord
from plants import T0, fitted, plant_of, sound
from test_sinks import Receiver

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model(pump_model):
    return pump_model


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src")}


def nearfar(*arguments, folder: Path, code: int = 0, given: bytes | None = None):
    """(stdout, stderr) of a command that ends with `code`."""
    found, out, err = commands.nearfar(*arguments, cwd=folder, given=given)
    assert found == code, err
    return out, err


@pytest.fixture
def inbox(tmp_path):
    for i, fault in enumerate(["", "", "hiss", "hiss", "hiss", "hiss", ""]):
        path = write_wav(tmp_path / "in" / f"{i}.wav", hum(900 + i, fault=fault))
        os.utime(path, (1_700_000_000 + 2 * i, 1_700_000_000 + 2 * i))
    return tmp_path / "in"


def test_a_folder_once_has_the_scores_of_the_score_command(model, inbox, tmp_path):
    out, err = nearfar("monitor", model, "--source", inbox, "--once", "--json", folder=tmp_path)
    live = [m for line in out.splitlines() if (m := json.loads(line))["kind"] == "score"]
    scores = json.loads(nearfar("score", model, inbox, "--json", folder=tmp_path)[0])["scores"]
    assert [(m["score"], m["threshold"], m["anomalous"], m["p"]) for m in live] == [
        (s["score"], s["threshold"], s["anomalous"], s["p"]) for s in scores
    ]
    assert "7 windows scored: 3 normal, 4 anomalous; 1 alarm, 0 health events" in err
    assert (
        "nothing new: nearfar reads WAV" in nearfar("monitor", model, "--source", inbox, "--once", folder=tmp_path)[1]
    )


def test_events_are_a_line_each_and_the_exit_code_says_so(model, inbox, tmp_path):
    out, _ = nearfar("monitor", model, "--source", inbox, "--once", "--fail-on-alarm", folder=tmp_path, code=1)
    (line,) = out.splitlines()
    assert "ALARM" in line and "pump3" in line and "set-point 6.0" in line


def test_a_corrupt_file_is_said_and_the_others_go_through(model, inbox, tmp_path):
    (inbox / "9.wav").write_bytes(b"RIFF")
    _, err = nearfar("monitor", model, "--source", inbox, "--once", folder=tmp_path, code=2)
    assert "left out: 9.wav" in err and "7 windows scored" in err


def test_a_file_is_heard_whole_however_fast_it_is_read(model, tmp_path):
    soundfile.write(tmp_path / "x.wav", np.tile(sound(1).T, (60, 1)), RATE, subtype="PCM_16")
    _, err = nearfar("monitor", model, "--source", "x.wav", folder=tmp_path)
    assert "119 windows scored" in err and "dropped" not in err


def test_a_file_that_is_cut_short_is_said_and_heard(model, inbox, tmp_path):
    (inbox / "0.wav").write_bytes((inbox / "0.wav").read_bytes()[:-32_000])
    out, err = nearfar("monitor", model, "--source", inbox, "--once", "--json", folder=tmp_path)
    live = [m for line in out.splitlines() if (m := json.loads(line))["kind"] == "score"]
    cut = "the file lacks its last 0.5 s: was the recording, or the copying of it, cut off?"
    assert sorted(m["warnings"] for m in live) == [[]] * 6 + [[cut]] and f"note: 0.wav: {cut}" in err


def test_raw_samples_on_stdin(model, tmp_path):
    samples = np.concatenate([sound(i, seconds=2) for i in range(4)], axis=1).astype("<f4")
    out, err = nearfar("monitor", model, "--source", "-", "--json", folder=tmp_path, given=samples.T.tobytes())
    assert "7 windows scored" in err and out.count('"kind":"score"') == 7


def test_raw_samples_of_one_microphone(tmp_path):
    mono = fitted(tmp_path / "mono", [hum(i, far=False) for i in range(8)])
    samples = hum(50, far=False, seconds=6.0).near.astype("<f4")
    options = ["--source", "-", "--channels", "1"]
    _, err = nearfar("monitor", mono, *options, folder=tmp_path, given=samples.tobytes())
    assert "5 windows scored: 3 normal, 2 unusual; 0 alarms" in err


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["--source", "in"], "Give MODEL and --source"),
        (["MODEL", "--source", "nowhere"], "no such source"),
        (["MODEL", "--source", ".", "--metrics", "abc"], "--metrics takes"),
        (["MODEL", "--source", ".", "--mqtt", "a:b"], "--mqtt takes"),
        (["nomodel", "--source", "."], "is not a detector"),
        (["MODEL", "--source", ".", "--false-alarms-per-week", "-1"], "false_alarms_per_week must be > 0, not -1"),
        (
            ["MODEL", "--source", ".", "--weights", __file__],
            "would not be used: this recipe has no network with weights",
        ),
        (["--config", "nowhere.toml"], "no such configuration"),
        (["MODEL", "--config", "x.toml"], "give it alone"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(model, tmp_path, arguments, says):
    arguments = [str(model) if a == "MODEL" else a for a in arguments]
    _, err = nearfar("monitor", *arguments, folder=tmp_path, code=2)
    assert says in err and "Traceback" not in err


def waiting(folder, sink):
    """What a history keeps for a sink."""
    with closing(History(folder)) as history:
        return history.outbox.mailbox(sink, ()).waiting()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg")
def test_a_stream_with_everything_on_stops_gracefully(model, tmp_path):
    """ffmpeg, MQTT, metrics, a dead webhook, files and history at once; SIGTERM ends it with nothing lost."""
    parts = [sound(i, "hiss" if 3 <= i < 9 else "") for i in range(14)]
    soundfile.write(tmp_path / "x.wav", np.concatenate(parts, axis=1).T, RATE, subtype="PCM_16")
    broker, port = Mosquitto(tmp_path), free_port()
    broker.start()
    listener = Listener(broker.port, "nearfar/#")
    (tmp_path / "plant.toml").write_text(
        f"""
[machines.pump]
model = "{model}"
source = "{tmp_path}/x.wav"
ffmpeg = ["-re", "-stream_loop", "-1"]
[history]
folder = "h"
[mqtt]
host = "127.0.0.1"
port = {broker.port}
[metrics]
port = {port}
[webhook]
url = "http://127.0.0.1:9/"
[jsonl]
file = "all.jsonl"
[csv]
file = "scores.csv"
"""
    )
    out, _ = nearfar("config", "check", "plant.toml", folder=tmp_path)
    assert "is valid" in out
    command = [sys.executable, "-m", "nearfar", "monitor", "--config", "plant.toml"]
    child = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert wait_for(lambda: listener.of("/event"))
        url = f"http://127.0.0.1:{port}/metrics"
        assert wait_for(lambda: b'nearfar_alarm{machine="pump"} 1.0' in urllib.request.urlopen(url, timeout=60).read())
        assert wait_for(lambda: not waiting(tmp_path / "h", "mqtt"))
    finally:
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=60)
    assert child.returncode == 0 and b"ALARM" in out and b"windows scored" in err
    assert wait_for(lambda: json.loads(listener.of("/health")[-1])["health"] == "offline")
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    scores = [m for m in lines if m["kind"] == "score"]
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == len(scores) + 1
    assert waiting(tmp_path / "h", "webhook")  # nobody took them: they wait for the next time
    assert not waiting(tmp_path / "h", "mqtt")
    assert list((tmp_path / "h" / "audio").glob("*.flac"))
    listener.close()
    broker.stop()
    nearfar("history", "export", "h", "-o", "out", folder=tmp_path)
    import pyarrow.parquet

    assert pyarrow.parquet.read_table(tmp_path / "out" / "scores.parquet").num_rows == len(scores)


def test_the_same_wish_gives_the_same_set_point_on_the_command_line_and_over_rest(model, tmp_path):
    plant, _, _ = plant_of(model, tmp_path / "h")
    new = plant.operator.with_set_point(plant.machines["pump"], false_alarms_per_week=7)
    asked = ["threshold", model, "--false-alarms-per-day", "1", "--dry-run", "--json"]
    alone = json.loads(nearfar(*asked, folder=tmp_path)[0])
    assert alone["threshold"] == new.threshold.value and "if it is heard all day" in alone["rhythm"]
    for i in range(144):  # two days, a window of two seconds every 20 minutes
        t = T0 + 1200.0 * i
        plant.history.record_score(ScoreRecord("pump", t, t + 2.0, 1.0, 6.0, False, 0.5))
    plant.history.close()
    plant, _, _ = plant_of(model, tmp_path / "h")
    new = plant.operator.with_set_point(plant.machines["pump"], false_alarms_per_week=7)
    plant.history.close()
    heard = json.loads(nearfar(*asked, "--history", tmp_path / "h", folder=tmp_path)[0])
    assert heard["rhythm"] == "72 clips of 2 s a day, as it was heard in the last 2 days"
    assert heard["threshold"] == new.threshold.value < alone["threshold"] and heard["rate"] == pytest.approx(1 / 72)
    assert heard["price"]["text"] == "there was no alarm last week; no fault is confirmed yet"


def test_a_history_is_rescued_and_looked_at(model, inbox, tmp_path):
    nearfar("monitor", model, "--source", inbox, "--once", "--history", "h", folder=tmp_path)
    assert "0 days with enough windows" in nearfar("history", "drift", "h", folder=tmp_path)[0]
    assert "14 days are needed to promise 1 a week" in nearfar("history", "set-point", "h", folder=tmp_path)[0]
    out = json.loads(nearfar("history", "rescue", "h", "--json", folder=tmp_path)[0])
    assert out["rows"]["scores"] == 7 and (tmp_path / out["kept"]).is_file()
    assert "no history" in nearfar("history", "drift", ".", folder=tmp_path, code=2)[1]


class Monitoring:
    """`nearfar monitor` on raw samples, with a broker and a webhook; they need not be there."""

    def __init__(self, model: Path, folder: Path, broker: int, hook: int) -> None:
        sinks = ["--mqtt", f"127.0.0.1:{broker}", "--webhook", f"http://127.0.0.1:{hook}/", "--history", "h"]
        command = [sys.executable, "-m", "nearfar", "monitor", str(model), "--source", "-", *sinks]
        quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, cwd=folder, env=environment(), stdin=subprocess.PIPE, **quiet)

    def hear(self, *faults: str) -> None:
        samples = np.concatenate([sound(i, fault) for i, fault in enumerate(faults)], axis=1)
        self.process.stdin.write(samples.T.astype("<f4").tobytes())
        self.process.stdin.flush()


@pytest.mark.slow
def test_an_alarm_that_nobody_could_be_told_of_before_kill_9_is_told_at_the_next_start(model, tmp_path):
    broker, hook = Mosquitto(tmp_path), free_port()
    killed = Monitoring(model, tmp_path, broker.port, hook)
    killed.hear(*["hiss"] * 6)
    assert b"ALARM" in killed.process.stdout.readline()
    killed.process.kill()
    killed.process.wait()
    broker.start()
    listener, server = Listener(broker.port, "nearfar/#"), Receiver(port=hook)
    again = Monitoring(model, tmp_path, broker.port, hook)
    try:
        assert wait_for(lambda: len(listener.of("/event")) >= 2 and len(server.taken) >= 2)
        assert wait_for(lambda: not waiting(tmp_path / "h", "mqtt") and not waiting(tmp_path / "h", "webhook"))
    finally:
        again.process.terminate()
        again.process.wait(60)
    server.close()
    listener.close()
    broker.stop()
    by_mqtt = [json.loads(payload) for payload in listener.of("nearfar/plant/pump3/event")]
    by_hook = [message for _, body in server.taken if (message := json.loads(body))["kind"] == "event"]
    for told in (by_mqtt, by_hook):  # then it was over, because nobody listened
        assert list(dict.fromkeys(m["what"] for m in told)) == ["raised", "cleared"]  # at least once
        assert {m["event"]["id"] for m in told} == {1}
        assert told[0]["at"] == told[0]["event"]["started"] < told[-1]["at"] + 1


@pytest.mark.slow
def test_kill_9_in_the_middle_of_an_alarm_loses_nothing_recorded(model, tmp_path):
    parts = [sound(i, "" if i < 3 else "hiss") for i in range(60)]
    samples = np.concatenate(parts, axis=1).T.astype("<f4").tobytes()
    command = [sys.executable, "-m", "nearfar", "monitor", str(model), "--source", "-", "--json", "--history", "h"]
    child = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    child.stdin.write(samples[: len(samples) // 2])
    child.stdin.flush()
    said = []
    while not any(m["kind"] == "event" for m in said):
        said.append(json.loads(child.stdout.readline()))
    assert wait_for(lambda: list((tmp_path / "h" / "audio").glob("*.flac")))
    child.kill()
    said += [json.loads(line) for line in child.stdout.read().splitlines() if line.endswith(b"}")]
    child.wait()
    history = History(tmp_path / "h")
    times = {s.t0 for s in history.scores("pump3", 0, 1e12)}
    assert {m["t0"] for m in said if m["kind"] == "score"} <= times
    (event,) = history.events()
    assert history.event_audio.path(event.audio)  # its audio up to the alarm is there too


@pytest.mark.parametrize(("text", "host", "port"), [
    ("broker", "broker", 0),
    ("broker:1884", "broker", 1884),
    ("[::1]:1884", "::1", 1884),
    ("[fe80::1]", "fe80::1", 0),
    ("::1", "::1", 0),
])  # fmt: skip
def test_a_broker_may_have_an_address_of_ipv6(text, host, port):
    assert Sinks(mqtt=text).tables()["mqtt"] == {"host": host, "port": port}
    assert Sinks(metrics=f"[{host}]:9108" if ":" in host else ":9108").tables()["metrics"]["port"] == 9108
