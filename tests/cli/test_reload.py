# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Reloader} and L{HeartbeatServices}: a file that is read again, in virtual time and with
connections in memory.  What only processes can show is in C{tests/system/test_config_file.py}.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trustme
from twisted.internet import defer
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.logger import LogEvent, formatEvent

from twisted_heartbeat import CheckInResource, LinkHooks, PresenceHooks
from twisted_heartbeat.checkin.checkedname import CheckedName
from twisted_heartbeat.cli.checkins import RunningCheckIn
from twisted_heartbeat.cli.config.loader import Loader
from twisted_heartbeat.cli.reload import Reloader
from twisted_heartbeat.cli.running import RunningClient, RunningListener
from twisted_heartbeat.cli.service import HeartbeatServices, makeService
from twisted_heartbeat.core import wire

from ..conftest import LoggedErrors
from .test_options import (
    MemoryReactor,
    Transport,
    accept,
    connect,
    lose,
    parse,
    refuseFor,
    spoken,
    statuses,
)

HOOKS = "twisted_heartbeat.LinkHooks"
"""The dotted name of hooks that do nothing."""

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP")


class Reactor(MemoryReactor):
    """
    A reactor whose ports can be closed.

    @ivar soon: what other threads have asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.soon: list[Callable[[], object]] = []
        self.failing: set[int] = set()

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """
        Listen, unless the port is in use.
        """
        if port in self.failing:
            raise CannotListenError(interface, port, OSError(98, "in use"))
        opened = super().listenTCP(port, factory, backlog, interface)
        entry = self.tcpServers[-1]
        opened.stopListening = lambda: defer.succeed(self.tcpServers.remove(entry))
        return opened

    def callFromThread(self, callable: Any, *args: object, **kw: object) -> None:
        self.soon.append(lambda: callable(*args, **kw))

    @property
    def ports(self) -> list[int]:
        """
        The ports that are open.
        """
        return [server[0] for server in self.tcpServers]


class Scene:
    """
    A process with a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reactor = Reactor()
        self.services: HeartbeatServices
        self.links: list[Any] = []

    def begin(self, text: str, *options: str, daemon: bool = False) -> None:
        """
        Start it with this file.
        """
        self.path.write_text(text)
        parsed = parse(self.reactor, f"--config={self.path}", *options)
        parsed.parent = {"nodaemon": not daemon}
        self.services = makeService(parsed, {})
        self.services.privilegedStartService()
        self.services.startService()
        self.reactor.run = lambda: None
        self.reactor.running = True
        for call, args, kw in self.reactor.whenRunningHooks:
            call(*args, **kw)
        self.reactor.whenRunningHooks.clear()

    def reload(self, text: str) -> None:
        """
        Let it read this file.
        """
        self.path.write_text(text)
        [reloader] = [each for each in self.services if isinstance(each, Reloader)]
        assert reloader.reload().called

    def listener(self, port: int) -> RunningListener:
        found = self.services.parts["listen", f"tcp:{port}"]
        assert isinstance(found, RunningListener)
        return found

    def client(self, path: str, name: str = "") -> RunningClient:
        found = self.services.parts["connect", f"unix:{path}", name]
        assert isinstance(found, RunningClient)
        return found

    def watched(self) -> dict[str, CheckedName]:
        """
        The names that have to check in.
        """
        found = [each for each in self.services if isinstance(each, CheckInResource)]
        return {name: each for one in found for name, each in one.names.items()}

    def join(self, port: int, name: str = "") -> tuple[Any, Transport]:
        """
        A peer that connects to a port, and says hello.
        """
        [server] = [each for each in self.reactor.tcpServers if each[0] == port]
        protocol, transport = accept(server[1])
        self.links.append(protocol)
        protocol.dataReceived(wire.encode(wire.Hello(name)))
        return protocol, transport

    def notified(self) -> list[str]:
        """
        What systemd is told of reloads from now on: their begin, and what was wrong.
        """
        told: list[str] = []

        class Notifier:
            def reloading(self) -> None:
                told.append("reloading")

            def reloaded(self, fault: str) -> None:
                told.append(fault)

            def __getattr__(self, name: str) -> Callable[[], None]:
                return lambda: None

        self.services.notifier = Notifier()  # type: ignore[assignment]
        return told

    def connect(self, path: str) -> tuple[Any, Transport]:
        """
        A peer that takes the attempt to connect to a UNIX socket.
        """
        protocol, transport = connect(self.reactor, path)
        self.links.append(protocol)
        return protocol, transport

    def end(self) -> None:
        """
        Stop the process.  Its peers close their connections.
        """
        stopping = self.services.stopService()
        while not stopping.called:
            lose(self.links.pop(), ConnectionDone())


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """
    A process whose file is C{hb.toml}.
    """
    previous = signal.getsignal(signal.SIGHUP)
    made = Scene(tmp_path / "hb.toml")
    yield made
    made.end()
    assert signal.getsignal(signal.SIGHUP) is previous


