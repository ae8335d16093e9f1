"""The recordings that a machine has heard: a row each, with their worst spans and their sound."""

import itertools
import json

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import nearfar
from conftest import RATE, hum, write_wav
from nearfar import audio
from nearfar.live.history.recordings import file_of, recording_of, recordings
from nearfar.live.history.records import ScoreRecord
from nearfar.live.sources.windows import Starts
from nearfar.score import Score, worst_window
from plants import T0
from servers import a_plant, client_of, listen
from test_setup import wav

LENGTH = 10.0


def rows(scores, file="hour.wav", t0=1000.0, unusual=2.0, alarm=4.0):
    """Windows of a recording; None cannot be judged."""
    return [
        ScoreRecord("pump", t0 + i * LENGTH, t0 + (i + 1) * LENGTH, score or 0.0, alarm,
                    None if score is None else score > alarm, 0.1, unusual=None if score is None else score > unusual,
                    file=file, problem="silent" if score is None else "")
        for i, score in enumerate(scores)
    ]  # fmt: skip


def test_an_hour_is_one_row_with_its_four_worst_spans():
    scores = [0.0] * 360
    for at, values in {
        20: [3.0],
        50: [4.5],
        90: [2.5, 2.6],
        200: [12.0, 14.4, 13.0, 12.5],
        300: [3.5],
        330: [None],
    }.items():
        scores[at : at + len(values)] = values
    found = recording_of(rows(scores))
    assert (found.windows, found.judged, found.unusual, found.anomalous) == (360, 359, 9, 5)
    assert (
        found.status == "wrong" and found.score == 14.4 and found.worst_t0 == 1000 + 2010 and found.problem == "silent"
    )
    spans = [(s.start_s, s.end_s, s.score, s.windows) for s in found.spans]
    assert spans == [(2000, 2040, 14.4, 4), (500, 510, 4.5, 1), (3000, 3010, 3.5, 1), (200, 210, 3.0, 1)]


@pytest.mark.parametrize(
    ("scores", "status"),
    [
        ([1.0], "normal"),
        ([3.0], "unusual"),
        ([5.0], "wrong"),
        ([5.0, 1.0, 5.0, 1.0], "unusual"),  # by chance: never three in a row
        ([5.0, 5.0], "wrong"),
        ([1.0, 5.0, 5.0, 5.0, 1.0], "wrong"),
        ([None, None], "cannot judge"),
        ([None, 5.0], "wrong"),
    ],
)
def test_a_recording_has_one_word(scores, status):
    assert recording_of(rows(scores)).status == status


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 4), st.integers(0, 60)), max_size=12))
@settings(max_examples=60, deadline=None)
def test_windows_of_one_recording_stay_together_and_begin_alone(sent):
    starts, made = Starts(), []
    for file, count, end in sent:  # the same name again is another recording; many overlap, as whole seconds coincide
        t0 = starts.of(file, float(end), count * LENGTH, LENGTH)
        assert end - LENGTH <= t0 + count * LENGTH <= end
        made.append(rows([1.0] * count, file, t0))
    windows = sorted((row for of in made for row in of), key=lambda row: -row.t0)
    assert all(a.t0 - b.t0 > 5e-3 for a, b in itertools.pairwise(windows))
    found = list(recordings(windows))
    assert sorted((h.t0, h.file, h.windows) for h in found) == sorted((of[0].t0, of[0].file, len(of)) for of in made)
    assert [h.t1 for h in found] == sorted((of[-1].t1 for of in made), reverse=True)


def test_recordings_that_do_not_overlap_begin_when_they_did():
    starts = Starts()
    assert [starts.of(f"{i}.wav", 60.0 * i, 60.0, LENGTH) for i in (1, 2, 3)] == [0.0, 60.0, 120.0]
    assert starts.of("3.wav", 240.0, 60.0, LENGTH) == pytest.approx(179.99)  # else it would be one with the last
    assert starts.of("b.wav", 10.0, 10.0, LENGTH) == pytest.approx(-0.01)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a.wav", "a.wav"),
        ("a.wav@20s", "a.wav"),
        ("x/a@3s.wav@1.5s", "x/a@3s.wav"),
        ("a.wav@1e+06s", "a.wav"),
        ("", ""),
    ],
)
def test_the_file_of_a_window(name, file):
    assert file_of(name) == file


def post(client, name, clip):
    path = f"/v1/machines/pump/score?name={name}"
    answer = client.post(path, content=wav(clip), headers={"content-type": "audio/wav"})
    assert answer.status_code == 200
    return answer.json()


def test_what_is_sent_leaves_a_trace_with_sound_and_can_alarm(pump3, tmp_path):
    plant, clock = a_plant(pump3, tmp_path, "pump")
    with client_of(plant, clock) as client:
        answers = []
        for i in range(4):
            clock.now += 1  # they are sent faster than they were made
            answers.append(post(client, "same.wav", hum(500 + i, fault="hiss" if i else "")))
        state = client.get("/v1/machines/pump").json()
        assert state["state"] == "unacknowledged alarm" and state["window"]["file"] == "same.wav"
        found = client.get("/v1/machines/pump/heard").json()["recordings"]
        assert [h["score"] for h in found] == [a["score"] for a in answers[::-1]]  # the very same scores
        assert [h["status"] for h in found] == ["wrong"] * 3 + ["normal"] and all(h["playable"] for h in found)
        page = client.get("/v1/machines/pump/heard?limit=3").json()
        older = client.get(page["next"]).json()
        worst = client.get("/v1/machines/pump/heard?order=worst&limit=3").json()
        assert [h["score"] for h in worst["recordings"]] == sorted((a["score"] for a in answers), reverse=True)[:3]
        assert worst["next"] is None
        assert [h["t0"] for h in page["recordings"] + older["recordings"]] == [h["t0"] for h in found]
        sound = client.get("/v1/machines/pump/heard/near", params={"t0": found[0]["t0"]})
        assert sound.status_code == 200
        assert client.get("/v1/machines/pump/heard/near", params={"t0": found[0]["t0"] + 99}).status_code == 404
        assert state["last_heard"] <= clock.now
        event = client.get("/v1/events/1").json()
        assert event["file"] == "same.wav" and event["has_audio"]
        peak = max(range(4), key=lambda i: answers[i]["score"])
        kept = plant.history.event_audio.path(plant.history.event(1).audio)
        assert np.abs(soundfile.read(kept)[0][:, 0] - hum(500 + peak, fault="hiss").near).max() < 1e-4  # its own sound
        clock.now += 1
        long = post(client, "long.wav", hum(600, seconds=40.0))
        found = client.get("/v1/machines/pump/heard").json()["recordings"][0]
        assert found["file"] == "long.wav" and found["windows"] == len(long["windows"]) == 20
        assert found["t1"] - found["t0"] == pytest.approx(40.0, abs=0.1)
    plant.close()
    plant.history.close()


def test_a_machine_with_a_source_keeps_what_is_sent_in_its_audit_alone(pump3, tmp_path):
    plant, clock = a_plant(pump3, tmp_path, "pump", streamed=True)
    with client_of(plant, clock) as client:
        post(client, "one.wav", hum(1))
        assert client.get("/v1/machines/pump/heard").json()["recordings"] == []
        (entry,) = client.get("/v1/audit").json()["audit"]
        assert entry["action"] == "score" and entry["text"].startswith("one.wav: ")
    plant.close()
    plant.history.close()


def test_a_folder_gives_the_sound_of_its_own_files_alone(pump3, tmp_path):
    from nearfar.live.server.playback import heard_clip, sound_path

    plant, _ = a_plant(pump3, tmp_path, "pump")
    machine, inbox = plant.machines["pump"], tmp_path / "inbox"
    machine.folder = inbox
    clip = hum(7, seconds=40.0)
    path = write_wav(inbox / "sub" / "hour.wav", clip)
    write_wav(tmp_path / "secret.wav", clip)
    (row,) = rows([1.0], "sub/hour.wav")
    assert sound_path(plant.history, machine, row) == path.resolve()
    part = heard_clip(path, machine, 6.0)
    assert np.abs(part.near - clip.near[6 * RATE : 8 * RATE]).max() < 1e-4
    for name in ("../secret.wav", "sub/none.wav", str(tmp_path / "secret.wav")):
        assert sound_path(plant.history, machine, rows([1.0], name)[0]) is None
    plant.close()
    plant.history.close()


