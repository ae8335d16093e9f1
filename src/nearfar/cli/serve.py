"""The command `serve`: REST, dashboard and metrics over one or more detectors, with or without live sources."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearfar.cli.live import introduce, machine_id, reread_on_sighup, stopped_by_signals
from nearfar.cli.log import LOG, LogFormat, log_left_out, log_to_stderr
from nearfar.cli.options import Device, Weights, command, weights_of
from nearfar.cli.terminal import echo
from nearfar.support.files import user_home
from nearfar.support.threads import single_threaded_blas
from nearfar.support.words import plural

if TYPE_CHECKING:
    from fastapi import FastAPI

    from nearfar.live.config import PlantConfig
    from nearfar.live.server.security import Access

HOME = "NEARFAR_HOME"  # of the environment: the folder of `nearfar` without a command [~/nearfar]
ADDRESS, ANSWER_S = "address", 3.0  # file of that folder: where its server listens
PLANT = "plant.toml"  # file of that folder, which may say more of the plant, such as channels to people
CLOSE_S = 3  # for requests under way when it is stopped


@command
def serve(
    model: Annotated[list[Path] | None, typer.Argument(help="Detector folders; each is a machine.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; any but this computer's own needs a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port; 0: any free port.")] = 8080,
    history: Annotated[Path | None, typer.Option(help="Folder of the history [nearfar-history].")] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="ID=URL: a live source, as in `nearfar monitor`; twice for near and far.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of a whole plant, instead of MODEL.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File of the tokens; made if missing, for you only.")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="A further name of this server.")] = None,
    root_path: Annotated[str, typer.Option(help="Path below which a proxy serves it, such as /hall2.")] = "",
    trusted_proxy: Annotated[
        list[str] | None, typer.Option(help="Address or network of a proxy whose X-Forwarded headers count.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM), for https.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    weights: Weights = None,
    device: Device = "cpu",
    log_format: LogFormat = "text",
) -> None:
    """Example: nearfar serve pump3 fan7 --source pump3=rtsp://10.0.0.7/audio

    Serve a dashboard, a REST API and metrics for Prometheus, until Ctrl-C.
    """
    _check_installed()
    plant = _plant(model or [], config, history, source or [], {"weights": weights_of(weights), "device": device})
    _check_tls(tls_cert, tls_key)
    with log_to_stderr(log_format), _listening_socket(host, port) as listening:
        rules = _access(
            host,
            token_file or plant.history.folder / "token",
            bool(token_file),
            allowed=allow_host or [],
            root=root_path,
            proxies=trusted_proxy or [],
        )
        address = f"[{host}]" if ":" in host else host
        url = f"{'https' if tls_cert else 'http'}://{address}:{listening.getsockname()[1]}{rules.root}/"
        known = "" if host in ("0.0.0.0", "::") else url
        _serve(plant, config, rules, listening, url, known, {"ssl_certfile": tls_cert, "ssl_keyfile": tls_key})


def open_in_browser() -> None:
    """Serve the plant in this user's folder on a free port of this computer, and open its first page."""
    from nearfar.live.server.security import access
    from nearfar.support.files import atomic_write, private_folder

    _check_installed()
    home, plant = home_folder(), read_home()
    if url := running_at(home / ADDRESS):
        echo(f"nearfar runs already, at {url}")
        _show(url)
        return
    with log_to_stderr("text"), _listening_socket("127.0.0.1", 0) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        private_folder(home)
        atomic_write(home / ADDRESS, url)
        LOG.info(f"machines and their history are in {home}; stop with Ctrl-C")
        _serve(plant, None, access("127.0.0.1", ()), listening, url, url, {}, show=True)


def home_folder() -> Path:
    """The folder of `nearfar` without a command."""
    return Path(os.environ.get(HOME) or user_home() / "nearfar")


def read_home() -> PlantConfig:
    """The plant in the home folder: its plant.toml, if there is one, with models and history beside it.

    Its language is that of this computer, unless plant.toml says another.
    """
    from nearfar.live.config import from_options, read
    from nearfar.live.language import of_system

    home = home_folder()
    here = {"models": home / "models", "history": {"folder": home / "history"}, "language": of_system()}
    if not (home / PLANT).is_file():
        return from_options(here)
    return read(home / PLANT, beside=here)


def _check_installed() -> None:
    from nearfar.live.server.app import NEEDS_FASTAPI

    if find_spec("fastapi") is None:  # else the error would name one package of several
        raise ImportError(NEEDS_FASTAPI)


def running_at(file: Path) -> str:
    """The address in a file, if a server answers there; else ""."""
    from urllib.request import urlopen

    try:
        url = file.read_text(encoding="utf-8")
        with urlopen(f"{url}healthz", timeout=ANSWER_S) as answer:
            return url if b'"ok"' in answer.read(1000) else ""
    except (OSError, ValueError):  # no such file, nobody answers there, or no address
        return ""


def _show(url: str) -> None:
    """Open a browser, if it can open a window: without one, Linux would open a browser of text in this terminal."""
    if sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(url)


