# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The layers of the package: imports point down only, and the core is pure.

The rules are checked on the source alone, by L{violations}; it takes sources as text, so that a
planted fault shows that each rule can fail.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from ..support.interpreter import loadedBy

CHECKOUT = Path(__file__).parents[2]
PACKAGE = "twisted_heartbeat"

# The rooms, each with those that it may import from; within a room modules may import each other,
# without cycles. A package that is not here needs a reason, and a line here. The modules beside the
# packages, such as the one that twist loads, are the room "".
ROOMS = {
    "core": [],
    "files": [],
    "logs": ["core"],
    "timing": ["core", "logs"],
    "transport": ["core", "logs", "timing"],
    "batching": ["core", "logs", "timing", "transport"],
    "link": ["core", "logs", "timing", "transport", "batching"],
    "protocol": ["core", "logs", "timing", "transport", "batching", "link"],
    "client": ["core", "logs", "timing", "transport", "link", "protocol"],
    "server": ["core", "logs", "timing", "transport", "link", "protocol"],
    "endpoints": ["core", "logs", "timing", "transport", "link", "protocol"],
    "datagram": ["core", "logs", "timing", "transport", "link"],
    "checkin": ["core", "files", "logs", "timing", "transport", "link"],
    "presence": ["core", "logs", "timing", "link"],
    "status": ["core", "logs", "timing", "link", "presence"],
    "testing": ["core"],
    "conformance": ["core"],
    "cli": [
        "",
        "core",
        "files",
        "logs",
        "timing",
        "transport",
        "link",
        "protocol",
        "client",
        "server",
        "endpoints",
        "datagram",
        "checkin",
        "presence",
        "status",
    ],  # fmt: skip
    "demo": ["", "core", "timing", "testing"],
    "": [
        "core",
        "link",
        "protocol",
        "client",
        "server",
        "datagram",
        "checkin",
        "presence",
        "status",
        "cli",
        "demo",
    ],  # fmt: skip
}

# What each room may import from elsewhere, besides the standard library.
CORE_MAY = ["attr", "attrs", "automat", "twisted.internet.error"]
REST_MAY = ["attr", "attrs", "automat", "twisted", "zope.interface", "OpenSSL", "service_identity"]
# What comes with an extra, or with pytest itself, only where it is the module's purpose.
EXTRAS = {
    "checkin.connections": ["treq"],
    "demo.views": ["rich"],
    "status.metrics": ["prometheus_client"],
    "testing.fixtures": ["pytest", "pytest_twisted"],
}

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


def roomOf(name: str) -> str:
    """
    The room of a module.

    @param name: in full.
    """
    room = name.removeprefix(PACKAGE).removeprefix(".").partition(".")[0]
    return room if room in ROOMS else ""


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


def importsOf(name: str, source: str, isPackage: bool) -> Iterator[Import]:
    """
    All imports in a module, wherever they stand.
    """
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


def violations(sources: Mapping[str, str], packages: Collection[str] = (PACKAGE,)) -> list[str]:
    """
    What breaks the house rules, one sentence each.

    @param sources: the text of each module of the package, by its full name.
    @param packages: which of these are packages.
    """
    found = []
    graph: dict[str, set[str]] = {}
    for name, source in sources.items():
        room = name.removeprefix(PACKAGE).removeprefix(".")
        if "." in room and room.partition(".")[0] not in ROOMS:
            found.append(f"{name} is in no room")
            continue
        if not ast.get_docstring(ast.parse(source)):
            found.append(f"{name} has no docstring")
        graph[name] = set()
        for imported in importsOf(name, source, name in packages):
            ours = _ours(imported.target, sources)
            if ours is None:
                fault = _foreignFault(name, imported)
            else:
                fault = _ownFault(name, ours)
                if not imported.typing and ours != name:
                    graph[name].add(ours)
            if fault:
                found.append(f"{name}:{imported.line} imports {imported.target}: {fault}")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append("a cycle: " + " <- ".join(error.args[1]))
    return found