def hello(transport: Transport) -> wire.Hello:
    [found] = [frame for frame in spoken(transport) if isinstance(frame, wire.Hello)]
    return found


# The plan, carried out.


def test_keptListenerKeepsItsPort(scene: Scene) -> None:
    """
    A listener whose text is unchanged keeps its port and its links, while others come and go.
    """
    scene.begin("listen = ['tcp:1', 'tcp:2']")
    port = scene.reactor.tcpServers[0]
    _, transport = scene.join(1)
    _, parting = scene.join(2)
    scene.reload("listen = ['tcp:3', 'tcp:1']")
    assert scene.reactor.tcpServers[0] is port
    assert scene.reactor.ports == [1, 3]
    assert not transport.disconnecting
    scene.reactor.advance(0.5)
    assert parting.disconnecting
    assert isinstance(spoken(parting)[-1], wire.Goodbye)


def test_newTextForTheSamePort(scene: Scene) -> None:
    """
    The old port is closed before the new one of the same number is opened.
    """
    scene.begin("listen = 'tcp:1'")
    scene.reactor.failing.add(1)
    listenTCP = scene.reactor.listenTCP

    def listen(port: int, *arguments: Any, **keywords: Any) -> Any:
        assert scene.reactor.ports == []
        scene.reactor.failing.clear()
        return listenTCP(port, *arguments, **keywords)

    scene.reactor.listenTCP = listen  # type: ignore[method-assign]
    scene.reload("listen = 'tcp:1:interface=127.0.0.1'")
    assert scene.reactor.ports == [1]


def test_settingsOfAListener(scene: Scene) -> None:
    """
    New links of a listener have the new settings; the old ones stay, and keep theirs.
    """
    scene.begin("listen = 'tcp:1'\nname = 'x'\n[heartbeat]\nwithin = 8")
    _, old = scene.join(1)
    scene.reload("listen = 'tcp:1'\nname = 'y'\n[heartbeat]\nwithin = 4")
    _, new = scene.join(1)
    assert hello(old) == wire.Hello("x", needs=8.0, offers=8.0)
    assert hello(new) == wire.Hello("y", needs=4.0, offers=4.0)
    scene.reactor.pump([0.05] * 85)
    assert new.aborted and not old.aborted
    scene.reactor.pump([0.05] * 80)
    assert old.aborted


def test_limitsOfAListenerHoldAtOnce(scene: Scene) -> None:
    """
    A new limit refuses newcomers, and drops no link of those that are there.
    """
    scene.begin("listen = 'tcp:1'")
    peers = [scene.join(1, name) for name in ("a", "b")]
    scene.reload("listen = 'tcp:1'\n[server-limits]\npeers = 2")
    _, refused = scene.join(1, "c")
    assert isinstance(spoken(refused)[-1], wire.Goodbye)
    assert not any(transport.disconnecting for _, transport in peers)


