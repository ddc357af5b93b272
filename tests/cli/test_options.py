# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The plugin's command line and the services that it makes, in this process and in virtual time.
What only a process can show is in C{test_twist}.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.application.service import IService
from twisted.internet import defer
from twisted.internet.error import CannotListenError, ConnectionDone, ReactorNotRunning
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import LogEvent, LogLevel
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from twisted_heartbeat import Backoff, Heartbeat, KeepAlive
from twisted_heartbeat.cli.config.loader import Loaded
from twisted_heartbeat.cli.config.values import Config, Connect, Listen, Reference
from twisted_heartbeat.cli.exitstatus import EX_OSERR, EX_UNAVAILABLE, EX_USAGE, exitWith
from twisted_heartbeat.cli.listener import Listener
from twisted_heartbeat.cli.options import Options
from twisted_heartbeat.cli.service import HeartbeatServices, makeService
from twisted_heartbeat.core import wire
from twisted_heartbeat.core.causes import GoodbyeCode

from .config.test_reader import WRONG as WRONG_FILES


class MemoryReactor(MemoryReactorClock):
    """
    Virtual time and connections in memory.  Where Twisted's own is old, it begins as if it had
    stopped, and never calls what is to be called when it runs already.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hasStopped = False

    def callWhenRunning(self, callable: Any, *args: Any, **kw: Any) -> None:
        if self.running:
            callable(*args, **kw)
        else:
            super().callWhenRunning(callable, *args, **kw)


@pytest.fixture
def reactor() -> MemoryReactor:
    """
    Nothing is real.
    """
    return MemoryReactor()


class Transport(StringTransport):
    """
    Remembers that it was aborted.
    """

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


def parse(reactor: MemoryReactor, *arguments: str) -> Options:
    options = Options(reactor)
    options.parseOptions(list(arguments))
    return options


def started(reactor: MemoryReactor, *arguments: str) -> HeartbeatServices:
    watch = makeService(parse(reactor, *arguments))
    watch.startService()
    reactor.running = True
    return watch


def statuses(reactor: MemoryReactor) -> list[int]:
    """
    The exit statuses that the process was told to end with, after the reactor has stopped.
    """
    after = reactor.triggers.get("after", {}).get("shutdown", [])
    return [status for call, (status,), _ in after if call is exitWith]


def spoken(transport: StringTransport) -> list[wire.Frame]:
    """
    The frames that were written.
    """
    return list(wire.FrameReader().receive(transport.value()))


def connect(reactor: MemoryReactor, path: str) -> tuple[Any, Transport]:
    """
    Complete the attempt to connect to a UNIX socket.
    """
    [client] = [one for one in reactor.unixClients if one[0] == path]
    reactor.unixClients.remove(client)
    return accept(client[1])


def accept(factory: Any) -> tuple[Any, Transport]:
    protocol = factory.buildProtocol(None)
    transport = Transport()
    protocol.makeConnection(transport)
    return protocol, transport


def lose(protocol: Any, error: Exception) -> None:
    protocol.connectionLost(Failure(error))


# Options.


def test_defaults(reactor: MemoryReactor) -> None:
    """
    What is not said is what the settings say by themselves.
    """
    parts = parse(reactor, "--listen", "unix:/there", "--connect", "unix:/a").loaded.config.parts
    assert parts == (Listen(endpoint="unix:/there"), Connect(endpoint=("unix:/a",)))


def test_values(reactor: MemoryReactor) -> None:
    """
    Each option has its setting, and the two of the backoff stand in any order.
    """
    settings = ["--within=8", "--keepalive=7,3,2", "--name=gateway-7"]
    backoff = ["--give-up-after=600", "--max-delay=20"]
    expected = Backoff(maximum=20.0, maxElapsed=600.0)
    for order in (backoff, backoff[::-1]):
        options = parse(reactor, "--connect=unix:/there", *settings, *order)
        assert options.loaded.config.parts == (
            Connect(
                endpoint=("unix:/there",),
                heartbeat=Heartbeat.within(8),
                keepAlive=KeepAlive(idle=7, interval=3, count=2),
                backoff=expected,
                name="gateway-7",
            ),
        )


def test_severalPlaces(reactor: MemoryReactor) -> None:
    """
    Both of --listen and --connect can be given, several times.
    """
    given = ["--listen=tcp:1", "--connect=unix:/a", "--listen=tcp:0", "--connect=tcp:there:65535"]
    parts = parse(reactor, *given).loaded.config.parts
    assert [part.label for part in parts] == [
        "listen tcp:1",
        "listen tcp:0",
        "connect unix:/a",
        "connect tcp:there:65535",
    ]


def test_maxDelayBelowTheFirst(reactor: MemoryReactor) -> None:
    """
    A longest wait that is shorter than the usual first one shortens that, and is no error.
    """
    [part] = parse(reactor, "--connect=unix:/there", "--max-delay=0.25").loaded.config.parts
    assert isinstance(part, Connect)
    assert (part.backoff.initial, part.backoff.maximum) == (0.25, 0.25)


WRONG = {
    "nothing": ([], "neither --listen nor --connect"),
    "only settings": (["--within=8"], "neither --listen nor --connect"),
    "no option": (["tcp:8470"], "'tcp:8470' is no option"),
    "within, no number": (["--within=soon"], "--within is 'soon': it must be a number of sec"),
    "within, too short": (["--within=0.19"], "--within is '0.19': .* at least 0.2"),
    "within, negative": (["--within=-1"], "--within is '-1': .* at least 0.2"),
    "within, not finite": (["--within=inf"], "--within is 'inf': .* at least 0.2"),
    "within, NaN": (["--within=nan"], "--within is 'nan': .* at least 0.2"),
    "within, too long": (["--within=1e300"], "--within is '1e300': .* at most 1000000000"),
    "keepalive, two": (["--keepalive=5,5"], "--keepalive is '5,5': it must be IDLE,INTERVAL,COU"),
    "keepalive, zero": (["--keepalive=5,0,3"], "--keepalive is '5,0,3': .* each 1 or more"),
    "keepalive, halves": (["--keepalive=5,1.5,3"], "--keepalive is '5,1.5,3': .* whole numbers"),
    "max-delay, zero": (["--max-delay=0"], "--max-delay is '0': .* a number of seconds above 0"),
    "max-delay, words": (["--max-delay=1m"], "--max-delay is '1m': .* a number of seconds above"),
    "give-up-after": (["--give-up-after=-3"], "--give-up-after is '-3': .* seconds above 0"),
    "name": (
        ["--name=" + "é" * 128],
        "--name is 'é+': it must be text of at most 255 bytes in UTF-8",
    ),
    "name, not UTF-8": (["--name=\udcff"], "--name is .* at most 255 bytes in UTF-8"),
    "listen, empty": (["--listen="], "--listen is '': .* such as tcp:8470"),
    "listen, no type": (["--listen=8470"], "--listen is '8470': .* Unknown endpoint type"),
    "listen, no port": (["--listen=tcp"], r"--listen is 'tcp': .*\(missing .* 'port'\)"),
    "listen, port": (["--listen=tcp:65536"], "--listen is 'tcp:65536': .* from 0 to 65535"),
    "listen, below": (["--listen=tcp:-1"], "--listen is 'tcp:-1': .* from 0 to 65535"),
    "listen, file": (["--listen=ssl:1:privateKey=/no/such"], "--listen .* '/no/such'"),
    "connect, no port": (["--connect=tcp:there"], r"--connect .*\(missing .* 'port'\)"),
    "connect, port 0": (["--connect=tcp:there:0"], "--connect .* a port from 1 to 65535"),
    "connect, tls port": (["--connect=tls:there:65536"], "--connect .* a port from 1 to 65535"),
    "connect, no host": (["--connect=tcp::8470"], "--connect is 'tcp::8470': .* with a host"),
    "connect, type": (["--connect=there:8470"], "--connect .* Unknown endpoint type: 'there'"),
    "status": (["--status=there:1"], "--status is 'there:1': .* such as tcp:8080"),
    "status, port": (["--status=99999"], "--status is .* a port from 0 to 65535"),
    "token": (["--status-token-file=/no/such"], "--status-token-file .* a file that holds a token"),
    "connect, unknown": (["--connect=tcp:there:1:x=y"], "--connect .* 'x'"),
}


@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=WRONG)
def test_wrongValue(reactor: MemoryReactor, arguments: list[str], words: str) -> None:
    """
    Each wrong option is one sentence that names it, its value and what is allowed; nothing starts.
    """
    with pytest.raises(UsageError, match="^" + words) as caught:
        parse(reactor, *arguments)
    assert "\n" not in str(caught.value)
    assert not reactor.tcpServers and not reactor.unixClients


@pytest.mark.parametrize("text", [text for text, _ in WRONG_FILES.values()], ids=WRONG_FILES)
def test_wrongFile(
    reactor: MemoryReactor, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """
    Each wrong file ends the process with one sentence for each fault, and nothing starts.
    """
    file = tmp_path / "hb.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        parse(reactor, f"--config={file}")
    assert caught.value.code == EX_USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err and all(line.startswith(str(file)) for line in said.err.splitlines())
    assert not (reactor.tcpServers or reactor.tcpClients or reactor.unixServers)


def test_checkedFile(
    reactor: MemoryReactor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A right file is only checked, if that is asked for.
    """
    file = tmp_path / "hb.toml"
    file.write_text("listen = 'tcp:1'")
    with pytest.raises(SystemExit) as caught:
        parse(reactor, f"--config={file}", "--check-config")
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"{file}: no fault found\n"
    assert not reactor.tcpServers


