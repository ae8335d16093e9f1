"""The first page of a server without a machine: from a folder to a machine that is live, in a real browser."""

import time
from contextlib import closing

import pytest

from conftest import hum, write_wav
from nearfar.live.build import build_plant
from nearfar.live.config import from_options
from nearfar.live.server.app import make_app
from servers import server_of
from test_serve_pages import LOOK, PHONE, WAIT_MS, chromium  # noqa: F401

pytestmark = pytest.mark.slow


@pytest.fixture
def address(tmp_path):
    config = from_options({"models": tmp_path / "models", "history": {"folder": tmp_path / "history"}})
    with (
        closing(build_plant(config, clock=time.time, warn=print, report=print, idle=True)) as assembly,
        server_of(make_app(assembly.plant, roster=assembly.roster)) as url,
    ):
        yield url


@pytest.mark.parametrize(("size", "scheme"), [({"width": 1200, "height": 900}, "light"), (PHONE, "dark")])
def test_from_an_empty_page_to_a_live_machine_by_keyboard(chromium, address, tmp_path, size, scheme):  # noqa: F811
    for i in range(12):
        write_wav(tmp_path / "normals" / f"{i:02d}.wav", hum(i, seconds=1.0))
    page = chromium.new_page(viewport=size, color_scheme=scheme)
    page.set_default_timeout(WAIT_MS)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(address)
    page.get_by_role("heading", name="New machine").wait_for()
    assert "20 recordings" in page.inner_text("main") and page.evaluate(LOOK) == []
    page.get_by_label("Name of the machine").focus()
    page.keyboard.type("Pump 3 (Süd)")
    page.keyboard.press("Tab")
    page.keyboard.type(str(tmp_path / "no such folder"))
    page.keyboard.press("Enter")
    page.get_by_role("alert").filter(has_text="there is no folder").wait_for()
    page.get_by_label("Folder of its normal").fill(str(tmp_path / "normals"))
    page.keyboard.press("Enter")
    page.get_by_role("link", name="What it learned").wait_for()
    page.get_by_role("heading", name="Pump 3 (Süd)").wait_for()
    assert "Behind it: 12 recordings" in page.inner_text("main") and page.evaluate(LOOK) == []
    page.reload()
    page.get_by_role("heading", name="Pump 3 (Süd)").wait_for()
    page.get_by_role("link", name="Day", exact=True).click()
    page.get_by_text("1 machine, no alarm.").wait_for()
    assert page.evaluate(LOOK.replace('document.querySelector("nav")', "true").replace(
        'document.title.includes("nearfar")', "true")) == []  # fmt: skip
    assert wrong == []
    page.close()
