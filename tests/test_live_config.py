"""The configuration: what is not known or of the wrong type is reported with its line; secrets are never printed."""

import shutil
from pathlib import Path

import pytest

from nearfar.cli.serve import read_home
from nearfar.errors import ConfigError
from nearfar.live.build import build_plant, check, open_machines
from nearfar.live.config import from_options, read
from nearfar.live.monitor import Monitor
from nearfar.support.files import user_home

SOUND = """
site = "north"

[history]
folder = "h"
keep_days = 30

[machines.pump]
model = "pump3"
source = "in"
name = "Pump 3"

[machines.pump.alarm]
false_alarms_per_week = 5
on_delay = 2

[machines.fan]
model = "pump3"
source = ["rtsp://anna:${PASSWORD}@10.0.0.7/a", "rtsp://10.0.0.7/b"]
silence_s = 90

[mqtt]
host = "broker"
username = "anna"
password_file = "mqtt.secret"

[webhook]
url = "https://example.org/hook"
secret_file = "hook.secret"

[metrics]
port = 9108
"""


@pytest.fixture
def folder(pump3, tmp_path):
    shutil.copytree(pump3, tmp_path / "pump3")
    (tmp_path / "in").mkdir()
    for name in ("mqtt.secret", "hook.secret"):
        (tmp_path / name).write_text("very-secret\n")
    return tmp_path


def written(folder, text=SOUND):
    (folder / "plant.toml").write_text(text)
    return folder / "plant.toml"


def test_a_sound_file_is_read_whole(folder):
    config = read(written(folder), {"PASSWORD": "hidden"})
    assert config.site == "north" and list(config.machines) == ["pump", "fan"]
    assert config.machines["pump"].source == (str(folder / "in"),) and config.machines["pump"].alarm.on_delay == 2
    assert config.machines["fan"].source[0] == "rtsp://anna:hidden@10.0.0.7/a"
    assert config.history.folder == folder / "h" and config.metrics.address == "127.0.0.1"


def test_check_says_what_would_happen_and_no_secret(folder):
    lines = "\n".join(check(read(written(folder), {"PASSWORD": "hidden"})))
    assert "machine pump" in lines and "and 5 a week (if" in lines and "signed" in lines
    assert "very-secret" not in lines and "hidden" not in lines


def test_machines_are_as_configured_and_share_an_encoder(folder):
    config = read(written(folder), {"PASSWORD": "x"})
    pump, fan = open_machines(config, config.machines, {})
    assert pump.detector.encoders["logmel"] is fan.detector.encoders["logmel"]
    assert pump.source_health.silence_s == float("inf") and fan.source_health.silence_s == 90
    assert pump.false_alarms_per_week == pytest.approx(5) and fan.alarm.on == 6.0  # the model's, as somebody chose it
    assert pump.hop_s == 2.0 and fan.hop_s == 1.0