def test_checkedOptions(reactor: MemoryReactor, capsys: pytest.CaptureFixture[str]) -> None:
    """
    So are options without a file.
    """
    with pytest.raises(SystemExit) as caught:
        parse(reactor, "--listen=tcp:1", "--check-config")
    assert caught.value.code == 0
    assert capsys.readouterr().out == "options: no fault found\n"


def test_listenTwice(reactor: MemoryReactor) -> None:
    """
    The same endpoint twice is an error of the command line as well.
    """
    words = "^options: listen#2 is the same as listen#1: listen tcp:1$"
    with pytest.raises(UsageError, match=words):
        parse(reactor, "--listen=tcp:1", "--listen=tcp:1")


def test_helpIsWhole() -> None:
    """
    The help names every option, the exit statuses, and has no holes from the source's line breaks.
    """
    text = Options().getUsage(80)
    options = ["listen", "connect", "name", "within", "keepalive", "max-delay", "give-up-after"]
    options.append("config")
    options += ["status", "status-token-file"]
    assert [name for name in options if f"--{name}=" not in text] == []
    assert "--check-config" in text
    assert f"  {EX_UNAVAILABLE}  " in text
    assert f"  {EX_OSERR}  " in text
    words = [line[24:] for line in text.splitlines() if line.startswith(" " * 24)]
    assert words
    assert [line for line in words if "  " in line.strip()] == []
    assert max(len(line) for line in text.splitlines()) <= 80


