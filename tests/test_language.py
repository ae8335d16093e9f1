"""Texts in the language of their reader: complete, right, fast, and safe with any name."""

import io
import json
import os
import re
import string
import time

import openpyxl
import pytest
from pydantic_core import PydanticKnownError

from message_templates import templates
from nearfar.detector import load
from nearfar.live.history.history import History
from nearfar.live.history.records import Event, ScoreRecord
from nearfar.live.language import ENGLISH, TEXTS, Template, asked_for, choose, languages, of_system, texts, translated
from nearfar.live.report.gather import Expected, detector_report, plant_report
from nearfar.live.report.pages import report_page
from nearfar.live.report.workbook import report_workbook
from nearfar.live.rules.rhythm import DAY_S
from nearfar.live.server.schemas import MachineState
from nearfar.live.server.stream import Stream
from nearfar.live.sinks.home_assistant import COMMANDING, ENTITIES
from nearfar.live.sinks.messages import EventMessage, ScoreMessage
from nearfar.live.sinks.notify import words
from plants import T0
from servers import FAULTY, a_plant, client_of, listen

OTHERS = [language for language in languages() if language != ENGLISH]
# Words that the source joins from codes, or that the system and libraries say
WORDS = [
    *("near", "far", "each", "silent", "stuck", "saturated", "rate", "channels", "length", "codec", "level", "sound"),
    *("maintenance", "ANOMALOUS", "clips", "windows", "Plant", "Score", "Set-point", "Microphones", "Acknowledge"),
    *("Shelved", "yes", "no"),
]
CHECKS = {  # of values in requests
    "greater_than": {"gt": 0},
    "greater_than_equal": {"ge": 0},
    "less_than": {"lt": 0},
    "less_than_equal": {"le": 0},
    "string_too_long": {"max_length": 1},
    "string_too_short": {"min_length": 1},
    "missing": None,
    "extra_forbidden": None,
}
ALARMED = (
    "sounds unlike its normals, noticed in its steady sound; check first: the file lacks its last 2 s: was the "
    "recording, or the copying of it, cut off?"
)
FOREIGN = [
    "[Errno {x}] {x2}",
    *(os.strerror(number) for number in range(1, 134)),
    *(PydanticKnownError(kind, context).message_template for kind, context in CHECKS.items()),
]


def read(language, kind):
    return json.loads((TEXTS / language / f"{kind}.json").read_text(encoding="utf-8"))


def places(text):
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.fixture(scope="module")
def source():
    return templates()


@pytest.mark.parametrize("language", OTHERS)
def test_every_message_of_the_source_is_translated(source, language):
    known = read(language, "messages")
    missing = [f"{where}  {text!r}" for text, where in source.items() if text not in known]
    assert not missing, f"texts/{language}/messages.json lacks:\n" + "\n".join(missing)


@pytest.mark.parametrize("language", OTHERS)
def test_no_translation_is_left_of_a_message_that_has_gone(source, language):
    general = [Template.of(text, "") for text in source]
    words = WORDS + FOREIGN
    unused = [
        text
        for text in read(language, "messages")
        if text not in source
        and text not in words
        and not any(t.names and t.values(text) for t in general if t.size > 5)
    ]
    assert not unused, f"texts/{language}/messages.json has entries that no text of the source fits:\n" + "\n".join(
        unused
    )


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_has_no_other_places_than_its_message(language):
    for text, other in read(language, "messages").items():
        assert places(other) <= places(text), text
    assert read(language, "reports").keys() == read(ENGLISH, "reports").keys()
    for key, text in read(ENGLISH, "reports").items():
        assert places(read(language, "reports")[key]) == places(text), key
    assert read(language, "format").keys() == read(ENGLISH, "format").keys()


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (  # one message with places
            "near is 5 dB quieter than far, and 12 dB louder in the normals: are the microphones swapped?",
            "Das nahe Mikrofon ist 5 dB leiser als das ferne, in den normalen Aufnahmen aber 12 dB lauter: Sind die "
            "Mikrofone vertauscht?",
        ),
        (  # several, joined, and numbers
            "the near microphone clips (2.00% of samples at full scale): lower its gain; "
            "far is 31 dB below all normals: is its microphone unplugged, or its gain turned down?",
            "das nahe Mikrofon ist übersteuert (2,00 % der Abtastwerte an der Grenze): Senken Sie die Verstärkung; "
            "Das ferne Mikrofon liegt 31 dB unter allen normalen Aufnahmen: Ist es nicht angeschlossen, oder wurde die "
            "Verstärkung heruntergedreht?",
        ),
        (  # the fact without its cause, in a long file
            "each microphone clips (2.00% of samples at full scale) in 3 of 12 windows of 10 s, from 0:20 min",
            "jedes Mikrofon ist übersteuert (2,00 % der Abtastwerte an der Grenze) in 3 von 12 Zeitfenstern zu 10 s, "
            "ab 0:20 min",
        ),
        (  # sentences with a capital and a full stop
            "Sounds wrong: 7.3 standard deviations above normal, alarm above 3.4. About 1 healthy recording in 1,200 "
            "sounds as unusual.",
            "Klingt fehlerhaft: 7,3 Standardabweichungen über normal, Alarm über 3,4. Etwa 1 gesunde Aufnahme von "
            "1.200 klingt so ungewöhnlich.",
        ),
        (  # places inside places
            "Sounds like the normal recordings. The largest difference: throughout the recording the near microphone "
            "hears 3 dB less than usual for its loudness between 2 and 3 kHz (like a hiss).",
            "Klingt wie die normalen Aufnahmen. Der größte Unterschied: die ganze Aufnahme hindurch hört das nahe "
            "Mikrofon 3 dB weniger als bei dieser Lautstärke üblich zwischen 2 und 3 kHz (wie ein Zischen).",
        ),
        ("2 alarms: 1 a fault, 1 fine", "2 Alarme: 1 als Störung beantwortet, 1 als in Ordnung beantwortet"),
        ("Fri 2026-11-27 14:05 to Sat 2026-11-28 14:05", "Fr 27.11.2026 14:05 bis Sa 28.11.2026 14:05"),
        ("1,234.5", "1.234,5"),
        ("one\nnear is 5 dB weaker than far", "one\nDas nahe Mikrofon ist 5 dB schwächer als das ferne"),
        ("the wind in the belt of fan 3: and then?", "the wind in the belt of fan 3: and then?"),  # of a person
        ("", ""),
    ],
)
def test_a_text_is_read_in_german(text, other):
    assert translated(text, "de") == other
    assert translated(text, ENGLISH) == text


