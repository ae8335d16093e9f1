"""The dashboard in a real browser, on a machine that is listened to while the pages are open."""

import hashlib
import re
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from brokers import wait_for
from conftest import RATE, hum, write_wav
from nearfar.live.server.app import make_app
from nearfar.live.server.security import Access, Token
from nearfar.live.sources.windows import Window
from plants import fitted, windows
from servers import HOSTILE, a_plant, server_of
from test_texts import PLACE, forms, keys

pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api", reason="the dashboard is tested with playwright")
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
TOKEN = "a-token-that-is-long-enough"
WAIT_MS = 60_000
LOUDER = 1.1  # another session: unusual, and far below the alarm at HIGH
HIGH = 40.0
PHONE = {"width": 390, "height": 844}

# Contrast of every text with what is painted behind it, names of what can be used, text that runs out of the page.
LOOK = """() => {
  const lum = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const seen = element => element.checkVisibility() && element.getClientRects().length > 0;
  const faults = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !seen(e) || e.closest("script, :disabled, .skip, .hidden, noscript")) continue;
    const style = getComputedStyle(e), svg = e instanceof SVGElement;
    const a = lum(rgb(svg ? style.fill : style.color)), b = lum(behind(svg ? e.closest("svg").parentElement : e));
    const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    const large = parseFloat(style.fontSize) >= 24;
    if (contrast < (large ? 3 : 4.5)) faults.push(`contrast ${contrast.toFixed(1)}: ${e.textContent.slice(0, 40)}`);
    if (parseFloat(style.fontSize) < 12) faults.push(`small text: ${e.textContent.slice(0, 40)}`);
  }
  const named = e => (e.getAttribute("aria-label") || e.textContent || "").trim()
    || (e.labels && e.labels.length) || e.querySelector("img[alt]:not([alt=''])");
  for (const e of document.querySelectorAll("a[href], button, input:not([type=hidden]), select"))
    if (seen(e) && !named(e)) faults.push(`no name: ${e.outerHTML.slice(0, 80)}`);
  for (const e of document.querySelectorAll("img")) if (!e.hasAttribute("alt")) faults.push("an image without alt");
  for (const e of document.querySelectorAll("[tabindex]")) if (e.tabIndex > 0) faults.push("a tabindex above 0");
  const levels = [...document.querySelectorAll("h1, h2, h3")].map(e => +e.tagName[1]);
  if (levels.filter(l => l === 1).length !== 1) faults.push(`${levels.filter(l => l === 1).length} h1`);
  levels.forEach((l, i) => { if (i && l > levels[i - 1] + 1) faults.push("a heading level is left out"); });
  for (const id of [...document.querySelectorAll("[id]")].map(e => e.id))
    if (document.querySelectorAll(`[id="${CSS.escape(id)}"]`).length > 1) faults.push(`two elements are ${id}`);
  if (document.documentElement.scrollWidth > innerWidth) faults.push("wider than the page");
  if (!document.documentElement.lang || !document.title.includes("nearfar")) faults.push("no language or title");
  if (!document.querySelector("main") || !document.querySelector("nav")) faults.push("no landmarks");
  return faults;
}"""


# Every sound begins again at its end, until `sounds` say otherwise: who looks late still sees it play.
LOOPS = """const play = HTMLMediaElement.prototype.play, sounds = (window.sounds = new Set());
HTMLMediaElement.prototype.play = function () { this.loop = true; sounds.add(this); return play.call(this); };"""


class Listening(threading.Thread):
    """Gives the plant a window of two seconds a few times a second; `fault` is what the machine has."""

    def __init__(self, plant, machine="pump"):
        super().__init__(daemon=True)
        self.plant, self.machine, self.fault, self.stop = plant, machine, "", threading.Event()
        self.t0, self.heard = time.time() - 1200, 0  # ten minutes of windows that come faster than they last

    def run(self):
        while not self.stop.wait(0.15):
            clip = hum(8000 + self.heard, fault=self.fault)
            self.plant.process_window(
                self.machine, Window(self.t0, np.stack([clip.near, clip.far]).astype(np.float32), RATE)
            )
            self.t0, self.heard = self.t0 + 2, self.heard + 1


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    names = [f"normal_{i:02d}{'<b>&amp;' if i % 2 else ''}.wav" for i in range(30)]
    return fitted(folder / "pump3", [write_wav(folder / "normals" / n, hum(i)) for i, n in enumerate(names)])


