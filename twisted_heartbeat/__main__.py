# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The live demo: C{python -m twisted_heartbeat}.

A client here and a peer in a process of its own keep one link up through a L{FaultProxy}.  Five
faults are done to it, and a table says what became of each.
"""

from __future__ import annotations

import ctypes
import signal
import socket
import struct
import subprocess
import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from math import inf
from time import monotonic
from typing import Any, NoReturn, TypeVar

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall, deferLater, react
from twisted.internet.threads import deferToThread

from twisted_heartbeat import (
    Backoff,
    Cause,
    ConnectFailed,
    Heartbeat,
    HeartbeatClientService,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    Link,
    LinkHooks,
    PeerClosed,
    PeerHung,
    PeerReset,
    PeerSilent,
    Retry,
)
from twisted_heartbeat.core.settings import SHORTEST_BOUND
from twisted_heartbeat.testing import BlackHole, FaultProxy

DESCRIPTION = """\
Keep one link up to a peer in a second process, do five faults to it (silent cut, frozen peer,
reset, clean close, peer gone for some seconds), and show how soon each was found, which cause was
named and when the link was back. It takes about 15 seconds, stays on 127.0.0.1, and exits with 0
only if every promise was kept."""

HEADINGS = ("fault", "cause named", "detected after", "cleanups", "back after", "promise")
WIDTHS = (13, 11, 16, 8, 11, 7)

LEGEND = """
In seconds; in brackets, what is allowed.  Detected after: since the last byte
received.  Back after: from the link's end, or the peer's return if that was
later, to the peer's first answer.  PeerSilent: nothing answered.  PeerHung: a
kernel still did, but not the peer's process.
"""

BACKOFF = Backoff(initial=0.5, maximum=0.5, spread=0.5)
BACK_WITHIN = BACKOFF.maximum + 0.5
"""Seconds: the longest wait, and half a second to connect and be answered."""

CALM, AWAY, PATIENCE, PEER_LIFETIME, LONGEST_BOUND = 0.8, 3.0, 20.0, 120, 15.0
"""Seconds: before each fault; without a peer; for all that must come; the others say it."""

USAGE, UNAVAILABLE, INTERRUPTED = 64, 69, 130
"""Exit statuses: two of sysexits.h, and a shell's for what SIGINT has ended."""

HUNG = PeerHung if sys.platform.startswith("linux") else PeerSilent
"""The true cause while only a kernel answers.  Elsewhere it can not be told that one does."""

T = TypeVar("T")
Fault = Callable[[Link], AbstractAsyncContextManager[type[Cause]]]


class Echo(HeartbeatProtocol):
    """
    The peer's side of a link.
    """

    def messageReceived(self, message: bytes) -> None:
        if message == b"close" and self.link is not None:
            self.link.close()
        else:
            self.sendMessage(message)


class Client(HeartbeatProtocol):
    """
    The client's side of a link.
    """

    def ask(self) -> Deferred[bytes]:
        """
        Fires when the peer answers.
        """
        self.asked: Deferred[bytes] = Deferred()
        self.sendMessage(b"are you there?")
        return self.asked

    def messageReceived(self, message: bytes) -> None:
        self.asked.callback(message)


class Facts(LinkHooks):
    """
    What the hooks tell.

    @ivar ended: why and when each link ended, by its generation.
    @ivar cleanups: how many ran for each.
    @ivar rejections: attempts so far that led to no link.
    """

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self.ended: dict[int, tuple[type[Cause], float]] = {}
        self.cleanups: Counter[int] = Counter()
        self.rejections = 0

    def connected(self, link: Link) -> None:
        self._say("connected", f"link {link.generation}, bound {link.bound:g} s")
        link.addCleanup(self._cleanUp, link.generation)

    def suspected(self, link: Link) -> None:
        self._say("suspected", f"nothing received for {link.silence:.2f} s")

    def disconnected(self, link: Link, cause: Cause) -> None:
        self.ended[link.generation] = (type(cause), monotonic())
        self._say("disconnected", f"{type(cause).__name__}: {cause}")

    def retrying(self, retry: Retry) -> None:
        self.rejections += isinstance(retry.cause, ConnectFailed)
        self._say("retrying", f"in {retry.delay:.2f} s, after {type(retry.cause).__name__}")

    def _cleanUp(self, generation: int) -> None:
        self.cleanups[generation] += 1
        self._say("cleanup", f"of link {generation}")


