"""Machines that come, change and go while the plant runs: nothing else stops, nothing that is recorded is lost."""

import json
import shutil
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

import nearfar
from brokers import wait_for
from conftest import hum, write_wav
from nearfar.errors import BadInput, Conflict, NotFound
from nearfar.live.build import build_plant
from nearfar.live.config import from_options
from nearfar.live.history.records import ALARM, ScoreRecord
from nearfar.live.machine import open_machine
from nearfar.live.roster import current
from nearfar.live.sinks.messages import HealthMessage, ScoreMessage
from nearfar.live.sinks.prometheus import Metrics
from plants import T0, Remember, configured, fitted, windows
from servers import client_of
from test_serve_cli import Running


class Follows(Remember):
    """A sink that notes which machines it is told of."""

    def __init__(self):
        super().__init__()
        self.told = []

    def add_machine(self, machine, at):
        self.told.append(f"+{machine.id}")

    def remove_machine(self, id):
        self.told.append(f"-{id}")


@pytest.fixture
def models(pump_model, tmp_path):
    return [Path(shutil.copytree(pump_model, tmp_path / "models" / name)) for name in ("pump", "fan")]


def tables(models, tmp_path, **more):
    pump, _ = models
    (tmp_path / "in").mkdir(exist_ok=True)
    machine = {"model": pump, "source": (str(tmp_path / "in"),), **more.pop("pump", {})}
    return {"machines": {"pump": machine, **more}, "history": {"folder": tmp_path / "history"}}


@pytest.fixture
def running(models, tmp_path):
    """A plant that runs, with a machine that watches a folder; its sink and what it said."""
    sink, said, stop = Follows(), [], threading.Event()
    made = build_plant(
        from_options(tables(models, tmp_path)), clock=time.time, warn=said.append, report=lambda *_: None,
        sinks=[sink], idle=True,
    )  # fmt: skip
    made.monitor.tick_s = 0.05
    thread = threading.Thread(
        target=made.monitor.run, args=(stop, made.roster.check), kwargs={"stay": True}, daemon=True
    )
    thread.start()
    wait_for(lambda: (reader := made.monitor.queues["pump"].thread) is not None and reader.is_alive())
    yield made, sink, said
    stop.set()
    thread.join(60)
    made.close()
    assert not thread.is_alive()


def recorded(folder, name, seconds=2.0, **options):
    """A recording that is complete."""
    write_wav(folder / name, hum(900, seconds=seconds, **options))


def test_the_api_adds_replaces_and_removes_a_machine_with_audit(running, models, tmp_path):
    made, sink, _ = running
    roster, plant = made.roster, made.plant
    entry = roster.put("fan", {"model": str(models[1]), "source": ["rtsp://u:secret@127.0.0.1:1/a"]}, "anna")
    assert (entry.action, entry.who, entry.machine) == ("machine added", "anna", "fan")
    assert "secret" not in json.dumps(entry.detail) and list(plant.machines) == ["pump", "fan"]
    assert made.monitor.queues["fan"].thread.is_alive() and plant.machines["fan"].hop_s == 1.0
    row = plant.process_window("fan", windows([""])[0])
    assert row.score == nearfar.load(models[1]).score([windows([""])[0].clip])[0].score
    old = made.monitor.queues["fan"]
    entry = roster.put("fan", {"model": str(models[1]), "name": "Fan 7", "alarm": {"on_delay": 5}}, "anna")
    assert entry.action == "machine replaced" and plant.machines["fan"].alarm.on_delay == 5
    old.thread.join(60)
    assert "fan" not in made.monitor.queues and not old.thread.is_alive()
    entry = roster.remove("fan", "ben")
    assert entry.action == "machine removed" and list(plant.machines) == ["pump"] == list(roster.configs)
    with pytest.raises(NotFound):
        plant.process_window("fan", windows([""])[0])
    assert [row.machine for row in plant.history.scores("fan", 0, 1e12)] == ["fan"]  # the record stays
    assert [a.action for a in plant.history.audit("fan")] == ["machine removed", "machine replaced", "machine added"]
    assert sink.told == ["+fan", "+fan", "-fan"]