def test_defaultsOfTheHelp() -> None:
    """
    The defaults that the help tells are the settings' own.
    """
    text = " ".join(Options().getUsage(80).split())
    keepAlive = KeepAlive()
    assert f"more. Default: {Heartbeat().bound:g}." in text
    assert f"Default: {keepAlive.idle},{keepAlive.interval},{keepAlive.count}." in text
    assert f"in seconds. Default: {Backoff().maximum:g}." in text


# The service.


def test_listens(reactor: MemoryReactor) -> None:
    """
    Every --listen listens, every --connect connects, and none of it before the service starts.
    """
    given = ["--listen=tcp:8470", "--listen=unix:/here", "--connect=unix:/a", "--connect=unix:/b"]
    watch = makeService(parse(reactor, *given))
    assert IService.providedBy(watch)
    assert not (reactor.tcpServers or reactor.unixServers or reactor.unixClients)
    watch.startService()
    assert [server[0] for server in reactor.tcpServers] == [8470]
    assert [server[0] for server in reactor.unixServers] == ["/here"]
    assert [client[0] for client in reactor.unixClients] == ["/a", "/b"]


def test_listensOnce(reactor: MemoryReactor) -> None:
    """
    What twistd has done with its privileges is not done again without them.
    """
    watch = makeService(parse(reactor, "--listen=tcp:80"))
    watch.privilegedStartService()
    watch.startService()
    assert [server[0] for server in reactor.tcpServers] == [80]


