# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The watcher of the kernel suite, a process of its own: twisted_heartbeat on every cell that it is
told to watch.  It reports what the hooks, the log and the cleanups say, each with its time.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from cells import (
    CONNECT_TIMEOUT,
    CROWD,
    KEEPALIVE_COUNT,
    KEEPALIVE_IDLE,
    KEEPALIVE_INTERVAL,
    LONGEST_DELAY,
    QUICK_BOUND,
    SEND_STALL,
    SHORTEST_DELAY,
    USUAL_BOUND,
    Cell,
)
from chatter import Certificates, Chatter
from reports import obey, report
from rundelay import RunDelay
from twisted.application.reactors import installReactor
from twisted.internet.defer import DeferredList, inlineCallbacks, maybeDeferred
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, LogLevel, globalLogBeginner, globalLogPublisher

from twisted_heartbeat import (
    Backoff,
    Cause,
    Heartbeat,
    HeartbeatClientService,
    HeartbeatMixin,
    HeartbeatServerFactory,
    KeepAlive,
    Limits,
    Link,
    LinkHooks,
    Retry,
)

HEARTBEAT = Heartbeat.within(USUAL_BOUND)
HEARTBEATS = {"quick": Heartbeat.within(QUICK_BOUND), "keepalive": None}
KEEPALIVE = KeepAlive(idle=KEEPALIVE_IDLE, interval=KEEPALIVE_INTERVAL, count=KEEPALIVE_COUNT)
BACKOFF = Backoff(
    initial=SHORTEST_DELAY, maximum=LONGEST_DELAY, jitter=None, spread=LONGEST_DELAY, stableAfter=5
)

EVIDENCE = (
    "sinceAck", "sinceData", "unacknowledged", "unanswered", "retransmits", "probes", "rtt",
    "simultaneousVerdicts",
)  # fmt: skip


def limitsFor(cell: Cell) -> Limits:
    """
    The limits of a cell's link.
    """
    stall = SEND_STALL if cell.load == "stall" else 15.0
    return Limits(
        connectTimeout=CONNECT_TIMEOUT, closeTimeout=1.0, cleanupTimeout=2.0, sendStall=stall
    )


class Recorder(LinkHooks):
    """
    Reports what a cell's hooks are told.
    """

    def __init__(self, cell: Cell, delay: RunDelay) -> None:
        self._cell = cell.name
        self._delay = delay

    def _report(self, event: str, **fields: Any) -> None:
        report(event, cell=self._cell, **fields)

    def connecting(self, attempt: int) -> None:
        """
        See L{LinkHooks}.
        """
        self._report("connecting", attempt=attempt)

    def connected(self, link: Link) -> None:
        """
        See L{LinkHooks}.
        """
        link.addCleanup(self._report, "cleanup", generation=link.generation)
        self._report("connected", generation=link.generation, watch=link.watch)

    def suspected(self, link: Link) -> None:
        """
        See L{LinkHooks}.
        """
        self._report("suspected", generation=link.generation, silence=link.silence)

    def recovered(self, link: Link) -> None:
        """
        See L{LinkHooks}.
        """
        self._report("recovered", generation=link.generation)

    def disconnected(self, link: Link, cause: Cause) -> None:
        """
        See L{LinkHooks}.
        """
        evidence = cause.evidence
        self._report(
            "disconnected",
            generation=link.generation,
            cause=type(cause).__name__,
            words=str(cause),
            silence=link.silence,
            runDelay=self._delay.worst(time.monotonic() - link.silence, time.monotonic()),
            evidence=evidence and {name: getattr(evidence, name) for name in EVIDENCE},
        )

    def retrying(self, retry: Retry) -> None:
        """
        See L{LinkHooks}.
        """
        self._report(
            "retrying",
            attempt=retry.attempt,
            delay=retry.delay,
            cause=type(retry.cause).__name__,
            words=str(retry.cause),
        )


class Crowd(LinkHooks):
    """
    The hooks of a crowd.  It reports when asked: a report for each of a thousand links would take
    as long as what is measured.
    """

    def __init__(self, delay: RunDelay) -> None:
        self._delay = delay
        self._ended: list[dict[str, Any]] = []

    def disconnected(self, link: Link, cause: Cause) -> None:
        """
        See L{LinkHooks}.
        """
        self._ended.append({"at": time.monotonic(), "silence": link.silence, "cause": cause})

    def tell(self) -> None:
        """
        Report all that have ended.
        """
        ended = [
            {
                "silence": one["silence"],
                "cause": type(one["cause"]).__name__,
                "words": str(one["cause"]),
                "together": one["cause"].evidence.simultaneousVerdicts,
            }
            for one in self._ended
        ]
        times = [one["at"] for one in self._ended] or [0.0]
        report("crowd", ended=ended, runDelay=self._delay.worst(times[0], times[-1]))


class Watched(HeartbeatMixin, Chatter):
    """
    With the mix-in.
    """

    def sendPing(self) -> None:
        """
        Anything makes this peer speak.
        """
        self.transport.write(b"?")  # type: ignore[union-attr]


