"""The dashboard in Firefox: every page light and dark, a folder that becomes a machine, an event with sound."""

import time
from contextlib import closing

import pytest

from conftest import hum, write_wav
from firefox import FIREFOX, firefox
from nearfar.live.server.app import make_app
from servers import FAULTY, a_plant, listen, server_of
from test_first_hour import server

pytestmark = [pytest.mark.slow, pytest.mark.skipif(FIREFOX is None, reason="there is no Firefox on this machine")]
PAGES = ("/", "/machine/pump", "/event/1", "/model/pump", "/health", "/guide", "/setup", "/nothing")
WIDER = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
GROUND = "return getComputedStyle(document.body).backgroundColor"


@pytest.fixture
def address(pump3, tmp_path):
    plant, _ = a_plant(pump3, tmp_path, clock=time.time)
    listen(plant, FAULTY, time.time() - 60)
    with closing(plant.history), closing(plant), server_of(make_app(plant)) as url:
        yield url


@pytest.mark.parametrize(("dark", "width"), [(False, 1200), (True, 450)], ids=["light", "dark-narrow"])
def test_every_page_is_drawn_and_fits(address, dark, width):
    with firefox(width, dark=dark) as page:
        for path in PAGES:
            page.open(address + path)
            text = page.run("return document.querySelector('main').innerText")
            assert len(text) > 30 and "failed" not in text, (path, text)
            assert page.run(WIDER) <= 0, path
            red, green, blue = (int(part) for part in page.run(GROUND)[4:-1].split(", "))
            assert (red + green + blue < 200) == dark, path
            assert page.picture().startswith(b"\x89PNG")


# Where there is no loudspeaker Firefox plays what is muted only.
MUTED = """const play = HTMLMediaElement.prototype.play;
HTMLMediaElement.prototype.play = function () { this.muted = this.loop = true; return play.call(this); };"""


def test_an_event_is_explained_heard_and_answered(address):
    with firefox() as page:
        page.open(f"{address}/event/1")
        loaded = "return [...document.querySelectorAll('main img')].filter(i => i.complete && i.naturalWidth).length"
        page.wait(f"{loaded} === 2")
        page.run(MUTED)
        page.click("button", "Play, and switch")
        page.wait("return document.querySelector('.side[data-on]')?.textContent.includes('This sound')")
        page.click("button", "Switch to the other")
        page.wait("return document.querySelector('.side[data-on]')?.textContent.includes('normal_')")
        page.click(".sounds button", "near")
        page.wait("return / of [1-9][0-9.]* s/.test(document.querySelector('.playing output').textContent)")
        page.click("button", "Real fault")
        page.type("#who", "Anna")
        page.click("button", "Continue")
        page.find(".badge", "Real fault, Anna")


def test_a_folder_becomes_a_machine(tmp_path):
    for i in range(12):
        write_wav(tmp_path / "normals" / f"{i:02d}.wav", hum(i, seconds=1.0))
    with server(tmp_path) as url, firefox() as page:
        page.open(f"{url}/")
        page.click("a", "Add a machine")
        page.type("#name", "Pump 3")
        page.click("button", "Begin")
        page.click("label", "A folder of recordings")
        page.type("#folder", str(tmp_path / "normals"))
        page.click("button", "Save")
        page.wait("return document.getElementById('message').textContent === 'Saved.'")
        page.click("button", "Next")
        page.find("p", "12 of 20 recordings")
        page.click("button", "Next")
        page.click("button", "Check the recordings")
        page.type("#who", "Anna")
        page.click("button", "Continue")
        page.find("p", "Ready to fit")
        page.click("button", "4. Fit")
        page.click("button.main", "Fit")
        page.find("a", "To the machine")
        page.click("a", "To the machine")
        page.find("h1", "Pump 3")


def test_a_microphone_shows_its_level_or_why_not(tmp_path):
    with server(tmp_path) as url, firefox() as page:
        page.open(f"{url}/setup")
        page.type("#name", "Pump 3")
        page.click("button", "Begin")
        page.click("button", "Use the microphone")
        shown = "document.querySelector('meter')?.getClientRects().length"
        page.wait(f"return {shown} || document.getElementById('message').textContent.includes('loudspeaker')")
