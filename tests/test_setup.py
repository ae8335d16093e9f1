"""Recordings of a machine that is set up: uploads, microphones of the server, what doctor says, sessions."""

import io
import json
import shutil

import numpy as np
import pytest
import soundfile

from brokers import wait_for
from conftest import RATE, hum, write_wav
from nearfar.audio import read
from nearfar.doctor import check_recordings
from nearfar.doctor.report import FileReport, Report, TwoGroups
from nearfar.live.setup.collection import Collections
from nearfar.live.setup.microphones import Microphones
from nearfar.live.setup.preparation import findings
from nearfar.support.words import without_commands
from test_fitting import ended, server

CLIP = hum(3, seconds=1.0)


def wav(clip=CLIP, subtype="PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.stack([clip.near, clip.far], axis=1), RATE, format="WAV", subtype=subtype)
    return file.getvalue()


def send(client, name, content, more=""):
    path = f"/v1/machines/pump/recordings?name={name}{more}"
    return client.post(path, content=content, headers={"content-type": "audio/wav"})


@pytest.fixture
def pump(tmp_path):
    with server(tmp_path) as (client, assembly):
        client.post("/v1/machines", json={"id": "pump", "name": "Pump"})
        yield client, assembly, tmp_path / "recordings" / "pump"


def test_an_upload_is_kept_sample_by_sample_under_its_name(pump):
    client, _, folder = pump
    answer = send(client, "..%2FMontag%3A%20früh.wav", wav()).json()
    assert answer["file"] == "Montag_ früh.flac" and answer["problems"] == []
    kept = read(folder / "normals" / "Montag_ früh.flac")
    sent = soundfile.read(io.BytesIO(wav()), dtype="float32")[0].T
    assert (kept.near == sent[0]).all() and (kept.far == sent[1]).all()
    level = 20 * np.log10(np.std(sent[0]))
    assert answer["levels"][0] == pytest.approx(level, abs=0.1)
    assert send(client, "Montag_%20früh.wav", wav()).json()["file"] == "Montag_ früh_1.flac"  # nothing is overwritten
    found = client.get("/v1/machines/pump/recordings").json()
    assert found["recordings"] == 2 and "18 more recordings" in found["missing"]
    sound = client.get("/v1/machines/pump/recordings/far", params={"file": "Montag_ früh.flac"})
    assert sound.status_code == 200 and sound.headers["content-type"] == "audio/wav"


def test_an_upload_that_cannot_be_used_leaves_nothing(pump):
    client, _, folder = pump
    dead = io.BytesIO()
    soundfile.write(dead, np.zeros((RATE, 2)), RATE, format="WAV")
    answer = send(client, "dead.wav", dead.getvalue())
    assert answer.status_code == 422 and "near microphone is silent" in answer.json()["message"]
    assert send(client, "cut.wav", wav()[:30]).status_code == 422
    assert not list((folder / "normals").iterdir())


def test_a_test_is_judged_and_played_and_is_no_normal(pump):
    client, _, _ = pump
    quiet = hum(4, seconds=1.0, level=0.001)
    answer = send(client, "test.wav", wav(quiet, "FLOAT"), "&test=true").json()
    assert any("too quiet" in text for text in answer["problems"])
    found = client.get("/v1/machines/pump/recordings").json()
    assert found["recordings"] == 0 and found["tested"]
    assert client.get("/v1/machines/pump/test/near").status_code == 200
    one = np.stack([CLIP.near, CLIP.near], axis=1)
    file = io.BytesIO()
    soundfile.write(file, one, RATE, format="WAV")
    assert "same signal" in " ".join(send(client, "t.wav", file.getvalue(), "&test=true").json()["problems"])


def test_doctor_is_a_job_whose_findings_are_kept_until_the_recordings_change(pump):
    client, _, folder = pump
    for i in range(10):
        write_wav(folder / "normals" / f"{i}.wav", hum(i, seconds=1.0))
    write_wav(folder / "normals" / "odd.wav", hum(50, fault="hiss", seconds=1.0))
    (folder / "normals" / "bad.wav").write_bytes(b"RIFF")
    client.post("/v1/machines/pump/doctor", json={})
    assert ended(client)["state"] == "done"
    found = client.get("/v1/machines/pump/recordings").json()["findings"]
    assert found["verdict"] == "unusable" and found["usable"] == 11 and not found["stale"]
    by_file = {each["file"]: each for each in found["files"]}
    assert not by_file["bad.wav"]["usable"] and "unlike the others" in " ".join(by_file["odd.wav"]["texts"])
    assert found["files"][0]["file"] == "bad.wav"  # what cannot be used comes first
    body = {"files": ["bad.wav", "odd.wav"], "keep": False, "who": "Anna"}
    after = client.put("/v1/machines/pump/recordings", json=body).json()
    assert after["findings"]["stale"] and after["recordings"] == 10
    kept = client.put("/v1/machines/pump/recordings", json={"files": ["9.wav"], "keep": True, "who": "Ben"}).json()
    assert [f["kept_by"] for f in kept["files"] if f["file"] in ("9.wav", "8.wav")] == ["", "Ben"]
    client.post("/v1/machines/pump/doctor", json={})
    assert ended(client, 2)["state"] == "done"
    found = client.get("/v1/machines/pump/recordings").json()["findings"]
    assert found["verdict"] == "ready" and found["recordings"] == 10


def test_findings_name_groups_by_the_names_of_the_collection(tmp_path):
    for i in range(6):
        write_wav(tmp_path / "a" / f"{i}.wav", hum(i, seconds=1.0))
        write_wav(tmp_path / "b" / f"{i}.wav", hum(i + 20, seconds=3.0))
    found = findings(
        check_recordings(tmp_path), {f"{part}/{i}.wav": f"x/{part}/{i}.wav" for part in "ab" for i in range(6)}
    )
    (groups,) = [g for g in found["groups"] if g["kind"] == "length"]
    assert found["verdict"] in ("groups", "deaf")
    assert sorted(groups["files"][0] + groups["files"][1]) == [f"x/{part}/{i}.wav" for part in "ab" for i in range(6)]


def test_sessions_that_people_name_count_and_reach_the_detector(pump):
    client, assembly, folder = pump
    for i in range(12):
        write_wav(folder / "normals" / f"{i:02d}.wav", hum(i, seconds=1.0))
    assert client.get("/v1/machines/pump/recordings").json()["sessions"] == 1
    for session, files in (("full load", range(6)), ("half load", range(6, 12))):
        body = {"files": [f"{i:02d}.wav" for i in files], "session": session}
        found = client.put("/v1/machines/pump/recordings", json=body).json()
    assert found["sessions"] == 2 and "1 more session" in found["missing"]
    client.post("/v1/machines/pump/fit", json={})
    assert "of 2 sessions" in ended(client)["notes"][0]
    detector = assembly.plant.machines["pump"].detector
    assert detector.sessions == ["full load"] * 6 + ["half load"] * 6


def test_names_of_files_lead_nowhere_else(tmp_path):
    collections = Collections(tmp_path)
    collections.create("pump", "Pump")
    taken = collections.add("pump", "CON: ../..\\x?.wav", iter([CLIP]))
    assert taken.file.parent == tmp_path / "pump" / "normals" and taken.file.name == "CON_ .._.._x_.flac"
    assert collections.get("pump").name == "Pump"
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "collection.json").write_text("{")
    assert [c.id for c in collections.all()] == ["pump"]
    with pytest.raises(OSError, match="damaged"):
        collections.get("bad")
    with pytest.raises(LookupError):
        collections.get("../pump")


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg")
def test_microphones_are_metered_tested_and_recorded(tmp_path):
    clip = hum(5, seconds=8.0)
    line = write_wav(tmp_path / "line.wav", clip)
    told = []
    use = Microphones(lambda: 1_800_000_000.0, told.append)
    settings = {"mono": False, "seconds": 2.0}
    use.start("pump", [str(line)], tmp_path / "n", **settings)
    wait_for(lambda: use.session("pump").state == "ended")
    levels = [s.levels for s in told if s.levels]
    near = 20 * np.log10(np.std(clip.near))
    assert len(levels) > 10 and levels[0][0] == pytest.approx(near, abs=1.0) and not (tmp_path / "n").exists()
    use.start("pump", [str(line)], tmp_path / "n", test=tmp_path / "test.flac", **settings)
    wait_for(lambda: use.session("pump").state == "ended")
    assert read(tmp_path / "test.flac").seconds == 2.0 and not (tmp_path / "n").exists()
    use.start("pump", [str(line)], tmp_path / "n", count=3, **settings)
    wait_for(lambda: use.session("pump").state == "ended")
    assert use.session("pump").taken == 3 and len(list((tmp_path / "n").glob("*.flac"))) == 3
    soundfile.write(tmp_path / "dead.wav", np.zeros((8 * RATE, 2)), RATE)
    use.start("pump", [str(tmp_path / "dead.wav")], tmp_path / "d", count=3, **{**settings, "seconds": 1.0})
    wait_for(lambda: use.session("pump").state == "failed")
    assert "3 recordings in a row" in use.session("pump").problem and not (tmp_path / "d").exists()
    use.close()


