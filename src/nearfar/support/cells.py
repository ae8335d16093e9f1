"""Cells of CSV files: text that a spreadsheet would take for a formula is escaped, and unescaped when it is read back.

    =HYPERLINK(...)   ->   '=HYPERLINK(...)

Reference: OWASP, CSV Injection.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from typing import Any

FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def escaped(cells: Iterable[Any]) -> list[Any]:
    """The cells of a row; a text that begins like a formula gets an apostrophe in front, a number stays."""
    return [f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell for cell in cells]


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Rows as the text of a CSV file, their cells escaped; None is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(escaped, rows))
    return text.getvalue()


def unescaped(cell: str) -> str:
    """A cell without the apostrophe that `escaped` has put in front."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell
