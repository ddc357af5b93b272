# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Where the names of Twisted and of Python are documented, for links from our pages and reference.

Sphinx would fetch such lists from the projects' sites. Both sites lay out their pages by rule, so
the lists are made here from what is installed.
"""

from __future__ import annotations

import builtins
import importlib
import inspect
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zope.interface.interfaces import IInterface

# (name, its kind in a Sphinx inventory, its page and anchor)
Entry = tuple[str, str, str]


@dataclass(frozen=True)
class Inventory:
    """
    One project's names.

    @ivar url: where its documentation begins.
    """

    project: str
    url: str
    entries: Callable[[], Iterator[Entry]]


def write(path: Path, inventory: Inventory) -> Path:
    """
    Write a Sphinx inventory, version 2 (see C{sphinx.util.inventory}).

    @return: C{path}
    """
    head = f"# Sphinx inventory version 2\n# Project: {inventory.project}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    lines = [f"{name} py:{kind} 1 {page} -\n" for name, kind, page in inventory.entries()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head.encode() + zlib.compress("".join(lines).encode()))
    return path


def _members(module: str) -> Iterator[tuple[str, object]]:
    for name, thing in vars(importlib.import_module(module)).items():
        if not name.startswith("_") and not inspect.ismodule(thing):
            yield name, thing


def _attributes(thing: object) -> Iterator[str]:
    if IInterface.providedBy(thing):
        yield from thing.names(all=True)
    elif inspect.isclass(thing):
        yield from (name for name in dir(thing) if not name.startswith("_"))


def _twisted() -> Iterator[Entry]:
    for module in TWISTED_MODULES:
        yield module, "module", f"{module}.html"
        for name, thing in _members(module):
            full = f"{module}.{name}"
            if inspect.isclass(thing) or IInterface.providedBy(thing):
                yield full, "class", f"{full}.html"
            else:
                yield full, "function", f"{module}.html#{name}"
            for attribute in _attributes(thing):
                yield f"{full}.{attribute}", "method", f"{full}.html#{attribute}"


def _python() -> Iterator[Entry]:
    for name, thing in vars(builtins).items():
        if inspect.isclass(thing) and issubclass(thing, BaseException):
            yield name, "exception", f"library/exceptions.html#{name}"
        elif not name.startswith("_"):
            yield name, "class", f"library/functions.html#{name}"
    for constant in ("None", "True", "False"):
        yield constant, "data", f"library/constants.html#{constant}"
    for module in PYTHON_MODULES:
        page = f"library/{module}.html"
        yield module, "module", page
        for name, thing in _members(module):
            yield f"{module}.{name}", "class", f"{page}#{module}.{name}"
            for attribute in _attributes(thing):
                full = f"{module}.{name}.{attribute}"
                yield full, "method", f"{page}#{full}"


# The modules to which docstrings and pages link.
TWISTED_MODULES = [
    "twisted.application.internet",
    "twisted.application.service",
    "twisted.internet.abstract",
    "twisted.internet.address",
    "twisted.internet.base",
    "twisted.internet.defer",
    "twisted.internet.endpoints",
    "twisted.internet.error",
    "twisted.internet.interfaces",
    "twisted.internet.protocol",
    "twisted.internet.ssl",
    "twisted.internet.task",
    "twisted.internet.tcp",
    "twisted.internet.testing",
    "twisted.logger",
    "twisted.plugin",
    "twisted.protocols.amp",
    "twisted.protocols.basic",
    "twisted.protocols.policies",
    "twisted.protocols.tls",
    "twisted.python.failure",
    "twisted.python.usage",
]
PYTHON_MODULES = [
    "asyncio",
    "collections.abc",
    "contextlib",
    "dataclasses",
    "datetime",
    "enum",
    "errno",
    "json",
    "random",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "time",
    "typing",
]

ALL = [
    Inventory("twisted", "https://docs.twisted.org/en/stable/api/", _twisted),
    Inventory("python", "https://docs.python.org/3/", _python),
]