@dataclass
class Row:
    """
    What became of one fault.

    @ivar bound: see L{Heartbeat.bound}.
    @ivar silent: whether only silence tells of it, so that a verdict may also come too early.
    @ivar refuses: whether attempts to connect must fail while it lasts.
    @ivar expected: the true cause.
    """

    fault: str
    bound: float
    silent: bool = False
    refuses: bool = False
    expected: type[Cause] = Cause
    cause: type[Cause] | None = None
    detectedAfter: float = inf
    cleanups: int = 0
    refused: int = 0
    backAfter: float = inf

    def broken(self) -> list[str]:
        """
        Each promise that was not kept: what was expected, and what came.
        """
        earliest, latest = self._span()
        inTime = earliest <= self.detectedAfter <= latest
        promises = [
            (self.cause is self.expected, self.expected.__name__, _nameOf(self.cause)),
            (inTime, f"the end after {self._allowed()} s", f"{self.detectedAfter:.3f} s"),
            (self.cleanups == 1, "1 cleanup", str(self.cleanups)),
            (self.refused > 0 or not self.refuses, "refused attempts", "none"),
            (
                self.backAfter <= BACK_WITHIN,
                f"the link back within {BACK_WITHIN:.2f} s",
                f"{self.backAfter:.2f} s",
            ),
        ]
        return [f"expected {words}, and not {came}" for kept, words, came in promises if not kept]

    def cells(self) -> tuple[str, ...]:
        """
        The row under L{HEADINGS}.
        """
        promise = "broken" if self.broken() else "kept"
        return (
            self.fault,
            _nameOf(self.cause) + (f", {self.refused} refused" if self.refused else ""),
            _seconds(self.detectedAfter, self._allowed()),
            f"{self.cleanups} (1)" if self.cause else "-",
            _seconds(self.backAfter, f"{BACK_WITHIN:.2f}"),
            promise if self.backAfter < inf else "-",
        )

    def _span(self) -> tuple[float, float]:
        return (0.95 * self.bound if self.silent else 0.0, self.bound + 0.05)

    def _allowed(self) -> str:
        earliest, latest = self._span()
        return f"{earliest:.2f}-{latest:.2f}" if self.silent else f"{latest:.2f}"


def _nameOf(cause: type[Cause] | None) -> str:
    return "-" if cause is None else cause.__name__


def _seconds(measured: float, allowed: str) -> str:
    return f"{measured:.2f} ({allowed})" if measured < inf else "-"