def _foreignFault(name: str, imported: Import) -> str | None:
    room = roomOf(name)
    target = imported.target
    if imported.atImport and _within(target, ["twisted.internet.reactor"]):
        return "the reactor is a parameter"
    root = target.partition(".")[0]
    if root in sys.stdlib_module_names:
        return "core is pure" if room == "core" and root in IMPURE else None
    if room == "core":
        return None if _within(target, CORE_MAY) else f"core may import only {CORE_MAY}"
    allowed = REST_MAY + EXTRAS.get(name.removeprefix(f"{PACKAGE}."), [])
    return None if _within(target, allowed) else f"only {allowed} may be imported here"


def _ownFault(name: str, target: str) -> str | None:
    room, targetRoom = roomOf(name), roomOf(target)
    if room == targetRoom or targetRoom in ROOMS[room]:
        return None
    return "imports point down only"


def packageFiles() -> dict[str, Path]:
    """
    This package's modules, by full name.
    """
    root = CHECKOUT / PACKAGE
    files = {}
    for path in sorted(root.rglob("*.py")):
        parts = [PACKAGE, *path.relative_to(root).with_suffix("").parts]
        files[".".join(part for part in parts if part != "__init__")] = path
    return files


def packageSources() -> dict[str, str]:
    """
    Their text.
    """
    return {name: path.read_text(encoding="utf-8") for name, path in packageFiles().items()}


def pythonFiles() -> list[Path]:
    """
    All Python files that are the project's own.
    """
    folders = ["benchmarks", "docs", "tests", "twisted", PACKAGE]
    return [path for folder in folders for path in sorted((CHECKOUT / folder).rglob("*.py"))]


def test_theHouseStands() -> None:
    """
    Imports point down only, the core is pure, each file says what it is for, and none is there
    without a place.
    """
    files = packageFiles()
    assert f"{PACKAGE}.core" in files
    packages = [name for name, path in files.items() if path.name == "__init__.py"]
    assert violations(packageSources(), packages) == []


PLANTED = {
    "core imports Twisted": ("core.detector", "from twisted.internet import task", "core may"),
    "core imports a Failure": ("core.causes", "from twisted.python import failure", "core may"),
    "core waits": ("core.wire.frames", "import socket", "core is pure"),
    "core waits, in a function": ("core.wire", "def f():\n    import asyncio", "core is pure"),
    "core knows the time": ("core.detector", "from time import monotonic", "core is pure"),
    "core imports a link": ("core.reconnector", "from ..link import link", "point down only"),
    "core names a link's type": (
        "core.reconnector",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..link.link import Link",
        "point down only",
    ),
    "timing imports a link": ("timing.wheel", "import twisted_heartbeat.link.link", "point down"),
    "a link imports a client": ("link.link", "from ..client import service", "point down only"),
    "a link imports the package": ("link.link", "from twisted_heartbeat import Link", "point down"),
    "the test kit imports a link": ("testing.port", "from ..link import link", "point down only"),
    "a link imports the test kit": ("link.link", "from ..testing import faults", "point down only"),
    "a client imports a server": ("client.service", "from ..server import names", "point down"),
    "pytest beside the fixtures": ("testing.pipe", "import pytest", "only"),
    "a reactor at the top": ("client.service", "from twisted.internet import reactor", "a para"),
    "a reactor in a class": ("tap", "class A:\n    from twisted.internet import reactor", "a para"),
    "an extra": ("client.service", "import rich.live", "only"),
    "an unknown package": ("link.link", "import requests", "only"),
    "no room": ("utils.strings", "", "in no room"),
}

KNOWN = {
    f"{PACKAGE}.{module}".rstrip("."): '"""Why."""'
    for module in (
        "",
        "link",
        "link.link",
        "client",
        "client.service",
        "server",
        "server.names",
        "testing.faults",
    )
}
"""What the planted modules import."""


@pytest.mark.parametrize(("module", "code", "fault"), PLANTED.values(), ids=PLANTED)
def test_plantedFaultIsFound(module: str, code: str, fault: str) -> None:
    """
    The check of the house can fail: each rule's breach is found, and nothing else.
    """
    packages = [PACKAGE, f"{PACKAGE}.link"]
    planted = {f"{PACKAGE}.{module}": f'"""Why."""\n{code}\n'}
    [found] = violations(KNOWN | planted, packages)
    assert fault in found