def test_admitOfAListenerHoldsAtOnce(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The function that admits peers can be exchanged.
    """
    module = ModuleType("application")
    module.admit = lambda *arguments: "closed today"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "application", module)
    scene.begin("[listen]\nendpoint = 'tcp:1'")
    scene.reload("[listen]\nendpoint = 'tcp:1'\nadmit = 'application.admit'")
    _, transport = scene.join(1)
    goodbye = spoken(transport)[-1]
    assert isinstance(goodbye, wire.Goodbye) and goodbye.reason == "closed today"


def test_namesAreOneListenersAcrossReloads(scene: Scene) -> None:
    """
    A changed listener knows the names of its old links: two peers of one name are still refused.
    """
    scene.begin("listen = 'tcp:1'")
    old, transport = scene.join(1, "gateway-7")
    scene.reload("listen = 'tcp:1'\n[heartbeat]\nwithin = 4")
    assert scene.listener(1).factory.named("gateway-7") is not None
    scene.join(1, "gateway-7")
    # The newcomer's claim has the old link probed.
    assert any(isinstance(frame, wire.Ping) for frame in spoken(transport))


def test_settingsOfALink(scene: Scene) -> None:
    """
    A link that is up is not touched by new settings; the next one has them.
    """
    scene.begin("connect = 'unix:/a'\n[heartbeat]\nwithin = 8")
    protocol, old = scene.connect("/a")
    service = scene.client("/a").service
    text = "connect = 'unix:/a'\n[heartbeat]\nwithin = 4\n[backoff]\nmaximum = 0.1\njitter = false"
    scene.reload(text)
    assert scene.client("/a").service is service
    assert not old.disconnecting
    assert service.link is not None and service.link.isUp
    lose(protocol, ConnectionDone())
    scene.reactor.advance(0.1)
    _, new = scene.connect("/a")
    assert [hello(each).needs for each in (old, new)] == [8.0, 4.0]


def test_linkUnderAnotherName(scene: Scene) -> None:
    """
    A link that gets another name is another link: the other side knows it by its name.
    """
    scene.begin("[connect]\nendpoint = 'unix:/a'\nname = 'x'")
    protocol, old = scene.connect("/a")
    scene.reload("[connect]\nendpoint = 'unix:/a'\nname = 'y'")
    assert old.disconnecting
    _, new = scene.connect("/a")
    assert hello(new).name == "y"
    lose(protocol, ConnectionDone())


def test_hooksOfLaterLinks(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Hooks are told of the whole life of a link: new ones begin with the next link, old ones end with
    theirs.
    """
    told: list[str] = []

    def hooks(name: str) -> LinkHooks:
        class Hooks(LinkHooks):
            def connected(self, link: object) -> None:
                told.append(f"{name} connected")

            def disconnected(self, link: object, cause: object) -> None:
                told.append(f"{name} disconnected")

        return Hooks()

    module = ModuleType("application")
    module.one, module.two = hooks("one"), hooks("two")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "application", module)
    scene.begin("hooks = 'application.one'\nlisten = 'tcp:1'")
    old, _ = scene.join(1)
    scene.reload("hooks = 'application.two'\nlisten = 'tcp:1'")
    new, _ = scene.join(1)
    lose(old, ConnectionDone())
    lose(new, ConnectionDone())
    assert told == ["one connected", "two connected", "one disconnected", "two disconnected"]


def test_optionsStayInForce(scene: Scene) -> None:
    """
    What the command line says goes before the new file, too.
    """
    scene.begin("listen = 'tcp:1'", "--within=8", "--listen=tcp:9")
    scene.reload("listen = 'tcp:2'\n[heartbeat]\nwithin = 4")
    assert sorted(scene.reactor.ports) == [2, 9]
    assert hello(scene.join(2)[1]).needs == 8.0


def test_pageComesAndGoes(scene: Scene) -> None:
    """
    A status page can be added while the process runs, and shows the peers that came before; it can
    get another title and token on the same port, and be removed.
    """
    scene.begin("listen = 'tcp:1'")
    scene.join(1, "gateway-7")
    scene.reload("listen = 'tcp:1'\nstatus.endpoint = '2'")
    assert scene.reactor.ports == [1, 2]
    site = scene.reactor.tcpServers[1][1]
    page = site.resource
    scene.reload("listen = 'tcp:1'\n[status]\nendpoint = '2'\ntitle = 'Fleet'")
    assert scene.reactor.tcpServers[1][1] is site
    assert site.resource is not page
    token = scene.path.with_name("token")
    token.write_text("a" * 20)
    text = f"listen = 'tcp:1'\n[status]\nendpoint = '2'\ntoken-file = '{token}'"
    scene.reload(text)
    page = site.resource
    scene.reload(text)
    assert site.resource is page
    token.write_text("b" * 20)
    scene.reload(text)
    assert site.resource is not page
    scene.reload("listen = 'tcp:1'")
    assert scene.reactor.ports == [1]


