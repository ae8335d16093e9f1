"""Start nearfar as an add-on of Home Assistant: its options and its broker become a plant.toml.

A plant.toml in the add-on's configuration folder (/addon_configs/...nearfar) takes the place of the one made here.
"""

import json
import os
import secrets
import urllib.request
from pathlib import Path

DATA, CONFIG = Path("/data"), Path("/config")


def broker() -> dict[str, object]:
    """The MQTT service of Home Assistant, or {}."""
    request = urllib.request.Request(
        "http://supervisor/services/mqtt", headers={"Authorization": f"Bearer {os.environ.get('SUPERVISOR_TOKEN', '')}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)["data"]
    except (OSError, ValueError, KeyError):
        print("Home Assistant has no MQTT broker for add-ons: nearfar runs without one", flush=True)
        return {}


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def plant(options: dict[str, object], mqtt: dict[str, object], data: Path) -> str:
    """The text of plant.toml. JSON strings are strings of TOML, too."""
    lines = ['site = "home"', f"models = {json.dumps(str(data / 'models'))}", "", "[history]"]
    lines.append(f"folder = {json.dumps(str(data / 'history'))}")
    if mqtt:
        write_private(data / "mqtt-password", f"{mqtt.get('password') or '-'}\n")
        lines += ["", "[mqtt]", f"host = {json.dumps(mqtt['host'])}", f"port = {int(mqtt['port'])}"]
        lines += [f"username = {json.dumps(mqtt.get('username') or '')}", f"tls = {json.dumps(bool(mqtt.get('ssl')))}"]
        lines += [f"password_file = {json.dumps(str(data / 'mqtt-password'))}"]
        lines += [f"commands = {json.dumps(bool(options.get('commands')))}"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the files, and become the server."""
    options = json.loads((DATA / "options.json").read_text(encoding="utf-8"))
    token = DATA / "token"
    if options.get("token") or not token.exists():
        made = options.get("token") or secrets.token_urlsafe(32)
        write_private(token, f"{made}\n")
        if not options.get("token"):
            print(f"log in with this token, or set one in the add-on's options: {made}", flush=True)
    own = CONFIG / "plant.toml"
    if not own.is_file():
        own = DATA / "plant.toml"
        write_private(own, plant(options, broker(), DATA))
    command = ["nearfar", "serve", "--config", str(own), "--host", "0.0.0.0", "--token-file", str(token)]
    command += ["--allow-host", "homeassistant.local", "--allow-host", "homeassistant"]
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
