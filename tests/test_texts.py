"""The texts of the pages: one catalogue for each language, whole, and no text beside it."""

import json
import re
from pathlib import Path

import pytest

import nearfar.live
from nearfar.live.language import ENGLISH, catalogue, languages
from nearfar.live.server.security import Access, Token
from servers import a_plant, client_of

STATIC = Path(nearfar.live.__file__).parent / "static"
SCRIPTS = sorted((STATIC / "js").glob("*.js"))
TEMPLATES = [STATIC / "page.html", STATIC / "login.html"]
PLACE = re.compile(r"\{(\w+)\}")
TOKEN = "a-token-that-is-long-enough"
CATEGORIES = {"zero", "one", "two", "few", "many", "other"}  # of CLDR

# Comments, regular expressions and literals of a script. A template ends at its first backtick: one inside another is
# cut in two, which leaves its words in sight.
LITERAL = re.compile(
    r"""//[^\n]*|/\*.*?\*/|(?:(?<=[(\[,=])|(?<=[,=] ))/(?:[^/\\\n]|\\.)+/\w*|"([^"\n]*)"|`([^`]*)`""", re.DOTALL
)
WORDS = re.compile(r"[A-Za-zÄÖÜäöüß]{2}[a-zäöüß,;:.]* +[A-Za-zÄÖÜäöüß]{2}|^ ?[A-ZÄÖÜ][a-zäöüß]+\b")
SHOWN = re.compile(
    r"(aria-label|\btitle|placeholder|\balt|aria-valuetext)\"?[:,] *$|(note|announce|setTitle)\($|\}, *$"
)
# What may stand before a literal that is not for people.
TECHNICAL = re.compile(r"class: [^,]*$|(\bd|viewBox|media|autocomplete): *$|className = *$|querySelector(All)?\($")
ALLOWED = {
    "GET", "POST", "PUT", "DELETE",  # of HTTP
    "ArrowLeft", "ArrowRight", "PageUp", "PageDown", "Home", "End", "AbortError",  # of the browser
    "RIFF", "WAVEfmt ",  # of WAV files
    "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun",
    "Sun 06:00-10:00", "Sat-Sun", "22:00-06:00, Sat-Sun",  # spans of a week, which are shown with the reader's days
    "nearfar ", " - nearfar",  # the name
}  # fmt: skip


def keys(language):
    return {
        f"{section}.{name}": text
        for section, texts in catalogue("pages", language).items()
        for name, text in texts.items()
    }


def forms(text):
    """The single texts of an entry: one, a list, or one for each plural."""
    return [text] if isinstance(text, str) else text if isinstance(text, list) else list(text.values())


def literals(script):
    """(what stands before it in its line, literal) of a script."""
    for found in LITERAL.finditer(script):
        text = found[1] if found[1] is not None else found[2]
        if text is not None:
            yield script[: found.start()].rpartition("\n")[2], text


def test_there_is_more_than_one_language():
    assert {ENGLISH, "de"} <= set(languages())


@pytest.mark.parametrize("language", languages())
def test_a_catalogue_has_the_keys_and_places_of_the_english_one(language):
    english, own = keys(ENGLISH), keys(language)
    assert english.keys() == own.keys()
    for key, text in own.items():
        assert all(isinstance(form, str) and form and form == form.strip() for form in forms(text)), key
        places = [set(PLACE.findall(" ".join(forms(each)))) for each in (english[key], text)]
        assert places[0] == places[1], key
        if isinstance(english[key], list) or isinstance(text, list):
            assert len(english[key]) == len(text), key
        if isinstance(text, dict):
            assert text.keys() <= CATEGORIES and "other" in text and "count" in places[1], key
        if any("count" in PLACE.findall(form) for form in forms(text)):
            assert not re.search(r"\{count\} [a-z]+\(\w+\)", " ".join(forms(text))), key  # no recording(s)


