"""The reader's language: messages are written once, in English, and translated where they are shown.

    texts/LANGUAGE/format.json     how numbers and dates are written
    texts/LANGUAGE/messages.json   {English message with {places}: the message in this language}; not for English
    texts/LANGUAGE/reports.json    texts of the reports, by key
    texts/LANGUAGE/pages.json      texts of the pages, by key; the pages read them

A folder is a language. `translated` finds the template that fits a message, so a message that was stored last year is
read in any language today:

>>> template = Template.of("{name} is shelved for {hours} h.", "{name} ist für {hours} h zurückgestellt.")
>>> template.values("Pump 3 is shelved for 8.5 h.")
['Pump 3', '8.5']
>>> translated("Pump 3 is shelved for 8.5 h.", "de")
'Pump 3 ist für 8,5 h zurückgestellt.'

What stands at a place is translated too, if it is a number, a date or a known phrase, but not if the place is one of
NAMES. A text of several messages, or a list, is translated piece by piece; what fits no template stays English:

>>> translated("0815.wav, Fan is watched again. Pump 3 is shelved for 8.5 h. Anna said so", "de")
'0815.wav, Fan wird wieder überwacht. Pump 3 ist für 8,5 h zurückgestellt. Anna said so'

A message is a fact and, after a colon or a semicolon, its cause or what to do: each of the two is known alone, too. Of
several ways to read a text, the one that leaves the fewest letters English is right.

A template fits as in a glob: each literal is found from left to right, so a text takes linear time, whatever is in it.
"""

from __future__ import annotations

import ctypes
import json
import locale
import os
import re
import string
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from nearfar.live.calendar import DAYS

TEXTS = Path(__file__).parent / "texts"
ENGLISH = "en"
COOKIE = "nearfar_language"
NAMES = frozenset(  # places that stand for a name
    ["name", "names", "file", "path", "folder", "id", "who", "by", "title", "session", "username", "suffix", "zone"]
)
LONGEST, PIECES, SPAN = 4000, 16, 6  # characters of a text; pieces of a text, and of a message
DEPTH, MOST, MANY = 4, 3, 8  # of places inside places; templates that are tried; a share
SENTENCES = re.compile(r"((?<=[.?!])\s+|; +)")
SEPARATOR = re.compile(r"(?<=[.?!])\s+|[;:] +|\n+")
CAUSE = re.compile(r"[:;] ")
ASIDE = re.compile(r"(.*?)( ?\()([^()]+)(\))", re.DOTALL)
GLUE = re.compile(r"(, | and | or )")
WORD = re.compile(r"[A-Za-z]+")
COMMON = frozenset(
    ("a", "an", "and", "as", "at", "by", "for", "from", "in", "is", "it", "of", "on", "or", "over", "the")
)
FEW = 10  # letters beside COMMON: a template with fewer may fit by chance, so its places must be known
NUMBER = re.compile(r"[+\-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+\-]\d+)?%?(?: ?[A-Za-z]{1,3})?")
LENGTH = re.compile(r"\d+:\d\d(?::\d\d)? (?:min|h)")
WHEN = re.compile(rf"(?:({'|'.join(DAYS)}) ?)?(?:(\d{{4}})-(\d\d)-(\d\d) ?)?(\d\d:\d\d(?::\d\d)?|\d\d)?")

Found = tuple[str, int]
reader: ContextVar[str] = ContextVar("reader", default=ENGLISH)  # the language of the request that is being answered


@cache
def languages() -> tuple[str, ...]:
    """The languages that there are."""
    return tuple(sorted(folder.name for folder in TEXTS.iterdir() if folder.is_dir()))


def choose(cookie: str, accept_language: str, otherwise: str = ENGLISH) -> str:
    """The language of a reader: that of the cookie, else the best known one of an Accept-Language header."""
    if cookie in languages():
        return cookie
    wishes = []
    for wish in accept_language[:1000].lower().split(","):
        tag, _, weight = wish.strip().partition(";q=")
        try:
            wishes.append((float(weight or 1), tag.partition("-")[0].strip()))
        except ValueError:
            continue
    known = (tag for weight, tag in sorted(wishes, key=lambda w: -w[0]) if weight > 0 and tag in languages())
    return next(known, otherwise)


def asked_for(headers: Mapping[str, str], otherwise: str = ENGLISH) -> str:
    """The language of a request, by its headers in lower case."""
    cookie = re.search(rf"(?:^|; *){COOKIE}=([\w-]+)", headers.get("cookie", ""))
    return choose(cookie[1] if cookie else "", headers.get("accept-language", ""), otherwise)