def test_whatNeedsARestart(scene: Scene, events: list[LogEvent]) -> None:
    """
    What can not be changed is named by the log, each time, and the rest of the file holds.
    """
    scene.begin("listen = 'tcp:1'\nhttp.endpoint = 'tcp:9'")
    (scene.path.parent / "tokens").write_text("* " + "a" * 16)
    tokens = f"http.token-file = '{scene.path.parent}/tokens'"
    for _ in range(2):
        scene.reload(f"listen = 'tcp:2'\nhttp.endpoint = 'tcp:9'\nstore.keep = 6\n{tokens}")
        assert scene.reactor.ports == [9, 2]
    told = [event["key"] for event in events if "key" in event]
    assert told == ["store.keep", "http.token-file"] * 2


def test_presenceChanges(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, events: list[LogEvent]
) -> None:
    """
    The settings of presence hold at once, and the log names them.  Hooks that are added are told of
    what changes from then on, those that are removed of nothing more, and those that stay keep what
    they have gathered.
    """
    module = ModuleType("application")
    monkeypatch.setitem(sys.modules, "application", module)

    class Hooks(PresenceHooks):
        def __init__(self) -> None:
            self.told: list[str] = []
            module.made.append(self)

        def changed(self, change: Any) -> None:
            self.told.append(f"{change.name} {change.state}")

    module.made = []  # type: ignore[attr-defined]
    for name in ("A", "B", "C"):
        setattr(module, name, type(name, (Hooks,), {}))
    scene.begin("listen = 'tcp:1'\npresence.hooks = ['application.A', 'application.B']")
    first, _ = scene.join(1, "pump")
    scene.reactor.advance(0)
    settings = "presence.grace = 5\npresence.merge = true"
    hooks = "presence.hooks = ['application.B', 'application.C']"
    scene.reload(f"listen = 'tcp:1'\n{settings}\n{hooks}")
    lose(first, ConnectionDone())
    scene.reactor.advance(0)
    scene.join(1, "fan")
    scene.reactor.pump([0.25] * 22)
    one, two, three = (made.told for made in module.made)
    after = ["tcp/pump suspect", "fan up", "tcp/pump down"]
    assert (one, two, three) == (["tcp/pump up"], ["tcp/pump up", *after], after)
    assert scene.services.config.presence.grace == 5
    lines = [formatEvent(event) for event in events]
    assert "presence: changed grace, merge, hooks" in lines
    assert any(line.endswith("was read again: 1 kept, 1 changed") for line in lines)


def test_checkInsComeAndGo(scene: Scene, events: list[LogEvent]) -> None:
    """
    Endpoints for check-ins can be added and removed; what checks in is the same at all of them.
    After the last of them nothing is watched that could not check in, and a later one begins anew.
    """
    checks = "\n[[check]]\nname = 'job'"
    scene.begin("listen = 'tcp:1'")
    scene.reload(f"listen = 'tcp:1'\nhttp.endpoint = ['tcp:2', 'tcp:3']{checks}")
    assert scene.reactor.ports == [1, 2, 3]
    scene.reload(f"listen = 'tcp:1'\nhttp.endpoint = ['tcp:3', 'tcp:4']{checks}")
    assert scene.reactor.ports == [1, 3, 4]
    assert [event["key"] for event in events if "key" in event] == []
    assert set(scene.watched()) == {"job"}
    scene.reload("listen = 'tcp:1'")
    assert (scene.reactor.ports, scene.watched()) == ([1], {})
    scene.reload(f"listen = 'tcp:1'\nhttp = {{endpoint = 'tcp:4', hooks = '{HOOKS}'}}{checks}")
    assert set(scene.watched()) == {"job"}
    assert [event["key"] for event in events if "key" in event] == []