def test_oneNameForAll(reactor: MemoryReactor) -> None:
    """
    The name travels in the HELLO of every link, either way, and the bound with it.
    """
    given = ["--listen=tcp:1", "--connect=unix:/a", "--connect=unix:/b"]
    started(reactor, *given, "--name=gateway-7", "--within=8")
    transports = [
        connect(reactor, "/a")[1],
        connect(reactor, "/b")[1],
        accept(reactor.tcpServers[0][1])[1],
    ]
    for transport in transports:
        assert spoken(transport) == [wire.Hello("gateway-7", needs=8.0, offers=8.0)]


def test_nameIsLoggedOnce(reactor: MemoryReactor, events: list[LogEvent]) -> None:
    """
    The log tells what the peer calls itself, on which link; a peer that repeats itself does not
    fill it.
    """
    started(reactor, "--listen=tcp:8470")
    protocol, _ = accept(reactor.tcpServers[0][1])
    protocol.dataReceived(wire.encode(wire.Hello("gateway-7")) * 3)
    named = [event for event in events if event.get("name")]
    assert [(e["link"], e["generation"], e["name"]) for e in named] == [
        ("tcp:8470", 1, "gateway-7")
    ]


def test_eventsNameTheEndpoint(reactor: MemoryReactor, events: list[LogEvent]) -> None:
    """
    Links are told apart in the log by the endpoint as it was written, even before they connect.
    """
    started(reactor, "--connect=unix:/a", "--connect=unix:/b", "--within=8")
    connect(reactor, "/b")
    told = [(e["event"], e["link"], e["generation"], e["bound"]) for e in events if "event" in e]
    assert told == [
        ("connecting", "unix:/a", None, 8.0),
        ("connecting", "unix:/b", None, 8.0),
        ("connected", "unix:/b", 1, 8.0),
    ]


def test_verdictWithinTheBound(reactor: MemoryReactor, events: list[LogEvent]) -> None:
    """
    --within is the bound of both sides: a peer that says nothing for so long is given up.
    """
    started(reactor, "--listen=tcp:8470", "--within=8")
    _, transport = accept(reactor.tcpServers[0][1])
    reactor.pump([0.05] * 159)
    assert not transport.aborted
    reactor.pump([0.05] * 2)
    assert transport.aborted


def test_refusedIsLogged(reactor: MemoryReactor, events: list[LogEvent]) -> None:
    """
    A peer with the name of another one that is alive is refused: an event of its own in the log,
    which says why and who, and no C{disconnected}.
    """
    started(reactor, "--listen=tcp:8470")
    peers = [accept(reactor.tcpServers[0][1]) for _ in range(2)]
    for protocol, _ in peers:
        protocol.dataReceived(wire.encode(wire.Hello("gateway-7")))
    ping = next(frame for frame in spoken(peers[0][1]) if isinstance(frame, wire.Ping))
    peers[0][0].dataReceived(wire.encodePong(ping.token))
    [goodbye] = [frame for frame in spoken(peers[1][1]) if isinstance(frame, wire.Goodbye)]
    assert goodbye.code is GoodbyeCode.NAME_IN_USE
    lose(peers[1][0], ConnectionDone())
    told = [event for event in events if event.get("event")]
    assert [event["event"] for event in told] == ["connected", "refused"]
    refused = told[-1]
    assert (refused["link"], refused["generation"], refused["name"]) == ("tcp:8470", 2, "gateway-7")
    assert (refused["cause"], refused["log_level"]) == ("ClosedHere", LogLevel.warn)
    assert "'gateway-7' is in use by generation 1" in refused["reason"]


def test_stopClosesThePortFirst(reactor: MemoryReactor) -> None:
    """
    On the way out nobody new is let in before the others are told goodbye.
    """
    calls: list[str] = []
    closed: defer.Deferred[None] = defer.Deferred()

    class Port:
        def stopListening(self) -> defer.Deferred[None]:
            calls.append("port")
            return closed

    class Endpoint:
        def listen(self, factory: object) -> defer.Deferred[Port]:
            return defer.succeed(Port())

    class Peers:
        def drain(self) -> defer.Deferred[None]:
            calls.append("links")
            return defer.succeed(None)

    peers: Any = Peers()
    listener = Listener("there", Endpoint(), peers, lambda status: None)
    listener.startService()
    stopped = listener.stopService()
    assert calls == ["port"]
    closed.callback(None)
    assert calls == ["port", "links"]
    assert stopped.called