@pytest.fixture(scope="module")
def chromium():
    if not Path(CHROMIUM).is_file():
        pytest.skip(f"there is no {CHROMIUM} on this machine")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield browser
        browser.close()


@pytest.fixture
def listening(model, tmp_path):
    plant, _ = a_plant(model, tmp_path, "pump", "fan", clock=time.time)
    thread = Listening(plant)
    yield thread
    thread.stop.set()
    if thread.is_alive():
        thread.join()
    plant.close()
    plant.history.close()


@pytest.fixture
def address(listening):
    with server_of(make_app(listening.plant)) as url:
        yield url


@pytest.fixture
def page(chromium, address):
    yield from paged(chromium, address)


def paged(chromium, address, **options):
    """A page of a new visitor; it must not complain, run what it was sent, or ask anybody else."""
    context = chromium.new_context(base_url=address, timezone_id="Asia/Kolkata", **{"locale": "en-GB", **options})
    context.set_default_timeout(WAIT_MS)
    context.add_init_script(LOOPS)
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda e: said.append(str(e)))
    page.on("dialog", lambda d: (said.append(f"dialog {d.message}"), d.dismiss()))
    context.on("request", lambda r: asked.append(r.url))
    page.expected = said
    yield page
    context.close()
    assert said == []
    assert asked and all(url.startswith((address + "/", "data:")) for url in asked), asked


def open_page(page, path):
    page.goto(path)
    page.wait_for_selector('main[aria-busy="false"]')


def digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def named(page, name="Anna"):
    """Answer the question who it is."""
    page.get_by_label("Name or initials").fill(name)
    page.get_by_role("button", name="Continue").click()


def test_from_alarm_to_feedback_and_back(page, listening):
    plant = listening.plant
    folder = plant.machines["pump"].model
    before = digests(folder)
    open_page(page, "/")
    listening.start()
    card = page.locator(".card", has_text="pump")
    card.get_by_text("Fine", exact=True).wait_for()
    assert (
        page.locator(".card").count() == 2
        and page.locator(".card", has_text="fan").get_by_text("Not heard yet").count() == 1
    )
    listening.fault = "hiss"
    card.get_by_text("Alarm", exact=True).wait_for()  # nobody reloaded the page
    assert "1 in alarm" in page.locator("main").inner_text()
    listening.fault = ""
    card.get_by_text("Was in alarm").wait_for()
    listening.stop.set()
    listening.join()

    card.click()
    page.get_by_role("heading", level=1, name="pump").wait_for()
    page.get_by_role("link", name="Alarm", exact=True).click()
    page.get_by_role("heading", name="What differs").wait_for()
    assert "kHz" in page.locator(".lead").inner_text()
    wait_for(lambda: page.locator(".large img").evaluate("i => i.complete && i.naturalWidth > 100"))

    for name in (r"near: This event", r"far: This event", r"near: normal_"):  # one at a time
        button = page.get_by_role("button", name=re.compile(name)).first
        button.click()
        wait_for(lambda b=button: b.get_attribute("aria-pressed") == "true")
        wait_for(lambda: page.locator(".playing output").inner_text().startswith(tuple("0123456789")))
        assert page.locator('[aria-pressed="true"]').count() == 1
    page.evaluate("for (const each of sounds) each.loop = false")
    wait_for(lambda: page.locator('[aria-pressed="true"]').count() == 0)  # it has played to its end

    page.get_by_role("button", name="Acknowledge").click()
    named(page)
    page.locator(".badge", has_text="Seen, Anna").wait_for()
    assert plant.history.event(1).acknowledged_by == "Anna"
    page.get_by_role("button", name="It was fine").click()
    page.locator(".badge", has_text="Was fine, Anna").wait_for()
    page.locator("li .warning", has_text="or another machine?").wait_for()
    assert digests(folder) != before and len(plant.machines["pump"].detector.normals) > 30
    page.reload()
    page.get_by_text("The normal recordings of today know this sound.").wait_for()
    page.get_by_role("button", name="Take it back").click()
    page.get_by_role("button", name="It was fine").wait_for()
    assert digests(folder) == before and len(plant.machines["pump"].detector.normals) == 30
    page.get_by_role("button", name="Real fault").click()
    page.locator(".badge", has_text="Real fault, Anna").wait_for()