class Watcher:
    """
    All cells of this process.
    """

    def __init__(self, reactor: Any, folder: str) -> None:
        self._reactor = reactor
        self._certificates = Certificates(folder)
        self._delay = RunDelay()
        self._crowd = Crowd(self._delay)
        self._endings: dict[str, Callable[[], Any]] = {}
        self._protocols: dict[str, Any] = {}

    def obey(self, order: dict[str, Any]) -> None:
        """
        Do what the test orders.
        """
        cells = [Cell.fromJson(fields) for fields in order.get("cells", ())]
        doing = {
            "meet": lambda: self._meetAll(cells),
            "leave": lambda: DeferredList([self._leave(cell) for cell in cells]),
            "block": lambda: self._block(order["where"], order["seconds"], cells),
            "left": self._reportLeft,
            "tellCrowd": self._crowd.tell,
            "quiet": lambda: globalLogPublisher.removeObserver(observe),
            "wallTime": lambda: report("wallTime", wall=time.time()),
        }
        done = maybeDeferred(doing[order["do"]])
        done.addBoth(lambda result: report("obeyed", number=order["number"], result=str(result)))

    @inlineCallbacks
    def _meetAll(self, cells: list[Cell]) -> Any:
        """
        One after the other, so that no other link's timing suffers.
        """
        for cell in cells:
            yield self._meet(cell)
            yield deferLater(self._reactor, 0.005)

    def _meet(self, cell: Cell) -> Any:
        if cell.side == "client":
            return maybeDeferred(self._connect, cell)
        return maybeDeferred(self._listen, cell)

    def _leave(self, cell: Cell) -> Any:
        self._protocols.pop(cell.name, None)
        return maybeDeferred(self._endings.pop(cell.name))

    def _factory(self, cell: Cell, kind: type[Chatter]) -> Factory:
        watcher = self

        class Talking(kind):  # type: ignore[valid-type, misc]
            def connectionMade(self) -> None:
                watcher._protocols[cell.name] = self
                super().connectionMade()

        Talking.cell = cell
        return Factory.forProtocol(Talking)

    def _settings(self, cell: Cell) -> dict[str, Any]:
        return {
            "heartbeat": HEARTBEATS.get(cell.load, HEARTBEAT),
            "keepAlive": KEEPALIVE if cell.load == "keepalive" else KeepAlive(),
            "limits": limitsFor(cell),
            "hooks": self._crowd if cell.row == CROWD else Recorder(cell, self._delay),
            "name": cell.name,
        }

    def _connect(self, cell: Cell) -> None:
        """
        Connect as a client, with a wrapped protocol.
        """
        service = HeartbeatClientService(
            self._certificates.clientEndpoints(self._reactor, cell),
            self._factory(cell, Chatter),
            BACKOFF,
            ping=lambda protocol: protocol.transport.write(b"?"),
            **self._settings(cell),
        )
        self._endings[cell.name] = service.stopService
        service.startService()

    def _listen(self, cell: Cell) -> Any:
        """
        Listen as a server, with the mix-in.
        """
        factory = HeartbeatServerFactory(self._factory(cell, Watched), **self._settings(cell))
        listening = self._certificates.listen(self._reactor, cell, factory)

        def listens(port: Any) -> None:
            def end() -> Any:
                return DeferredList([maybeDeferred(port.stopListening), factory.close()])

            self._endings[cell.name] = end

        return listening.addCallback(listens)

    # What it does to itself.

    def _block(self, where: str, seconds: float, cells: list[Cell]) -> None:
        """
        Keep the reactor busy: in a delayed call, in a call from a thread, or in C{dataReceived}.
        """

        def block() -> None:
            report("blocks", where=where)
            time.sleep(seconds)
            report("runs", where=where)

        if where == "timer":
            self._reactor.callLater(0.01, block)
        elif where == "thread":
            call = self._reactor.callFromThread
            threading.Thread(target=call, args=(block,), daemon=True).start()
        else:
            self._protocols[cells[0].name].onData = block

    def _reportLeft(self) -> None:
        """
        Report what is still open.
        """
        gc.collect()
        sockets = []
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{descriptor}")
            except OSError:
                continue
            if target.startswith("socket:"):
                sockets.append(target)
        calls = [str(call) for call in self._reactor.getDelayedCalls()]
        report("left", sockets=sockets, calls=calls)


def observe(event: LogEvent) -> None:
    """
    Report the library's structured log events, and every error that anybody logs.
    """
    name = event.get("event")
    if name is not None and str(event.get("log_namespace", "")).startswith("twisted_heartbeat"):
        keys = ("link", "generation", "peer", "cause", "reason", "silence", "bound", "evidence")
        report("logged", name=name, **{key: event.get(key) for key in keys})
    elif event.get("log_level", LogLevel.info) >= LogLevel.error:
        failure = event.get("log_failure")
        words = str(event.get("log_format"))
        report("error", words=words, failure=failure and failure.getTraceback())


def main() -> None:
    """
    Obey until the test has gone.
    """
    # A collection stops the process for longer than a verdict may be late, and it is this suite's
    # own garbage that is collected.
    gc.disable()
    installReactor(sys.argv[2])
    from twisted.internet import reactor

    globalLogBeginner.beginLoggingTo([observe], redirectStandardIO=False, discardBuffer=True)
    turn: Any = reactor
    watcher = Watcher(turn, sys.argv[1])
    obey(
        lambda order: turn.callFromThread(watcher.obey, order),
        lambda: turn.callFromThread(turn.stop),
    )
    turn.callWhenRunning(report, "started")
    turn.run()


if __name__ == "__main__":
    main()
