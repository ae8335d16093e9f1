"""Draw the pictures of docs/microphones.md and of the page /guide: where near and far go, and where they do not."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (ROOT / "docs", ROOT / "src" / "nearfar" / "live" / "static")
INK, FAINT, NEAR, FAR, PAPER, METAL = "#1b2530", "#5c6874", "#0072b2", "#c04c00", "#ffffff", "#eef2f5"
TEXTS = json.loads((ROOT / "src/nearfar/live/texts/en/pages.json").read_text(encoding="utf-8"))


def text(x: float, y: float, key: str, colour: str = INK) -> str:
    """The words of a key of the catalogue, centred; the page /guide puts them in the reader's language."""
    words = TEXTS["pictures"][key]
    return f"<text x='{x:g}' y='{y:g}' fill='{colour}' text-anchor='middle' data-text='{key}'>{words}</text>"


def line(x1: float, y1: float, x2: float, y2: float, colour: str = INK) -> str:
    """A straight line."""
    return f"<line x1='{x1:g}' y1='{y1:g}' x2='{x2:g}' y2='{y2:g}' stroke='{colour}' stroke-width='2'/>"


def box(x: float, y: float, width: float, height: float) -> str:
    """A part of a machine."""
    size = f"x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='6'"
    return f"<rect {size} fill='{METAL}' stroke='{INK}' stroke-width='2'/>"


def machine(x: float, floor: float, width: float, height: float, key: str = "") -> list[str]:
    """A motor on its feet, with its shaft to the left."""
    top = floor - height - 16
    feet = [line(at, floor - 16, at, floor) for at in (x + 8, x + width - 8)]
    shaft = box(x - 20, top + height / 2 - 7, 24, 14)
    name = [text(x + width / 2, top + height / 2 + 5, key)] if key else []
    return [shaft, box(x, top, width, height), *feet, *name]


def microphone(x: float, y: float, key: str, foot: float) -> list[str]:
    """A microphone on a stand; the head of near is filled, that of far is open: colour is not the only sign."""
    colour, fill = (NEAR, NEAR) if key == "near" else (FAR, PAPER)
    head = f"<circle cx='{x:g}' cy='{y:g}' r='10' fill='{fill}' stroke='{colour}' stroke-width='3'/>"
    return [line(x, y + 10, x, foot, colour), head, text(x, y - 18, key, colour)]


def distance(x1: float, x2: float, y: float, key: str) -> list[str]:
    """A measure with its ends."""
    ends = [line(x, y - 6, x, y + 6, FAINT) for x in (x1, x2)]
    return [line(x1, y, x2, y, FAINT), *ends, text((x1 + x2) / 2, y + 22, key)]


def wind(x: float, y: float) -> str:
    """A stream of air to the right."""
    return f"<path d='M{x:g} {y:g} q 15 -8 30 0 t 30 0' fill='none' stroke='{FAINT}' stroke-width='2'/>"


def picture(height: int, title: str, parts: list[str]) -> str:
    """A page of SVG."""
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 760 {height}' role='img'"
    paper = f"<rect width='760' height='{height}' fill='{PAPER}'/>"
    look = " font-family='system-ui, sans-serif' font-size='15'>"
    return "\n".join([head + look, f"<title>{title}</title>", paper, *parts, "</svg>"]) + "\n"


def right() -> str:
    """Near at the machine, far towards the room."""
    floor = 250
    parts = [line(20, floor, 740, floor), *machine(90, floor, 150, 90, "machine")]
    parts += [*microphone(290, floor - 70, "near", floor), *microphone(610, floor - 110, "far", floor)]
    parts += distance(240, 289, floor + 20, "near_distance")
    parts += distance(291, 610, floor + 20, "far_distance")
    parts += [text(190, 50, "near_place"), text(190, 70, "near_not")]
    parts += [text(610, 50, "far_place"), text(610, 70, "far_loud")]
    return picture(305, TEXTS["guide"]["right"], parts)


def wrong() -> str:
    """Three places that do not work."""
    parts, floor = [], 190
    for left, place in ((20, "side"), (270, "wind"), (520, "other")):
        parts += [line(left, floor, left + 220, floor), text(left + 100, 28, place)]
        parts += [text(left + 110, floor + 28, f"{place}_why", FAINT), *machine(left + 30, floor, 70, 50)]
        parts += [line(left + 200, 12, left + 216, 28, FAR), line(left + 216, 12, left + 200, 28, FAR)]
    parts += [*microphone(150, floor - 60, "near", floor), *microphone(200, floor - 60, "far", floor)]
    parts += [wind(376, floor - 60 + 12 * k) for k in range(4)] + microphone(455, floor - 50, "near", floor)
    parts += [*microphone(646, floor - 40, "near", floor), *machine(694, floor, 42, 40)]
    parts += microphone(715, floor - 84, "far", floor - 56)
    return picture(235, TEXTS["guide"]["wrong"], parts)


def pictures() -> dict[str, str]:
    """The files and what they hold."""
    return {"microphones-right.svg": right(), "microphones-wrong.svg": wrong()}


if __name__ == "__main__":
    for name, content in pictures().items():
        for folder in FOLDERS:
            (folder / name).write_text(content, encoding="utf-8")