def test_by_keyboard_alone(page, listening):
    for fault in [""] * 3 + ["hiss"] * 5:
        listening.plant.process_window("pump", window(listening, fault))
    open_page(page, "/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    reach(page, "a.card")
    page.keyboard.press("Enter")
    page.wait_for_url("**/machine/pump")
    page.wait_for_selector('main[aria-busy="false"]')
    reach(page, "svg.chart")
    first = page.locator(".readout").inner_text()
    page.keyboard.press("ArrowLeft")
    assert page.locator(".readout").inner_text() != first and "alarm above" in page.locator(".readout").inner_text()
    reach(page, 'a[href="/event/1"]')
    page.keyboard.press("Enter")
    page.wait_for_url("**/event/1")
    page.get_by_role("button", name="Acknowledge").wait_for()
    reach(page, "#fault")
    page.keyboard.type("leak")
    reach(page, "button.main")
    page.keyboard.press("Enter")
    page.keyboard.type("Ben")
    page.keyboard.press("Enter")
    page.locator(".badge", has_text="Real fault, Ben").wait_for()
    page.get_by_text("a real fault leak").wait_for()
    assert page.evaluate("document.querySelector('section[aria-labelledby=answer]').contains(document.activeElement)")
    page.get_by_role("button", name="near: This event").wait_for()
    reach(page, ".sounds button")
    page.keyboard.press("Enter")
    wait_for(lambda: page.locator('[aria-pressed="true"]').count() == 1)


def window(listening, fault):
    clip = hum(9000 + listening.heard, fault=fault)
    made = Window(listening.t0, np.stack([clip.near, clip.far]).astype(np.float32), RATE)
    listening.t0, listening.heard = listening.t0 + 2, listening.heard + 1
    return made


def reach(page, selector):
    """Tab until the focus is there."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
    raise AssertionError(f"the keyboard does not lead to {selector}")


@pytest.mark.parametrize(
    "look", [{}, {"color_scheme": "dark"}, {"viewport": PHONE, "has_touch": True}], ids=["light", "dark", "phone"]
)
def test_every_page_can_be_read(chromium, address, listening, look):
    for fault in [""] * 3 + ["hiss"] * 4 + [""] * 6:
        listening.plant.process_window("pump", window(listening, fault))
    for _ in range(3):
        listening.plant.process_window("fan", Window(listening.t0, np.zeros((2, 2 * RATE), np.float32), RATE))
        listening.t0 += 2
    for page in paged(chromium, address, **look):
        for path in ("/", "/machine/pump", "/machine/fan", "/event/1", "/event/2", "/model/pump", "/health", "/guide"):
            open_page(page, path)
            if path == "/event/1":
                page.get_by_role("heading", name="Listen").wait_for()
            assert page.evaluate(LOOK) == [], path
            text = page.locator("body").inner_text()
            assert not re.search(r"(?i:embedding|anomal|threshold)|undefined|NaN|\bnull\b|\[object", text), path
            if path.startswith("/machine/") or path == "/":
                assert HOSTILE.replace("\u2028", " ")[:20] in text  # shown, not run
            assert page.locator("main img[onerror]").count() == 0


SAID = """() => [...document.querySelectorAll("title, body :not(script, noscript, a[lang])")].flatMap(e => [
  ...[...e.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent),
  ...["aria-label", "title", "placeholder", "alt", "data-is", "aria-valuetext"].map(name => e.getAttribute(name) || ""),
]).map(text => text.trim()).filter(text => text)"""


# Words that no German text has, but one of an English sentence has.
WORDS = r"(?s:.*(?<![\w/-])(the|of|is|are|and|this|it|not|to|with|from|that)(?![\w/-]).*)"


def english_texts():
    """Patterns of what a page would say in English, whole or up to an element, and no page says in German."""
    german = {form for text in keys("de").values() for form in forms(text)}
    english = {form for text in keys("en").values() for form in forms(text)} - german
    literals = [[literal.strip() for literal in PLACE.split(form)[::2]] for form in english]
    whole = ["[^.]+".join(map(re.escape, parts)) for parts in literals if re.search("[A-Za-z]{3}", " ".join(parts))]
    pieces = [re.escape(part) for parts in literals for part in parts if re.search("[A-Za-z]{3}", part)]
    return re.compile("|".join([WORDS, *whole, *pieces]))


@pytest.mark.parametrize("look", [{}, {"color_scheme": "dark", "viewport": PHONE}], ids=["wide", "phone"])
def test_every_page_is_in_the_readers_language(chromium, address, listening, look):
    for fault in [""] * 3 + ["hiss"] * 4 + [""] * 6:
        listening.plant.process_window("pump", window(listening, fault))
    for _ in range(3):
        listening.plant.process_window("fan", Window(listening.t0, np.zeros((2, 2 * RATE), np.float32), RATE))
        listening.t0 += 2
    english, left = english_texts(), {}
    for page in paged(chromium, address, locale="de-DE", **look):
        paths = (
            "/",
            "/machine/pump",
            "/machine/fan",
            "/event/1",
            "/event/2",
            "/model/pump",
            "/health",
            "/guide",
            "/nowhere",
        )
        for path in paths:
            open_page(page, path)
            if path == "/event/1":
                page.get_by_role("heading", name="Anhören").wait_for()
            assert page.evaluate("document.documentElement.lang") == "de"
            assert page.evaluate(LOOK) == [], path
            said = page.evaluate(SAID)
            left |= {text: path for text in said if english.fullmatch(text)}
            if path == "/model/pump":
                assert "Alarm über 6,0" in said
            if path == "/machine/pump":
                assert any(re.match(r"\w+tag, \d+\. \w+ \d{4} um \d\d:\d\d", text) for text in said)
        assert left == {}
        assert "404" in page.expected.pop()


def test_the_language_is_chosen_on_every_page(chromium, address):
    for page in paged(chromium, address, locale="de-DE"):
        open_page(page, "/machine/pump")
        page.get_by_role("navigation", name="Sprache").get_by_role("link", name="English").click()
        page.wait_for_url("**/machine/pump")
        page.get_by_role("heading", name="Trend").wait_for()
        page.get_by_role("link", name="Machines").first.click()
        page.get_by_text("2 machines, none in alarm.").wait_for()
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.lang") == "de":
                break
        page.keyboard.press("Enter")
        page.get_by_text("2 Maschinen, keine in Alarm.").wait_for()
        open_page(page, "/guide#long")
        page.get_by_role("link", name="English").click()
        page.get_by_role("heading", name="How long").wait_for()
        assert page.url.endswith("/guide#long")


def test_unusual_windows_are_listened_to_and_become_normal(page, listening):
    plant = listening.plant
    machine = plant.machines["pump"]
    machine.detector.set_threshold(value=HIGH)
    machine.use_detector(machine.detector)
    machine.lamp.n = 6  # instead of an hour
    for i in range(6):
        clip = hum(400 + i, seconds=machine.detector.window_s)
        samples = np.stack([clip.near, clip.far]) * LOUDER
        plant.process_window("pump", Window(time.time() - 20 + 2 * i, samples.astype(np.float32), RATE))
    was = machine.detector.unusual_threshold
    open_page(page, "/")
    card = page.locator(".card", has_text="pump")
    assert "Unusual" in card.locator(".badge").inner_text() and "windows are unusual" in card.inner_text()
    assert "2 machines, none in alarm, 1 unusual." in page.locator("main").inner_text()
    open_page(page, "/model/pump")
    assert f"unusual above {was:.1f}" in page.locator("main").inner_text()
    open_page(page, "/machine/pump")
    assert page.locator(".chart .odd-mark").count() and page.locator(".chart .odd-windows").count()
    (event,) = plant.history.events("pump", kind="unusual")
    play = page.get_by_role("button", name=f"near: event {event.id}")
    play.click()
    wait_for(lambda: play.get_attribute("aria-pressed") == "true")
    page.get_by_role("button", name="Fine, add to the normals").click()
    named(page)
    page.wait_for_selector("#message:has-text('unusual above')")
    now = machine.detector.unusual_threshold
    assert f"unusual above {now:.2f}, before {was:.2f}" in page.locator("#message").inner_text()
    assert plant.history.event(event.id).verdict == "fine" and not machine.lamp.lit
    wait_for(lambda: not page.get_by_role("button", name="Fine, add to the normals").count())
    open_page(page, f"/event/{event.id}")
    assert "Was fine, Anna" in page.locator("main").inner_text()


def test_a_set_point_and_shelving(page, listening):
    plant = listening.plant
    open_page(page, "/model/pump")
    page.get_by_label("Another number a week").fill("100")
    page.locator("#means", has_text="At most 14 a day").wait_for()
    said = page.locator("#means").inner_text()
    assert "no alarm last week" in said or "of last week" in said
    page.get_by_role("button", name="Change the set-point").click()
    named(page)
    page.locator("li", has_text="changed the set-point").wait_for()
    value = plant.machines["pump"].detector.threshold.value
    assert f"Alarm above {value:.1f}" in said
    page.get_by_role("button", name="Take it back").click()
    page.locator("li", has_text="took that back").wait_for()
    assert plant.machines["pump"].detector.threshold.value == 6.0
    open_page(page, "/machine/pump")
    page.get_by_role("button", name="Shelve 8 h").click()
    page.locator(".badge", has_text="Shelved until").wait_for()
    page.get_by_role("button", name="End shelving").click()
    page.get_by_role("button", name="Shelve 8 h").wait_for()


def test_what_is_missing_is_said_in_words(page, listening):
    open_page(page, "/machine/nobody")
    assert "There is no machine 'nobody'" in page.locator("[role=alert]").inner_text()
    open_page(page, "/event/99")
    assert "no event 99." in page.locator("[role=alert]").inner_text()
    page.goto("/nowhere")
    page.get_by_text("There is no such page").wait_for()
    open_page(page, "/machine/fan")
    assert "Nothing was heard yet: drop recordings" in page.locator("figure").inner_text()
    listening.plant.process_window("pump", window(listening, ""))
    for fault in ["hiss"] * 4:
        listening.plant.process_window("pump", window(listening, fault))
    shutil.rmtree(listening.plant.history.folder / "audio")
    open_page(page, "/event/1")
    assert "has been deleted" in page.locator("main").inner_text()
    assert page.get_by_role("button", name="It was fine").is_disabled()
    assert len(page.expected) == 3 and all("404" in text for text in page.expected)  # the browser's own words
    page.expected.clear()


def test_a_full_disk_is_a_bar_on_every_page(chromium, listening):
    problems = ["the history cannot be written: no space left on device"]
    with server_of(make_app(listening.plant, monitor=SimpleNamespace(problems=lambda: problems, dropped=0))) as address:
        for page in paged(chromium, address):
            for path in ("/", "/machine/pump", "/model/pump"):
                open_page(page, path)
                page.locator("#bar", has_text="no space left on device.").wait_for()
            open_page(page, "/health")
            page.locator("main .trouble", has_text="no space left").wait_for()
            assert page.locator("#bar").is_hidden()
            problems.clear()
            open_page(page, "/")
            assert page.locator("#bar").is_hidden()


def test_a_connection_that_is_lost_is_said_and_found_again(chromium, listening):
    app = make_app(listening.plant)
    with server_of(app) as address:
        for page in paged(chromium, address):
            open_page(page, "/")
            page.get_by_text("live", exact=True).wait_for()
            page.context.set_offline(True)
            app.state.service.stream.close()
            page.get_by_text("no connection, trying again").wait_for()
            app.state.service.stream.closed = False
            page.context.set_offline(False)
            page.get_by_text("live", exact=True).wait_for()
            page.expected[:] = [text for text in page.expected if "ERR_INTERNET_DISCONNECTED" not in text]


def test_the_login_lets_in_whoever_has_the_token(chromium, listening):
    with server_of(make_app(listening.plant, Access((Token(TOKEN),)))) as address:
        for page in paged(chromium, address):
            page.goto("/")
            assert page.url.endswith("/login")
            assert page.evaluate(LOOK.replace('!document.querySelector("nav")', "false")) == []
            page.get_by_label("Token").fill("wrong")
            page.get_by_role("button", name="Log in").click()
            page.get_by_text("not the token").wait_for()
            page.get_by_label("Token").fill(TOKEN)
            page.get_by_role("button", name="Log in").click()
            page.locator(".card").first.wait_for()
            page.get_by_text("live", exact=True).wait_for()
            assert page.evaluate("document.cookie") == ""  # scripts do not see it
            page.get_by_role("button", name="Log out").click()
            page.get_by_label("Token").wait_for()
            page.goto("/health")
            assert page.url.endswith("/login")
            assert [text for text in page.expected if "401" not in text] == []
            page.expected.clear()


def test_a_channel_to_people_is_added_tested_and_removed(page, listening):
    open_page(page, "/health")
    page.get_by_text("Nobody is told of alarms yet").wait_for()
    page.get_by_text("Add a channel to people").click()
    page.get_by_label("Name of the channel").fill("shift")
    page.get_by_label("Address").fill("json://127.0.0.1/")
    page.get_by_role("button", name="Add the channel").click()
    named(page)
    page.get_by_text("an address begins with one of").wait_for()
    assert all("422" in line for line in page.expected)
    page.expected.clear()
    page.get_by_label("Address").fill("ntfy://127.0.0.1:9/hall")
    page.get_by_label("Quiet hours").fill("22:00-06:00, Sat-Sun")
    page.get_by_role("button", name="Add the channel").click()
    row = page.locator("tr", has_text="shift")
    row.get_by_text("alarm, health of all machines").wait_for()
    row.get_by_role("button", name="Send a test").click()
    page.get_by_text("ntfy did not take the message").wait_for()
    page.get_by_text("Let a report come by itself").click()
    page.get_by_role("combobox", name="On", exact=True).select_option("Tue")
    page.get_by_label("At", exact=True).fill("06:30")
    assert page.get_by_label("shift").is_checked()  # the only channel
    page.locator("fieldset", has_text="Of these machines").get_by_label("pump").check()
    assert page.evaluate(LOOK) == []
    page.get_by_role("button", name="Set the report").click()
    page.get_by_text("The next report of the week comes").wait_for()
    set_up = listening.plant.reports.config
    assert (set_up.on, set_up.at, set_up.machines, set_up.channels) == ("Tue", "06:30", ("pump",), ("shift",))
    page.get_by_role("button", name="No more reports").click()
    page.get_by_text("No report comes by itself yet").wait_for()
    row.get_by_role("button", name="Remove").click()
    page.get_by_text("Nobody is told of alarms yet").wait_for()


def test_a_dropped_recording_that_is_cut_off_is_checked_first(page, listening, tmp_path):
    write_wav(tmp_path / "cut.wav", hum(7, fault="hiss", seconds=3.0))
    content = (tmp_path / "cut.wav").read_bytes()
    cut = {"name": "cut.wav", "mimeType": "audio/wav", "buffer": content[: len(content) * 3 // 4]}
    open_page(page, "/machine/fan")
    page.locator("input[type=file]").first.set_input_files([cut])
    item = page.locator("li", has_text="cut.wav: ")
    item.get_by_text("Check the recording first").wait_for()
    item.get_by_text("The file lacks its last").wait_for()


def test_maintenance_is_marked_and_removed(page, listening):
    open_page(page, "/machine/pump")
    page.locator("summary", has_text="Mark a time").click()
    page.get_by_label("Or every week").fill("Mon-Sun")
    page.get_by_label("Why").fill("cleaning")
    page.get_by_role("button", name="Mark it").click()
    named(page)
    item = page.locator("li", has_text="Mon-Sun cleaning")
    item.wait_for()
    assert listening.plant.calendar.why("pump", time.time()) == "maintenance: cleaning"
    assert listening.plant.calendar.why("fan", time.time()) == ""
    page.get_by_label("From").fill("2026-12-24T06:00")
    page.get_by_label("To", exact=True).fill("2026-12-24T18:30")
    page.get_by_role("button", name="Mark it").click()
    page.locator("#maintenance ~ ul li").nth(1).wait_for()
    once = listening.plant.calendar.entries[1]  # the browser is in India, UTC+5:30
    assert once.when == "2026-12-24T00:30:00.000Z/2026-12-24T13:00:00.000Z"
    item.get_by_role("button", name="Remove").click()
    wait_for(lambda: listening.plant.calendar.entries == (once,))


def test_a_microphone_that_may_not_be_used_is_said_in_words(page):
    open_page(page, "/machine/pump")
    page.evaluate(
        "void (navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', 'NotAllowedError')))"
    )
    page.get_by_role("button", name="Listen with the microphone").click()
    page.get_by_text("This browser may not use the microphone").wait_for()


def test_a_span_of_every_week_has_the_days_of_the_reader(chromium, address, listening):
    for page in paged(chromium, address, locale="de-DE"):
        open_page(page, "/machine/pump")
        page.locator("summary", has_text="Zeit eintragen").click()
        page.get_by_label("Oder jede Woche, zum Beispiel So 06:00-10:00 oder Sa-So").fill("mo-Mi 06:00-10:00")
        page.get_by_role("button", name="Eintragen").click()
        page.get_by_label("Name oder Kürzel").fill("Anna")
        page.get_by_role("button", name="Weiter").click()
        page.locator("li", has_text="Mo-Mi 06:00-10:00").wait_for()
        assert [entry.when for entry in listening.plant.calendar.entries] == ["Mon-Wed 06:00-10:00"]


def test_the_trend_moves_and_zooms_and_recordings_are_listed_with_sound(page, listening):
    plant = listening.plant
    plant.machines["pump"].folder = Path("/nowhere")  # what is heard has names
    for i, fault in enumerate([""] * 3 + ["hiss"] * 3):
        clip = hum(9000 + i, fault=fault)
        samples = np.stack([clip.near, clip.far]).astype(np.float32)
        plant.process_window("pump", Window(listening.t0 + 3 * i, samples, RATE, name=f"tuesday_{i}.wav"))
    open_page(page, "/machine/pump")
    assert page.locator(".chart .zone.alarm").count() == 1
    assert "standard deviations" in page.locator(".axis-title").inner_text()
    names = page.locator(".sounds b").all_inner_texts()
    assert names == [f"tuesday_{i}.wav" for i in range(5, -1, -1)]
    assert page.locator(".sounds .badge", has_text="Sounds wrong").count() == 3
    page.get_by_role("button", name="Worst first").click()
    wait_for(lambda: page.locator(".sounds b").all_inner_texts()[0] != "tuesday_5.wav" or page.locator(
        "[aria-pressed=true]", has_text="Worst first").count())  # fmt: skip
    marks = page.locator(".chart text").all_inner_texts()
    page.get_by_role("button", name="Zoom out").click()
    wait_for(lambda: page.locator(".chart text").all_inner_texts() != marks)
    page.get_by_role("button", name="7 d").click()
    page.get_by_role("button", name="Earlier").click()
    page.get_by_text("No sound arrived in the time shown").wait_for()  # half a week back
    page.get_by_role("button", name="Later").click()
    wait_for(lambda: page.locator(".chart a .flag").count() == 1)
    page.locator("svg.chart[tabindex]").focus()
    page.keyboard.press("Shift+ArrowLeft")
    page.get_by_text("No sound arrived in the time shown").wait_for()


def test_notes_stand_on_the_trend_beside_their_recording_and_name_an_event(page, listening):
    plant = listening.plant
    plant.machines["pump"].folder = Path("/nowhere")  # what is heard has names
    clip = hum(9000)
    samples = np.stack([clip.near, clip.far]).astype(np.float32)
    plant.process_window("pump", Window(listening.t0, samples, RATE, name="tuesday.wav"))
    open_page(page, "/machine/pump")
    page.locator("summary", has_text="Write a note").click()
    page.get_by_label("Note", exact=True).fill("bearing changed <b>")
    page.get_by_role("button", name="Write it down").click()
    named(page)
    page.locator(".chart a", has_text="bearing changed <b>").wait_for()
    item = page.locator(".sounds li", has_text="tuesday.wav")
    item.get_by_role("button", name="Write a note").click()  # at the time of the recording
    page.get_by_label("Note", exact=True).fill("with oil")
    page.get_by_role("button", name="Write it down").click()
    page.locator(".sounds li", has_text="tuesday.wav with oil").wait_for()
    wait_for(lambda: page.locator(".chart a .pin").count() == 2)
    notes = page.locator("#notes ~ ul li")
    notes.first.get_by_role("button", name="Change").click()
    notes.first.locator("input").fill("with new oil")
    notes.first.get_by_role("button", name="Save").click()
    page.locator(".sounds li", has_text="with new oil").wait_for()
    notes.last.get_by_role("button", name="Delete").click()
    wait_for(lambda: page.locator(".chart a .pin").count() == 1)
    event = plant.history.events("pump", kind="alarm")
    if not event:
        for window in windows(["hiss"] * 4, listening.t0 + 10):
            plant.process_window("pump", window)
        event = plant.history.events("pump", kind="alarm")
    open_page(page, f"/event/{event[0].id}")
    page.get_by_label("What it is called").fill("belt slips")
    page.get_by_role("button", name="Save").click()
    page.locator(".title b", has_text="belt slips").wait_for()
    open_page(page, "/machine/pump#notes")
    page.get_by_role("link", name="Alarm: belt slips").wait_for()
    wait_for(lambda: 0 <= page.evaluate("document.getElementById('notes').getBoundingClientRect().top") < 400)


def test_normals_are_taken_out_and_the_set_point_is_one_question(page, listening):
    plant = listening.plant
    open_page(page, "/model/pump")
    page.get_by_text("How many false alarms do you accept?").wait_for()
    page.get_by_role("radio", name="1 a week").check()
    page.locator("#means", has_text="At most 1 a week: Alarm above").wait_for()
    assert plant.machines["pump"].detector.threshold.value == 6.0  # asked, not changed
    page.get_by_role("button", name="Take out", exact=True).first.click()
    named(page)
    page.wait_for_selector("#message:has-text('1 recording taken out of the normals')")
    assert len(plant.machines["pump"].detector.normals) == 29
    page.locator("li", has_text="took recordings out of the normals").get_by_role("button", name="Take it back").click()
    wait_for(lambda: len(plant.machines["pump"].detector.normals) == 30)
    wait_for(lambda: page.locator(".scroll .sounds li").count() == 30)  # the list is of now
    page.get_by_role("checkbox").nth(0).check()
    page.get_by_role("checkbox").nth(1).check()
    page.get_by_label("Session of those that are chosen").fill("half load")
    page.get_by_role("button", name="Name the session").click()
    page.get_by_text("· half load").first.wait_for()
    assert plant.machines["pump"].detector.sessions.count("half load") == 2