@pytest.mark.parametrize(
    "old, new, says",
    [
        (
            "on_delay = 2",
            "ondelay = 2",
            "line 15: machines.pump.alarm.ondelay is not known .did you mean on_delay[?].; choose one of: deadband",
        ),
        ("[metrics]", "[metric]", "line 31: metric is not known"),
        ("[machines.fan]", "[machine.fan]", "line 17: machine is not known"),
        ("keep_days = 30", 'keep_days = "30"', "line 6: history.keep_days must be a number, not '30'"),
        ("port = 9108", "port = true", "must be a whole number"),
        ("port = 9108", "port = 1.5", "must be a whole number"),
        ('host = "broker"', "", "mqtt lacks host"),
        ('model = "pump3"\nsource = "in"', 'source = "in"', "machines.pump lacks model"),
        ('site = "north"', "site = north", "this is not TOML"),
        ('site = "north"', 'site = "north"\nmachines = 3', "this is not TOML"),
        ("${PASSWORD}", "${NOT_SET}", "environment variable NOT_SET, which is not set"),
        ("on_delay = 2", "on_delay = 0", "line 15: machines.pump.alarm.on_delay must be >= 1, not 0"),
        ("silence_s = 90", "silence_s = -1", r"line 20: machines.fan.silence_s must be > 0, not -1"),
        ("silence_s = 90", "channels = 3", "machines.fan.channels must be <= 2, not 3"),
        ("silence_s = 90", "rate = 0", "machines.fan.rate must be >= 1, not 0"),
        ("keep_days = 30", "keep_days = nan", "line 6: history.keep_days must be a finite number, not nan"),
        ("keep_days = 30", "audio_gb = -1", "history.audio_gb must be >= 0"),
        ("port = 9108", "port = 99999", "line 32: metrics.port must be <= 65535, not 99999"),
        ('host = "broker"', 'host = ""', "line 23: mqtt.host must be a name or an address, not ''"),
        ('host = "broker"', 'host = "b"\nprefix = "a/#"', r"mqtt.prefix must be a topic without .*, not 'a/#'"),
        ("https://example.org/hook", "htp://x", "line 28: webhook.url: url of a webhook must begin with http"),
        ("[metrics]", '[opcua]\nendpoint = "http://x"\n[metrics]', "opcua.endpoint must be opc.tcp://HOST:PORT/"),
        ("[metrics]", "[notify.a]\n[metrics]", "line 31: notify.a: a channel has url, or url_file"),
        (
            "[metrics]",
            '[notify.a]\nurl = "x"\nquiet = "at night"\n[metrics]',
            "line 33: .*'at night' is no span of time",
        ),
        ("[metrics]", '[notify.a]\nurl = "x"\nevents = "fire"\n[metrics]', "unknown kind of event 'fire'"),
        (
            "[metrics]",
            '[notify.a]\nurl = "x"\nmachines = "saw"\n[metrics]',
            "notify.a names a machine 'saw'; there are: pump",
        ),
        ("[metrics]", '[[maintenance]]\nwhen = "25:00-26:00"\n[metrics]', "an hour that no day has"),
        (
            "[metrics]",
            '[[maintenance]]\nwhen = "Sun"\nmachines = ["saw"]\n[metrics]',
            "maintenance names a machine 'saw'",
        ),
    ],
)
def test_mistakes_are_named_with_their_line(folder, old, new, says):
    with pytest.raises(ConfigError, match=says):
        read(written(folder, SOUND.replace(old, new, 1)), {"PASSWORD": "x"})


def test_all_mistakes_are_named_at_once_and_no_secret_with_them(folder):
    text = SOUND.replace("on_delay = 2", "on_delay = 2.5")
    text = text.replace('host = "broker"', 'host = "broker"\nport = "1883"\nprefix = "${PASSWORD}/#"')
    with pytest.raises(ConfigError) as caught:
        read(written(folder, text), {"PASSWORD": "hidden"})
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and all(line.startswith(f"{folder / 'plant.toml'}, line ") for line in lines)
    assert "machines.pump.alarm.on_delay must be a whole number, not 2.5" in lines[0]
    assert "mqtt.port must be a whole number, not '1883'" in lines[1]
    assert lines[2].endswith("not '${PASSWORD}/#'") and "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"rate": 0}, "machines.pump.rate must be >= 1, not 0"),
        ({"format": "mp3"}, "unknown sample format 'mp3'; choose one of: f32le"),
        ({"weights": 3}, "machines.pump.weights must be a path in quotes, not 3"),
    ],
)
def test_options_of_the_command_line_are_checked_in_the_same_way(table, says):
    with pytest.raises(ConfigError, match=says):
        from_options({"machines": {"pump": {"model": Path("pump3"), **table}}})
    weights = {"eat-large": Path("eat.safetensors")}
    made = from_options({"machines": {"pump": {"model": Path("pump3"), "weights": weights}}})
    assert made.machines["pump"].weights == weights and made.history.folder == Path("nearfar-history")


def test_the_home_folder_may_say_more_of_its_plant(tmp_path, monkeypatch):
    monkeypatch.setenv("NEARFAR_HOME", str(tmp_path))
    monkeypatch.setenv("LC_ALL", "de_AT.UTF-8")
    plain = read_home()
    assert plain.language == "de"  # that of the computer
    assert (plain.models, plain.history.folder) == (tmp_path / "models", tmp_path / "history") and not plain.notify
    written(tmp_path, 'language = "en"\n[notify.me]\nurl = "ntfy://ntfy.sh/x"\n[history]\nfolder = "h"\n')
    more = read_home()
    assert more.language == "en"
    assert more.notify["me"].url == "ntfy://ntfy.sh/x" and more.notify["me"].events == ("alarm", "health")
    assert (more.models, more.history.folder) == (tmp_path / "models", tmp_path / "h")