def of_system() -> str:
    """The language of this computer's user, as the environment or Windows says it; else English."""
    said = next(filter(None, (os.environ.get(name, "") for name in ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    if sys.platform == "win32" and not said:
        said = locale.windows_locale.get(ctypes.windll.kernel32.GetUserDefaultUILanguage(), "")
    code = re.split(r"[^A-Za-z]", said)[0].lower()
    return code if code in languages() else ENGLISH


def translated(text: str, language: str) -> str:
    """A message, number or date in a language; what is not known stays as it is."""
    if language == ENGLISH or not text or len(text) > LONGEST:
        return text
    return "\n".join(_line(line, language) for line in text.split("\n"))


def date(language: str, year: str, month: str, day: str) -> str:
    """A date in the order of a language."""
    form: str = catalogue("format", language)["date"]
    return form.format(year=year, month=month, day=day)


def texts(kind: str, language: str) -> Callable[..., str]:
    """t(key, **values): the text of a key in a language, its values as `translated` gives them."""
    known = catalogue(kind, language)

    def t(key: str, **values: object) -> str:
        found: str = known[key]
        given = {k: str(v) if k in NAMES else translated(str(v), language) for k, v in values.items()}
        return found.format(**given)

    return t


@lru_cache(4096)
def _line(text: str, language: str) -> str:
    return _messages(language).place("", text, 0)[0]


@cache
def catalogue(kind: str, language: str) -> dict[str, Any]:
    """What texts/LANGUAGE/KIND.json holds."""
    read: dict[str, Any] = json.loads((TEXTS / language / f"{kind}.json").read_text(encoding="utf-8"))
    return read


@cache
def _messages(language: str) -> Messages:
    return Messages(catalogue("messages", language), catalogue("format", language))


@dataclass(frozen=True)
class Template:
    """A message with places: the literals around them, their names, and the message in the other language.

    `size` is the number of characters that are given; one that `is_short` may fit by chance.
    """

    literals: tuple[str, ...]
    names: tuple[str, ...]
    other: str
    size: int
    is_short: bool

    @staticmethod
    def of(message: str, other: str) -> Template:
        """The template of an entry of messages.json."""
        literals, names = [""], []
        for literal, name, _, _ in string.Formatter().parse(message):
            literals[-1] += literal
            if name is not None:
                names.append(name)
                literals.append("")
        letters = sum(len(word) for text in literals for word in WORD.findall(text) if word not in COMMON)
        return Template(tuple(literals), tuple(names), other, sum(map(len, literals)), letters < FEW)

    def words(self) -> list[str]:
        """Whole words that every text that fits has; a word beside a place may be part of a longer one."""
        return re.findall(r"(?<![A-Za-z\0])[A-Za-z]+(?![A-Za-z\0])", "\0".join(self.literals).lower())

    def values(self, text: str) -> list[str] | None:
        """What stands at the places of a text that fits, or None."""
        first, last = self.literals[0], self.literals[-1]
        if not self.names:
            return [] if text == first else None
        at, end, found = len(first), len(text) - len(last), []
        if at > end or not text.startswith(first) or not text.endswith(last):
            return None
        for literal in self.literals[1:-1]:
            to = text.find(literal, at, end)
            if to < 0:
                return None
            found.append(text[at:to])
            at = to + len(literal)
        return [*found, text[at:end]]


class Messages:
    """The messages of one language. Methods return a text, and how many letters of it no template holds.

    `place` reads any text: `_known` one message, `_sentences` and `_pieces` several. `_known` tries `_local` (a number,
    a date), `_fit` (a template, whose places are read by `place` again) and `_listed` (phrases with commas).
    """

    def __init__(self, entries: Mapping[str, str], form: Mapping[str, Any]) -> None:
        self.form, self.words = form, entries
        templates = [Template.of(*entry) for entry in entries.items()]
        for pair in (zip(CAUSE.split(a, 1), CAUSE.split(b, 1), strict=False) for a, b in entries.items()):
            parts = [Template.of(*part) for part in pair]
            if len(parts) == 2:
                templates += [p for p in parts if p.size >= FEW and {*Template.of(p.other, "").names} <= {*p.names}]
        common = Counter(word for template in templates for word in set(template.words()))
        self._with_word: dict[str, list[Template]] = defaultdict(list)  # by the rarest word of the template
        for template in templates:
            self._with_word[min(template.words(), key=lambda word: common[word], default="")].append(template)
        self.place = lru_cache(1 << 14)(self._place)

    def _place(self, name: str, text: str, depth: int) -> Found:
        """What stands at a place: a name, a number, a date, a message, several of them, or a list of phrases."""
        if _is_name(name) or depth > DEPTH:
            return self._glued(text) if name == "names" else text, _letters(text)
        found = self._known(text, depth)
        if SEPARATOR.search(text) and (found is None or (not depth and found[1])):
            pieces = self._sentences(text, depth) or self._pieces(text, depth)
            found = pieces if found is None or pieces[1] < found[1] else found
        return found or (text, _letters(text))

    def _known(self, text: str, depth: int) -> Found | None:
        """One message, number, date or list, with spaces around it or words in parentheses behind it."""
        if text.endswith(".") and (number := self._local(text[:-1])):
            return number[0] + ".", 0
        found = self._local(text) or self._fit(text, depth) or self._listed(text, depth)
        if found is None and text != (core := text.strip()) and core:
            before, _, after = text.partition(core)
            other, left = self.place("", core, depth + 1)
            found = before + other + after, left
        if found is None and (aside := ASIDE.fullmatch(text)):
            head, opened, inner, closed = aside.groups()
            behind = self._fit(opened + inner + closed, depth)
            if behind is None:
                other, left = self.place("", inner, depth + 1)
                behind = opened + other + closed, left
            other, left = self.place("", head, depth + 1)
            found = other + behind[0], left + behind[1]
        return found

    def _local(self, text: str) -> Found | None:
        """A number, with its unit, or a date."""
        if LENGTH.fullmatch(text):
            return text, 0
        if not text or not (text[0].isdigit() or text[0] in "+-−" or text[:3] in DAYS):
            return None
        if NUMBER.fullmatch(text):
            swap = {",": self.form["thousands"], ".": self.form["decimal"], "%": self.form["percent"]}
            return "".join(swap.get(c, c) for c in text), 0
        found = WHEN.fullmatch(text)
        if found is None:
            return None
        day, year, month, date, clock = found.groups()
        parts = [
            day and self.form["days"][DAYS.index(day)],
            year and self.form["date"].format(year=year, month=month, day=date),
            clock,
        ]
        return " ".join(part for part in parts if part), 0

    def _fit(self, text: str, depth: int) -> Found | None:
        """A text that is one message, whether it begins with a capital and ends with a full stop or not."""
        found = [
            (left, -size, other + stop)
            for stop in ((".", "") if text.endswith(".") else ("",))
            for other, left, size in islice(self._messages(text.removesuffix(stop), depth), MOST)
        ]
        return (min(found)[2], min(found)[0]) if found else None

    def _messages(self, text: str, depth: int) -> Iterator[tuple[str, int, int]]:
        """(translation, letters left, size of the template) by the templates that fit, the largest first."""
        known = (t for word in {"", *WORD.findall(text.lower())} for t in self._with_word.get(word, ()))
        for template in sorted(known, key=lambda template: -template.size):
            first = template.literals[0][:1]
            swapped = first != text[:1] and first == text[:1].swapcase() != ""
            values = template.values(first + text[1:] if swapped else text)
            if values is None:
                continue
            given = dict(zip(template.names, values, strict=True))
            found = {name: self.place(name, value, depth + 1) for name, value in given.items()}
            if template.is_short and any(0 < found[k][1] == _letters(v) and not _is_name(k) for k, v in given.items()):
                continue
            other = template.other.format(**{name: other for name, (other, _) in found.items()})
            if swapped:
                other = (other[:1].upper() if text[0].isupper() else other[:1].lower()) + other[1:]
            yield other, sum(letters for _, letters in found.values()), template.size

    def _sentences(self, text: str, depth: int) -> Found | None:
        """Several messages that are joined as sentences or by semicolons, if each is known for the most part."""
        parts = SENTENCES.split(text)
        found = [self._fit(part, depth) for part in parts[: 2 * PIECES : 2]]
        if len(parts) < 3 or len(parts) > 2 * PIECES or any(part is None for part in found):
            return None
        parts[::2] = [part[0] for part in found if part]
        left = sum(part[1] for part in found if part)
        return ("".join(parts), left) if MANY * left < _letters(text) else None

    def _pieces(self, text: str, depth: int) -> Found:
        """Several messages: those pieces together that leave the fewest letters English."""
        marks = [found.span() for found in SEPARATOR.finditer(text)][: (PIECES >> depth) - 1]
        starts, ends = [0, *(end for _, end in marks)], [*(start for start, _ in marks), len(text)]
        count = len(starts)
        best = [("", 0)] * (count + 1)
        for i in reversed(range(count)):
            options = []
            for j in range(min(count, i + SPAN), i, -1):
                piece, after = text[starts[i] : ends[j - 1]], text[ends[j - 1] : starts[j]] if j < count else ""
                found = self._known(piece, depth)
                if found is None and j == i + 1:
                    found = piece, _letters(piece)
                if found is not None:
                    options.append((found[0] + after + best[j][0], found[1] + best[j][1]))
            best[i] = min(options, key=lambda option: option[1])
        return best[0]

    def _listed(self, text: str, depth: int) -> Found | None:
        """Phrases and single words that are joined by commas, "and" and "or"."""
        parts = GLUE.split(text)
        if not 3 <= len(parts) < 99:
            return None
        left = 0
        for i, part in enumerate(parts[::2]):
            found = self._local(part) or self._fit(part, depth)
            if found is None and " " in part:
                return None
            parts[2 * i], letters = found or (part, _letters(part))
            left += letters
        return self._glued("".join(parts)), left

    def _glued(self, names: str) -> str:
        """Names with the words between them."""
        parts = GLUE.split(names)
        return "".join(
            self.words.get(part.strip(), part.strip()).join("  ") if i % 2 and part != ", " else part
            for i, part in enumerate(parts)
        )


def _is_name(place: str) -> bool:
    return place.rstrip("0123456789") in NAMES


def _letters(text: str) -> int:
    return sum(map(str.isalpha, text))
