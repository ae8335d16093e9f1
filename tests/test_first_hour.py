"""The first hour of a plant engineer in a real browser, without a shell: from an empty page to an alarm with sound."""

import contextlib
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile

from brokers import wait_for
from conftest import RATE, hum, write_wav
from nearfar.live.build import build_plant
from nearfar.live.config import from_options
from nearfar.live.server.app import make_app
from servers import server_of
from test_serve_pages import (
    CHROMIUM,
    LOOK,
    LOOPS,
    PHONE,
    SAID,
    WAIT_MS,
    english_texts,
    named,
    open_page,
    playwright,
    reach,
)

pytestmark = pytest.mark.slow
WIDE = {"width": 1200, "height": 900}
RULES = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
  .map(v => `${v.id}: ${v.nodes.slice(0, 3).map(n => n.target.join(" ")).join(", ")}`)"""


SETTLED = "() => Promise.allSettled(document.getAnimations().map(each => each.finished))"


@contextmanager
def server(folder):
    config = from_options({"models": folder / "models", "history": {"folder": folder / "history"}})
    with (
        closing(build_plant(config, clock=time.time, warn=print, report=print, idle=True)) as assembly,
        server_of(make_app(assembly.plant, roster=assembly.roster)) as url,
    ):
        yield url


@contextmanager
def browser_of(url, *arguments, **look):
    """A page of a new visitor, in a browser of its own; it must not complain."""
    if not Path(CHROMIUM).is_file():
        pytest.skip(f"there is no {CHROMIUM} on this machine")
    with playwright.sync_playwright() as p:
        flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", *arguments]
        with closing(p.chromium.launch(executable_path=CHROMIUM, args=flags)) as browser:
            context = browser.new_context(base_url=url, viewport=WIDE, **look)
            context.set_default_timeout(WAIT_MS)
            context.add_init_script(LOOPS)
            page, said = context.new_page(), []
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("console", lambda m: said.append(m.text) if m.type == "error" else None)
            yield page
            assert said == []


def line(path, fault="", seconds=12.0):
    """What the fake microphone hears: near on the left, far on the right, at 48 kHz."""
    clip = hum(5, fault=fault, seconds=seconds)
    pair = np.stack([clip.near, clip.far], axis=1)
    soundfile.write(path, 4 * np.repeat(pair, 3, axis=0), 3 * RATE, subtype="PCM_16")


def test_from_a_microphone_to_an_alarm_with_sound_without_a_shell(tmp_path):
    heard = tmp_path / "line.wav"
    line(heard)
    fake = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={heard}",
    )
    with server(tmp_path) as url, browser_of(url, *fake) as page:
        open_page(page, "/")
        page.get_by_role("link", name="Add a machine").click()
        page.get_by_label("Name of the machine").fill("Pump 3 (Süd)")
        page.get_by_role("button", name="Begin").click()
        page.wait_for_url("**/setup/Pump-3-S-d*")
        page.get_by_role("button", name="Use the microphone").click()
        page.locator("meter").first.wait_for()
        page.get_by_role("button", name="Test for 10 s").click()
        page.get_by_text("Recording 10 s").wait_for()
        play = page.get_by_role("button", name="near: The test: listen to it")
        play.wait_for()
        play.click()
        page.locator(".playing output", has_text=" of 10.0 s").wait_for()
        page.get_by_role("button", name="Next").click()
        page.locator("#count").fill("8")
        page.locator("#seconds").fill("1")
        page.get_by_role("button", name="Record", exact=True).click()
        page.get_by_text("8 of 8 recorded").wait_for()
        page.get_by_text("8 of 20 recordings, 1 of 3 sessions").wait_for()
        page.reload()  # the browser was closed meanwhile: nothing is lost
        page.get_by_text("8 of 20 recordings").wait_for()
        page.get_by_role("button", name="3. Listen").click()
        page.get_by_role("button", name="Check the recordings").click()
        named(page)
        page.get_by_text("Not checked yet").wait_for(state="detached")
        page.get_by_text("All 8 recordings").click()
        page.locator("details").get_by_role("button", name="Throw out").first.click()
        page.locator("details").get_by_text("thrown out by Anna").wait_for()
        page.get_by_role("button", name="4. Fit").click()
        page.get_by_text("7 recordings").wait_for()
        page.get_by_role("button", name="Fit", exact=True).click()
        page.get_by_role("link", name="To the machine").wait_for()
        text = page.inner_text("main")
        assert "What may be promised" in text and "Behind it: 7 recordings" in text and page.evaluate(LOOK) == []

        assert page.get_by_role("link", name="Who is told of alarms").get_attribute("href") == "/health#messages"

        line(heard, fault="hiss")
        page.get_by_role("link", name="To the machine").click()
        page.get_by_role("button", name="Listen with the microphone").click()
        page.get_by_text("Sounds wrong").first.wait_for()
        page.get_by_role("link", name="Look at the alarm").wait_for()
        with page.context.expect_page() as beside:  # the machine is still listened to
            page.get_by_role("link", name="Look at the alarm").click()
        beside.value.get_by_role("heading", name="What has changed").wait_for()
        beside.value.close()
        page.get_by_role("button", name="Stop listening").click()
        page.get_by_role("link", name="Look at the alarm").click()
        page.get_by_role("heading", name="What has changed").wait_for()
        page.locator(".large img").wait_for()
        page.get_by_role("button", name="Play, and switch").click()
        page.locator(".side[data-on]", has_text="This sound").wait_for()
        page.get_by_role("button", name="Switch to the other").click()
        page.locator(".side[data-on]", has_text=".flac").wait_for()
        page.get_by_label("Kind of fault").fill("leak")
        page.get_by_label("Note").fill("hisses")
        page.get_by_role("button", name="Real fault").click()
        page.get_by_text("leak; hisses").wait_for()


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (PHONE, "dark")], ids=["wide", "phone"])
def test_a_folder_by_keyboard_alone(tmp_path, size, scheme):
    for i in range(12):
        write_wav(tmp_path / "normals" / f"{i:02d}.wav", hum(i, seconds=1.0))
    with server(tmp_path) as url, browser_of(url, color_scheme=scheme) as page:
        page.set_viewport_size(size)
        open_page(page, "/")
        reach(page, "a[href='/setup']")
        page.keyboard.press("Enter")
        page.get_by_label("Name of the machine").wait_for()
        assert page.evaluate(LOOK) == []
        reach(page, "#name")
        page.keyboard.type("Fan")
        page.keyboard.press("Enter")
        page.wait_for_url("**/setup/Fan*")
        page.get_by_role("radio").first.wait_for()
        reach(page, "input[type=radio]")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.locator("#folder").wait_for()
        assert page.evaluate(LOOK) == []
        page.locator("#folder").focus()
        page.keyboard.press("Control+a")
        page.keyboard.type(str(tmp_path / "normals"))
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.get_by_text("Saved.").wait_for()
        for step in (2, 3, 4):
            page.locator(".steps button").first.focus()
            for _ in range(step - 1):
                page.keyboard.press("Tab")
            page.keyboard.press("Enter")
            wait_for(lambda: page.evaluate("document.activeElement.tagName") == "H2")
            assert page.evaluate(LOOK) == []
        page.get_by_text("12 recordings").wait_for()
        reach(page, "section.panel button.main")
        page.keyboard.press("Enter")
        page.keyboard.type("Ben")
        page.keyboard.press("Enter")
        page.get_by_role("link", name="To the machine").wait_for()
        assert page.evaluate(LOOK) == []
        reach(page, "a.button.main")
        page.keyboard.press("Enter")
        page.wait_for_url("**/machine/Fan")
        page.get_by_role("heading", level=1, name="Fan").wait_for()


def run_nearfar(home):
    environment = {**os.environ, "NEARFAR_HOME": str(home)}
    environment.pop("DISPLAY", None)
    environment.pop("WAYLAND_DISPLAY", None)
    return subprocess.Popen([sys.executable, "-m", "nearfar"], env=environment, stdout=subprocess.PIPE, text=True)


def address_of(process):
    said = process.stdout.readline()
    assert "at http://" in said, said
    return said.split(" at ")[1].strip().rstrip("/")


def test_a_server_that_is_killed_goes_on_where_it_was(tmp_path):
    process = run_nearfar(tmp_path)
    url = address_of(process)
    api = f"{url}/v1/machines"
    requests.post(api, json={"id": "pump"}, timeout=60).raise_for_status()
    for i in range(10):
        path = write_wav(tmp_path / "sent.wav", hum(i, seconds=2.0))
        headers = {"content-type": "audio/wav"}
        name = f"{api}/pump/recordings?name={i}.wav"
        requests.post(name, data=path.read_bytes(), headers=headers, timeout=60).raise_for_status()
    requests.post(f"{api}/pump/fit", json={"who": "Anna"}, timeout=60).raise_for_status()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "models" / "pump").exists() or (tmp_path / "models" / "pump" / "detector.json").exists()
    process = run_nearfar(tmp_path)
    try:
        url = address_of(process)
        found = requests.get(f"{url}/v1/machines/pump/recordings", timeout=60).json()
        assert found["recordings"] == 10
        wait_for(lambda: requests.get(f"{url}/v1/jobs/1", timeout=60).json()["state"] == "done")
        assert requests.get(f"{url}/v1/machines/pump", timeout=60).json()["normals"] == 10
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """The source of axe-core, from npm, kept in the temporary folder of the system."""
    place = Path(tempfile.gettempdir()) / "nearfar-axe"
    if not list(place.glob("axe-core-*.tgz")):
        fetched = tmp_path_factory.mktemp("axe")
        try:
            subprocess.run(["npm", "pack", "axe-core"], cwd=fetched, capture_output=True, timeout=120, check=True)
            with contextlib.suppress(OSError):
                fetched.rename(place)  # whole, or by another run meanwhile
        except (OSError, subprocess.SubprocessError):
            pytest.skip("axe-core cannot be fetched: npm is not here, or has no network")
        place = place if list(place.glob("axe-core-*.tgz")) else fetched
    with tarfile.open(next(place.glob("axe-core-*.tgz"))) as pack:
        return pack.extractfile("package/axe.min.js").read().decode()


def test_no_page_breaks_a_rule_of_axe(tmp_path, axe):
    for i in range(12):
        write_wav(tmp_path / "normals" / f"{i:02d}.wav", hum(i, seconds=1.0))
    write_wav(tmp_path / "normals" / "odd.wav", hum(70, fault="knock", seconds=1.0))
    with server(tmp_path) as url, browser_of(url) as page:
        api = f"{url}/v1/machines"
        for id in ("pump", "fan"):
            requests.post(api, json={"id": id}, timeout=60).raise_for_status()
        body = {"kind": "folder", "folder": str(tmp_path / "normals")}
        requests.put(f"{api}/pump/recordings", json=body, timeout=60).raise_for_status()
        for number, kind in enumerate(("doctor", "fit"), 1):
            requests.post(f"{api}/pump/{kind}", json={}, timeout=60).raise_for_status()
            wait_for(lambda n=number: requests.get(f"{url}/v1/jobs/{n}", timeout=60).json()["state"] == "done")
        for i, fault in enumerate(["", "hiss", "hiss", "hiss", "hiss"]):
            write_wav(tmp_path / "sent.wav", hum(90 + i, fault=fault, seconds=1.0))
            content, headers = (tmp_path / "sent.wav").read_bytes(), {"content-type": "audio/wav"}
            requests.post(
                f"{api}/pump/score?name={i}.wav", data=content, headers=headers, timeout=60
            ).raise_for_status()
        event = requests.get(f"{url}/v1/events", timeout=60).json()["events"][0]["id"]
        requests.put(f"{url}/v1/channels/nord", json={"url": "ntfy://127.0.0.1:9/x"}, timeout=60).raise_for_status()
        paths = ["/", "/setup", "/machine/pump", f"/event/{event}", "/model/pump", "/health", "/guide"]
        paths += [f"/setup/pump#{step}" for step in (1, 2, 3, 4)] + ["/setup/fan#1"]
        found, english = {}, english_texts()
        for scheme, language in (("light", "en"), ("dark", "de")):
            open_page(page, f"/?language={language}")
            for size in (WIDE, PHONE):
                page.emulate_media(color_scheme=scheme)
                page.set_viewport_size(size)
                for path in paths:
                    page.goto("about:blank")
                    open_page(page, path)
                    if path.startswith("/event"):
                        page.locator("#compare").wait_for()
                    page.wait_for_timeout(400)
                    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
                    page.evaluate(SETTLED)
                    page.evaluate(axe)
                    left = [text for text in page.evaluate(SAID) if language == "de" and english.fullmatch(text)]
                    if broken := page.evaluate(RULES) + page.evaluate(LOOK) + left:
                        found[f"{path} {scheme} {size['width']}"] = broken
        assert found == {}
