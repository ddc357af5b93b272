# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Loader}: reads the configuration, at the start and again on SIGHUP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...core.diagnosis import describeError
from ...files import readFile
from ..datagrams import makeMonitor, makeSender
from .faults import ConfigError, Fault, relationFault
from .places import sharedPlaces
from .reader import Source, read
from .resolver import Objects, Resolver
from .values import Config, Path, UDPMonitor, UDPSender

_MAX_SIZE = 1024 * 1024
"""Bytes of a file: more is no configuration, but perhaps a device that never ends."""


@dataclass(frozen=True)
class Loaded:
    """
    A configuration that can be used.

    @ivar config: what is to run.
    @ivar objects: what it names.
    @ivar stale: a sentence for each endpoint that stays as it is, because its certificate could not
        be read again.
    """

    config: Config
    objects: Objects = field(default_factory=dict)
    stale: tuple[str, ...] = ()


class Loader:
    """
    Reads the configuration from a file, the command line, or both.

    @ivar file: the path; C{""} without a file.
    """

    def __init__(
        self, reactor: Any, file: str = "", options: tuple[tuple[Path, object], ...] = ()
    ) -> None:
        """
        @param reactor: the endpoints'.
        @param options: what the command line says, see L{Source}.
        """
        self.file = file
        self._options = options
        self._reactor = reactor
        self._resolver = Resolver(reactor)

    def load(self, known: Mapping[Any, Any] | None = None) -> Loaded:
        """
        Read the configuration.

        @param known: the objects in use, see L{Resolver.resolve}.
        @raise ConfigError: tells all faults.  Nothing has been started then.
        """
        source = Source(self.file, self._read() if self.file else "", self._options)
        faults: list[Fault] = []
        config = read(source, faults)
        if not (faults or any(part.isWork for part in config.parts)):
            raise ConfigError([self._nothingToRun()])
        objects, stale = self._resolver.resolve(config.references, known or {}, faults)
        if not faults:
            faults += sharedPlaces(config, objects)
            self._tryDatagrams(config, objects, faults)
        if faults:
            raise source.error(faults)
        return Loaded(config, objects, source.sentences(stale))

    def _tryDatagrams(self, config: Config, objects: Objects, faults: list[Fault]) -> None:
        """
        Make what sends and receives datagrams, to see whether its keys and times fit together.
        """
        for part in config.parts:
            if isinstance(part, UDPMonitor):
                try:
                    makeMonitor(part, objects, self._reactor)
                except ValueError as error:
                    fault = relationFault(str(error), part.path[:-1], ("minBound", "maxBound"))
                    # All addresses have the same settings.
                    faults += [fault] if fault not in faults else []
            elif isinstance(part, UDPSender):
                try:
                    makeSender(part, objects, self._reactor)
                except ValueError as error:
                    faults.append(Fault(part.path, f": {error}"))

    def _nothingToRun(self) -> str:
        if self.file:
            return f"{self.file} has nothing to run, such as listen or connect"
        return (
            "neither --listen nor --connect is given: there must be at least one of them, "
            "--udp, --monitor-udp, --check-in or --http"
        )

    def _read(self) -> str:
        try:
            data = readFile(self.file, _MAX_SIZE)
        except OSError as error:
            words = f"cannot be read ({describeError(error)})"
            raise ConfigError([f"{self.file} {words}"]) from None
        except ValueError as error:
            raise ConfigError([str(error)]) from None
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ConfigError([f"{self.file}:{line}: this is not UTF-8"]) from None