def test_files_without_machines_or_that_are_not_there(folder):
    with pytest.raises(ConfigError, match="no machine"):
        read(written(folder, 'site = "north"\nmachines = {}'))
    with pytest.raises(FileNotFoundError, match="no such configuration"):
        read(folder / "nowhere.toml")


def test_what_only_the_model_or_the_disk_can_tell_is_found_by_check(folder):
    for old, new, says in (
        ("silence_s = 90", "hop_s = 60", r"hop_s must be > 0 and <= 2, not 60.0"),
        ('username = "anna"', 'ca = "nowhere.pem"', r"no such file: .*nowhere.pem"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=says):
            check(read(written(folder, SOUND.replace(old, new)), {"PASSWORD": "x"}))


def test_an_unknown_sample_format_or_model_is_found_by_check(folder):
    text = SOUND.replace('name = "Pump 3"', 'format = "mp3"')
    with pytest.raises(ValueError, match="unknown sample format"):
        check(read(written(folder, text), {"PASSWORD": "x"}))
    shutil.rmtree(folder / "pump3")
    with pytest.raises(FileNotFoundError, match="is not a detector"):
        check(read(written(folder), {"PASSWORD": "x"}))


@pytest.mark.parametrize("file", ["mqtt.secret", "nowhere.pt"])
def test_weights_that_no_machine_would_use_are_refused(folder, file):
    text = SOUND.replace('name = "Pump 3"', f'weights = "{file}"')
    with pytest.raises(
        ValueError, match=f"weights .*{file} would not be used: this recipe has no network with weights"
    ):
        check(read(written(folder, text), {"PASSWORD": "x"}))
    (folder / "weights").mkdir()  # a place to look, which others may need
    text = SOUND.replace('name = "Pump 3"', 'weights = "weights"')
    assert check(read(written(folder, text), {"PASSWORD": "x"}))


def test_a_plant_is_put_together_and_taken_apart(folder):
    text = SOUND[: SOUND.index("[machines.fan]")] + '[jsonl]\nfile = "all.jsonl"\n'
    how = {"clock": lambda: 0.0, "warn": print, "report": lambda n, e: None, "once": True}
    assembly = build_plant(read(written(folder, text)), **how)
    with pytest.raises(ValueError, match=r"in use by a running .*: stop that process first"):
        build_plant(read(written(folder, text)), **how)
    assert isinstance(assembly.monitor, Monitor) and list(assembly.plant.machines) == ["pump"]
    import threading

    assembly.run(threading.Event())
    assert (folder / "h" / "history.db").is_file()
    build_plant(read(written(folder, text)), **how).close()


def test_check_says_who_is_told_and_when_nothing_is_judged(folder):
    more = (
        '\n[notify.shift]\nurl = "ntfy://ntfy.sh/s3cret-topic"\nmachines = "pump"\n[[maintenance]]\nwhen = "Sat-Sun"\n'
    )
    said = check(read(written(folder, SOUND + more), {"PASSWORD": "x"}))
    assert "notify shift: ntfy, alarm and health of pump" in said
    assert "maintenance: Sat-Sun, all machines are not judged" in said and "s3cret" not in "\n".join(said)
    with pytest.raises(ValueError, match="none that apprise understands"):
        check(read(written(folder, SOUND + more.replace("ntfy://", "smoke://")), {"PASSWORD": "x"}))


def test_a_home_folder_that_the_system_does_not_know_is_a_path_as_written(tmp_path, monkeypatch):
    (tmp_path / "plant.toml").write_text('[machines.p]\nmodel = "~nobody-9/x"\n')
    assert read(tmp_path / "plant.toml").machines["p"].model == tmp_path / "~nobody-9" / "x"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as for a user without an entry among the users
    with pytest.raises(ValueError, match="no home folder here: set the environment variable HOME"):
        user_home()