def test_checksChange(scene: Scene, events: list[LogEvent]) -> None:
    """
    Names that have to check in can be added, removed and changed.
    """
    scene.begin("http.endpoint = 'tcp:2'\n[[check]]\nname = 'job'")
    job = scene.watched()["job"]
    hour = "[[check]]\nname = 'job'\nperiod = 3600\n[[check]]\nname = 'task'"
    scene.reload(f"http.endpoint = 'tcp:2'\n{hour}")
    assert {name: found.check.period for name, found in scene.watched().items()} == {
        "job": 3600,
        "task": 86400,
    }
    assert scene.watched()["job"] is job
    scene.reload("http.endpoint = 'tcp:2'")
    assert scene.watched() == {}
    assert [event["key"] for event in events if "key" in event] == []


def test_checksInWhileLinksAreUp(scene: Scene) -> None:
    """
    A check-in is sent while all links are up: it begins with the last of them, ends with the first
    that is lost, and its interval can be changed.
    """
    checkIn = "check-in = 'http://127.0.0.1:9/ping/s3cret/job'\n"
    scene.begin(f"{checkIn}connect = ['unix:/a', 'unix:/b']")
    [running] = [each for each in scene.services.parts.values() if isinstance(each, RunningCheckIn)]

    def isSending() -> bool:
        return bool(running.service._checkIn.running)

    assert not isSending()
    one, _ = scene.connect("/a")
    assert not isSending()
    scene.connect("/b")
    assert isSending()
    lose(one, ConnectionDone())
    assert not isSending()
    scene.reload(
        "connect = 'unix:/b'\n[check-in]\nurl = 'http://127.0.0.1:9/ping/s3cret/job'\nevery = 5"
    )
    assert isSending()
    assert running.service._checkIn.interval == 5


# Faults.


def test_wrongFileChangesNothing(scene: Scene, events: list[LogEvent]) -> None:
    """
    A wrong file leaves all as it is, and each of its faults is in the log.
    """
    scene.begin("listen = 'tcp:1'")
    config = scene.services.config
    scene.reload("listen = 'tcp:2'\nx = 1\n[heartbeat]\nwithin = 0")
    assert scene.reactor.ports == [1]
    assert scene.services.config == config
    sentences = [event["sentence"] for event in events if "sentence" in event]
    assert [sentence.split(": ")[1].split(" ")[0] for sentence in sentences] == [
        "x",
        "heartbeat.within",
    ]
    scene.reload("listen = 'tcp:2'")
    assert scene.reactor.ports == [2]


def test_missingFileChangesNothing(scene: Scene, events: list[LogEvent]) -> None:
    """
    So does a file that is gone.
    """
    scene.begin("listen = 'tcp:1'")
    scene.path.write_text("")
    scene.path.unlink()
    [reloader] = [each for each in scene.services if isinstance(each, Reloader)]
    assert reloader.reload().called
    assert scene.reactor.ports == [1]
    assert any("cannot be read" in str(event.get("sentence")) for event in events)


def test_fileWithoutParts(scene: Scene, events: list[LogEvent]) -> None:
    """
    A file that leaves nothing to run is a mistake, not an order to stop everything.
    """
    scene.begin("listen = 'tcp:1'")
    scene.reload("# listen = 'tcp:1'")
    assert scene.reactor.ports == [1]
    assert any("nothing to run" in str(event.get("sentence")) for event in events)


def test_expiredCertificate(scene: Scene, events: list[LogEvent]) -> None:
    """
    An expired certificate holds up nothing, because the clock may be wrong, but the log warns of
    it: when the port opens, and when the file is read again.
    """

    def write(year: int) -> None:
        issued = trustme.CA().issue_cert("localhost", not_after=datetime(year, 1, 1))
        issued.private_key_and_cert_chain_pem.write_to_path(scene.path.parent / "key.pem")

    def warnings() -> int:
        return sum("has expired" in event.get("log_format", "") for event in events)

    text = f"listen = 'ssl:1:privateKey={scene.path.parent}/key.pem'"
    write(2020)
    scene.begin(text)
    assert warnings() == 1
    scene.reload(text)
    assert warnings() == 2
    write(2090)
    scene.reload(text)
    assert warnings() == 2