def test_plantedCycleIsFound() -> None:
    """
    Modules of one room that import each other are found, at whatever depth the import stands.
    """
    [found] = violations(
        {
            f"{PACKAGE}.client.factory": '"""Why."""\nfrom .service import x\n',
            f"{PACKAGE}.client.service": '"""Why."""\ndef f():\n    from . import factory\n',
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
        "core.detector",
        "from enum import Enum\nfrom automat import x\nfrom . import settings",
    ),
    "core's one word of Twisted": (
        "core.causes",
        "from twisted.internet.error import ConnectionLost",
    ),
    "a link": ("link.link", "from twisted.internet import task\nfrom ..core import wire\n"),
    "a late reactor": ("client.service", "def f():\n    from twisted.internet import reactor"),
    "the demo's view": ("demo.views", "import rich.live\nfrom .. import Heartbeat"),
    "the test kit": ("testing", "from .faults import Delay\nfrom .streamproxy import FaultProxy"),
    "the fixtures": ("testing.fixtures", "import pytest\nfrom .streamproxy import FaultProxy"),
    "the package": (
        "__init__",
        "from .client.service import HeartbeatClientService\nfrom .core import wire",
    ),
}


@pytest.mark.parametrize(("module", "code"), ALLOWED.values(), ids=ALLOWED)
def test_whatIsAllowed(module: str, code: str) -> None:
    """
    The check of the house lets pass what the architecture asks for.
    """
    name = f"{PACKAGE}.{module}".removesuffix(".__init__")
    known = {
        f"{PACKAGE}.{one}": '"""Why."""'
        for one in ("core.wire", "core.settings", "client.service", "testing.faults")
    }
    known |= {PACKAGE: '"""Why."""', f"{PACKAGE}.testing.streamproxy": '"""Why."""'}
    packages = [PACKAGE, f"{PACKAGE}.testing"]
    assert violations(known | {name: f'"""Why."""\n{code}\n'}, packages) == []


# The private names of other projects.

PRIVATE = "transport.compat"
"""The one module that may use private names of Twisted's or pyOpenSSL's."""

PRIVATE_ELSEWHERE = {
    # An override has to be a method of the class that the connection becomes.
    ("transport.connection", "_dataReceived"),
    # The room of timing is below transport.
    ("timing.alarms", "_internalReaders"),
    # The standard library's, and documented there: os, sys and collections.namedtuple.
    ("cli.exitstatus", "_exit"),
    ("endpoints.prefix", "_getframe"),
    ("transport.keepalive", "_replace"),
    # The standard library's, with no public name: what os._exit would skip.
    ("cli.exitstatus", "_run_exitfuncs"),
}
"""Private names that stand elsewhere, each with its reason."""

OUR_PREFIX = "_twistedHeartbeat"
"""The beginning of the names that this package itself gives to foreign objects."""


def _isPrivate(name: object) -> bool:
    return (
        isinstance(name, str) and name.startswith("_") and name.isidentifier() and name[1:2] != "_"
    )


@cache
def _mentions(source: str) -> tuple[tuple[str, int, bool], ...]:
    """
    The private names in a module: as attribute, as text such as C{getattr} takes, as method, or in
    an import.

    @return: the name, its line, and whether it is used on C{self}, C{cls} or C{super()}.
    """
    return tuple(_findMentions(ast.parse(source)))


def _findMentions(tree: ast.Module) -> Iterator[tuple[str, int, bool]]:
    slots = [n.value for n in ast.walk(tree) if isinstance(n, ast.Assign) and _isSlots(n)]
    skipped = {id(child) for value in slots for child in ast.walk(value)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _isPrivate(node.attr):
            yield node.attr, node.lineno, _isOwnObject(node.value)
        elif isinstance(node, ast.Constant) and id(node) not in skipped:
            for part in str(node.value).split(".") if isinstance(node.value, str) else ():
                if _isPrivate(part) and str(node.value).replace(".", "").isidentifier():
                    yield part, node.lineno, False
        elif isinstance(node, ast.FunctionDef) and _isPrivate(node.name):
            yield node.name, node.lineno, True
        elif isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0):
            targets = [alias.name for alias in node.names]
            targets.append(getattr(node, "module", None) or "")
            for part in ".".join(targets).split("."):
                if _isPrivate(part):
                    yield part, node.lineno, False


