# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{read}: from the text of a file to a L{Config}, or to all of its faults.

It runs in two steps.  L{_Reader} compares the document with the model, and reports unknown keys and
wrong values.  L{_Builder} makes the settings of each part from what is left: the part's own, then
the file's, then the defaults.  Both go on after a fault, so that all faults are found in one run.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ...core.backoff import Backoff
from ...core.checkins import Check
from ...core.settings import Heartbeat, KeepAlive, Limits, ServerLimits
from . import model
from .faults import ConfigError, Fault, keyText, relationFault, unknownKey
from .kinds import placeOf, shown
from .lines import linesOf
from .model import Key, Section
from .values import (
    HTTP,
    CheckIn,
    Checks,
    Config,
    Connect,
    Listen,
    Part,
    Path,
    Presence,
    Reference,
    Status,
    Store,
    UDPMonitor,
    UDPSender,
)

_T = TypeVar("_T")

Document = dict[str, Any]
"""What C{tomllib} makes of a file: tables are dictionaries."""


@dataclass(frozen=True)
class Source:
    """
    Where settings come from.

    @ivar file: the path of the file; C{""} without one.
    @ivar text: its text.
    @ivar options: what the command line says, in the same form.
    """

    file: str = ""
    text: str = ""
    options: tuple[tuple[Path, object], ...] = ()

    def sentences(self, faults: list[Fault]) -> tuple[str, ...]:
        """
        Return these faults as sentences, in the order of their lines.
        """
        try:
            lines = linesOf(self.text) if faults else {}
        except (ValueError, RecursionError):
            lines = {}
        found = sorted(faults, key=lambda fault: fault.line or lines.get(fault.path, 0))
        return tuple(fault.sentence(self.file or "options", lines) for fault in found)

    def error(self, faults: list[Fault]) -> ConfigError:
        """
        Return the error that tells these faults.
        """
        return ConfigError(self.sentences(faults))


def read(source: Source, faults: list[Fault]) -> Config:
    """
    Read a file, and what the command line says besides, as far as both can be understood.

    @param faults: the other faults are added to it.
    @return: L{Config.references} is complete but for the values that are faults themselves.
    @raise ConfigError: the text is no TOML.
    """
    try:
        document = tomllib.loads(source.text)
    except RecursionError:
        raise source.error([Fault((), "this is nested too deeply")]) from None
    except ValueError as error:
        raise source.error([_syntaxFault(str(error), source.text)]) from None
    for path, value in source.options:
        _put(document, path, value)
    return build(document, faults)


def build(document: Document, faults: list[Fault]) -> Config:
    """
    Make a configuration from what C{tomllib} has read, as far as it can be understood.

    @param faults: all faults are added to it.
    """
    reader = _Reader(faults)
    config = _Builder(faults).build(reader.read(document, model.FILE, ()))
    return replace(config, references=tuple(reader.references))


def _syntaxFault(message: str, text: str) -> Fault:
    """
    Return the fault of a text that is no TOML, with the line of which C{tomllib} complains.
    """
    said = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", message, re.S)
    if said is None:
        return Fault((), f"this is not valid TOML: {message}")
    words, number = said.groups()
    lines = text.split("\n")
    line = int(number) if number else len(lines)
    quoted = lines[line - 1].strip()
    # A URL may hold a token, and what is said here is logged.
    behind = f", in {shown(quoted)}" if quoted and "://" not in quoted else ""
    entry = re.match(r"\[\[([\w-]+)\]\]", quoted)
    if entry and words.startswith("Cannot overwrite"):
        name = entry[1]
        behind += f": {name} has a value above; write that as a [[{name}]] as well"
    return Fault((), f"this is not valid TOML: {words[:1].lower()}{words[1:]}{behind}", line)


_ADDED = [
    ("listen",),
    ("connect",),
    ("check-in",),
    ("check",),
    ("http", "endpoint"),
    ("udp", "monitors"),
    ("monitor", "address"),
]
"""The options that are added to what the file says."""


def _put(document: Document, path: Path, value: object) -> None:
    """
    Put an option into the document.  It is added to the file's value, or replaces it.
    """
    *above, name = path
    table: Any = document
    for part in above:
        section = model.FILE.section(str(part))
        if table.get(part) is False and section is not None and section.off:
            table[part] = {}
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            # The file is wrong there, which is told when it is read.
            return
    if path in _ADDED:
        found = table.get(name, [])
        table[name] = [*(found if isinstance(found, list) else [found]), value]
        return
    if path == ("heartbeat", "within"):
        # It sets these two, and hides no other fault of the table.
        table.pop("interval", None)
        table.pop("timeout", None)
    table[name] = value