def test_a_full_disk_refuses_and_goes_on_when_there_is_room(small_disk, tmp_path):
    with server(tmp_path, models=small_disk / "models") as (client, _):
        client.post("/v1/machines", json={"id": "pump"})
        filler = small_disk / "filler"
        filler.write_bytes(b"x" * 30_000)
        answer = send(client, "1.wav", wav())
        assert answer.status_code == 503 and "disk" in answer.json()["code"]
        found = client.get("/v1/machines/pump/recordings").json()
        assert found["recordings"] == 0 and not list((small_disk / "recordings" / "pump" / "normals").iterdir())
        filler.unlink()
        short = hum(3, seconds=0.3)
        assert send(client, "1.wav", wav(short)).status_code == 200


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs ffmpeg")
def test_a_source_of_the_server_is_tested_and_recorded_over_the_api(pump, tmp_path):
    client, _, folder = pump
    line = write_wav(tmp_path / "line.wav", hum(5, seconds=5.0))
    client.put("/v1/machines/pump/recordings", json={"kind": "stream", "source": [str(line)]})
    started = client.post("/v1/machines/pump/microphone", json={"what": "test", "seconds": 1.0})
    assert started.status_code == 202 and started.json()["state"] == "recording"
    wait_for(lambda: client.get("/v1/machines/pump/recordings").json()["microphone"]["state"] == "ended")
    found = client.get("/v1/machines/pump/recordings").json()
    assert found["tested"] and found["recordings"] == 0 and found["microphone"]["last"]["problems"] == []
    assert client.get("/v1/machines/pump/test/far").status_code == 200
    client.post("/v1/machines/pump/microphone", json={"what": "record", "seconds": 1.0, "count": 4})
    wait_for(lambda: client.get("/v1/machines/pump/recordings").json()["microphone"]["taken"] == 4)
    assert client.get("/v1/machines/pump/recordings").json()["recordings"] == 4
    stopped = client.delete("/v1/machines/pump/microphone").json()
    assert stopped["state"] == "ended" and stopped["taken"] == 4 and len(list((folder / "normals").iterdir())) == 4
    missing = client.put("/v1/machines/pump/recordings", json={"source": ["mic:none-of-this-name"]})
    assert missing.status_code == 200
    refused = client.post("/v1/machines/pump/microphone", json={"what": "levels"})
    assert refused.status_code in (202, 422)  # without PortAudio it cannot be opened


