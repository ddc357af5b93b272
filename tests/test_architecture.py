# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The house stands: three floors, imports point down only, the ground floor is pure.

The rules are checked on the source alone, by L{violations}; it takes sources as text, so that a
planted fault shows that each rule can fail.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from .interpreter import loadedBy

CHECKOUT = Path(__file__).parent.parent
PACKAGE = "twisted_heartbeat"

# Each floor's modules. On the top one all may import each other, without cycles; on the others each
# imports only from those before it. The test kit has a floor of its own beside core and net, for it
# needs neither. A module that is not here needs a reason, and a line here.
FLOORS = {
    "core": ["causes", "settings", "liveness", "wire", "agreement", "supervision"],
    "net": [
        "reports",
        "deadline",
        "hooks",
        "terms",
        "round",
        "crowd",
        "clock",
        "keepalive",
        "nestedpoll",
        "transport",
        "ending",
        "sending",
        "link",
        "driver",
    ],
    "testing": [
        "checks",
        "faults",
        "pipe",
        "end",
        "door",
        "streamproxy",
        "datagramproxy",
        "fixtures",
        "__init__",
    ],
    "": [
        "protocol",
        "wrapping",
        "tunnel",
        "endpoints",
        "attempt",
        "client",
        "admission",
        "roll",
        "server",
        "datagram",
        "checkin",
        "presence",
        "tap",
        "__main__",
        "__init__",
    ],
}

# The floors that each may import from.
BELOW = {"core": [], "net": ["core"], "testing": [], "": ["core", "net", "testing"]}

# What each floor may import from elsewhere, besides the standard library.
CORE_MAY = ["attr", "attrs", "automat", "twisted.internet.error"]
REST_MAY = ["attr", "attrs", "automat", "twisted", "zope.interface", "OpenSSL", "service_identity"]
# What comes with an extra, or with pytest itself, only where it is the module's purpose.
EXTRAS = {"testing.fixtures": ["pytest", "pytest_twisted"], "__main__": ["rich"]}

# The parts of the standard library that wait, do, or know the time.
IMPURE = {
    "_thread",
    "asyncio",
    "concurrent",
    "multiprocessing",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
}


def fullName(floor: str, module: str) -> str:
    return ".".join(part for part in (PACKAGE, floor, module) if part and part != "__init__")


FLOOR_OF = {
    fullName(floor, module): (floor, module)
    for floor, modules in FLOORS.items()
    for module in ["__init__", *modules]
}


@dataclass(frozen=True)
class Import:
    """
    One imported name, in full.

    @ivar atImport: whether it happens when the importing module is itself imported.
    @ivar typing: whether it is for the type checker only.
    """

    target: str
    line: int
    atImport: bool
    typing: bool


def importsOf(name: str, source: str) -> Iterator[Import]:
    """
    All imports in a module, wherever they stand.
    """
    isPackage = name == PACKAGE or FLOOR_OF.get(name, ("", ""))[1] == "__init__"
    package = name if isPackage else name.rpartition(".")[0]
    return _walk(ast.parse(source, name), package, True, False)


def _walk(node: ast.AST, package: str, atImport: bool, typing: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, node.lineno, atImport, typing)
    elif isinstance(node, ast.ImportFrom):
        base = _base(node, package)
        for alias in node.names:
            yield Import(f"{base}.{alias.name}", node.lineno, atImport, typing)
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for child in node.body:
            yield from _walk(child, package, False, True)
        for child in node.orelse:
            yield from _walk(child, package, atImport, typing)
    else:
        inside = atImport and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from _walk(child, package, inside, typing)