@pytest.mark.parametrize("name", ["Alarm", "near", "{x}", "a; b: c. d", "1.5", "Fine? 3 alarms", "<b>", "%s {0} {{"])
def test_a_name_stays_as_it_is(name):
    text = f"{name} is shelved for 8 h."
    assert translated(text, "de") == f"{name} ist für 8 h zurückgestellt."


@pytest.mark.parametrize(
    "text",
    [
        "; ".join(["the near microphone clips"] * 150),
        ": " * 2000,
        "a and b, " * 440,
        "Note: " * 660,
        "(" * 2000 + ")" * 2000,
        "near is 1 dB quieter than far, and " * 110,
        "; ".join(f"event {i} was called fine already, by a; b: c" for i in range(80)),
    ],
)
def test_no_text_takes_long(text):
    started = time.process_time()
    translated(text, "de")
    assert time.process_time() - started < 2


def test_known_texts_are_quick():
    list_ = [f"sounds unlike its normals (steady); near is {i % 50} dB weaker than far: swapped?" for i in range(500)]
    [translated(text, "de") for text in list_]
    started = time.process_time()
    [translated(text, "de") for text in list_]
    assert time.process_time() - started < 0.05


@pytest.mark.parametrize(
    ("said", "language"),
    [
        ({"LANG": "de_DE.UTF-8"}, "de"),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "C.UTF-8"}, "en"),
        ({"LC_MESSAGES": "de", "LANG": "en_US"}, "de"),
        ({"LANG": "fr_FR"}, "en"),  # not there
        ({"LANG": "POSIX"}, "en"),
    ],
)
def test_the_language_of_the_computer(monkeypatch, said, language):
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.setenv(name, said.get(name, ""))
    assert of_system() == language


@pytest.mark.parametrize(
    ("cookie", "header", "language"),
    [
        ("", "", "en"),
        ("", "de-DE,de;q=0.9,en;q=0.8", "de"),
        ("", "fr-FR,fr;q=0.9,de;q=0.5,en;q=0.4", "de"),
        ("", "en;q=0.4,de;q=0.5", "de"),
        ("", "de;q=0,*", "en"),
        ("", "de;q=x", "en"),
        ("de", "en", "de"),
        ("xx", "de", "de"),
        ("../etc", "", "en"),
    ],
)
def test_a_reader_chooses(cookie, header, language):
    assert choose(cookie, header) == language
    headers = {"cookie": f"a=1; nearfar_language={cookie}", "accept-language": header}
    assert asked_for(headers) == language


def test_texts_by_key_have_local_numbers_and_names_as_they_are():
    german = texts("reports", "de")
    assert german("apart", name="1.5", z="8.2") == "1.5 (8,2 Standardabweichungen von den übrigen entfernt)"
    assert texts("reports", ENGLISH)("apart", name="a", z="8.2") == "a (8.2 standard deviations from the others)"


