"""The messages in the source, as templates with places: what each language's messages.json must hold.

A text is a string or an f-string with a space beside a word. Every one in MODULES counts, but docstrings, annotations,
what is compared, and arguments of the calls in NO_TEXT. `{x if y else "b"}`, "a" + "b" and "s" * flag are written out;
what else stands in braces is a place. A dict, a list or a function that gives one text gives texts only, so that single
words count too, and so do those that a place of a text can hold.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

import nearfar

ROOT = Path(nearfar.__file__).parent
MODULES = (
    *("live/**/*.py", "audio/*.py", "detector/*.py", "doctor/*.py", "embedding/embedder.py"),
    *("embedding/vectors.py", "explain/wording.py", "explain/pictures.py", "score.py", "support/check.py"),
    *("support/files.py", "threshold.py"),
)
NOT_FOR_PEOPLE = {  # modules, and functions and constants in them: why
    "live/build.py": "said by nearfar serve and monitor when they start",
    "live/sinks/terminal.py": "the output of a command",
    "live/sinks/prometheus.py": "descriptions of metrics",
    "live/server/schemas.py": "examples of the API",
    "live/server/app.py ABOUT": "the description of the API",
    "live/server/service.py ERRORS": "the description of the API",
    "live/server/security.py HEADERS": "HTTP",
    "live/server/security.py cookie": "HTTP",
    "live/server/security.py access": "said by nearfar serve when it starts",
    "live/server/security.py read_tokens": "said by nearfar serve when it starts",
    "live/server/security.py reread": "the log of nearfar serve",
    "live/server/security.py _token": "said by nearfar serve when it starts",
    "live/server/security.py _network": "said by nearfar serve when it starts",
    "live/sinks/opcua.py read_users": "said by nearfar serve when it starts",
    "live/history/database.py lock_folder": "said by nearfar serve when it starts",
    "live/history/database.py connect": "said by nearfar serve when it starts",
    "live/history/database.py _upgrade": "said by nearfar serve when it starts",
    "live/history/database.py rescue": "a command",
    "live/history/database.py to_parquet": "a command",
    "live/history/database.py is_damage": "compares",
    "live/rules/setpoint.py MORE": "a command",
    "audio/clip.py WAS": "begins a comment in a file",
    "audio/recordings.py LAYOUT": "a command",
    "audio/recordings.py machines": "a command",
    "audio/recordings.py check_machines": "a command",
    "audio/recordings.py leave_out": "a command",
    "audio/recordings.py _with_manifest": "a command",
    "audio/recordings.py _value": "a command",
    "audio/recordings.py rows": "a command",
    "explain/pictures.py trend_png": "a command",
    "explain/pictures.py legend": "matplotlib",
    "explain/pictures.py _kinds": "a command",
    "doctor/report.py ADVICE": "a command",
    "doctor/report.py Report": "a command",
    "doctor/report.py _summary": "a command",
    "doctor/report.py _lengths": "a command",
    "doctor/report.py _unlike": "a command",
    "doctor/report.py _place": "a command",
    "doctor/report.py clock": "a length of time",
    "live/calendar.py WRITTEN": "examples",
    "live/config.py read": "said by nearfar serve when it starts",
    "live/config.py _line": "said by nearfar serve when it starts",
    "live/config.py _substituted": "said by nearfar serve when it starts",
    "live/server/pages.py WRONG": "a page",
    "live/server/reports.py CONTENT": "the description of the API",
    "live/server/status.py EVENTS": "the description of the API",
    "live/server/uploads.py BODY": "the description of the API",
    "live/server/service.py drift": "a key",
    "live/plant.py state": "codes",
    "live/history/recordings.py": "codes",
    "live/rules/watchdog.py kind": "a key",
}
WORDS = ("live/report/workbook.py",)  # all words in lists here are read by people
NO_TEXT = {  # calls whose arguments are no texts
    *("compile", "execute", "executemany", "executescript", "strftime", "read_text", "encode", "t", "install_command"),
    *("Query", "Field", "Path", "Body", "PydanticCustomError", "getLogger", "info", "warning", "error", "debug"),
    *("startswith", "endswith", "removeprefix", "removesuffix", "replace", "split", "partition", "rpartition"),
    *("number", "integer", "finite", "one_of", "flag", "plural"),
}
SYNTAX = re.compile(  # of SQL, HTTP, HTML, JSON, shells, Home Assistant's templates
    r"\b(?:SELECT|INSERT|UPDATE|CREATE|ALTER|DELETE|FROM|WHERE|PRAGMA|BEGIN|ORDER BY|IS NULL)\b"
    r"|[=<] \?|-src '"
    r'|filename=|max-age|version=|accept-l|value_json|"who"|^\'ok\'|^bytes |hh:mm|^(?:pip|brew|apt|winget) '
    r'|^\w+="|: 1\.\d'
    r"|^retry: |^<p |^Home Assistant$|^id: "
)
MOST = 16  # alternatives of a message
UNITS = {"dB", "Hz", "kHz", "min", "MiB", "KiB", "GB"}


class Place(str):
    """A name in braces."""


def templates() -> dict[str, str]:
    """{message: module:line} of everything that needs a translation."""
    paths = dict.fromkeys(path for glob in MODULES for path in sorted(ROOT.glob(glob)))
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    functions: dict[str, list[ast.AST]] = defaultdict(list)
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                functions[node.name].append(node)
    found: dict[str, str] = {}
    for path, tree in trees.items():
        module = path.relative_to(ROOT).as_posix()
        if module not in NOT_FOR_PEOPLE:
            for text, line in _Module(tree, module, functions).visit(tree, tree):
                found.setdefault(text, f"{module}:{line}")
    return found


class _Module:
    def __init__(self, tree: ast.Module, name: str, functions: dict[str, list[ast.AST]]) -> None:
        self.name, self.functions = name, functions
        self.constants = {name: value for node in tree.body for name, value in _assigned(node)}

    def visit(self, node: ast.AST, scope: ast.AST) -> Iterator[tuple[str, int]]:
        """(template, line) of each text and phrase below a node, in the function `scope`."""
        names = [name for name, _ in _assigned(node)]
        if isinstance(node, ast.ClassDef):
            names = [node.name]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names, scope = [node.name], node
        if any(f"{self.name} {name}" in NOT_FOR_PEOPLE for name in names) or isinstance(node, ast.Compare | ast.Assert):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _all_if_one(
                [each.value for each in ast.walk(node) if isinstance(each, ast.Return) and each.value]
            )
        if isinstance(node, ast.Call) and _name(node.func) in NO_TEXT:
            if _name(node.func) == "plural":
                yield from ((text, node.lineno) for text in _plurals(node))
            yield from self.visit(node.func, scope)
            return
        if isinstance(node, ast.Attribute) and node.attr == "join" and isinstance(node.value, ast.Constant):
            return
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add) and _name(node.target):
            node = ast.copy_location(ast.BinOp(node.target, ast.Add(), node.value), node)
        if isinstance(node, ast.List | ast.Tuple | ast.Dict):
            values = node.values if isinstance(node, ast.Dict) else node.elts
            yield from _plain(values) if self.name in WORDS else _all_if_one(values)
        inside: Iterable[ast.AST] = ast.iter_child_nodes(node)
        if isinstance(node, ast.JoinedStr | ast.BinOp | ast.Constant) and (found := _alternatives(node)):
            texts = [parts for parts in found if _is_text(parts)]
            yield from ((_written(parts), node.lineno) for parts in texts)
            inside = _places(node)
            if texts:
                yield from ((phrase, node.lineno) for place in _places(node) for phrase in self._phrases(place, scope))
        for child in inside:
            if not _is_docstring(child, node) and child not in (getattr(node, n, 0) for n in ("annotation", "returns")):
                yield from self.visit(child, scope)

    def _phrases(self, place: ast.AST, scope: ast.AST) -> Iterator[str]:
        """The words that a place can hold: of its variable, its dict, or the function that it calls."""
        for each in ast.walk(place):
            if isinstance(each, ast.Call) and _name(each.func) == "join" and isinstance(each.func, ast.Attribute):
                if (
                    isinstance(each.func.value, ast.Constant)
                    and (glue := str(each.func.value.value).strip(" ,")).islower()
                ):
                    yield glue
            elif isinstance(each, ast.Call):
                for function in self.functions.get(_name(each.func), ()):
                    for returned in ast.walk(function):
                        if isinstance(returned, ast.Return):
                            yield from _words(returned.value)
            elif isinstance(each, ast.BoolOp):
                yield from _words(each)
            elif isinstance(each, ast.Name):
                yield from _words(self.constants.get(each.id))
                for node in ast.walk(scope):
                    yield from (word for name, value in _assigned(node) if name == each.id for word in _words(value))


def _alternatives(node: ast.AST) -> list[list[str]]:
    """The ways in which a text can be written out, as literals and places; [] of what is no text."""
    if isinstance(node, ast.Constant):
        return [_split(node.value)] if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        sides = [
            [[value.value]]
            if isinstance(value, ast.Constant)
            else _alternatives(value.value) or [[Place(_name(value.value) or "x")]]
            for value in node.values
        ]
    elif isinstance(node, ast.IfExp):
        sides = [[*_alternatives(node.body), *_alternatives(node.orelse)]]
        if len(sides[0]) < 2 or not _alternatives(node.body) or not _alternatives(node.orelse):
            return []
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult) and _alternatives(node.left):
        sides = [[[""], *_alternatives(node.left)]]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        pair = [_alternatives(node.left), _alternatives(node.right)]
        if not any(pair):
            return []
        sides = [
            side or [[Place(_name(each) or "x")]] for side, each in zip(pair, (node.left, node.right), strict=True)
        ]
    else:
        return []
    found = [[part for side in choice for part in side] for choice in product(*sides)]
    assert len(found) <= MOST, f"line {node.lineno}: a text of more than {MOST} alternatives: write it simpler"
    return found


def _places(node: ast.AST) -> Iterator[ast.AST]:
    """What stands at the places of a text, and what chooses among its alternatives."""
    if isinstance(node, ast.Constant):
        return
    if isinstance(node, ast.JoinedStr):
        inside: Iterable[ast.AST] = [value.value for value in node.values if isinstance(value, ast.FormattedValue)]
    elif isinstance(node, ast.IfExp):
        yield node.test
        inside = (node.body, node.orelse)
    elif isinstance(node, ast.BinOp):
        inside = (node.left, node.right)
    else:
        inside = ()
        yield node
    for each in inside:
        yield from _places(each) if _alternatives(each) else [each]


def _split(text: str) -> list[str]:
    """A text that is filled by `format` later, at its places."""
    parts = re.split(r"\{(\w*)(?::[^{}]*)?\}", text)
    return [Place(part or "x") if i % 2 else part for i, part in enumerate(parts)]


def _assigned(node: ast.AST) -> list[tuple[str, ast.expr]]:
    """(name, value) of an assignment."""
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return []
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [(target.id, node.value) for target in targets if isinstance(target, ast.Name)]


def _words(value: ast.AST | None) -> Iterator[str]:
    """The words of a conditional, a dict or a list, if it has a text among them or chooses one."""
    if isinstance(value, ast.IfExp | ast.BoolOp):
        for each in value.values if isinstance(value, ast.BoolOp) else (value.body, value.orelse):
            if isinstance(each, ast.Constant) and isinstance(each.value, str) and re.search("[a-z]{2}", each.value):
                yield each.value
            yield from _words(each)
    elif isinstance(value, ast.Dict | ast.List | ast.Tuple):
        yield from (text for text, _ in _all_if_one(value.values if isinstance(value, ast.Dict) else value.elts))


def _all_if_one(values: list[ast.expr]) -> Iterator[tuple[str, int]]:
    """All words of several values, if one of them is a text."""
    if any(isinstance(v, ast.Constant) and isinstance(v.value, str) and _is_text([v.value]) for v in values):
        yield from _plain(values)


def _plain(values: list[ast.expr]) -> Iterator[tuple[str, int]]:
    """The values that are words."""
    for value in values:
        if isinstance(value, ast.Constant) and isinstance(value.value, str) and re.search("[a-z]{2}", value.value):
            yield _written(_split(value.value)), value.lineno


def _plurals(call: ast.Call) -> Iterator[str]:
    for parts in _alternatives(call.args[1]):
        yield from (_written([Place("n"), " ", *parts, ending]) for ending in ("", "s"))


def _is_text(parts: list[str]) -> bool:
    """Whether there is a space beside a word that is no unit."""
    shown = "".join("{}" if isinstance(part, Place) else part for part in parts)
    words = set(re.findall(r"(?<![\w.{/-])[A-Za-z]{2,}(?![\w(=/])", shown)) - UNITS
    return bool(words) and " " in shown.strip() and not SYNTAX.search("".join(parts))


def _written(parts: list[str]) -> str:
    """A template as messages.json writes it; places side by side are one."""
    out, last = "", False
    seen: dict[str, int] = defaultdict(int)
    for part in parts:
        if isinstance(part, Place) and not last:
            seen[part] += 1
            out += f"{{{part}{seen[part] if seen[part] > 1 else ''}}}"
        elif not isinstance(part, Place):
            out += part.replace("{", "{{").replace("}", "}}")
        last = isinstance(part, Place) or (last and not part)
    return out


def _name(node: ast.AST) -> str:
    """A name for what stands in braces."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Name):
        return _name(node.args[0])
    return ""


def _is_docstring(child: ast.AST, node: ast.AST) -> bool:
    return isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant) and hasattr(node, "body")
