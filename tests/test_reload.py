"""A detector folder that two processes change: nothing is overwritten, and a running plant takes the change over."""

import shutil
import threading
from pathlib import Path

import pytest

import nearfar
from conftest import hum
from nearfar.detector.folder import digest, version
from nearfar.errors import Conflict
from plants import plant_of, windows


@pytest.fixture
def model(pump_model, tmp_path):
    return Path(shutil.copytree(pump_model, tmp_path / "pump3"))


@pytest.fixture
def plant(model, tmp_path):
    made, _, _ = plant_of(model, tmp_path / "history")
    yield made
    made.close()
    made.history.close()


def names(folder: Path) -> list[str]:
    return [n.name for n in nearfar.load(folder).normals]


def test_a_folder_that_was_written_since_it_was_read_is_not_overwritten(model):
    mine, theirs = nearfar.load(model), nearfar.load(model)
    theirs.add([hum(200)]).save(model)
    after = digest(model)
    mine.add([hum(300)])
    with pytest.raises(Conflict, match=r"pump3 has been changed since it was read.*run the command again"):
        mine.save(model)
    assert digest(model) == after and not [p for p in model.parent.iterdir() if p.name.startswith(".")]
    theirs.set_threshold(value=9.0)
    theirs.save(model)  # whoever wrote last may write again
    assert nearfar.load(model).threshold.value == 9.0


def test_another_place_and_a_folder_that_is_gone_are_written(model, tmp_path):
    detector = nearfar.load(model)
    assert detector.save(tmp_path / "copy") and digest(tmp_path / "copy") == digest(model)
    detector = nearfar.load(model)
    shutil.rmtree(model)
    assert version(model) == ()
    detector.save(model)
    assert len(nearfar.load(model).normals) == 20


def test_what_many_add_at_once_is_all_there(model):
    def add(seed):
        while True:
            try:
                nearfar.load(model, threads=1).add([hum(seed)]).save(model)
                return
            except Conflict:
                continue

    adding = [threading.Thread(target=add, args=(500 + i,)) for i in range(5)]
    for thread in adding:
        thread.start()
    for thread in adding:
        thread.join()
    assert len(nearfar.load(model).normals) == 25


def test_a_plant_takes_over_what_the_command_line_has_changed(plant, model):
    machine = plant.machines["pump"]
    by_command = nearfar.load(model).add([hum(200)])
    by_command.set_threshold(value=4.5)
    by_command.save(model)
    plant.follow_models()
    assert len(machine.detector.normals) == 21 and machine.alarm.on == 4.5
    row = plant.process_window("pump", windows([""])[0])
    assert row.threshold == 4.5 and row.score == nearfar.load(model).score([windows([""])[0].clip])[0].score
    (entry,) = plant.history.audit()
    assert (entry.who, entry.action) == ("another command", "reload")
    assert entry.detail == {"normals": 21, "normals_before": 20, "was": 6.0, "value": 4.5}
    before = machine.detector
    plant.follow_models()
    assert machine.detector is before and len(plant.history.audit()) == 1


def test_a_change_through_the_plant_keeps_what_the_command_line_has_added(plant, model):
    nearfar.load(model).add([hum(200)]).save(model)
    plant.operator.add_normals("pump", [hum(300)], "source", "anna")
    assert len(names(model)) == 22
    changed = nearfar.load(model)
    changed.set_threshold(value=5.0)
    changed.save(model)
    plant.operator.change_set_point("pump", value=7.0, who="anna")
    assert plant.history.audit(limit=1)[0].detail["was"] == 5.0 and len(names(model)) == 22


def test_an_undo_does_not_take_back_what_somebody_else_did(plant, model):
    audit = plant.operator.add_normals("pump", [hum(300)], "source", "anna")
    nearfar.load(model).add([hum(200)]).save(model)
    there = digest(model)
    with pytest.raises(Conflict, match="changed by somebody else since"):
        plant.operator.undo(audit.id, "anna")
    assert digest(model) == there


def test_a_folder_that_cannot_be_used_leaves_the_detector_and_is_said(plant, model):
    machine = plant.machines["pump"]
    before, text = machine.detector, (model / "detector.json").read_text()
    (model / "detector.json").write_text(text[:100])
    plant.follow_models()
    assert machine.detector is before and "pump3 is damaged" in machine.model_problem
    (model / "detector.json").write_text(text.replace('"clip_seconds": 2.0', '"clip_seconds": 3.0'))
    plant.follow_models()  # it needs another source: `roster` opens the machine anew
    assert machine.detector is before and machine.outdated and not machine.model_problem
    with pytest.raises(Conflict, match="is being opened anew"):
        plant.operator.change_set_point("pump", value=7.0, who="anna")
    (model / "detector.json").write_text(text)
    plant.follow_models()
    assert machine.detector is not before and not machine.model_problem and not machine.outdated


def test_a_model_folder_that_has_gone_is_said_until_it_is_back(plant, model):
    machine = plant.machines["pump"]
    model.rename(model.with_name("elsewhere"))
    plant.follow_models()
    assert not machine.model_problem  # it may be being replaced
    for _ in range(2):
        plant.follow_models()
    assert "pump3 has gone" in machine.model_problem
    model.with_name("elsewhere").rename(model)
    plant.follow_models()
    assert not machine.model_problem