def _serve(
    plant: PlantConfig,
    config: Path | None,
    rules: Access,
    listening: socket.socket,
    url: str,
    known: str,
    options: dict[str, Any],
    *,
    show: bool = False,
) -> None:
    """Build the plant and serve it at `url` until it is stopped; `known` is the address that messages may name."""
    from nearfar.live.build import build_plant
    from nearfar.live.server.app import make_app

    with closing(
        build_plant(plant, clock=time.time, warn=LOG.warning, report=log_left_out, metrics=True, url=known, idle=True)
    ) as made:
        if config is not None:
            reread_on_sighup(made.roster, config)
        app = make_app(made.plant, rules, metrics=made.metrics, monitor=made.monitor, roster=made.roster)
        machines = made.plant.machines.values()
        for machine in machines:
            if machine.streamed:
                introduce(machine, made.plant.history.folder)
            else:
                LOG.info(f"{machine.id}: scores what is sent to it")
        stop = stopped_by_signals()
        with single_threaded_blas(), _running_server(app, listening, options, stop):
            echo(f"nearfar serves {plural(len(machines), 'machine')} at {url}")
            if show:
                _show(url)
            made.monitor.run(stop, made.roster.check, stay=True)
    LOG.info("stopped")


def _check_tls(cert: Path | None, key: Path | None) -> None:
    """Raise if these files cannot serve https."""
    for file in (cert, key):
        if file and not file.is_file():
            raise FileNotFoundError(f"no such file: {file}")
    if key and not cert:
        raise ValueError(f"--tls-key {key} needs its certificate: --tls-cert FILE")
    if not cert:
        return
    import ssl

    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
    except ssl.SSLError as error:
        both = f"{cert} and {key}" if key else f"{cert} alone"
        raise ValueError(f"no https with {both}: give a certificate and its key, both PEM ({error.reason})") from None


def _plant(
    models: Sequence[Path], config: Path | None, history: Path | None, sources: Sequence[str], networks: dict[str, Any]
) -> PlantConfig:
    """The configuration from a file, or of the models on the command line."""
    from nearfar.live.config import from_options, read

    if config is not None:
        if models or sources or history:
            raise ValueError("--config describes the whole plant: give it without MODEL, --source and --history")
        return read(config)
    if not models:
        raise ValueError("what is to be served? Give MODEL folders, as `nearfar fit` made them, or --config FILE")
    machines: dict[str, dict[str, Any]] = {}
    for model in models:
        id = machine_id(model.resolve().name)
        if id in machines:
            raise ValueError(f"two models are called {id!r}; rename one folder, or give each a name with --config")
        machines[id] = {"model": model, **networks, "source": []}
    for text in sources:
        id, equals, url = text.partition("=")
        if not equals or id not in machines:
            if len(machines) > 1:
                raise ValueError(f"--source {text!r}: name its machine, as ID=URL; machines: {', '.join(machines)}")
            id, url = next(iter(machines)), text
        machines[id]["source"].append(url)
    return from_options({"machines": machines, "history": {"folder": history} if history else {}})


def _access(host: str, file: Path, asked: bool, *, proxies: Sequence[str], **rules: Any) -> Access:
    """The rules of access, with tokens if they were asked for or other computers can reach the server."""
    from nearfar.live.server.security import access, is_local, read_tokens
    from nearfar.support.files import private_folder

    if not asked and not proxies and is_local(host):
        return access(host, (), **rules)
    if not asked:
        private_folder(file.parent)
    file.parent.mkdir(parents=True, exist_ok=True)
    tokens = read_tokens(file)
    LOG.info(f"the token is in {file}; give it at /login, or as Authorization: Bearer TOKEN")
    return access(host, tokens, proxies=proxies, file=file, **rules)


@contextmanager
def _listening_socket(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket, opened before any model is loaded, so that a port in use is reported at once."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.create_server(found[4][:2], family=found[0], backlog=1024)
    except OSError as error:
        raise ValueError(f"cannot listen at {host} port {port}: {error.strerror or error}") from None
    with bound:
        yield bound


@contextmanager
def _running_server(
    app: FastAPI, listening: socket.socket, options: dict[str, Any], stop: threading.Event
) -> Iterator[None]:
    """Run the server in a thread; on exit, answer the open requests. `stop` is set if the server ends by itself."""
    import uvicorn

    from nearfar.live.server.connections import BoundedConfig, BoundedListener, most_connections

    settings = BoundedConfig(
        app,
        most=(most := most_connections()),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # `limits.RequestGuard` reads them, from trusted proxies alone
        timeout_graceful_shutdown=CLOSE_S,
        **options,
    )
    server, bounded = uvicorn.Server(settings), BoundedListener(listening, most)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            server.run([bounded])
        except (Exception, SystemExit) as error:
            failed.append(error)
        finally:
            stop.set()

    def end() -> None:
        stop.wait()
        app.state.service.stream.close()
        server.should_exit = True  # while the sources close: both count against the same seconds

    thread = threading.Thread(target=run, name="nearfar-serve")
    thread.start()
    threading.Thread(target=end, daemon=True).start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise ValueError(f"the server stopped: {failed[0]}")