def test_stopSaysGoodbye(reactor: MemoryReactor) -> None:
    """
    A stop tells every peer goodbye, closes politely, and is complete when all have gone.
    """
    watch = started(reactor, "--listen=tcp:8470", "--connect=unix:/a")
    peers = [accept(reactor.tcpServers[0][1]), connect(reactor, "/a")]
    stopped = watch.stopService()
    for protocol, transport in peers:
        assert isinstance(spoken(transport)[-1], wire.Goodbye)
        assert transport.disconnecting
        assert not stopped.called
        lose(protocol, ConnectionError())
    assert stopped.called


def test_stopIsBounded(reactor: MemoryReactor) -> None:
    """
    A peer that does not let go is aborted after closeTimeout.
    """
    watch = started(reactor, "--listen=tcp:8470")
    _, transport = accept(reactor.tcpServers[0][1])
    stopped = watch.stopService()
    reactor.advance(4.9)
    assert not transport.aborted
    # It looks once more after the deadline.
    reactor.pump([0.05] * 5)
    assert transport.aborted
    reactor.advance(0.1)
    assert stopped.called


def test_stopBeforeStart(reactor: MemoryReactor) -> None:
    """
    A stop of what never started is done at once.
    """
    assert makeService(parse(reactor, "--listen=tcp:8470")).stopService().called


# The exit status.


class Unable:
    """
    An endpoint that can not listen, and says so at once or later.
    """

    def __init__(self, later: bool) -> None:
        self.later = later
        self.answer: defer.Deferred[None] = defer.Deferred()

    def listen(self, factory: object) -> defer.Deferred[None]:
        if not self.later:
            self.fail()
        return self.answer

    def fail(self) -> None:
        self.answer.errback(CannotListenError("any", 8470, OSError(98, "in use")))


def unable(reactor: MemoryReactor, endpoint: Unable, daemon: bool = False) -> HeartbeatServices:
    watch = HeartbeatServices(reactor, daemon=daemon)
    part = Listen(endpoint="tcp:8470")
    objects = {Reference("listen", "tcp:8470"): endpoint}
    watch.start(part, Loaded(Config(parts=(part,)), objects))
    return watch


@pytest.mark.parametrize("later", [False, True])
def test_listeningFails(reactor: MemoryReactor, events: list[LogEvent], later: bool) -> None:
    """
    A port in use is one sentence in the log, and the end of the process, whenever it is noticed.
    """
    endpoint = Unable(later)
    unable(reactor, endpoint).startService()
    assert not reactor.hasStopped
    if later:
        reactor.running = True
        endpoint.fail()
    else:
        reactor.run()
    assert reactor.hasStopped
    assert statuses(reactor) == [EX_OSERR]
    [told] = [event for event in events if "reason" in event]
    assert (told["link"], told["log_level"].name) == ("tcp:8470", "critical")
    assert told["reason"].startswith("CannotListenError: Couldn't listen on any:8470")


def test_listeningFailsInADaemon(reactor: MemoryReactor) -> None:
    """
    twistd tells the shell that its daemon has not started, and why.
    """
    with pytest.raises(CannotListenError):
        unable(reactor, Unable(False), daemon=True).privilegedStartService()


def test_listeningFailsInTheForeground(reactor: MemoryReactor) -> None:
    """
    Where no shell waits, there is no traceback: the sentence in the log and the status suffice.
    """
    watch = unable(reactor, Unable(False))
    watch.privilegedStartService()
    watch.startService()
    assert statuses(reactor) == [EX_OSERR]