def test_a_stream_gives_the_samples_that_are_kept(pump3, tmp_path):
    plant, clock = a_plant(pump3, tmp_path, "pump", streamed=True)
    listen(plant, [""] * 3)
    clock.now = T0 + 60
    with client_of(plant, clock) as client:
        (sample,) = client.get("/v1/machines/pump/heard").json()["recordings"]
        assert sample["file"] == "" and sample["t0"] == T0 and sample["playable"] and sample["status"] == "normal"
        assert client.get("/v1/machines/pump/heard/far", params={"t0": T0}).status_code == 200
    plant.close()
    plant.history.close()


def test_a_long_recording_names_its_worst_spans_on_the_command_line_too():
    def scored(start, value):
        return Score(f"h.wav@{start}s", value, 4.0, value > 4, [], 0.1, unusual=value > 2, unusual_threshold=2.0)

    values = [0, 3, 0, 5, 6, 0, 2.5, 0, 2.6, 0, 2.7]
    worst = worst_window([scored(10 * i, v) for i, v in enumerate(values)], "h.wav")
    assert worst.score == 6
    assert "unusual from 30s, 2 windows (6.0); at 10s (3.0); at 100s (2.7); at 80s (2.6)" in worst.warnings
    assert not any("unusual" in w for w in worst_window([scored(0, 5.0), scored(10, 0.0)], "h.wav").warnings)


def pages(client, address, key):
    """The entries of all pages of a list."""
    found = []
    while address:
        page = client.get(address).json()
        assert page[key]
        found += page[key]
        address = page["next"]
    return found


def test_recordings_that_are_sent_at_once_are_all_kept_none_in_the_future(pump3, tmp_path):
    plant, clock = a_plant(pump3, tmp_path, "pump")
    with client_of(plant, clock) as client:
        for i in range(3):
            post(client, "same.wav", hum(700 + i, seconds=40.0))
        whole = client.get("/v1/machines/pump/heard").json()["recordings"]
        assert [found["windows"] for found in whole] == [20, 20, 20]
        assert pages(client, "/v1/machines/pump/heard?limit=1", "recordings") == whole
        assert all(T0 - 1 <= found["t1"] <= T0 for found in whole)
        times = [window["t0"] for window in pages(client, "/v1/machines/pump/scores?limit=7", "scores")]
        assert len(times) == 60 and times == sorted(set(times))
    plant.close()
    plant.history.close()


def test_a_page_of_scores_ends_where_a_time_does(pump3, tmp_path):
    plant, clock = a_plant(pump3, tmp_path, "pump")
    for name in ("a.wav", "b.wav", "c.wav"):  # of a history in which windows begin together
        for row in rows([1.0] * 4, name, T0 - 100):
            plant.history.record_score(row)
    with client_of(plant, clock) as client:
        found = pages(client, "/v1/machines/pump/scores?limit=2", "scores")
        assert [window["t0"] for window in found] == [T0 - 100 + LENGTH * i for i in range(4) for _ in range(3)]
    plant.close()
    plant.history.close()


def test_a_recording_whose_second_half_is_dead_says_so_as_on_the_command_line(pump3, tmp_path):
    clip = hum(800, seconds=8.0)
    dead = np.arange(len(clip.near)) >= 4 * RATE
    clip = audio.Clip(*(np.where(dead, np.float32(0), x) for x in (clip.near, clip.far)), RATE)
    path = write_wav(tmp_path / "half.wav", clip)
    plant, clock = a_plant(pump3, tmp_path, "pump")
    with client_of(plant, clock) as client:
        answer = post(client, "half.wav", clip)
    _, out, _ = nearfar("score", pump3, path, "--json")
    (row,) = json.loads(out)["scores"]
    assert {**answer, **{name: row[name] for name in ("file", "status", "score", "codes", "warnings")}} == answer
    assert row["file"] == "half.wav" and row["status"] == "normal" and {"silent"} <= set(row["codes"])
    assert any("2 of them cannot be judged" in text for text in row["warnings"])
    plant.close()
    plant.history.close()
