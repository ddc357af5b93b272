# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Run a program's own tests with this package in place of parts of Twisted.

C{python replaced.py WAY NAME...}, where C{WAY} is one of these:

  - C{stock}: replace nothing;
  - C{classes}: put this package's classes in the place of Twisted's three;
  - C{keepalive} and C{heartbeat}: put that prefix before each TCP endpoint;
  - C{broken-classes} and C{broken-heartbeat}: the same with a fault, which the tests must find.

Prints one JSON object: C{replaced}, class or C{keepalive} -> the number of instances or connections
replaced; C{run} and C{failed} as L{runTrial} returns them.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

from trialrun import runTrial
from twisted.application import internet
from twisted.internet import endpoints, protocol
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.protocols import policies
from twisted.trial import util

from twisted_heartbeat import HeartbeatClientFactory, HeartbeatClientService, HeartbeatMixin
from twisted_heartbeat.core import wire
from twisted_heartbeat.endpoints import keepalive
from twisted_heartbeat.endpoints.tunnel import Tunnel

REPLACEMENTS: list[tuple[Any, str, type]] = [
    (internet, "ClientService", HeartbeatClientService),
    (protocol, "ReconnectingClientFactory", HeartbeatClientFactory),
    (policies, "TimeoutMixin", HeartbeatMixin),
]
"""The module from which programs import Twisted's class, its name, and the class to put there."""

TEST_TIMEOUT = 40.0
"""Seconds after which trial fails a test that sets no timeout of its own."""

replaced: Counter[str] = Counter()
"""Class or C{keepalive} -> the number of instances or connections replaced."""


def countInstances(counted: Any) -> None:
    """
    Count the instances of a class.

    C{__new__} counts them, because the C{__init__} of a subclass need not call that of the class.
    """

    def new(cls: type, *arguments: Any, **keywords: Any) -> Any:
        replaced[counted.__name__] += 1
        return super(counted, cls).__new__(cls)

    counted.__new__ = new


def replaceClasses() -> None:
    """
    Put this package's classes in the modules from which programs import Twisted's.
    """
    for module, name, ours in REPLACEMENTS:
        theirs = getattr(module, name)
        # A module that was imported earlier keeps Twisted's class: its tests would prove nothing.
        taken = [
            other.__name__
            for other in [*sys.modules.values()]
            if other is not module
            and vars(other).get(name) is theirs
            and not other.__name__.startswith(("twisted_heartbeat.", "twisted.application."))
        ]
        assert not taken, (name, taken)
        countInstances(ours)
        setattr(module, name, ours)


def replaceEndpoints(prefix: str) -> None:
    """
    Put a prefix before each TCP endpoint, whether it was made from a string or by its class.
    """
    for made in (endpoints.TCP4ClientEndpoint, endpoints.TCP6ClientEndpoint):
        _prefixMethod(made, "connect", partial(clientFromString, description=f"{prefix}:tcp:h:1"))
    for made in (endpoints.TCP4ServerEndpoint, endpoints.TCP6ServerEndpoint):
        _prefixMethod(made, "listen", partial(serverFromString, description=f"{prefix}:tcp:1"))


def _prefixMethod(made: Any, method: str, parse: Callable[[Any], Any]) -> None:
    plain = getattr(made, method)

    class Plain:
        def __init__(self, endpoint: Any) -> None:
            setattr(self, method, partial(plain, endpoint))

    def prefixed(self: Any, factory: Any) -> Any:
        from twisted.internet import reactor

        # With a reactor of its own, the test itself is the peer, and speaks no frames.
        if self._reactor is not reactor:
            return plain(self, factory)
        outer = parse(reactor)
        outer._wrappedEndpoint = Plain(self)
        return getattr(outer, method)(factory)

    setattr(made, method, prefixed)


def countKeepAlive() -> None:
    """
    Count the connections on which C{keepalive:} has set the socket options.
    """
    apply = keepalive.applyKeepAlive

    def counting(*arguments: Any) -> Any:
        applied = apply(*arguments)
        replaced["keepalive"] += applied.enabled
        return applied

    keepalive.applyKeepAlive = counting


def breakClasses() -> None:
    """
    Replace one method of each class by one that does nothing, or that raises.
    """

    def nothing(self: Any, *arguments: Any) -> None:
        pass

    def raising(self: Any) -> None:
        # A worker whose service does nothing never stops, and trial of 24.3 waits without limit.
        raise RuntimeError("broken")

    HeartbeatMixin.setTimeout = nothing
    HeartbeatClientFactory.retry = nothing
    HeartbeatClientService.startService = raising


def breakTunnel() -> None:
    """
    Drop the first byte of each data frame.
    """
    received = Tunnel.frameReceived

    def lossy(self: Any, frame: Any) -> None:
        received(self, wire.Data(frame.message[1:]) if isinstance(frame, wire.Data) else frame)

    Tunnel.frameReceived = lossy


def replace(way: str) -> None:
    """
    Make the replacements of a way.
    """
    if way.endswith("classes"):
        replaceClasses()
    elif way != "stock":
        countKeepAlive()
        countInstances(Tunnel)
        replaceEndpoints(way.removeprefix("broken-"))
    if way == "broken-classes":
        breakClasses()
    elif way == "broken-heartbeat":
        breakTunnel()


def main(way: str, *names: str) -> None:
    """
    Make the replacements of a way, then run the tests in this process.
    """
    util.DEFAULT_TIMEOUT_DURATION = TEST_TIMEOUT
    replace(way)
    run, failed = 0, {}
    with TemporaryDirectory() as folder:
        for name in names:
            result = runTrial(name, folder)
            run += result["run"]
            failed.update(result["failed"])
    # A program may have replaced sys.stdout by its log.
    print(json.dumps({"replaced": replaced, "run": run, "failed": failed}), file=sys.__stdout__)


if __name__ == "__main__":
    main(*sys.argv[1:])
