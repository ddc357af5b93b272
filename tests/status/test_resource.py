# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The status resource over HTTP: its routes, who may look, and what a client can not do.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import quote

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from twisted_heartbeat import MemoryStore, PeerHung, StatusResource

from ..support.presence import FailingStore
from .fleet import Fleet
from .web import Answer, Connection

TOKEN = "correct-horse-battery"

OTHER = IPv4Address("TCP", "192.0.2.7", 8080)


class Scene:
    """
    A resource in virtual time.
    """

    def __init__(self, store: Any = None, **settings: Any) -> None:
        self.clock = Clock()
        self.fleet = Fleet(self.clock, store=store)
        self.resource = StatusResource(self.fleet.table, clock=self.clock, **settings)
        self.clock.advance(0)
        self._open: list[Connection] = []

    def connect(self, host: Any = None) -> Connection:
        """
        A new connection.
        """
        connection = Connection(
            self.resource, self.clock, host or IPv4Address("TCP", "127.0.0.1", 1)
        )
        self._open.append(connection)
        return connection

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        """
        The answer to one request.
        """
        connection = self.connect()
        connection.ask(path, method, **headers)
        self.clock.pump([0.05] * 5)
        return connection.answer()

    def end(self) -> None:
        """
        Leave nothing behind.
        """
        for connection in self._open:
            connection.close()
        self.resource.close()
        self.fleet.stop()


@pytest.fixture
def scene() -> Iterator[Scene]:
    """
    A page that anybody on this machine may see.
    """
    made = Scene(title="The <b>north</b> plant")
    yield made
    made.end()


@pytest.fixture
def locked() -> Iterator[Scene]:
    """
    A page that asks for a token.
    """
    made = Scene(token=TOKEN)
    yield made
    made.end()