def test_what_the_api_may_not_do_is_refused_and_changes_nothing(running, models, tmp_path):
    made, _, _ = running
    elsewhere = shutil.copytree(models[0], tmp_path / "elsewhere" / "pump")
    for table, says in [
        ({"model": str(elsewhere)}, "must lie beside the models of the plant"),
        ({"model": str(models[1]), "source": [str(tmp_path / "elsewhere")]}, "a path is given in plant.toml"),
        ({"model": str(models[1]), "source": ["file:///etc/passwd"]}, "must be a microphone or a URL"),
        ({"model": str(models[1]), "source": ["-"]}, "must be a microphone or a URL"),
        ({"model": str(tmp_path / "models" / "none")}, "is not a detector"),
        ({"model": str(models[1].parent / ("x" * 300))}, "File name too long"),
        ({"model": str(models[1]), "alarm": {"on_delay": 3, "within": 2}}, "within = 2 windows"),
    ]:
        with pytest.raises(BadInput, match=says):
            made.roster.put("fan", table, "anna")
    with pytest.raises(BadInput, match="must be letters, digits"):
        made.roster.put("../fan", {"model": str(models[1])}, "anna")
    with pytest.raises(Conflict, match="the only machine"):
        made.roster.remove("pump", "anna")
    with pytest.raises(NotFound):
        made.roster.remove("fan", "anna")
    assert list(made.plant.machines) == ["pump"] and not made.plant.history.audit()
    assert made.monitor.queues["pump"].thread.is_alive()


@pytest.mark.slow
def test_a_replaced_machine_keeps_its_ledger_its_shelving_and_its_open_alarm_ends(running, models, tmp_path):
    made, sink, _ = running
    folder = tmp_path / "in"
    recorded(folder, "a.wav")
    wait_for(lambda: len(sink.values("score", "score")) == 1)
    for window in windows(["hiss"] * 4, start=T0):
        made.plant.process_window("pump", window)
    assert made.plant.recorders["pump"].newest(ALARM) is not None
    made.plant.operator.shelve("pump", 2, "anna")
    made.roster.put("pump", {"model": str(models[1]), "source": [str(folder)], "name": "P"}, "anna")
    (event,) = made.plant.history.events("pump")
    assert event.ended is not None and made.plant.machines["pump"].alarm.suppressed(time.time())
    recorded(folder, "b.wav")
    wait_for(lambda: len(sink.values("score", "score")) == 6)  # not a.wav once more
    assert made.plant.machines["pump"].model == models[1]


def test_a_change_by_the_api_outlives_a_restart_until_the_file_says_otherwise(running, models, tmp_path):
    made, _, _ = running
    made.roster.put("fan", {"model": str(models[1])}, "anna")
    made.roster.remove("pump", "anna")
    again = from_options(tables(models, tmp_path))
    assert list(current(again)) == ["fan"] and current(again)["fan"].model == models[1]
    changed = from_options(tables(models, tmp_path, pump={"name": "Pump 3"}))
    assert list(current(changed)) == ["pump", "fan"]
    made.roster.follow(changed)
    assert set(made.plant.machines) == {"pump", "fan"} and made.plant.machines["pump"].name == "Pump 3"
    assert list(current(again)) == ["pump", "fan"]  # what the file has overtaken is forgotten
    assert (tmp_path / "history" / "machines.json").stat().st_mode & 0o077 == 0


def test_the_file_adds_changes_and_removes_machines_and_a_mistake_changes_nothing(running, models, tmp_path):
    made, _, said = running
    before = made.plant.machines["pump"]
    made.roster.follow(from_options(tables(models, tmp_path, fan={"model": models[1]})))
    assert set(made.plant.machines) == {"pump", "fan"} and made.plant.machines["pump"] is before
    made.roster.follow(
        from_options({**tables(models, tmp_path, fan={"model": models[1], "hop_s": 0.5}), "site": "south"})
    )
    assert made.plant.machines["fan"].hop_s == 0.5 and made.plant.machines["fan"].site == "plant"
    assert said[-2:] == ["changed in the configuration, and used after a restart: site", "fan: machine replaced"]
    fan = made.plant.machines["fan"]
    made.roster.follow(from_options(tables(models, tmp_path, fan={"model": tmp_path / "none"})))
    assert made.plant.machines["fan"] is fan and "fan: cannot be changed, and goes on as before" in said[-1]
    made.roster.follow(from_options(tables(models, tmp_path)))
    assert list(made.plant.machines) == ["pump"] and said[-1] == "fan: machine removed"
    assert {a.who for a in made.plant.history.audit("fan")} == {"the configuration"}


@pytest.mark.slow
def test_a_model_with_another_window_length_is_taken_over(running, models, tmp_path):
    made, sink, said = running
    shutil.rmtree(models[0])
    fitted(models[0], [hum(i, seconds=3.0) for i in range(8)])
    wait_for(lambda: made.plant.machines["pump"].detector.window_s == 3.0)
    wait_for(lambda: "pump: machine replaced" in said)
    recorded(tmp_path / "in", "long.wav", seconds=6.0)
    wait_for(lambda: len(sink.values("score", "t0")) == 2)
    rows = [m.record for m in sink.messages if isinstance(m, ScoreMessage)]
    assert [row.t1 - row.t0 for row in rows] == pytest.approx([3.0, 3.0])
    assert made.plant.history.audit("pump")[0].who == "another command"