def _base(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")[: len(package.split(".")) - (node.level - 1)]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _within(target: str, names: list[str]) -> bool:
    return any(target == name or target.startswith(name + ".") for name in names)


def _ours(target: str, known: Mapping[str, object]) -> str | None:
    """
    The module of this package that an imported name is, or is in.
    """
    while target:
        if target in known:
            return target
        target = target.rpartition(".")[0]
    return None


def violations(sources: Mapping[str, str]) -> list[str]:
    """
    What breaks the house rules, one sentence each.

    @param sources: the text of each module of the package, by its full name.
    """
    found = []
    graph: dict[str, set[str]] = {}
    for name, source in sources.items():
        if name not in FLOOR_OF:
            found.append(f"{name} is in no floor's list")
            continue
        if not ast.get_docstring(ast.parse(source)):
            found.append(f"{name} has no docstring")
        graph[name] = set()
        for imported in importsOf(name, source):
            ours = _ours(imported.target, sources | FLOOR_OF)
            if ours is None:
                fault = _foreignFault(name, imported)
            else:
                fault = _ownFault(name, ours, imported)
                if not imported.typing:
                    graph[name].add(ours)
            if fault:
                found.append(f"{name}:{imported.line} imports {imported.target}: {fault}")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append("a cycle: " + " <- ".join(error.args[1]))
    return found


def _foreignFault(name: str, imported: Import) -> str | None:
    floor, _ = FLOOR_OF[name]
    target = imported.target
    if imported.atImport and _within(target, ["twisted.internet.reactor"]):
        return "the reactor is a parameter"
    root = target.partition(".")[0]
    if root in sys.stdlib_module_names:
        return "core is pure" if floor == "core" and root in IMPURE else None
    if floor == "core":
        return None if _within(target, CORE_MAY) else f"core may import only {CORE_MAY}"
    allowed = REST_MAY + EXTRAS.get(name.removeprefix(f"{PACKAGE}."), [])
    return None if _within(target, allowed) else f"only {allowed} may be imported here"


def _ownFault(name: str, target: str, imported: Import) -> str | None:
    floor, module = FLOOR_OF[name]
    targetFloor, targetModule = FLOOR_OF.get(target, ("", ""))
    if floor != targetFloor:
        return None if targetFloor in BELOW[floor] else "imports point down only"
    # A type may be named by those its objects are handed to, on the same floor.
    if not floor or imported.typing or targetModule == "__init__":
        return None
    order = FLOORS[floor]
    before = order[: order.index(module)] if module in order else []
    return None if targetModule in before else f"the order is {order}"


def packageSources() -> dict[str, str]:
    """
    This package's modules, by full name.
    """
    root = CHECKOUT / PACKAGE
    sources = {}
    for path in sorted(root.rglob("*.py")):
        *floor, module = path.relative_to(root).with_suffix("").parts
        sources[fullName(".".join(floor), module)] = path.read_text(encoding="utf-8")
    return sources


def pythonFiles() -> list[Path]:
    """
    All Python files that are the project's own.
    """
    folders = ["benchmarks", "docs", "tests", "twisted", PACKAGE]
    return [path for folder in folders for path in sorted((CHECKOUT / folder).rglob("*.py"))]


def test_theHouseStands() -> None:
    """
    Section 3 of the design: imports point down only, the ground floor is pure, each file says what
    it is for, and none is there without a place.
    """
    sources = packageSources()
    assert f"{PACKAGE}.core" in sources
    assert violations(sources) == []


PLANTED = {
    "core imports Twisted": ("core.liveness", "from twisted.internet import task", "core may"),
    "core imports a Failure": ("core.causes", "from twisted.python import failure", "core may"),
    "core waits": ("core.wire", "import socket", "core is pure"),
    "core waits, in a function": ("core.wire", "def f():\n    import asyncio", "core is pure"),
    "core knows the time": ("core.liveness", "from time import monotonic", "core is pure"),
    "core imports net": ("core.supervision", "from ..net import link", "point down only"),
    "core names net's type": (
        "core.supervision",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..net.link import Link",
        "point down only",
    ),
    "core out of order": ("core.causes", "from .liveness import Liveness", "the order is"),
    "net out of order": ("net.clock", "from twisted_heartbeat.net.link import x", "the order is"),
    "net imports the top": ("net.link", "import twisted_heartbeat.client", "point down only"),
    "net imports the package": ("net.link", "from twisted_heartbeat import Link", "point down"),
    "the test kit out of order": ("testing.pipe", "from .end import End", "the order is"),
    "the test kit imports net": ("testing.door", "from ..net import clock", "point down only"),
    "net imports the test kit": ("net.link", "from ..testing import faults", "point down only"),
    "pytest beside the fixtures": ("testing.pipe", "import pytest", "only"),
    "a reactor at the top": ("client", "from twisted.internet import reactor", "a parameter"),
    "a reactor in a class": ("tap", "class A:\n    from twisted.internet import reactor", "a para"),
    "an extra": ("client", "import rich.live", "only"),
    "an unknown package": ("net.link", "import requests", "only"),
    "no place": ("utils", "", "no floor's list"),
}


@pytest.mark.parametrize(("module", "code", "fault"), PLANTED.values(), ids=PLANTED)
def test_plantedFaultIsFound(module: str, code: str, fault: str) -> None:
    """
    The check of the house can fail: each rule's breach is found, and nothing else.
    """
    [found] = violations({f"{PACKAGE}.{module}": f'"""Why."""\n{code}\n'})
    assert fault in found


def test_plantedCycleIsFound() -> None:
    """
    Modules of the top floor that import each other are found, at whatever depth the import stands.
    """
    [found] = violations(
        {
            f"{PACKAGE}.client": '"""Why."""\nfrom .protocol import HeartbeatMixin\n',
            f"{PACKAGE}.protocol": '"""Why."""\ndef f():\n    from . import client\n',
        }
    )
    assert found.startswith("a cycle: ")


def test_missingDocstringIsFound() -> None:
    """
    A module that does not say what it is for is found.
    """
    assert violations({f"{PACKAGE}.tap": "x = 1\n"}) == [f"{PACKAGE}.tap has no docstring"]


ALLOWED = {
    "core": (
        "core.liveness",
        "from enum import Enum\nfrom automat import x\nfrom . import settings",
    ),
    "core's one word of Twisted": (
        "core.causes",
        "from twisted.internet.error import ConnectionLost",
    ),
    "net": ("net.link", "from twisted.internet import task\nfrom ..core import liveness, wire\n"),
    "a late reactor": ("client", "def f():\n    from twisted.internet import reactor"),
    "a type handed up": (
        "net.hooks",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .link import Link",
    ),
    "the demo's view": ("__main__", "import rich.live\nfrom twisted_heartbeat import Heartbeat"),
    "the test kit": ("testing", "from .faults import Delay\nfrom .streamproxy import FaultProxy"),
    "the fixtures": ("testing.fixtures", "import pytest\nfrom .streamproxy import FaultProxy"),
    "the package": (
        "__init__",
        "from .client import HeartbeatClientService\nfrom .core import wire",
    ),
}


@pytest.mark.parametrize(("module", "code"), ALLOWED.values(), ids=ALLOWED)
def test_whatIsAllowed(module: str, code: str) -> None:
    """
    The check of the house lets pass what the design asks for.
    """
    name = f"{PACKAGE}.{module}".removesuffix(".__init__")
    assert violations({name: f'"""Why."""\n{code}\n'}) == []


@pytest.mark.parametrize("path", pythonFiles(), ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_everyFileSaysWhoseItIs(path: Path) -> None:
    """
    Each Python file begins with the same two lines, and each test states the promise it keeps.
    """
    text = path.read_text(encoding="utf-8")
    assert text.startswith(
        "# Copyright (c) twisted_heartbeat contributors.\n# See LICENSE for details.\n"
    )
    nodes = [
        n
        for n in ast.walk(ast.parse(text, str(path)))
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    silent = [n.name for n in nodes if n.name.startswith("test_") and not ast.get_docstring(n)]
    assert silent == []


def watchedOf(loaded: set[str]) -> list[str]:
    """
    The modules of interest among them.
    """
    return [n for n in loaded if n == "twisted.internet.reactor" or n.split(".")[0] == PACKAGE]


def test_thePluginIsLight() -> None:
    """
    Everybody's C{twist} imports the plugin, before it chooses a reactor: that loads neither the
    reactor nor anything of this package.
    """
    assert watchedOf(loadedBy("import twisted.plugins.twisted_heartbeat_plugin")) == []


def test_noModuleLoadsTheReactor() -> None:
    """
    Whoever imports this package, all of it, may still choose a reactor.
    """
    statements = "\n".join(f"import {name}" for name in packageSources())
    loaded = watchedOf(loadedBy(statements))
    assert PACKAGE in loaded
    assert "twisted.internet.reactor" not in loaded


def test_aLoadedReactorIsSeen() -> None:
    """
    The check above can fail.
    """
    loaded = loadedBy("import twisted.internet.reactor")
    assert watchedOf(loaded) == ["twisted.internet.reactor"]