_HIDDEN = "***"
"""Stands for a secret value."""


class _Reader:
    """
    Compares a document with the model.

    @ivar references: the values that have to be looked up.
    """

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults
        self.references: list[Reference] = []

    def read(self, table: Document, section: Section, path: Path) -> Document:
        """
        Return the values of a table by the names of the settings' fields, without those that are
        wrong.  C{""} holds the table's path.
        """
        values: Document = {"": path}
        for name, value in table.items():
            where = (*path, name)
            key, inner = section.key(name), section.section(name)
            if key is not None:
                with self._reporting(where, value, key):
                    values[key.field] = self._value(value, key, where)
            elif inner is not None:
                values[name] = self._table(value, inner, where)
            else:
                self._faults.append(unknownKey(where, section, model.FILE))
        meant = {fault.meant for fault in self._faults}
        for key in section.keys:
            if key.needed and key.name not in table and (*path, key.name) not in meant:
                self._faults.append(Fault(path, f"has no {key.name}: it must be {key.allowed}"))
        return values

    def _value(self, value: object, key: Key, path: Path) -> object:
        """
        @raise ValueError: if the value is not allowed; says what is.
        """
        read = key.read(value)
        if key.kind.refersTo:
            texts = read if isinstance(read, tuple) else (read,)
            self.references += (Reference(key.kind.refersTo, text, path) for text in texts)
        return read

    def _table(self, value: object, section: Section, path: Path) -> Any:
        if section.several:
            if isinstance(value, list):
                return [self._entry(one, section, (*path, i)) for i, one in enumerate(value)]
            return [self._entry(value, section, path)]
        if value is False and section.off:
            return None
        if isinstance(value, dict):
            return self.read(value, section, path)
        allowed = f"a table, [{section.name}]" + (", or false" if section.off else "")
        self._wrong(path, value, allowed)
        return {"": path}

    def _entry(self, value: object, section: Section, path: Path) -> Document:
        if isinstance(value, dict):
            return self.read(value, section, path)
        short = section.key(section.short)
        if isinstance(value, str) and short is not None:
            with self._reporting(path, value, short):
                return {"": path, short.field: self._value(value, short, path)}
        else:
            text = f"a text, its {short.name}, or " if short else ""
            self._wrong(path, value, f"{text}a table, [[{section.name}]]")
        return {"": path}

    def _wrong(self, path: Path, value: object, allowed: str) -> None:
        self._faults.append(Fault(path, f"is {shown(value)}: it must be {allowed}"))

    @contextmanager
    def _reporting(self, path: Path, value: object, key: Key) -> Iterator[None]:
        """
        Report a C{ValueError} of the block, and end that.
        """
        try:
            yield
        except ValueError as error:
            self._wrong(path, _HIDDEN if key.kind.isSecret else value, str(error))