def test_certificateThatStays(scene: Scene, events: list[LogEvent]) -> None:
    """
    The log tells that a certificate was read again only if it was, however often it was before.
    """
    path = scene.path.parent / "key.pem"
    text = f"listen = 'ssl:1:privateKey={path}'"
    right = trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.bytes()

    def told(content: bytes, *, first: bool = False) -> list[str]:
        path.write_bytes(content)
        before = len(events)
        scene.begin(text) if first else scene.reload(text)
        said = (event.get("log_format", "") for event in events[before:])
        return [words for words in said if "ertificate" in words]

    again = "{part}: the certificate was read again"
    stays = "The old certificate stays in use: {sentence}"
    assert told(right, first=True) == []
    for content, words in ((b"no", stays), (right, again), (b"no", stays), (b"no", stays)):
        assert told(content) == [words]
    assert told(right) == [again]


@pytest.mark.parametrize("daemon", [False, True])
def test_newPortIsInUse(scene: Scene, events: list[LogEvent], daemon: bool) -> None:
    """
    A new port that is in use does not end a process that works, be it a daemon or not, and holds up
    no other part; systemd is told, and the next reload tries it again.
    """
    scene.begin("listen = 'tcp:1'", daemon=daemon)
    told = scene.notified()
    scene.reactor.failing.add(2)
    scene.reload("listen = ['tcp:1', 'tcp:2', 'tcp:3']")
    assert scene.reactor.ports == [1, 3]
    assert not scene.reactor.hasStopped and statuses(scene.reactor) == []
    assert [event["link"] for event in events if event["log_level"].name == "critical"] == ["tcp:2"]
    scene.reactor.failing.clear()
    scene.reload("listen = ['tcp:1', 'tcp:2', 'tcp:3']")
    assert scene.reactor.ports == [1, 3, 2]
    assert told == ["reloading", "listen tcp:2 could not be opened", "reloading", ""]


def test_linkThatHasGivenUp(scene: Scene) -> None:
    """
    A link that has given up is tried again after a reload, because the operator has done something.
    """
    backoff = "[backoff]\nmaximum = 0.5\nmax-elapsed = 5"
    scene.begin(f"connect = 'unix:/a'\nlisten = 'tcp:1'\n{backoff}")
    refuseFor(scene.reactor, 7, "/a")
    assert scene.client("/a").hasGivenUp
    assert scene.reactor.unixClients == []
    scene.reload(f"connect = 'unix:/a'\nlisten = 'tcp:1'\n{backoff}")
    assert not scene.client("/a").hasGivenUp
    scene.connect("/a")


def test_stopWhilePartsAreLeaving(scene: Scene) -> None:
    """
    A stop also waits for the links of a listener that the last reload has removed.
    """
    scene.begin("listen = ['tcp:1', 'tcp:2']")
    protocol, transport = scene.join(2)
    scene.reload("listen = 'tcp:1'")
    stopped = scene.services.stopService()
    assert not stopped.called
    lose(protocol, ConnectionDone())
    assert stopped.called


# The signal.


def test_handlerOnlyAsksTheReactor(scene: Scene) -> None:
    """
    SIGHUP in the middle of anything changes nothing until the reactor's next turn.
    """
    scene.begin("listen = 'tcp:1'")
    scene.path.write_text("listen = 'tcp:2'")
    os.kill(os.getpid(), signal.SIGHUP)
    assert scene.reactor.ports == [1]
    [call] = scene.reactor.soon
    call()
    assert scene.reactor.ports == [2]


def test_reloadDuringAReload(scene: Scene) -> None:
    """
    A signal that comes while old ports are still closing is not lost: the file is read once more.
    """
    scene.begin("listen = 'tcp:1'")
    closing: defer.Deferred[None] = defer.Deferred()
    port = scene.reactor.tcpServers[0]
    listener: Any = scene.listener(1).service
    listener._opening.addCallback(lambda opened: _Slow(opened, closing))
    [reloader] = [each for each in scene.services if isinstance(each, Reloader)]
    scene.path.write_text("listen = 'tcp:2'")
    first = reloader.reload()
    assert not first.called
    for number in (3, 4):
        scene.path.write_text(f"listen = 'tcp:{number}'")
        reloader.reload()
    assert scene.reactor.tcpServers == [port]
    closing.callback(None)
    assert first.called
    assert scene.reactor.ports == [4]