def test_the_series_of_a_machine_that_has_gone_are_gone(models):
    metrics = Metrics(["pump"], ["pump"], T0)
    fan = open_machine("fan", configured(models[1], streamed=True))
    metrics.add_machine(fan, T0 + 5)
    assert metrics.registry.get_sample_value("nearfar_last_audio_timestamp_seconds", {"machine": "fan"}) == T0 + 5
    for machine in ("pump", "fan"):
        record = ScoreRecord(machine, T0, T0 + 2, 1.0, 6.0, False, 0.3, level_near_dbfs=-30.0)
        metrics.put(ScoreMessage(machine, "plant", T0, record, "normal"))
        metrics.put(HealthMessage(machine, "plant", T0, "ok"))
        metrics.observe(machine, 0.01, 1.0)
    metrics.remove_machine("fan")
    text = metrics.text().decode()
    assert '"fan"' not in text and 'nearfar_windows_total{machine="pump",result="normal"} 1.0' in text
    assert 'channel="near",machine="pump"' in text


def test_over_rest_a_machine_comes_and_goes_and_others_are_told_why_not(running, models):
    made, _, _ = running
    with client_of(made.plant, time.time, roster=made.roster) as client:
        body = {"model": str(models[1]), "name": "Fan 7", "alarm": {"on_delay": 4}, "who": "Anna"}
        answer = client.put("/v1/machines/fan", json=body)
        assert answer.status_code == 200 and answer.json()["name"] == "Fan 7" and answer.json()["state"] == "waiting"
        assert [m["id"] for m in client.get("/v1/machines").json()["machines"]] == ["pump", "fan"]
        assert client.get("/v1/audit").json()["audit"][0]["text"] == "fan"
        for change, status in [({"model": "/etc"}, 422), ({"alarm": {"on_delay": True}}, 422), ({"ffmpeg": []}, 422)]:
            assert client.put("/v1/machines/fan", json={**body, **change}).status_code == status
        done = client.delete("/v1/machines/fan", params={"who": "Anna"})
        assert done.json()["message"] == "Fan 7 is no longer watched. What was recorded stays."
        assert client.get("/v1/machines/fan").status_code == 404
        assert client.delete("/v1/machines/fan").status_code == 404
        assert client.delete("/v1/machines/pump").status_code == 409
        assert [a["who"] for a in client.get("/v1/audit").json()["audit"]] == ["Anna", "Anna"]
    with client_of(made.plant, time.time) as client:
        assert client.delete("/v1/machines/pump").json()["code"] == "conflict"


@pytest.mark.slow
def test_a_server_reads_its_configuration_again_when_asked(models, tmp_path):
    one = f'[history]\nfolder = "history"\n[machines.pump]\nmodel = "{models[0]}"\n'
    two = f'[machines.fan]\nmodel = "{models[1]}"\n'
    file = tmp_path / "plant.toml"
    file.write_text(one)
    with (
        Running(tmp_path, "--config", file, "--port", 0) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):

        def machines():
            return [m["id"] for m in client.get("/v1/machines").json()["machines"]]

        def ask(text):
            file.write_text(text)
            server.process.send_signal(signal.SIGHUP)

        assert machines() == ["pump"]
        ask(one + two)
        wait_for(lambda: machines() == ["pump", "fan"])
        ask(one + "[machines.")  # half written
        wait_for(lambda: "the configuration of before goes on" in server.said())
        assert machines() == ["pump", "fan"]
        ask(one)
        wait_for(lambda: machines() == ["pump"])
        assert {a["who"] for a in client.get("/v1/audit").json()["audit"]} == {"the configuration"}
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0


def test_a_full_disk_forgets_no_change_by_the_api(running, models, tmp_path, monkeypatch):
    made, _, said = running
    full = OSError(28, "No space left on device", "machines.json")
    monkeypatch.setattr("nearfar.live.roster.write_json", lambda *_, **__: (_ for _ in ()).throw(full))
    made.roster.put("fan", {"model": str(models[1])}, "anna")
    assert set(made.plant.machines) == {"pump", "fan"} and "a restart would forget them" in said[-1]
    monkeypatch.undo()
    made.roster.check()
    assert "fan" in current(from_options(tables(models, tmp_path)))


def test_machines_whose_names_differ_by_case_alone_are_not_added(running, models):
    made, _, _ = running
    with pytest.raises(BadInput, match="would share its files with 'pump'"):
        made.roster.put("Pump", {"model": str(models[1])}, "anna")