class _Builder:
    """
    Makes the parts of a configuration from the values that a L{_Reader} has returned.
    """

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults

    def build(self, values: Document) -> Config:
        """
        Return the configuration.
        """
        common = self._linkSettings(values, {})
        common["serverLimits"] = self._settings(values, "server-limits", ServerLimits())
        common["backoff"] = self._backoff(values, Backoff())
        parts: list[Part] = [
            *(self._listen(entry, common) for entry in values.get("listen", ())),
            *(self._connect(entry, common) for entry in values.get("connect", ())),
        ]
        parts += self._datagramParts(values, common)
        parts += self._checkInParts(values)
        self._refuseTwins(parts)
        if "status" in values:
            parts.append(self._settings(values, "status", Status(path=("status",))))
        return Config(
            parts=tuple(parts),
            presence=self._settings(values, "presence", Presence()),
            store=self._settings(values, "store", Store()),
            checks=self._checks(values),
        )

    def _datagramParts(self, values: Document, common: Document) -> Iterator[Part]:
        for section in ("monitor", "udp"):
            own = {name: value for name, value in values.get(section, {}).items() if name}
            if "keyFile" not in own:
                # That is a fault, or there is no such section.
                continue
            path = values[section][""]
            own["heartbeat"] = self._heartbeat(values[section], common["heartbeat"])
            own.setdefault("hooks", common["hooks"])
            if section == "monitor":
                for address in own.pop("address", ()):
                    where = (*path, "address")
                    yield UDPMonitor(path=where, address=address, place=placeOf(address), **own)
            else:
                own["places"] = tuple(map(placeOf, own.pop("monitors", ())))
                own.setdefault("name", common["name"])
                if not own["name"] and not self._isWrong((*path, "name"), ("name",)):
                    self._faults.append(Fault(path, "needs a name, here or for the whole file"))
                yield UDPSender(path=path, **own)

    def _checkInParts(self, values: Document) -> Iterator[Part]:
        for entry in values.get("check-in", ()):
            own = {name: value for name, value in entry.items() if name}
            yield CheckIn(path=entry[""], **own)
        http = values.get("http", {})
        for endpoint in http.get("endpoint", ()):
            yield HTTP(path=(*http[""], "endpoint"), endpoint=endpoint)

    def _checks(self, values: Document) -> Checks:
        http = values.get("http", {})
        checks: dict[str, Check] = {}
        for entry in values.get("check", ()):
            if not http and not self._isWrong(("http",)):
                self._faults.append(Fault(entry[""], "needs [http], which receives check-ins"))
            name = entry.pop("name", "")
            if name and name in checks:
                self._faults.append(Fault(entry[""], f"has the name of another check: {name}"))
            checks[name] = self._settings({"check": entry}, "check", Check())
        return Checks(
            checks=tuple(checks.items()),
            tokenFile=http.get("tokenFile", ""),
            hooks=http.get("hooks", values.get("hooks", ())) if http else (),
        )

    def _listen(self, values: Document, common: Document) -> Part:
        settings = self._linkSettings(values, common)
        limits = self._settings(values, "server-limits", common["serverLimits"])
        return Listen(
            path=values[""],
            endpoint=values.get("endpoint", ""),
            admit=values.get("admit", ""),
            serverLimits=limits,
            **settings,
        )

    def _connect(self, values: Document, common: Document) -> Part:
        settings = self._linkSettings(values, common)
        backoff = self._backoff(values, common["backoff"])
        endpoint = values.get("endpoint", ())
        return Connect(path=values[""], endpoint=endpoint, backoff=backoff, **settings)

    def _linkSettings(self, values: Document, common: Document) -> Document:
        keepAlive = common.get("keepAlive", KeepAlive())
        if values.get("keepalive", {}) is None:
            keepAlive = None
        elif "keepalive" in values:
            keepAlive = self._settings(values, "keepalive", keepAlive or KeepAlive())
        return {
            "name": values.get("name", common.get("name", "")),
            "hooks": values.get("hooks", common.get("hooks", ())),
            "heartbeat": self._heartbeat(values, common.get("heartbeat", Heartbeat())),
            "keepAlive": keepAlive,
            "limits": self._settings(values, "limits", common.get("limits", Limits())),
        }

    def _heartbeat(self, values: Document, base: Heartbeat) -> Heartbeat:
        own = values.get("heartbeat", {})
        if "within" not in own:
            return self._settings(values, "heartbeat", base)
        for other in ("interval", "timeout"):
            if other in own:
                words = "stands beside within, which sets both interval and timeout: leave one out"
                self._faults.append(Fault((*own[""], other), words))
        return Heartbeat.within(own["within"])

    def _backoff(self, values: Document, base: Backoff) -> Backoff:
        own = values.get("backoff", {})
        maximum = own.get("maximum", base.maximum)
        if "initial" not in own and maximum < base.initial:
            # A maximum below the usual first wait shortens that wait, and is no fault.
            base = replace(base, initial=maximum, maximum=maximum)
        return self._settings(values, "backoff", base)

    def _settings(self, values: Document, section: str, base: _T) -> _T:
        """
        Return settings with the values of a table in place of those of C{base}.
        """
        own = values.get(section, {})
        changed = {field: value for field, value in own.items() if field}
        try:
            made: _T = replace(base, **changed)  # type: ignore[type-var]
        except ValueError as error:
            self._faults.append(relationFault(str(error), own[""], changed))
            return base
        return made

    def _isWrong(self, *paths: Path) -> bool:
        """
        Whether a fault of one of these keys is known, so that its value is missing here.
        """
        return any(fault.path in paths or fault.meant in paths for fault in self._faults)

    def _refuseTwins(self, parts: list[Part]) -> None:
        first: dict[tuple[str, ...], Part] = {}
        for part in parts:
            if self._isWrong(part.path, (*part.path, "endpoint")):
                continue
            other = first.setdefault(part.key, part)
            if other is not part:
                words = f"is the same as {keyText(other.path)}: {part.label}"
                self._faults.append(Fault(part.path, words))