def test_page(scene: Scene) -> None:
    """
    The page and its files are served from the package, with types that a browser accepts.
    """
    page = scene.ask("/")
    assert page.status == 200
    assert page.header("Content-Type") == "text/html; charset=utf-8"
    for name, kind in (
        ("status.css", "text/css; charset=utf-8"),
        ("main.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ):
        assert name.encode() in page.body
        assert scene.ask(f"/{name}").header("Content-Type") == kind


def test_pageHasNoInlineCode(scene: Scene) -> None:
    """
    Nothing in the page would be refused by its own policy, and nothing comes from elsewhere.
    """
    page = scene.ask("/").body.decode()
    for forbidden in (
        "<script>",
        "<style",
        "style=",
        " onclick=",
        "javascript:",
        "http:",
        "https:",
    ):
        assert forbidden not in page


def test_browserKeepsTheFiles(scene: Scene) -> None:
    """
    A file that has not changed is not sent again.
    """
    first = scene.ask("/main.js")
    assert first.header("Cache-Control") == "no-cache"
    again = scene.ask("/main.js", If_None_Match=first.header("ETag"))
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize(
    "path",
    ["/", "/presence.json", "/presence/x.json", "/events", "/healthz", "/nothing", "/metrics"],
)
def test_everyAnswerIsGuarded(scene: Scene, path: str) -> None:
    """
    Whatever the answer is, the browser gets the strict policy, and keeps no data.
    """
    answer = scene.ask(path)
    policy = answer.header("Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("X-Frame-Options") == "DENY"
    assert answer.header("Referrer-Policy") == "no-referrer"
    assert answer.header("Cache-Control") == ("no-cache" if path == "/" else "no-store")
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_allPeers(scene: Scene) -> None:
    """
    All peers, the worst first, with the title, the newest changes and the id that the stream reads
    on from.
    """
    scene.fleet.up("a", "b")
    scene.fleet.up("c", carrier="udp")
    scene.fleet.down("b", cause=PeerHung("no answer"))
    scene.clock.advance(1)
    answer = scene.ask("/presence.json")
    assert answer.header("Content-Type") == "application/json"
    found = answer.json()
    assert found["title"] == "The <b>north</b> plant"
    peers = {peer["name"]: peer for peer in found["peers"]}
    assert {name: peer["state"] for name, peer in peers.items()} == {
        "a": "up",
        "b": "down",
        "c": "up",
    }
    assert peers["c"]["carriers"] == ["udp"]
    assert (peers["b"]["cause"], peers["b"]["reason"]) == ("PeerHung", "no answer")
    assert peers["a"]["rtt"] == 0.02
    assert found["peers"][0]["name"] == "b"
    assert found["counts"] == {"up": 2, "suspect": 0, "down": 1, "unknown": 0}
    assert [change["name"] for change in found["changes"]] == ["a", "b", "c", "b"]
    assert found["id"].endswith(f".{scene.fleet.table.latest}")


def test_noPeers(scene: Scene) -> None:
    """
    An empty table is an empty list.
    """
    assert scene.ask("/presence.json").json()["peers"] == []


def test_thousandsOfPeersAreWhole(scene: Scene) -> None:
    """
    What is encoded in slices is one list in the end.  Each slice is a line, which a page can read
    before the next one has come.
    """
    names = [f"peer-{number}" for number in range(1001)]
    scene.fleet.up(*names)
    connection = scene.connect()
    connection.ask("/presence.json")
    scene.clock.advance(0)
    answer = connection.answer()
    assert [peer["name"] for peer in answer.json()["peers"]] == names
    head, *slices, end = answer.body.decode().split("\n")
    assert json.loads(f"{head}]}}")["counts"]["up"] == 1001
    assert [len(json.loads(f"[{line.rstrip(',')}]")) for line in slices] == [200] * 5 + [1]
    assert end == "]}"


HOSTILE = [
    "a/b",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "\u202egnp.exe",
    "quote\"'",
    "nul\x00line\nfeed",
    "ünïcödé 🚨",
    "x.json",
    "a?b#c",
    "%2e%2e",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_onePeer(scene: Scene, name: str) -> None:
    """
    Each peer is found by its name, whatever the name is; and all that is sent is ASCII.
    """
    scene.fleet.up(name)
    scene.fleet.down(name)
    scene.fleet.up(name)
    scene.clock.advance(1)
    answer = scene.ask(f"/presence/{quote(name, safe='')}.json")
    assert answer.status == 200
    assert answer.body.isascii()
    found = answer.json()
    assert found["peer"]["name"] == name
    assert [change["state"] for change in found["history"]] == ["up", "down", "up"]


def test_slashesNeedNoEscape(scene: Scene) -> None:
    """
    The name of a peer that is not proven begins with its carrier, and can be typed.
    """
    scene.fleet.up("udp/a/b")
    [name] = scene.fleet.table.peers
    assert scene.ask(f"/presence/{quote(name)}.json").json()["peer"]["name"] == name


@pytest.mark.parametrize("path", ["/presence/none.json", "/presence/.json", "/presence/%ff.json"])
def test_unknownPeer(scene: Scene, path: str) -> None:
    """
    There is no peer of another name, and the answer says what a name looks like, not what was sent.
    """
    answer = scene.ask(path)
    assert answer.status == 404
    assert answer.json() == {
        "error": "there is no peer of this name: a name is asked for as in /presence.json, "
        "such as tcp/sensor-17"
    }


def test_historyIsLimited(scene: Scene) -> None:
    """
    A request says how many changes it wants, within reason.
    """
    for _ in range(5):
        scene.fleet.up("a")
        scene.fleet.down("a")
    scene.clock.advance(1)

    def changes(query: str) -> int:
        return len(scene.ask(f"/presence/a.json{query}").json()["history"])

    assert changes("?limit=3") == 3
    for odd in ("?limit=x", "?limit=-1", "?limit=99999999999999999999", ""):
        assert changes(odd) == 10
    assert changes("?limit=0") == 1


def test_historyTellsSinceWhenItIsKnown(scene: Scene) -> None:
    """
    With a history comes the time since which it is whole: that of the oldest change that is kept of
    any peer, or of its own first one if a request has asked for fewer.
    """
    for name in "abc":
        scene.fleet.up(name)
        scene.clock.advance(0.1)

    def known(path: str) -> object:
        return scene.ask(f"/presence/{path}").json()["knownFrom"]

    def since(name: str) -> object:
        return scene.ask(f"/presence/{name}.json").json()["history"][0]["at"]

    assert known("a.json") == known("c.json") == since("a")
    scene.fleet.down("c")
    scene.fleet.up("c")
    scene.clock.advance(1)
    assert known("c.json?limit=2") == scene.ask("/presence/c.json").json()["history"][1]["at"]


def test_historyThatIsNotKept() -> None:
    """
    A peer whose changes are not kept any more is known from the oldest change that is.
    """
    scene = Scene(store=MemoryStore(keep=2))
    for name in "abcd":
        scene.fleet.up(name)
        scene.clock.advance(1)
    lost, kept = (scene.ask(f"/presence/{name}.json").json() for name in "ac")
    assert lost["history"] == []
    assert lost["knownFrom"] == kept["knownFrom"] == kept["history"][0]["at"]
    scene.end()


def test_failingStore(scene: Scene, loggedErrors: Any) -> None:
    """
    A history that can not be read is an error that says so.
    """
    scene.fleet.up("a")
    table = scene.fleet.table
    table.history = lambda name, limit: fail(OSError("disk"))  # type: ignore[method-assign]
    answer = scene.ask("/presence/a.json")
    assert answer.status == 503
    assert "store" in answer.json()["error"]
    assert loggedErrors.flush(OSError)


def test_slowStore(scene: Scene) -> None:
    """
    A store that does not answer keeps nobody from seeing who is alive.
    """
    scene.fleet.up("a")
    table = scene.fleet.table
    table.changes = lambda since, limit: Deferred()  # type: ignore[method-assign]
    connection = scene.connect()
    connection.transport.clear()
    connection.protocol.dataReceived(b"GET /presence.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert connection.transport.value() == b""
    scene.clock.pump([2.0, 0.01, 0.01])
    assert len(connection.answer().json()["peers"]) == 1


def test_clientThatLeaves(scene: Scene) -> None:
    """
    What is asked for a client that has gone is given up, and nothing is logged as an error.
    """
    scene.fleet.up("a")
    cancelled: list[object] = []
    table = scene.fleet.table
    table.history = lambda name, limit: Deferred(cancelled.append)  # type: ignore[method-assign]
    connection = scene.connect()
    connection.protocol.dataReceived(b"GET /presence/a.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
    connection.close()
    scene._open.remove(connection)
    assert len(cancelled) == 1


def test_stream(scene: Scene) -> None:
    """
    The stream begins at the id that the client has seen: in the header that a browser sends when
    it comes back, or in the address.
    """
    scene.fleet.up("a")
    scene.clock.advance(1)
    seen = scene.ask("/presence.json").json()["id"]
    scene.fleet.up("b")
    scene.clock.advance(1)
    header = scene.ask("/events", Last_Event_ID=seen)
    assert header.header("Content-Type") == "text/event-stream"
    address = scene.ask(f"/events?since={seen}")
    for answer in (header, address):
        assert b'"name":"b"' in answer.body
        assert b'"name":"a"' not in answer.body
    assert b'"name":' not in scene.ask("/events").body


def test_strangeLastEventId(scene: Scene, events: list[Any]) -> None:
    """
    A C{Last-Event-ID} that is no text says nothing about this table, and makes no error.
    """
    connection = scene.connect()
    connection.protocol.dataReceived(
        b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\nLast-Event-ID: a.\xb2\r\n\r\n"
    )
    assert connection.answer().status == 200
    assert b"event: gap" in connection.answer().body
    assert not [event for event in events if "log_failure" in event]


def test_streamsAreLimited() -> None:
    """
    One stream too many is told to come back.
    """
    scene = Scene(maxStreams=2)
    assert [scene.ask("/events").status for _ in range(3)] == [200, 200, 503]
    assert scene.ask("/events").header("Retry-After") == "5"
    scene.end()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_onlyReading(scene: Scene, method: str) -> None:
    """
    Nothing can be changed from here.
    """
    answer = scene.ask("/presence.json", method, Content_Length="0")
    assert answer.status == 405
    assert answer.header("Allow") == "GET, HEAD"


@pytest.mark.parametrize("path", ["/", "/main.js", "/presence.json", "/events", "/healthz"])
def test_head(scene: Scene, path: str) -> None:
    """
    HEAD is answered with the headers alone, and opens no stream.
    """
    answer = scene.ask(path, "HEAD")
    assert answer.status == 200
    assert answer.body == b""


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/nothing", "/presence/x.json"])
def test_headIsNotLogged(scene: Scene, events: list[Any], path: str) -> None:
    """
    HEAD tells the length of what GET returns, and writes no more into the log than GET does.
    """
    answer = scene.ask(path, "HEAD")
    assert answer.body == b""
    assert answer.header("Content-Length") == scene.ask(path).header("Content-Length")
    assert not [event for event in events if "HEAD request" in event.get("log_format", "")]


def test_probes() -> None:
    """
    A process that answers is healthy; it is ready when the table has read its store.  Both need no
    token.
    """
    scene = Scene(token=TOKEN)
    assert scene.ask("/healthz").body == b"ok\n"
    assert scene.ask("/readyz").body == b"ok\n"
    scene.fleet.stop()
    assert scene.ask("/healthz").status == 200
    assert scene.ask("/readyz").status == 503
    for path in ("/presence.json", "/events"):
        assert scene.ask(path, Authorization=f"Bearer {TOKEN}").status == 503
    scene.fleet.table.startService()
    scene.end()


def test_probesBeforeTheStoreIsRead() -> None:
    """
    While the table waits for its store, it is not ready, and no probe leaves anything behind.
    """
    clock, store = Clock(), FailingStore()
    store.hold.add("load")
    table = Fleet(clock, store=store).table
    connection = Connection(StatusResource(table, clock=clock), clock)

    def probe() -> int:
        connection.ask("/readyz")
        return connection.answer().status

    def deferreds() -> int:
        gc.collect()
        return sum(isinstance(each, Deferred) for each in gc.get_objects())

    assert probe() == 503 and not table.isLoaded
    before = deferreds()
    assert [probe() for _ in range(20)] == [503] * 20
    assert deferreds() < before + 10
    store.release()
    assert probe() == 200 and table.isLoaded
    connection.close()
    table.stopService()
    clock.advance(1)
    assert not table.isLoaded


@pytest.mark.parametrize(
    "path",
    ["/x", "/presence", "/presence/", "/main.js/", "//", "/presence.json/x", "/static/main.js"],
)
def test_nothingElse(scene: Scene, path: str) -> None:
    """
    Other addresses do not exist.
    """
    assert scene.ask(path).status == 404


def test_mountedBelowAnotherResource() -> None:
    """
    The page works under any address: its links are relative, and the address gets its slash.
    """
    from twisted.web.resource import Resource

    scene = Scene()
    root = Resource()  # type: ignore[no-untyped-call]
    root.putChild(b"status", scene.resource)  # type: ignore[no-untyped-call]
    connection = Connection(root, scene.clock)
    moved = connection.ask("/status")
    assert (moved.status, moved.header("Location")) == (303, "status/")
    assert connection.ask("/status/").status == 200
    assert connection.ask("/status/main.js").status == 200
    connection.close()
    scene.end()


# The token.


@pytest.mark.parametrize("path", ["/", "/main.js", "/presence.json", "/events", "/metrics", "/x"])
def test_tokenIsNeeded(locked: Scene, path: str) -> None:
    """
    Without the token nothing is told, not even what exists.
    """
    answer = locked.ask(path)
    assert answer.status == 401
    assert answer.header("WWW-Authenticate") == "Bearer"


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER   {TOKEN}"])
def test_tokenInTheHeader(locked: Scene, header: str) -> None:
    """
    A program shows the token in a header.
    """
    assert locked.ask("/presence.json", Authorization=header).status == 200


@pytest.mark.parametrize(
    "header", ["Bearer wrong-horse-battery", f"Basic {TOKEN}", TOKEN, "Bearer", "Bearer é", ""]
)
def test_wrongToken(locked: Scene, header: str) -> None:
    """
    Another token is none.
    """
    assert locked.ask("/presence.json", Authorization=header).status == 401


def test_tokenInTheAddress(locked: Scene) -> None:
    """
    A browser shows the token once.  It gets a cookie that is not the token, and an address that
    does not have it.
    """
    answer = locked.ask(f"/?token={TOKEN}")
    assert (answer.status, answer.header("Location")) == (303, "./")
    text = answer.header("Set-Cookie")
    assert TOKEN not in text
    lower = text.lower()
    assert "httponly" in lower and "samesite=lax" in lower and "path" not in lower
    [cookie] = SimpleCookie(text).values()
    value = f"{cookie.key}={cookie.value}"
    assert locked.ask("/", Cookie=value).status == 200
    assert locked.ask("/presence.json", Cookie=value).status == 200
    assert locked.ask("/", Cookie=f"{value}0").status == 401
    other = Scene(token=f"{TOKEN}-2")
    assert other.ask("/", Cookie=value).status == 401
    other.end()


def test_cookiesOfTwoPages(locked: Scene) -> None:
    """
    A browser keeps one cookie of a name for all ports of a host.  Two pages with two tokens do not
    take it from each other.
    """
    other = Scene(token=f"{TOKEN}-2")
    jar: dict[str, str] = {}
    for scene, token in ((locked, TOKEN), (other, f"{TOKEN}-2")):
        [cookie] = SimpleCookie(scene.ask(f"/?token={token}").header("Set-Cookie")).values()
        jar[cookie.key] = cookie.value
    sent = "; ".join(f"{name}={value}" for name, value in jar.items())
    assert [scene.ask("/", Cookie=sent).status for scene in (locked, other)] == [200, 200]
    other.end()


def test_tokenIsTakenByThePageAlone(locked: Scene) -> None:
    """
    The token in any other address, or a wrong one, opens nothing.
    """
    assert locked.ask(f"/presence.json?token={TOKEN}").status == 401
    assert locked.ask("/?token=wrong-horse-battery").status == 401
    assert locked.ask("/?token=").status == 401


def test_tokenIsInNoAccessLog(locked: Scene, events: list[Any]) -> None:
    """
    A site's access log has the address without the token.
    """
    locked.ask(f"/?token={TOKEN}")
    locked.ask("/")
    logged = [repr(event) for event in events]
    assert any("303" in text for text in logged)
    assert not any(TOKEN in text for text in logged)


@pytest.mark.parametrize(
    "token", ["short", "", "fifteen-letters", "with a space inside", "é" * 20, 5]
)
def test_weakToken(token: Any) -> None:
    """
    A token that could be guessed, or not be sent, is refused, and not printed.
    """
    with pytest.raises(ValueError, match="at least 16 visible ASCII characters") as refused:
        Scene(token=token)
    assert token == "" or str(token) not in str(refused.value)


@pytest.mark.parametrize("setting", [{"maxStreams": 0}, {"maxKept": 0.5}, {"maxStreams": "many"}])
def test_wrongLimits(setting: dict[str, Any]) -> None:
    """
    A limit that is no number is one sentence.
    """
    [name] = setting
    with pytest.raises(ValueError, match=f"StatusResource.{name} is .*: it must be a whole number"):
        Scene(**setting)


# The name by which the page is asked for.


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "localhost", "a.localhost", "192.0.2.7"],
)
def test_ownNames(scene: Scene, host: str) -> None:
    """
    This machine is asked for by an address or as localhost.
    """
    assert scene.ask("/", Host=host).status == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example"])
def test_foreignNames(scene: Scene, host: str) -> None:
    """
    A web page whose author lets a name of theirs lead to this machine can not read this one, and
    an operator is told the ways that there are.
    """
    for path in ("/", "/presence.json", "/events", "/metrics"):
        answer = scene.ask(path, Host=host)
        assert answer.status == 421
        assert b"Behind a proxy use a token, or list the name in hosts" in answer.body


def test_loopbackByTheOtherFamily(scene: Scene) -> None:
    """
    A page that listens on C{::} is reached over IPv4, too: its loopback address is mapped into IPv6
    then, and a foreign name is turned away all the same.
    """
    mapped = scene.connect(IPv6Address("TCP", "::ffff:127.0.0.1", 8080))
    assert mapped.ask("/", Host="localhost:8080").status == 200
    assert mapped.ask("/", Host="evil.example").status == 421


def test_namesThatAreAllowed() -> None:
    """
    A name that was told, a token, a socket file, or an address that is not loopback: there a name
    is no sign of an attack.
    """
    named = Scene(hosts=["Gateway.example"])
    assert named.ask("/", Host="gateway.example").status == 200
    assert named.ask("/", Host="evil.example").status == 421
    for host in (OTHER, UNIXAddress("/run/x")):
        assert named.connect(host).ask("/", Host="evil.example").status == 200
    named.end()
    locked = Scene(token=TOKEN)
    answer = locked.ask("/", Host="gateway.example", Authorization=f"Bearer {TOKEN}")
    assert answer.status == 200
    locked.end()


def test_metricsAreOptional(scene: Scene) -> None:
    """
    Without metrics the page works, and says what is missing.
    """
    answer = scene.ask("/metrics")
    assert answer.status == 404
    assert b"without metrics" in answer.body
    assert b"need twisted_heartbeat[metrics] to be installed" in answer.body


def test_jsonHasNoInfinity(scene: Scene) -> None:
    """
    Numbers that JSON does not have are null.
    """
    scene.fleet.up("a")
    scene.fleet.watched["a"].bound = float("inf")
    scene.fleet.watched["a"].rtt = float("nan")
    found = scene.ask("/presence/a.json")
    assert b"Infinity" not in found.body and b"NaN" not in found.body
    assert json.loads(found.body)["peer"]["rtt"] is None


def test_roundTripsAreKept(scene: Scene) -> None:
    """
    From the first look on, the round-trip times of a quarter of an hour are kept; an hour after the
    last look, none.
    """
    scene.fleet.up("a")
    assert scene.ask("/presence.json").status == 200
    for rtt in (0.01, 0.03):
        scene.fleet.watched["a"].rtt = rtt
        scene.clock.pump([15.0])
    found = scene.ask("/presence/a.json").json()["roundTrips"]
    assert found["every"] == 15
    assert found["values"] == [pytest.approx(0.02), pytest.approx(0.01), pytest.approx(0.03)]
    scene.clock.pump([15.0] * 100)
    assert len(scene.ask("/presence/a.json").json()["roundTrips"]["values"]) == 60
    scene.clock.pump([15.0] * 200)
    assert scene.ask("/presence/a.json").json()["roundTrips"]["values"] == []
