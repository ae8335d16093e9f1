"""Write docs/http.md from the server's OpenAPI document.

python tools/http_reference.py           rewrite the page
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "http.md"
HEAD = """# HTTP

What `nearfar serve` answers. The document itself is served as `/openapi.json`; this page is made from it.
Every error has one shape: `{"code": word, "message": sentence, "status": number}`.
"""


def document() -> dict[str, Any]:
    """The OpenAPI document of a server without machines."""
    from nearfar.live.history.history import History
    from nearfar.live.plant import Plant
    from nearfar.live.server.app import make_app

    with tempfile.TemporaryDirectory() as folder:
        return make_app(Plant([], History(Path(folder)), clock=time.time)).openapi()


def page(api: dict[str, Any]) -> str:
    """The document as Markdown: a section per tag, a heading per call."""
    schemas = api["components"]["schemas"]
    parts = [HEAD]
    for path, calls in api["paths"].items():
        for method, call in calls.items():
            parts.append(f"## `{method.upper()} {path}`\n\n{(call.get('description') or call['summary']).strip()}\n")
            if rows := [_parameter(p) for p in call.get("parameters", [])]:
                table = "| parameter | in | type | meaning |\n| --- | --- | --- | --- |\n"
                parts.append(table + "\n".join(rows) + "\n")
            for status, answer in call["responses"].items():
                if status.startswith("2"):
                    for kind, body in answer.get("content", {}).items():
                        parts.append(_answer(status, kind, body.get("schema", {}), schemas))
            errors = [status for status in call["responses"] if not status.startswith("2")]
            if errors:
                parts.append(f"Errors: {', '.join(errors)}.\n")
    return "\n".join(parts)


def _parameter(p: dict[str, Any]) -> str:
    schema = p.get("schema", {})
    kind = schema.get("type") or " or ".join(s.get("type", "?") for s in schema.get("anyOf", []))
    return f"| `{p['name']}` | {p['in']} | {kind} | {p.get('description', '')} |"


def _answer(status: str, kind: str, schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    name = schema.get("$ref", "").rpartition("/")[2] or schema.get("items", {}).get("$ref", "").rpartition("/")[2]
    text = f"Answer {status}, `{kind}`" + (f": {name}" if name else "") + ".\n"
    examples = schemas.get(name, {}).get("examples") or [schemas.get(name, {}).get("example")]
    if examples[0] is not None:
        text += f"\n```json\n{json.dumps(examples[0], indent=2, ensure_ascii=False)}\n```\n"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(document()), encoding="utf-8")
    print(PAGE, file=sys.stderr)