def test_exchanged_microphones_come_before_what_they_explain():
    files = [FileReport(f"{i}.wav", seconds=5.0) for i in range(10)]
    files[3].add("exchanged", "near is 8 dB quieter than far: swapped?")
    groups = [TwoGroups("sound", "", ("", ""), (["0.wav"], ["3.wav"]))]
    found = findings(Report(files, [], [], groups), {})
    assert found["verdict"] == "exchanged" and [f["file"] for f in found["files"]] == ["3.wav"]
    assert findings(Report(files[:3], [], [], groups), {})["verdict"] == "groups"


@pytest.mark.parametrize(("sent", "kept"), [
    ("\N{HAMMER}" * 90 + ".wav", "\N{HAMMER}" * 30),
    ("." + "x" * 200 + ".b.wav", "x" * 114 + ".b"),
    ("x" * 5 + "." * 119 + "a.wav", "a"),
    ("con.wav", "_con"),
])  # fmt: skip
def test_names_of_uploads_fit_on_every_disk_and_are_not_hidden(pump, sent, kept):
    client, _, _ = pump
    answer = send(client, sent, wav())
    assert answer.status_code == 200 and answer.json()["file"] == f"{kept}.flac"
    assert client.get("/v1/machines/pump/recordings").json()["recordings"] == 1


@pytest.mark.parametrize("name", ["~nobody-9/x", "/" + "x" * 300, "a\0b", "\ud800"])
def test_a_folder_that_no_system_has_is_a_wrong_value(pump, name):
    client, _, _ = pump
    content = json.dumps({"kind": "folder", "folder": name}).encode()
    headers = {"content-type": "application/json"}
    assert client.put("/v1/machines/pump/recordings", content=content, headers=headers).status_code == 422


def test_another_machine_must_differ_by_more_than_case(pump):
    client, _, _ = pump
    for id in ("PUMP", "nul"):
        assert client.post("/v1/machines", json={"id": id, "name": "Pump"}).status_code == 422


def test_a_page_gets_no_hints_for_the_command_line():
    note = "The far microphone is dead: use near alone (nearfar fit --far -1). Listen (or not)."
    assert without_commands(note) == "The far microphone is dead: use near alone. Listen (or not)."
    assert findings(Report([FileReport("a.wav")] * 3, [note], [], []), {})["notes"] == [without_commands(note)]


def test_an_upload_that_is_written_anew_keeps_the_codec_that_it_had(pump):
    client, _, folder = pump
    for kind, codec in (("OGG", "Vorbis"), ("WAV", "PCM")):
        content = io.BytesIO()
        soundfile.write(content, np.stack([CLIP.near, CLIP.far], axis=1), RATE, format=kind)
        assert send(client, f"{codec}.{kind}", content.getvalue()).status_code == 200
        assert read(folder / "normals" / f"{codec}.flac").codec == codec