def test_every_text_is_used_and_every_used_text_exists():
    known, used = keys(ENGLISH), set()
    sections = catalogue("pages", ENGLISH).keys()
    for script in SCRIPTS:
        source = script.read_text(encoding="utf-8")
        used |= {text for text in re.findall(r'"(\w+\.[\w-]+)"', source) if text.partition(".")[0] in sections}
        for section in re.findall(r"`(\w+)\.\$\{", source):  # the rest of the key is known when it runs
            used |= {key for key in known if key.startswith(f"{section}.")}
    for template in TEMPLATES:
        used |= set(re.findall(r"\{\{(\w+\.\w+)\}\}", template.read_text(encoding="utf-8")))
    used |= {"language.name", "login.wrong"}  # by the server
    assert used == known.keys()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_has_no_text_of_its_own(script):
    found, names = (
        [],
        {part for key in keys(ENGLISH) for part in (key, key.partition(".")[2])},
    )  # the server's words, too
    for before, text in literals(script.read_text(encoding="utf-8")):
        own = re.sub(r"\$\{[^}]*\}*", "", text)
        if own in ALLOWED | names or TECHNICAL.search(before):
            continue
        if WORDS.search(own) or (SHOWN.search(before) and re.search(r"[A-Za-z]{2}", own)):
            found.append(text)
    assert found == []


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_has_no_text_of_its_own(template):
    source = re.sub(r"\{\{[\w.]+\}\}", "", template.read_text(encoding="utf-8"))
    texts = re.findall(r">([^<>]+)<", source) + re.findall(r'(?:aria-label|alt|title|placeholder)="([^"]*)"', source)
    assert {text.strip() for text in texts} <= {"", "nearfar", "- nearfar"}


@pytest.mark.parametrize(
    "line", ['h("p", {}, "Seen")', 'note("none yet")', '"aria-label": "Steps",', "announce(`${n} recordings sent`)"]
)
def test_the_search_for_texts_finds_them(line, tmp_path):
    script = tmp_path / "page.js"
    script.write_text(f"  {line};\n")
    with pytest.raises(AssertionError):
        test_a_script_has_no_text_of_its_own(script)


@pytest.fixture
def client(pump3, tmp_path):
    plant, clock = a_plant(pump3, tmp_path, "pump")
    with client_of(plant, clock, access=Access((Token(TOKEN),))) as client:
        yield client
    plant.close()
    plant.history.close()


def test_a_page_is_in_the_language_of_the_browser_until_another_is_chosen(client):
    german = {"accept-language": "xx;q=0.9, de-AT;q=0.8, en;q=0.5"}
    page = client.get("/login?next=/machine/pump", headers=german)
    assert '<html lang="de">' in page.text and "Anmelden" in page.text and page.headers["content-language"] == "de"
    assert '<html lang="en">' in client.get("/login", headers={"accept-language": "xx"}).text
    chosen = client.get("/login?next=/machine/pump&language=en", headers=german, follow_redirects=False)
    assert chosen.status_code == 303 and chosen.headers["location"] == "/login?next=%2Fmachine%2Fpump"
    assert "HttpOnly" in chosen.headers["set-cookie"] and "Path=/;" in chosen.headers["set-cookie"]
    assert "Log in" in client.get("/login", headers=german).text  # the cookie is kept
    refused = client.post("/login", data={"token": "wrong"}, headers=german)
    assert refused.status_code == 401 and "This is not the token" in refused.text


def test_the_choice_of_a_language_leads_to_no_other_site(client):
    headers = {"authorization": f"Bearer {TOKEN}", "accept": "text/html"}
    for path in ("//evil.example/", "/\\evil.example/"):
        answer = client.get(f"http://127.0.0.1{path}?language=de", headers=headers, follow_redirects=False)
        assert answer.status_code == 303 and answer.headers["location"] == "/"
    assert client.get("/guide?language=xx", headers=headers).status_code == 200


def test_a_page_has_the_whole_catalogue_of_its_language(client):
    headers = {"authorization": f"Bearer {TOKEN}", "accept-language": "de"}
    page = client.get("/guide", headers=headers).text
    found = re.search('<script type="application/json" id="texts">(.*?)</script>', page, re.DOTALL)
    assert json.loads(found[1]) == catalogue("pages", "de") and "{{" not in page