def test_the_server_answers_in_the_language_of_its_reader(pump3, tmp_path):
    plant, clock = a_plant(pump3, tmp_path, "pump")
    clock.now = T0 + 40
    german = {"accept-language": "de-DE,de;q=0.9"}
    with client_of(plant, clock) as client:
        listen(plant, FAULTY)
        event = client.get("/v1/events/1", headers=german)
        assert event.json()["text"].startswith("klingt anders als die normalen Aufnahmen")
        assert event.headers["content-language"] == "de" and event.json()["kind"] == "alarm"
        assert client.get("/v1/events/1").json()["text"].startswith("sounds unlike its normals")
        client.cookies.set("nearfar_language", "de")
        assert client.post("/v1/events/1/acknowledge").json()["acknowledged_by"] == "jemand an diesem Rechner"
        assert plant.history.event(1).acknowledged_by == "somebody at this computer"
        gone = client.get("/v1/machines/pump9", headers={"accept-language": "en"}).json()
        assert gone["code"] == "not_found" and gone["message"].startswith("Es gibt keine Maschine 'pump9'")
        explained = client.get("/v1/events/1/explanation").json()
        assert explained["sentence"].split()[-1] != "" and "Ähnlichste normale Aufnahmen: " in explained["sentence"]
        report = client.get("/v1/report")
        assert '<html lang="de">' in report.text and report.headers["content-language"] == "de"
        plant.language, client.cookies = "de", {}
        assert '<html lang="de">' in client.get("/v1/report").text
        assert '<html lang="en">' in client.get("/v1/report", headers={"accept-language": "en"}).text
    plant.close()
    plant.history.close()


def test_each_page_follows_the_events_in_its_language():
    record = ScoreRecord(
        "a", 1.0, 2.0, 3.0, 4.0, None, 1.0, (), "near is 12 dB weaker than far: are the microphones swapped?"
    )
    stream = Stream(
        "7",
        lambda machine: "normal",
        lambda machine: MachineState(**{**MachineState.example(), "id": machine, "window": None}),
    )
    stream.put(ScoreMessage("a", "s", 2.0, record, "normal", "m"))
    stream.put(EventMessage("a", "s", 2.0, "raised", Event(1, "a", "alarm", 1.0, text="sounds unlike its normals")))
    sent = [sent for _, sent in stream._ring]
    german, english = (b"".join(each.text(language) for each in sent).decode() for language in ("de", "en"))
    assert "12 dB schw" in german and "klingt anders als die normalen Aufnahmen" in german
    assert "12 dB weaker" in english and '"what":"raised"' in german


def test_reports_are_whole_in_german(pump3, tmp_path):
    history = History(tmp_path / "hall")
    for i in range(200):
        history.record_score(ScoreRecord("pump", T0 + 10 * i, T0 + 10 * i + 10, 1.5, 4.0, False, 0.1))
    event = history.record_event(
        Event(0, "pump", "alarm", T0 + 100, T0 + 200, 9.5, T0 + 100, 4.0, text="sounds unlike its normals")
    )
    history.change_event(event.id, verdict="fine", verdict_by="Anna")
    made = plant_report(history, T0 + 2000, DAY_S, expected={"pump": Expected("Pumpe 3", 1.5)})
    page = re.sub(r"<style>.*?</style>|<[^>]+>", " ", report_page(made, language="de"), flags=re.S)
    assert "1 Maschine, 1 Alarm an Pumpe 3." in page and "höchstens 1,5 in der Woche" in page and "9,5" in page
    assert not re.search(r"\b(the|and|of|is|alarms|score|heard|promised)\b", page), page
    book = openpyxl.load_workbook(io.BytesIO(report_workbook(made, language="de")))
    assert book.sheetnames[:2] == ["Maschinen", "Alarme"]
    words = [
        str(value)
        for sheet in book
        for row in sheet.iter_rows(values_only=True)
        for value in row
        if isinstance(value, str)
    ]
    assert not [word for word in words if re.search(r"\b(the|and|of|is|alarms|score|heard|promised)\b", word)]
    assert book["Alarme"]["B2"].number_format == "dd.mm.yyyy hh:mm:ss"
    page = report_page(detector_report(load(pump3), "pump3"), language="de")
    page = re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.S)
    assert not re.search(r"\b(the|and|of|is|alarms|score|heard|promised)\b", page), page
    history.close()


def test_messages_to_people_and_home_assistant_are_in_the_language_of_the_plant():
    alarm = Event(1, "pump", "alarm", T0, T0 + 90, 7.3, T0, 3.4, text=ALARMED)
    title, text = (translated(part, "de") for part in words(alarm, "Pumpe 3", "https://x/event/1"))
    assert title == "Alarm: Pumpe 3, vorbei" and "https://x/event/1" in text
    assert "Klingt fehlerhaft seit" in text and "Abweichung 7,3, Alarm über 3,4. Vorbei seit" in text
    heard = "Klingt anders als die normalen Aufnahmen, erkannt an dem Dauergeräusch; "
    assert f"{heard}bitte zuerst prüfen: Der Datei fehlt" in text
    names = {translated(name, "de") for name in (*ENTITIES, *COMMANDING)}
    assert names == {
        "Abweichung",
        "Alarmschwelle",
        "Alarm",
        "Ungewöhnlich",
        "Mikrofone",
        "Quittieren",
        "Zurückgestellt",
        "Alarm über",
    }
    message = EventMessage("pump", "hall", T0, "raised", alarm)  # what MQTT and webhooks send
    body = json.loads(message.json(lambda text: translated(text, "de")))
    assert body["what"] == "raised" and body["event"]["kind"] == "alarm"
    assert body["event"]["text"].startswith("klingt anders als die normalen Aufnahmen, erkannt an dem")
