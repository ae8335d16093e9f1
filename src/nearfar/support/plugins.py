"""Plug-ins: what a program adds to a table of nearfar under a name of its own.

A recipe holds the name alone. No file says which code to run: the program registers its plug-ins before it reads one.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import uuid4

from nearfar.errors import MissingPlugin

Item = TypeVar("Item")
PROCESS = uuid4().hex  # stands for what may differ in every other process
NAME = re.compile(r"\w[\w.-]*")  # fit for a file name


class Plugins(Generic[Item]):
    """The plug-ins of one kind.

    kind    "encoder", "pooling", "view" or "back end"
    call    the function that registers one, for messages
    table   holds nearfar's own items and the plug-ins, by name
    make    what the user has given -> the item of the table
    paths   import path of each plug-in, "module:name"
    """

    def __init__(self, kind: str, call: str, table: MutableMapping[str, Item], make: Callable[[Any], Item]) -> None:
        self.kind, self.call, self.table, self.make = kind, call, table, make
        self.paths: dict[str, str] = {}
        self._given: dict[str, Any] = {}
        self._versions: dict[str, str] = {}

    def register(self, name: str, given: Any) -> None:
        """Add what the user has `given`; a plug-in of that name is replaced.

        ValueError for the name of an item that is no plug-in, or one that does not fit a file name.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(
                f"the name of {self._a_kind} holds letters, digits, and . _ - after the first; {name!r} does not"
            )
        if name in self.table and name not in self.paths:
            raise ValueError(f"{name!r} is {self._a_kind} of nearfar: register yours under another name")
        self.table[name], self.paths[name], self._given[name] = self.make(given), path_of(given), given
        self._versions[name] = version_of(given)

    def name_of(self, given: Any) -> Any:
        """The name under which a callable is registered; if it is not yet, it gets its import path as a name.

        Anything else is returned as it is.
        """
        if not callable(given):
            return given
        return self.registered(given)

    def registered(self, given: Any) -> str:
        """The name of an object, as `name_of` gives that of a callable."""
        for name, other in self._given.items():
            if other is given:
                return name
        stem = re.sub(r"[^\w.-]", "", path_of(given).replace(":", "."))
        count, name = 1, stem
        while name in self.table:
            count += 1
            name = f"{stem}-{count}"
        self.register(name, given)
        return name

    def importable(self, name: str) -> Importable:
        """Where another process imports the plug-in `name`. ValueError if it is not what its import path leads to."""
        path = self.paths[name]
        module = path.partition(":")[0]
        try:
            is_there = module != "__main__" and imported(path) is self._given[name]
        except (ImportError, AttributeError):  # inside a function
            is_there = False
        if not is_there:
            raise ValueError(
                f"the {self.kind} {name!r} cannot go to a cluster: its processes import plug-ins, and {path} does not "
                f"lead to this one. Define it as a function or class of a module's own, outside of functions, scripts "
                f"and notebooks, and register that: {self.call}({name!r}, ...)"
            )
        file = getattr(sys.modules[module], "__file__", None)
        if file is None:  # built in
            return Importable(path, "")
        levels = module.count(".") + (Path(file).stem == "__init__")
        return Importable(path, str(Path(file).resolve().parents[levels]))

    def version(self, name: str) -> str:
        """`version_of` the plug-in `name`; "" if it is not registered."""
        return self._versions[name] if name in self.paths else ""

    def require(self, name: str, path: str) -> None:
        """MissingPlugin if no plug-in is registered as `name`; it was imported from `path`."""
        if name not in self.paths:
            module = path.partition(":")[0]
            raise MissingPlugin(
                f"the {self.kind} {name!r} is a plug-in, {path}, and is not registered here: call "
                f"{self.call}({name!r}, ...) first; for a command, in a module: nearfar --plugin {module} ..."
            )

    @property
    def _a_kind(self) -> str:
        return f"an {self.kind}" if self.kind == "encoder" else f"a {self.kind}"


@dataclass(frozen=True)
class Importable:
    """A plug-in by its import path "module:name", and the folder that holds the module."""

    path: str
    folder: str

    def load(self) -> Any:
        """The function or class."""
        if self.folder and self.folder not in sys.path:
            sys.path.append(self.folder)
        return imported(self.path)


def imported(path: str) -> Any:
    """What the import path "module:name" leads to. ImportError or AttributeError if that is nothing."""
    module, _, name = path.partition(":")
    return reduce(getattr, name.split("."), importlib.import_module(module))


def accepted(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the keyword arguments that the signature of a function names; all of them if it has **options."""
    named = inspect.signature(function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in named.values())
    return {key: value for key, value in options.items() if takes_all or key in named}


def version_of(given: Any) -> str:
    """Text that changes with the file of a function or class; of an object or closure one that no other process has.

    Code of other files that it calls plays no part, and "" stands for what is built in.
    """
    if inspect.isbuiltin(given):
        return ""
    if not isinstance(given, type) and (not inspect.isfunction(given) or given.__closure__):
        return PROCESS
    try:
        file = Path(inspect.getsourcefile(given) or "")
        code = file.read_bytes() if file.is_file() else inspect.getsource(given).encode()  # a cell of a notebook
    except (OSError, TypeError):
        return PROCESS
    return hashlib.sha256(code).hexdigest()[:16]


def path_of(given: Any) -> str:
    """Import path "module:name" of a function or class, or of the class of an object."""
    named = given if isinstance(given, type) or inspect.isroutine(given) else type(given)
    return f"{named.__module__}:{named.__qualname__}"