class Plain:
    """
    Shows the demo line by line.
    """

    def __init__(self, demo: Demo) -> None:
        self._demo = demo
        self._began = monotonic()

    def say(self, event: str, words: str) -> None:
        """
        Show what happens.
        """
        print(self._line(event, words), flush=True)

    def end(self) -> None:
        """
        Show what became of it.
        """
        lines = [HEADINGS, *(row.cells() for row in self._demo.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(1, tuple("-" * width for width in widths))
        print()
        for line in lines:
            print("  ".join(map(str.ljust, line, widths)).rstrip())

    def _line(self, event: str, words: str) -> str:
        return f"{monotonic() - self._began:6.2f} s  {event:12}  {words}"


class Lively(Plain):
    """
    Shows the demo as a picture that moves, by means of rich.
    """

    def __init__(self, demo: Demo) -> None:
        from rich.live import Live

        super().__init__(demo)
        self._lines: deque[str] = deque(maxlen=6)
        self._live = Live(auto_refresh=False)
        self._live.start()
        self._refreshing = LoopingCall(self._refresh)
        self._refreshing.start(0.1, now=False)

    def say(self, event: str, words: str) -> None:
        self._lines.append(self._line(event, words))

    def end(self) -> None:
        self._refreshing.stop()
        self._live.update(self._table())
        self._live.stop()

    def _refresh(self) -> None:
        from rich.console import Group
        from rich.text import Text

        lines = (Text(line, no_wrap=True, overflow="ellipsis") for line in self._lines)
        self._live.update(Group(self._table(), self._gauge(), "", *lines), refresh=True)

    def _table(self) -> Any:
        from rich.box import SIMPLE
        from rich.table import Table

        table = Table(box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for heading, width in zip(HEADINGS, WIDTHS, strict=True):
            table.add_column(heading, min_width=width, no_wrap=heading != "cause named")
        for row in self._demo.rows:
            cells = row.cells()
            table.add_row(*cells, style={"kept": "green", "broken": "red"}.get(cells[-1]))
        return table

    def _gauge(self) -> str:
        service = self._demo.service
        if service is None or service.link is None or service.link.bound is None:
            return "no link" if service is None else f"no link, {service.state}"
        link, bound = service.link, service.link.bound
        filled = min(40, round(40 * link.silence / bound))
        bar = "\N{FULL BLOCK}" * filled + "\N{LIGHT SHADE}" * (40 - filled)
        return f"link {link.generation}, {link.state:9}  {bar}  silent for {link.silence:.1f} s"


class Demo:
    """
    A client, a proxy, a peer, and what is done to them.

    @ivar rows: one for each fault, filled in as far as it has come.
    @ivar service: the client; L{None} until it starts.
    """

    def __init__(self, reactor: Any, heartbeat: Heartbeat, view: type[Plain]) -> None:
        bound = heartbeat.bound
        self.rows = [
            Row("silent cut", bound, silent=True),
            Row("frozen peer", bound, silent=True),
            Row("reset", bound),
            Row("clean close", bound),
            Row(f"peer gone {AWAY:g} s", bound, refuses=True),
        ]
        self.service: HeartbeatClientService | None = None
        self._reactor = reactor
        self._heartbeat = heartbeat
        self._view = view(self)
        self._facts = Facts(self._view.say)
        self._peer: subprocess.Popen[bytes] | None = None
        self._port = 0

    async def perform(self) -> None:
        """
        Do it all, and leave nothing running, not even when cancelled.

        @raise TimeoutError: if something was waited for in vain; the last row lacks it.
        """
        async with AsyncExitStack() as left:
            left.callback(self._view.end)
            left.callback(self._endPeer)
            await self._startPeer()
            self._proxy = FaultProxy(self._reactor, ("127.0.0.1", self._port))
            left.push_async_callback(self._proxy.close)
            await self._proxy.listen()
            self.service = self._makeService()
            left.push_async_callback(self.service.stopService)
            self.service.startService()
            await self._sufferAll()

    def _makeService(self) -> HeartbeatClientService:
        return HeartbeatClientService(
            self._proxy.endpoint(),
            Factory.forProtocol(Client),
            BACKOFF,
            self._reactor,
            heartbeat=self._heartbeat,
            hooks=self._facts,
        )

    async def _sufferAll(self) -> None:
        faults = [self._cut, self._frozen, self._reset, self._closed, self._gone]
        for row, fault in zip(self.rows, faults, strict=True):
            await self._suffer(row, fault)

    async def _suffer(self, row: Row, fault: Fault) -> None:
        assert self.service is not None
        await deferLater(self._reactor, CALM)
        link = await self._talk()
        heardAt, refusedBefore = monotonic() - link.silence, self._facts.rejections
        self._view.say("FAULT", row.fault)
        async with fault(link) as row.expected:
            await self._patiently(self.service.whenDisconnected())
            row.cause, endedAt = self._facts.ended[link.generation]
            row.detectedAfter = endedAt - heardAt
            row.cleanups = self._facts.cleanups[link.generation]
        row.refused = self._facts.rejections - refusedBefore
        backFrom = monotonic()
        await self._talk()
        row.cleanups = self._facts.cleanups[link.generation]
        row.backAfter = monotonic() - backFrom

    async def _talk(self) -> Link:
        """
        @return: a link on which the peer has just answered, so that nothing is on its way.
        """
        assert self.service is not None
        client: Client = await self._patiently(self.service.whenConnected())
        await self._patiently(client.ask())
        assert client.link is not None
        return client.link

    def _patiently(self, waiting: Deferred[T]) -> Deferred[T]:
        return waiting.addTimeout(PATIENCE, self._reactor)

    # The faults: each yields the true cause, and is over when its link is gone.

    @asynccontextmanager
    async def _cut(self, link: Link) -> AsyncIterator[type[Cause]]:
        self._proxy.inject(BlackHole())
        # The proxy's kernel still acknowledges what the proxy throws away, unless that is cut too.
        yield PeerSilent if dropPackets(link.protocol.transport.getHandle()) else HUNG
        await self._proxy.heal()

    @asynccontextmanager
    async def _frozen(self, link: Link) -> AsyncIterator[type[Cause]]:
        self._signalPeer(signal.SIGSTOP)
        yield HUNG
        self._signalPeer(signal.SIGCONT)

    @asynccontextmanager
    async def _reset(self, link: Link) -> AsyncIterator[type[Cause]]:
        self._proxy.reset()
        yield PeerReset

    @asynccontextmanager
    async def _closed(self, link: Link) -> AsyncIterator[type[Cause]]:
        link.protocol.sendMessage(b"close")
        yield PeerClosed

    @asynccontextmanager
    async def _gone(self, link: Link) -> AsyncIterator[type[Cause]]:
        await self._proxy.refuse()
        self._endPeer()
        # It left nothing unread, so its kernel closes for it, and does not reset.
        yield PeerClosed
        await deferLater(self._reactor, AWAY)
        await self._startPeer()
        await self._proxy.accept()

    # The peer's process.

    async def _startPeer(self) -> None:
        command = [sys.executable, "-m", "twisted_heartbeat", "--peer", str(self._port)]
        command += ["--within", str(self._heartbeat.bound)]
        # In a group of its own: control-C is for the demo alone; and should that be killed, most
        # systems wake and end even a frozen peer, as an orphaned group: setpgid(2).
        self._peer = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
        )
        assert self._peer.stdout is not None
        self._port = int(await self._patiently(deferToThread(self._peer.stdout.readline)))

    def _signalPeer(self, number: int) -> None:
        assert self._peer is not None
        self._peer.send_signal(number)

    def _endPeer(self) -> None:
        if self._peer is not None:
            with self._peer as peer:
                peer.kill()


def dropPackets(connection: socket.socket) -> bool:
    """
    Have the kernel drop each packet that comes for a connection, acknowledgements too, as a cut
    cable does and no proxy can: by a packet filter that accepts none.

    Source: C{SO_ATTACH_FILTER}, socket(7); C{linux/filter.h}.

    @return: whether this kernel can.
    """
    attachFilter, returnConstant = 26, 0x06
    acceptNone = ctypes.create_string_buffer(struct.pack("HBBI", returnConstant, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(acceptNone))
    try:
        connection.setsockopt(socket.SOL_SOCKET, attachFilter, program)
    except OSError:
        return False
    return True


def dieWithParent() -> None:
    """
    Have the kernel kill this process when the one that started it has ended, however it ends, and
    even if this one is frozen by then.  An orphaned group is not enough: one whose stop is still
    pending when it is orphaned stays frozen for ever.

    Source: C{PR_SET_PDEATHSIG}, prctl(2).  Only Linux has it.
    """
    setParentDeathSignal = 1
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(setParentDeathSignal, signal.SIGKILL)


def runPeer(reactor: Any, port: int, heartbeat: Heartbeat) -> None:
    """
    Be the peer's process, for as long as the standard input lasts, and no longer than its lifetime.
    """
    dieWithParent()
    signal.alarm(PEER_LIFETIME)
    factory = HeartbeatServerFactory(Factory.forProtocol(Echo), heartbeat=heartbeat)
    listening = reactor.listenTCP(port, factory, interface="127.0.0.1")
    print(listening.getHost().port, flush=True)
    deferToThread(sys.stdin.read).addBoth(lambda _: reactor.stop())
    reactor.run()


async def show(reactor: Any, heartbeat: Heartbeat) -> NoReturn:
    """
    Run the demo, and judge it.

    @raise SystemExit: always; with 0 if each row kept the promise.
    """
    lively = sys.stdout.isatty() and find_spec("rich") is not None
    demo = Demo(reactor, heartbeat, Lively if lively else Plain)
    running = Deferred.fromCoroutine(demo.perform())

    def interrupt() -> Deferred[None]:
        running.cancel()
        return running

    reactor.addSystemEventTrigger("before", "shutdown", interrupt)
    broken = []
    try:
        await running
    except CancelledError:
        raise SystemExit(INTERRUPTED) from None
    except TimeoutError:
        broken.append(f"Given up: what was to come next did not, in {PATIENCE:g} s.")
    for row in demo.rows:
        broken += [f"{row.fault}: {words}." for words in row.broken()]
    print(LEGEND, *(broken or ["Each row kept the promise."]), sep="\n")
    raise SystemExit(1 if broken else 0)


class Options(ArgumentParser):
    """
    A command line whose mistakes are one sentence each, and exit as sysexits.h has it.
    """

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}\n")


def within(text: str) -> Heartbeat:
    """
    The heartbeat for a bound.

    @raise ArgumentTypeError: if the bound is not a number of seconds, or out of range.
    """
    try:
        bound = float(text)
        if bound <= LONGEST_BOUND:
            return Heartbeat.within(bound)
    except ValueError:
        pass
    allowed = f"a number of seconds from {SHORTEST_BOUND:g} to {LONGEST_BOUND:g}"
    raise ArgumentTypeError(f"must be {allowed}, not {text!r}")


def main(arguments: Sequence[str] | None = None) -> None:
    """
    The command line.
    """
    options = Options("python -m twisted_heartbeat", description=DESCRIPTION, allow_abbrev=False)
    options.add_argument(
        "--within",
        type=within,
        default="2",
        metavar="SECONDS",
        help=f"the bound: a dead peer is found within it; 2 by default, {LONGEST_BOUND:g} at most",
    )
    options.add_argument("--peer", type=int, metavar="PORT", help=SUPPRESS)
    chosen = options.parse_args(arguments)
    if not hasattr(signal, "SIGSTOP"):
        options.exit(UNAVAILABLE, "This system can not freeze a process, as the demo has to.\n")
    if chosen.peer is None:
        react(show, (chosen.within,))
    else:
        from twisted.internet import reactor

        runPeer(reactor, chosen.peer, chosen.within)


if __name__ == "__main__":
    main()
