"""Jinja2 templates -> HTML pages in one file: pictures and sounds are inside, nothing is fetched and nothing runs.

    templates/base.html.j2     the page around the block `body`: head, style sheet, title
    templates/macros.html.j2   figure, figures, verdict, cell, table

Autoescape is on for every template, so names of files and machines appear as text. Another package keeps its own
templates in its folder `templates`; they extend `base.html.j2` and import from `macros.html.j2`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from nearfar.metrics import Interval

if TYPE_CHECKING:
    from jinja2 import Environment

NONE = "–"  # a number that does not exist


@dataclass(frozen=True)
class Figure:
    """A picture as PNG, for light and for dark pages, with its description and its caption."""

    light: bytes
    dark: bytes
    alt: str
    caption: str


@dataclass(frozen=True)
class Value:
    """A cell of a table: a number in bold, and a remark in small type below it."""

    bold: str = ""
    small: str = ""


def render(template: str, package: str = "nearfar.explain", **values: Any) -> str:
    """The HTML that a template of `package` makes of `values`; a value that the template lacks is an error."""
    return _environment(package).get_template(template).render(values)


def figure(draw: Callable[..., bytes], *values: object, alt: str, caption: str) -> Figure:
    """`draw(*values)` and `draw(*values, dark=True)` as a figure."""
    return Figure(draw(*values), draw(*values, dark=True), alt, caption)


def percent(value: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage without the sign: 0.6093 -> "60.9"; None or NaN -> "–"."""
    return NONE if value is None or math.isnan(value) else f"{100 * value:.{digits}f}"


def percent_cell(value: float | None, interval: Interval | None = None) -> Value | str:
    """A cell with a share in percent, and its interval below it."""
    if value is None or math.isnan(value):
        return NONE
    if interval is None or math.isnan(interval.low):
        return Value(percent(value))
    return Value(percent(value), f"{percent(interval.low)} to {percent(interval.high)}")


@lru_cache
def _environment(package: str) -> Environment:
    try:
        from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise ImportError('pages need Jinja2, an extra: pip install "nearfar[pictures]"') from None
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("nearfar.explain")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    return environment


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