def test_signalWhilePortsOpen(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A signal that comes while a port takes its time to open waits for it, because systemd would be
    told READY at the end of the reload.
    """
    opening: defer.Deferred[Any] = defer.Deferred()
    with monkeypatch.context() as patch:
        patch.setattr(TCP4ServerEndpoint, "listen", lambda endpoint, factory: opening)
        scene.begin("listen = 'tcp:1'")
    told = scene.notified()
    scene.reload("listen = ['tcp:1', 'tcp:2']")
    assert (told, scene.reactor.ports) == ([], [])
    opening.callback(scene.reactor.listenTCP(1, scene.listener(1).factory))
    assert (told, scene.reactor.ports) == (["reloading", ""], [1, 2])


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
@pytest.mark.parametrize("step", ["load", "apply"])
def test_reloadThatFails(
    scene: Scene,
    step: str,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    loggedErrors: LoggedErrors,
) -> None:
    """
    Whatever goes wrong, systemd is told that the reload is over and why, and the next one works.
    """

    def fail(*arguments: object) -> None:
        raise error("planted")

    scene.begin("listen = 'tcp:1'")
    told = scene.notified()
    with monkeypatch.context() as patched:
        patched.setattr({"load": Loader, "apply": HeartbeatServices}[step], step, fail)
        scene.reload("listen = 'tcp:2'")
    assert len(loggedErrors.flush(error)) == 1
    assert scene.reactor.ports == [1]
    scene.reload("listen = 'tcp:2'")
    assert scene.reactor.ports == [2]
    assert told == ["reloading", "the log says why", "reloading", ""]


class _Slow:
    """
    A port that closes later.
    """

    def __init__(self, port: Any, closing: defer.Deferred[None]) -> None:
        self.port = port
        self.closing = closing

    def stopListening(self) -> defer.Deferred[None]:
        return self.closing.addCallback(lambda _: self.port.stopListening())


@pytest.fixture
def ignored() -> Iterator[None]:
    """
    A process that nohup has started.
    """
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, previous)


def test_signalWhileStopping(scene: Scene) -> None:
    """
    While links are closing, SIGHUP does nothing; otherwise it would end the process.
    """
    scene.begin("listen = 'tcp:1'")
    protocol, _ = scene.join(1)
    stopping = scene.services.stopService()
    scene.path.write_text("listen = 'tcp:2'")
    os.kill(os.getpid(), signal.SIGHUP)
    for call in scene.reactor.soon:
        call()
    assert not stopping.called
    assert scene.reactor.ports == []
    lose(protocol, ConnectionDone())
    assert stopping.called


def test_signalAfterTheStop(scene: Scene) -> None:
    """
    When the reactor has stopped, SIGHUP still does nothing until the process has ended.
    """
    previous = signal.getsignal(signal.SIGHUP)
    scene.begin("listen = 'tcp:1'")
    for call, args, kw in scene.reactor.triggers["before"]["shutdown"]:
        call(*args, **kw)
    try:
        assert scene.services.stopService().called
        os.kill(os.getpid(), signal.SIGHUP)
        assert scene.reactor.soon == []
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_ignoredSignalStaysIgnored(ignored: None, tmp_path: Path) -> None:
    """
    A process that was started to survive SIGHUP keeps ignoring it.
    """
    scene = Scene(tmp_path / "hb.toml")
    scene.begin("listen = 'tcp:1'")
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    scene.services.stopService()


def test_noHandlerWithoutAFile() -> None:
    """
    Without a file SIGHUP means what it always meant.
    """
    previous = signal.getsignal(signal.SIGHUP)
    reactor = Reactor()
    services = makeService(parse(reactor, "--listen=tcp:1"), {})
    services.startService()
    for call, args, kw in reactor.whenRunningHooks:
        call(*args, **kw)
    assert signal.getsignal(signal.SIGHUP) is previous
    services.stopService()


def test_noHandlerBeforeTheReactorRuns(tmp_path: Path) -> None:
    """
    The handler is installed by the running reactor, after its own.
    """
    previous = signal.getsignal(signal.SIGHUP)
    (tmp_path / "hb.toml").write_text("listen = 'tcp:1'")
    services = makeService(parse(Reactor(), f"--config={tmp_path}/hb.toml"), {})
    services.startService()
    assert signal.getsignal(signal.SIGHUP) is previous
    services.stopService()