@pytest.mark.parametrize(
    ("runner", "daemon"), [({}, False), ({"nodaemon": 0}, True), ({"nodaemon": 1}, False)]
)
def test_whoWaits(reactor: MemoryReactor, runner: Any, daemon: bool, tmp_path: Path) -> None:
    """
    It is known from the runner's own options whether this is going to be a daemon.
    """
    options = parse(reactor, f"--listen=unix:{tmp_path}/here")
    options.parent = runner
    watch = makeService(options)

    def refuse(*arguments: object, **keywords: object) -> None:
        raise CannotListenError("here", "/here", OSError(98, "in use"))

    reactor.listenUNIX = refuse
    if daemon:
        with pytest.raises(CannotListenError):
            watch.privilegedStartService()
    else:
        watch.privilegedStartService()
    assert statuses(reactor) == [EX_OSERR]


def test_listeningIsCancelled(reactor: MemoryReactor) -> None:
    """
    A stop while it is still opening the port is no failure.
    """
    watch = unable(reactor, Unable(True))
    watch.startService()
    assert watch.stopService().called
    assert statuses(reactor) == []


def refuseAll(reactor: MemoryReactor, path: str) -> None:
    """
    Refuse every attempt to connect to a UNIX socket that is under way.
    """
    for client in [one for one in reactor.unixClients if one[0] == path]:
        reactor.unixClients.remove(client)
        client[1].clientConnectionFailed(None, Failure(ConnectionRefusedError()))


def refuseFor(reactor: MemoryReactor, seconds: float, *paths: str) -> None:
    for _ in range(int(seconds / 0.1)):
        for path in paths:
            refuseAll(reactor, path)
        reactor.advance(0.1)


GIVE_UP = ["--give-up-after=5", "--max-delay=0.5"]


def test_givingUp(reactor: MemoryReactor, events: list[LogEvent]) -> None:
    """
    When the only link gives up, the process ends, not with status 0; and not before its time.
    """
    started(reactor, "--connect=unix:/a", *GIVE_UP)
    refuseFor(reactor, 4.9, "/a")
    assert not reactor.hasStopped
    refuseFor(reactor, 1.2, "/a")
    assert reactor.hasStopped
    assert statuses(reactor) == [EX_UNAVAILABLE]
    assert [e["cause"] for e in events if e.get("event") == "gaveUp"] == ["ConnectFailed"]


def test_givingUpOneOfTwo(reactor: MemoryReactor) -> None:
    """
    As long as one link is tried, the process lives; it ends with the last.
    """
    started(reactor, "--connect=unix:/a", "--connect=unix:/b", *GIVE_UP)
    protocol, _ = connect(reactor, "/b")
    refuseFor(reactor, 7, "/a")
    assert not reactor.hasStopped
    lose(protocol, ConnectionError())
    refuseFor(reactor, 7, "/b")
    assert reactor.hasStopped
    assert statuses(reactor) == [EX_UNAVAILABLE]


def test_givingUpBesideAListener(reactor: MemoryReactor, events: list[LogEvent]) -> None:
    """
    A process that listens has work to do, whatever becomes of its own links.
    """
    started(reactor, "--listen=tcp:8470", "--connect=unix:/a", *GIVE_UP)
    refuseFor(reactor, 7, "/a")
    assert "gaveUp" in [event.get("event") for event in events]
    assert not reactor.hasStopped
    assert statuses(reactor) == []


def test_givingUpBesideACheckIn(reactor: MemoryReactor) -> None:
    """
    A check-in is sent only while the links are up, and so keeps no process that has no link.
    """
    started(reactor, "--connect=unix:/a", "--check-in=http://127.0.0.1:9/ping/job", *GIVE_UP)
    refuseFor(reactor, 7, "/a")
    assert reactor.hasStopped
    assert statuses(reactor) == [EX_UNAVAILABLE]


def test_firstStatusWins(reactor: MemoryReactor) -> None:
    """
    One process ends once: two ports that are in use stop the reactor once, with one status.
    """
    watch = HeartbeatServices(reactor)
    watch.end(EX_OSERR)
    watch.end(EX_UNAVAILABLE)
    assert statuses(reactor) == [EX_OSERR]


def test_signalWasFaster(reactor: MemoryReactor) -> None:
    """
    A reactor that a signal has stopped already is not stopped again.
    """

    def stop() -> None:
        raise ReactorNotRunning("Can't stop reactor that isn't running.")

    reactor.stop = stop
    reactor.running = True
    HeartbeatServices(reactor).end(EX_OSERR)
    assert statuses(reactor) == [EX_OSERR]