def _isOwnObject(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _isSlots(node: ast.Assign) -> bool:
    return any(isinstance(one, ast.Name) and one.id == "__slots__" for one in node.targets)


@cache
def _definedIn(source: str) -> frozenset[str]:
    """
    The names that a module gives to its own classes, instances and functions.
    """
    return frozenset(_findDefinitions(ast.parse(source)))


def _findDefinitions(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if _isOwnObject(node.value):
                yield node.attr
        elif isinstance(node, ast.Assign) and _isSlots(node):
            yield from ast.literal_eval(node.value)


def privateUses(sources: Mapping[str, str]) -> list[str]:
    """
    Where a module uses a private name of a foreign object's, one sentence each.

    A name is foreign if the package defines none of that name, or if L{PRIVATE} uses it.  The
    latter may be a name of the package's own on C{self}, such as C{_connection}.
    """
    private = f"{PACKAGE}.{PRIVATE}"
    others = {name: text for name, text in sources.items() if name != private}
    own = {name for text in others.values() for name in _definedIn(text)}
    # A class of this package mangles its own names with two underscores.
    mangled = tuple(f"_{name}__" for name in own)
    inPrivate = sources.get(private, "")
    foreign = {name for name, _, _ in _mentions(inPrivate)} - set(_definedIn(inPrivate))
    found = []
    for module, text in others.items():
        for name, line, onItself in _mentions(text):
            isOwn = name in own and (onItself or name not in foreign)
            allowed = (module.removeprefix(f"{PACKAGE}."), name) in PRIVATE_ELSEWHERE
            if not (isOwn or allowed or name.startswith((OUR_PREFIX, *mangled))):
                found.append(f"{module}:{line} uses {name}")
    return found


def test_privateNamesStandInOneFile() -> None:
    """
    The private names of Twisted and pyOpenSSL are used in one module.
    """
    assert privateUses(packageSources()) == []


PRIVATE_USES = {
    "an attribute": "def f(connection):\n    return connection._aborting",
    "an assignment": "def f(connection):\n    connection._writeDisconnected = True",
    "by text": "def f(layer):\n    return getattr(layer, '_handshakeDone', True)",
    "a name that is our own, too": "def f(layer):\n    return getattr(layer, '_connection', None)",
    "inherited": "class A(B):\n    def f(self):\n        return self._tempDataLen",
    "a function": "from twisted.internet.endpoints import _parse",
    "a module": "from twisted.internet._newtls import startTLS",
    "a module, by text": "import sys\nx = sys.modules['twisted.protocols.haproxy._wrapper']",
    "in a list": "_NAMES = ('_hostText', '_path')",
    "unknown to the one file": "def f(reactor):\n    reactor._newConnections()",
}


@pytest.mark.parametrize("code", PRIVATE_USES.values(), ids=PRIVATE_USES)
def test_privateNameIsFound(code: str) -> None:
    """
    The check of private names can fail: each way to use one is found, wherever it stands.
    """
    found = privateUses(packageSources() | {f"{PACKAGE}.link.planted": code})
    assert found
    assert all(f"{PACKAGE}.link.planted:" in fault for fault in found)


def test_exceptionsAreUsed() -> None:
    """
    No exception of private names is left behind by what it was for.
    """
    used = {
        (module.removeprefix(f"{PACKAGE}."), name)
        for module, text in packageSources().items()
        for name, _, _ in _mentions(text)
    }
    assert used >= PRIVATE_ELSEWHERE


@pytest.mark.parametrize("path", pythonFiles(), ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_everyFileSaysWhoseItIs(path: Path) -> None:
    """
    Each Python file begins with the same two lines, and each test states the promise it keeps.
    """
    text = path.read_text(encoding="utf-8")
    assert text.startswith(
        "# Copyright (c) twisted_heartbeat contributors.\n# See LICENSE for details.\n"
    )
    # Only tests are parsed: there are more than five hundred files.
    nodes = [
        n
        for n in ast.walk(ast.parse(text if "def test_" in text else "", str(path)))
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
