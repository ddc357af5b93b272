# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The page in a real browser: what it shows, how soon, and that nothing a peer says gets the better of
it.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import pytest_twisted
from twisted.internet.task import deferLater
from twisted.protocols.policies import WrappingFactory
from twisted.web.server import NOT_DONE_YET, Site

import twisted_heartbeat
from twisted_heartbeat import (
    Cause,
    MemoryStore,
    PeerClosed,
    PeerHung,
    PeerReset,
    PeerSilent,
    StatusResource,
)
from twisted_heartbeat.status.stream import ChangeStream

from ..support.pages import mistakesIn
from .browser import MISSING, NARROW, WIDE, Browser
from .fleet import Fleet

if TYPE_CHECKING:
    from twisted.web.http import Request

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")

HOSTILE = [
    "<script>document.title='owned'</script>",
    "<img src=x onerror=alert(1)>",
    "pump\u202e3-gnp.exe",
    "two\nlines\ttab\x00nul",
    "quote\"'`&amp;",
    "W" * 255,
    "zero\u200bwidth\u2066",
    "a/../../b?c#d%2e",
    "ünïcödé 🚰",
    "__proto__",
    " ",
]


class Served:
    """
    A fleet whose page is served on loopback.

    @ivar url: the address of the page.
    """

    def __init__(self, number: int = 0, **settings: Any) -> None:
        """
        @param number: of the port.
        @param settings: the table's.
        """
        from twisted.internet import reactor

        self.fleet = Fleet(reactor, **settings)
        self.resource = StatusResource(self.fleet.table, title="North plant", clock=reactor)
        self._connections = WrappingFactory(Site(self.resource))
        self.port: Any = None
        self.listen(number)
        self.number = self.port.getHost().port
        self.url = f"http://127.0.0.1:{self.number}/"

    def listen(self, number: int) -> None:
        """
        Serve the page.
        """
        from twisted.internet import reactor

        self.port = reactor.listenTCP(  # type: ignore[attr-defined]
            number, self._connections, interface="127.0.0.1"
        )

    def cut(self) -> None:
        """
        Abort all connections.
        """
        for connection in list(self._connections.protocols):
            connection.transport.abortConnection()

    async def vanish(self) -> None:
        """
        Abort all connections, and accept no other.
        """
        port, self.port = self.port, None
        if port is not None:
            await port.stopListening()
        self.cut()

    async def stop(self) -> None:
        """
        Leave nothing behind.
        """
        self.resource.close()
        await self.vanish()
        await self.fleet.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """
    One browser for all tests, because it takes a second to start.
    """
    made = Browser()
    yield made
    made.quit()


@pytest_twisted.async_yield_fixture
async def served() -> AsyncIterator[Served]:
    """
    A page without peers.
    """
    made = Served()
    yield made
    await made.stop()


def names(count: int) -> list[str]:
    """
    So many names.
    """
    return [f"sensor-{number}" for number in range(count)]


ROWS = "[...document.querySelectorAll('.row:not([hidden])')]"
SHOWN = (
    f"{ROWS}.sort((a, b) => a.ariaPosInSet - b.ariaPosInSet)"
    ".map((row) => row.querySelector('.name').textContent)"
)
COUNTS = "[...document.querySelectorAll('.tile .count')].map((each) => each.textContent)"


@pytest_twisted.ensureDeferred
async def test_fewPeers(browser: Browser, served: Served) -> None:
    """
    Five peers: the counts, the list with the worst first, the causes in words, the newest changes.
    """
    served.fleet.up(*names(5))
    served.fleet.suspect("sensor-3")
    served.fleet.down("sensor-4", cause=PeerHung("nothing received for 8 s"))
    await browser.open(served.url)
    assert await browser.run(COUNTS) == ["3", "1", "1", "0"]
    assert await browser.run(SHOWN) == ["sensor-4", "sensor-3", "sensor-0", "sensor-1", "sensor-2"]
    assert "hung: its system answers" in await browser.text("#list")
    assert await browser.text("#title") == "North plant"
    assert await browser.run("document.title") == "1 down – North plant"
    assert await browser.run("document.querySelectorAll('#changes li').length") == 7
    await browser.until("document.querySelector('#connection').innerText === 'Live'")
    assert await browser.complaints() == []


@pytest.mark.parametrize("count", [2000, 10_000])
@pytest_twisted.ensureDeferred
async def test_manyPeers(browser: Browser, served: Served, count: int) -> None:
    """
    Thousands of peers: only the rows that can be seen exist, the last one is reached, and a search
    is answered at once.
    """
    served.fleet.up(*names(count))
    await browser.open(served.url)
    assert await browser.text("#shown") == f"{count:,} peers"
    assert await browser.run(f"{ROWS}.length") < 40
    await browser.until("performance.getEntriesByName('rows').length > 0")
    drawn = await browser.run("performance.getEntriesByName('rows')[0].startTime")
    # The goal is a second, which benchmarks/status.py measures.  Other tests share the machine.
    assert drawn < 5000
    await browser.run("document.querySelector('#list').focus()")
    await browser.press("\ue010")
    await browser.until(f"{SHOWN}.at(-1) === 'sensor-{count - 1}'")
    search = (
        "(() => { const input = document.querySelector('#search');"
        "input.value = arguments[0]; const began = performance.now();"
        "input.dispatchEvent(new Event('input')); return performance.now() - began; })()"
    )
    assert await browser.run(search, f"sensor-{count - 7}") < 500
    assert await browser.run(SHOWN) == [f"sensor-{count - 7}"]
    assert await browser.text("#shown") == f"1 of {count:,} peers"
    await browser.run(search, "nobody")
    assert await browser.text("#empty") == "No peer matches."
    assert await browser.complaints() == []


@pytest_twisted.ensureDeferred
async def test_changeIsSeenWithinASecond(browser: Browser, served: Served) -> None:
    """
    Of two thousand peers one falls and a new one comes: both are seen within a second.  Other
    tests share the machine, so the soonest of three times counts.
    """
    served.fleet.up(*names(2000))
    await browser.open(served.url)
    await browser.until("document.querySelector('#connection').dataset.state === 'live'")
    took = []
    for name in ("sensor-75", "sensor-76", "sensor-77"):
        served.fleet.down(name)
        took.append(await browser.until(f"{SHOWN}[0] === '{name}'"))
    assert min(took) < 1
    served.fleet.up("newcomer")
    counts = '["1,998","0","3","0"]'
    await browser.until(f"JSON.stringify({COUNTS}) === '{counts}'")
    assert "sensor-77 down: silent" in await browser.text("#changes")
    assert await browser.complaints() == []


@pytest_twisted.ensureDeferred
async def test_storm(browser: Browser, served: Served) -> None:
    """
    When all of two thousand peers fall in one instant, and one of them comes back, the page has
    told all of it within seconds, though the stream leaves out the peers.
    """
    served.fleet.up(*names(2000))
    served.fleet.down("sensor-7")
    await browser.open(served.url)
    await browser.until("document.querySelector('#connection').dataset.state === 'live'")
    served.fleet.down(*[name for name in names(2000) if name != "sensor-7"])
    served.fleet.up("sensor-5", carrier="udp")
    await browser.until(f'JSON.stringify({COUNTS}) === \'["1","0","1,999","0"]\'')
    await browser.run("(location.hash = 'peer=sensor-9')")
    await browser.until("document.querySelector('#history li .what') !== null")
    assert "Silent for its whole bound" in await browser.text("#peer-cause")
    assert await browser.complaints() == []


@pytest_twisted.ensureDeferred
async def test_streamIsCutAndComesBack(browser: Browser, served: Served) -> None:
    """
    When the stream is cut, the page and its title say so, and no age is counted on; it comes back
    by itself, and shows what happened meanwhile, without a gap and without loading all again.
    """
    served.fleet.up(*names(20))
    await browser.open(served.url)
    await browser.until("document.querySelector('#connection').dataset.state === 'live'")
    served.fleet.up("before")
    await browser.until(f"{SHOWN}.includes('before')")
    await served.vanish()
    await browser.until("document.querySelector('#connection').dataset.state === 'offline'")
    words = r"Connection lost, trying again; shown as of \d\d:\d\d:\d\d"
    assert re.fullmatch(words, await browser.text("#connection"))
    assert await browser.run("document.title") == "offline – North plant"
    later = "(Date.now = ((clock) => () => clock() + 7_200_000)(Date.now))"
    await browser.run(later)
    redraw = "document.querySelector('#list').dispatchEvent(new Event('scroll'))"
    age = "document.querySelector('.row .about').innerText"
    await browser.run(redraw)
    assert re.fullmatch(r"up for \d+ s", await browser.run(age))
    served.fleet.down(*names(20)[:10])
    served.fleet.up("after")
    served.listen(served.number)
    await browser.until("document.querySelector('#connection').dataset.state === 'live'")
    await browser.until(f"{SHOWN}.includes('after')")
    assert await browser.run(COUNTS) == ["12", "0", "10", "0"]
    assert await browser.text("#connection") == "Live"
    assert await browser.run("document.title") == "10 down – North plant"
    await browser.run(later)
    await browser.run(redraw)
    assert (await browser.run(age)).startswith("down for 2 h")
    loads = (
        "performance.getEntriesByType('resource')"
        ".filter((entry) => entry.name.endsWith('presence.json')).length"
    )
    assert await browser.run(loads) == 1
    changes = await browser.text("#changes")
    assert changes.count("down: silent") == 10
    # Nothing but the failed attempts to connect.
    assert all("net::ERR" in each for each in await browser.complaints())


@pytest_twisted.ensureDeferred
async def test_gapLoadsAllAgain(browser: Browser, served: Served) -> None:
    """
    When the page can not be told what it missed, it loads all again.
    """
    served.fleet.up("a")
    await browser.open(served.url)
    await browser.until("document.querySelector('#connection').dataset.state === 'live'")
    served.fleet.down("a")
    served.fleet.table.forget("a")
    served.fleet.up("b")
    # As after a restart without a store: the ids of the page are those of another run.
    served.resource._stream.run = "0badcafe"
    served.resource._stream._forget(served.fleet.table.latest)
    served.cut()
    await browser.until(f"JSON.stringify({SHOWN}) === '[\"b\"]'")
    assert all("net::ERR" in each for each in await browser.complaints())


@pytest.mark.parametrize("answers", [True, False], ids=["error", "no answer"])
@pytest_twisted.ensureDeferred
async def test_gapIsLoadedHoweverOftenThatFails(
    browser: Browser, served: Served, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    """
    When what the page missed can not be loaded, or the answer does not come, it says so, and tries
    until it can.
    """
    from twisted.internet import reactor

    served.fleet.up("a")
    await browser.open(served.url)
    await browser.until("document.querySelector('#connection').dataset.state === 'live'")
    await browser.run("void (window.real = setTimeout)")
    await browser.run("void (window.setTimeout = (call, time) => real(call, time / 20))")
    refused: list[Request] = []

    def refuse(request: Request) -> Any:
        refused.append(request)
        if not answers:
            request.notifyFinish().addErrback(lambda _: None)
            return NOT_DONE_YET
        request.setResponseCode(503)
        return b""

    stream = served.resource._stream
    with monkeypatch.context() as patch:
        patch.setattr(served.resource, "_renderPresence", refuse)
        patch.setattr(stream, "serve", lambda client: None)
        served.fleet.up("b")
        await deferLater(reactor, 0.3)  # type: ignore[arg-type]
        for client in stream._clients:
            client.send(stream._gap(2, 2))
        await browser.until("document.querySelector('#connection').dataset.state === 'offline'")
        while len(refused) < 3:
            await deferLater(reactor, 0.05)  # type: ignore[arg-type]
    await browser.until(f"{SHOWN}.includes('b')")
    await browser.until("document.querySelector('#connection').dataset.state === 'live'")
    assert all("503" in each for each in await browser.complaints())


@pytest_twisted.ensureDeferred
async def test_fallIsCountedOnce(browser: Browser, served: Served) -> None:
    """
    In a storm the changes come without their peers, and one that a peer was loaded with may come
    once more: it is no second fall.  A later one is.
    """
    await browser.open(served.url)
    falls = await browser.run(
        """(async () => {
            const { Fleet } = await import("./fleet.js");
            const fleet = new Fleet();
            const loaded = { name: "a", state: "down", since: 30, carriers: [], falls: 2 };
            fleet.replace([loaded]);
            const common = { name: "a", carrier: "tcp" };
            const change = (number, at, state) => ({ ...common, number, at, state });
            const tell = (...changes) => fleet.apply({ changes, peers: [], gone: [] });
            tell(change(1, 10, "down"), change(2, 20, "up"), change(3, 30, "down"));
            const found = [fleet.peers.get("a").falls];
            tell(change(4, 40, "up"), change(5, 50, "down"));
            return [...found, fleet.peers.get("a").falls];
        })()"""
    )
    assert falls == [2, 3]


@pytest_twisted.ensureDeferred
async def test_noRoomForTheStream(
    browser: Browser, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    When as many streams are open as may be, one peer is still shown, as of the answer about it.
    """
    served.fleet.up("pump-1")
    await browser.open(served.url)
    await browser.until("document.querySelector('#connection').dataset.state === 'live'")
    monkeypatch.setattr(ChangeStream, "isFull", True)
    monkeypatch.setattr("twisted_heartbeat.status.resource.time", lambda: time.time() + 7200)
    served.cut()
    await browser.until("document.querySelector('#connection').dataset.state === 'offline'")
    await browser.run("(location.hash = 'peer=pump-1')")
    await browser.until("document.querySelector('#peer-state').innerText.startsWith('Up for 2 h')")


@pytest_twisted.ensureDeferred
async def test_onePeer(browser: Browser, served: Served) -> None:
    """
    One peer: its state and cause in words, its timeline, its round-trip times as a line, its
    history; live while it is looked at.
    """
    for _ in range(3):
        served.fleet.up("pump-1")
        served.fleet.down("pump-1", cause=PeerHung("nothing received for 8.001 s"))
    served.fleet.up("pump-1", rtt=0.25)
    await browser.open(f"{served.url}#peer=pump-1")
    await browser.until("document.querySelectorAll('#history li').length === 7")
    assert await browser.text("#peer-name") == "pump-1"
    assert (await browser.text("#peer-state")).startswith("Up for ")
    assert "Last time down: hung" in await browser.text("#peer-cause")
    facts = await browser.text("#facts")
    for words in ("Bound\n35 s", "Round trip\n250 ms", "Falls in the last hour\n3"):
        assert words in facts.replace("\t", "\n")
    assert await browser.run("document.querySelectorAll('#timeline .is-down').length") == 3
    label = "document.querySelector('#timeline').getAttribute('aria-label')"
    assert "down 3 times" in await browser.run(label)
    served.fleet.watched["pump-1"].rtt = 0.5
    words = "document.querySelector('#roundtrip-words').textContent"
    await browser.until(f"{words}.includes('250 ms to 500 ms')")
    assert await browser.run("document.querySelector('#roundtrips path') !== null")
    served.fleet.down("pump-1")
    await browser.until("document.querySelector('#peer').dataset.state === 'down'")
    assert await browser.run("document.querySelectorAll('#history li').length") == 8
    assert await browser.complaints() == []


@pytest_twisted.ensureDeferred
async def test_causeIsToldOnce(browser: Browser, served: Served) -> None:
    """
    What a cause says of itself is shown beside the page's words for it if it says more than they
    do: a number, an error, a sentence of the peer's.
    """
    summary = "The peer's host no longer knows the connection (ECONNRESET)"
    told = {
        "a": (PeerClosed(), "It closed the connection"),
        "b": (
            PeerClosed("the peer closed the connection (close_notify)"),
            "It closed the connection",
        ),
        "c": (PeerClosed("the peer said goodbye: lunch"), "(the peer said goodbye: lunch)"),
        "d": (PeerSilent("nothing received for 8 s"), "(nothing received for 8 s)"),
        "e": (PeerReset(f"{summary} [errno 104]"), f"({summary} [errno 104])"),
    }
    served.fleet.up(*told)
    for name, (cause, _) in told.items():
        served.fleet.down(name, cause=cause)
    await browser.open(served.url)
    for name, (_, words) in told.items():
        await browser.run("(location.hash = arguments[0])", f"peer={name}")
        await browser.until(f"document.querySelector('#peer-name').innerText === '{name}'")
        await browser.until("document.querySelectorAll('#history li').length === 2")
        assert (await browser.text("#peer-cause")).endswith(words)
        reasons = await browser.run("document.querySelectorAll('#history .reason').length")
        assert reasons == words.endswith(")")


@pytest_twisted.ensureDeferred
async def test_peerThatFellBeforeAnybodyLooked(browser: Browser, served: Served) -> None:
    """
    Of a peer that was up before the first look and is down since, no round-trip time was sampled.
    The page says so, and not that none has been measured yet.
    """
    served.fleet.up("pump-1")
    served.fleet.down("pump-1")
    await browser.open(f"{served.url}#peer=pump-1")
    await browser.until("document.querySelectorAll('#history li').length === 2")
    words = r"Not measured since \d\d:\d\d:\d\d: sampled only while somebody looks"
    assert re.fullmatch(words, await browser.text("#roundtrip-words"))


@pytest_twisted.ensureDeferred
async def test_answerAboutAPeerThatDoesNotCome(
    browser: Browser, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    When the answer about a peer does not come, the page asks again.
    """
    from twisted.internet import reactor

    served.fleet.up("pump-1")
    await browser.open(served.url)
    await browser.run("void (window.real = setTimeout)")
    await browser.run("void (window.setTimeout = (call, time) => real(call, time / 50))")
    asked: list[bytes] = []

    def wait(request: Request, name: bytes) -> int:
        asked.append(name)
        request.notifyFinish().addErrback(lambda _: None)
        return NOT_DONE_YET

    with monkeypatch.context() as patch:
        patch.setattr(served.resource, "_renderPeer", wait)
        await browser.run("(location.hash = 'peer=pump-1')")
        await browser.until("document.querySelector('#peer-state').innerText.startsWith('Up for')")
        assert await browser.run("document.querySelectorAll('#history li').length") == 0
        while not asked:
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]
    await browser.until("document.querySelectorAll('#history li').length === 1")
    assert asked[0] == b"pump-1"


@pytest_twisted.ensureDeferred
async def test_peerThatIsNotThere(browser: Browser, served: Served) -> None:
    """
    Of a name that no peer has, the page says so and nothing else, not even what it has shown of
    another; when a peer with that name comes, it is shown.
    """
    served.fleet.up("pump-1")
    served.fleet.down("pump-1")
    await browser.open(f"{served.url}#peer=pump-1")
    await browser.until("document.querySelectorAll('#history li').length === 2")
    await browser.run("(location.hash = 'peer=pump-2')")
    state = "document.querySelector('#peer-state').innerText"
    await browser.until(f"{state} === 'There is no peer of this name now.'")
    shown = await browser.text("#peer")
    assert shown.split() == ["pump-2", "✕", *"There is no peer of this name now.".split()]
    served.fleet.up("pump-2")
    await browser.until(f"{state}.startsWith('Up for')")
    assert await browser.run("document.querySelector('#history').innerText.endsWith('up')")
    assert "Bound" in await browser.text("#facts")
    assert all("404" in each for each in await browser.complaints())


@pytest_twisted.ensureDeferred
async def test_hostileNames(browser: Browser, served: Served) -> None:
    """
    Names that are code, that reorder what is read, or that are very long: each is shown as text,
    escaped as in the log, found by a search, and opened.
    """
    served.fleet.up(*HOSTILE)
    served.fleet.down(HOSTILE[0], cause=Cause("<b>reason</b>\u202e"))
    await browser.open(served.url)
    shown = await browser.run(SHOWN)
    assert len(shown) == len(HOSTILE)
    assert {"<script>document.title='owned'</script>", "pump\\u202e3-gnp.exe"} <= set(shown)
    assert {"two\\x0alines\\x09tab\\x00nul", "zero\\u200bwidth\\u2066"} <= set(shown)
    elements = (
        "document.querySelectorAll('#list script, #list img, #changes script, #peer script').length"
    )
    for name in HOSTILE:
        await browser.run("(location.hash = 'peer=' + encodeURIComponent(arguments[0]))", name)
        await browser.until("document.querySelectorAll('#history li').length >= 1")
        assert await browser.run(elements) == 0
        wide = "document.documentElement.scrollWidth <= innerWidth"
        assert await browser.run(wide), name
        await browser.click("#close")
    await browser.run("(location.hash = 'peer=' + encodeURIComponent(arguments[0]))", HOSTILE[0])
    await browser.until("document.querySelector('#peer-cause').innerText.includes('<b>reason</b>')")
    assert "\u202e" not in await browser.run("document.body.innerText")
    assert "owned" not in (await browser.run("document.title"))
    assert await browser.complaints() == []


@pytest_twisted.ensureDeferred
async def test_keyboard(browser: Browser, served: Served) -> None:
    """
    All is reached by keys, and the focus is where a person expects it.
    """
    served.fleet.up(*names(300))
    await browser.open(served.url)
    current = (
        "document.getElementById(document.querySelector('#list')"
        ".getAttribute('aria-activedescendant'))?.querySelector('.name').textContent"
    )
    await browser.press("/")
    assert await browser.run("document.activeElement.id") == "search"
    await browser.run("document.querySelector('#list').focus()")
    assert await browser.run(current) == "sensor-0"
    await browser.press("\ue015", "\ue015", "\ue013")
    assert await browser.run(current) == "sensor-1"
    outline = "getComputedStyle(document.querySelector('.row.active')).outlineStyle"
    assert await browser.run(outline) == "solid"
    await browser.press("\ue010")
    assert await browser.run(current) == "sensor-299"
    await browser.press("\ue00e")
    assert await browser.run(current) != "sensor-299"
    await browser.press("\ue011", "\ue007")
    await browser.until("!document.querySelector('#peer').hidden")
    assert await browser.text("#peer-name") == "sensor-0"
    assert await browser.run("document.activeElement.id") == "peer-name"
    assert await browser.run("location.hash") == "#peer=sensor-0"
    await browser.run("document.querySelector('.skip').focus()")
    await browser.press("\ue007")
    assert await browser.run("document.activeElement.id") == "list"
    await browser.press("/", "x", "\ue00c")
    assert await browser.run("document.querySelector('#search').value") == ""
    assert not await browser.run("document.querySelector('#peer').hidden")
    await browser.press("\ue00c")
    assert await browser.run("document.querySelector('#peer').hidden")
    assert await browser.run("document.activeElement.id") == "list"
    await browser.run("document.querySelector('.tile[data-state=down]').focus()")
    await browser.press("\ue007")
    assert await browser.run("document.activeElement.ariaPressed") == "true"
    assert await browser.text("#empty") == "No peer matches."
    await browser.run("history.back()")
    assert await browser.complaints() == []


async def centre(browser: Browser, selector: str) -> tuple[int, int]:
    """
    The middle of an element.
    """
    box = f"document.querySelector('{selector}').getBoundingClientRect()"
    x, y = await browser.run(f"[{box}.x + {box}.width / 2, {box}.y + {box}.height / 2]")
    return int(x), int(y)


@pytest_twisted.ensureDeferred
async def test_rowsStayUnderThePointer(browser: Browser, served: Served) -> None:
    """
    While the pointer moves over the list, its rows stay where they are and change in place; when it
    has left, they are in order again.  The newest changes stay, too.
    """
    served.fleet.up(*names(30))
    await browser.open(served.url)
    x, y = await centre(browser, ".row")
    await browser.point(x, y)
    served.fleet.down("sensor-2")
    await browser.until("document.querySelector('.tile[data-state=down] .count').innerText === '1'")
    # Twice the time after which the order would follow.
    for _ in range(4):
        await browser.point(x, y)
        await browser.until("new Promise((done) => setTimeout(done, 100, true))")
        assert (await browser.run(SHOWN))[:3] == names(3)
    assert await browser.run(f"{ROWS}.some((row) => row.dataset.state === 'down')")
    await browser.point(*await centre(browser, "#title"))
    await browser.until(f"{SHOWN}[0] === 'sensor-2'")

    newest = "document.querySelector('#changes .name').textContent"
    await browser.until(f"{newest} === 'sensor-2'")
    await browser.point(*await centre(browser, "#changes li"))
    served.fleet.down("sensor-3")
    await browser.until("document.querySelector('.tile[data-state=down] .count').innerText === '2'")
    assert await browser.run(newest) == "sensor-2"
    await browser.point(*await centre(browser, "#title"))
    await browser.until(f"{newest} === 'sensor-3'")
    assert await browser.complaints() == []


@pytest_twisted.ensureDeferred
async def test_focusStaysInTheNewestChanges(browser: Browser, served: Served) -> None:
    """
    A link that has the focus is not removed by newer changes, so that Tab goes on from there.
    """
    served.fleet.up("first")
    await browser.open(served.url)
    await browser.run("document.querySelector('#changes a').focus()")
    served.fleet.up(*names(100))
    await browser.until("document.querySelectorAll('#changes li').length === 60")
    await browser.until("document.querySelector('#changes .name').textContent === 'sensor-99'")
    assert await browser.run("document.activeElement.innerText") == "first up"


@pytest_twisted.ensureDeferred
async def test_restartWithoutAStore(browser: Browser) -> None:
    """
    When the changes are numbered anew, because the server was started again and has no store, the
    page shows the new ones and not the old.
    """
    served = Served()
    served.fleet.up(*names(9))
    await browser.open(f"{served.url}#peer=sensor-1")
    await browser.until("document.querySelectorAll('#history li').length === 1")
    await browser.until("document.querySelector('#connection').dataset.state === 'live'")
    number = served.number
    await served.stop()
    again = Served(number)
    again.fleet.up("sensor-1")
    again.fleet.down("sensor-1")
    changes = "[...document.querySelectorAll('#changes .name')].map((each) => each.textContent)"
    await browser.until(f'JSON.stringify({changes}) === \'["sensor-1","sensor-1"]\'')
    await browser.until("document.querySelector('#peer').dataset.state === 'down'")
    await browser.until("document.querySelectorAll('#history li').length === 2")
    await again.stop()
    assert all("net::ERR" in each for each in await browser.complaints())


@pytest_twisted.ensureDeferred
async def test_timelineKnowsWhatIsKept(browser: Browser) -> None:
    """
    The time before the oldest change that the store has kept is drawn as unknown, also for a peer
    whose own first change is not among them.
    """
    served = Served(store=MemoryStore(keep=2))
    served.fleet.up(*names(3))
    served.fleet.down("sensor-0")
    await browser.open(f"{served.url}#peer=sensor-0")
    await browser.until("document.querySelectorAll('#history li').length === 1")
    unknown = "document.querySelector('#timeline .is-unknown').width.baseVal.value"
    assert await browser.run(unknown) > 990
    assert await browser.complaints() == []
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_timelineFitsWhatIsKnown(browser: Browser) -> None:
    """
    The timeline begins with the shortest range that holds all that is known of the peer, and says
    of how much its share is.  A range that the user has chosen stays.
    """
    ago = 7200.0
    served = Served(wallClock=lambda: time.time() - ago)
    served.fleet.up("old")
    ago = 0.0
    served.fleet.up("young")
    pressed = "document.querySelector('#spans [aria-pressed=true]').innerText"
    await browser.open(f"{served.url}#peer=young")
    await browser.until("document.querySelectorAll('#history li').length === 1")
    assert await browser.run(pressed) == "1 h"
    served.fleet.down("young")
    await browser.until("document.querySelectorAll('#history li').length === 2")
    share = r"up \d+(\.\d)? % of the \d+ s known, 1× down"
    assert re.fullmatch(share, await browser.text("#timeline-share"))
    for peer, expected in (("old", "24 h"), ("young", "7 d")):
        await browser.run("(location.hash = arguments[0])", f"peer={peer}")
        await browser.until(f"document.querySelector('#peer-name').innerText === '{peer}'")
        await browser.until("document.querySelectorAll('#history li').length > 0")
        assert await browser.run(pressed) == expected
        await browser.click("#spans [data-span='604800']")
    assert await browser.complaints() == []
    await served.stop()


@pytest_twisted.ensureDeferred
async def test_filterAndOrder(browser: Browser, served: Served) -> None:
    """
    The list is filtered by state and carrier, and ordered as asked.
    """
    served.fleet.up("b-10", "b-9", rtt=0.5)
    served.fleet.up("c", carrier="udp", rtt=0.1)
    # A narrow window with two columns, where the search has to keep its room.
    await browser.open(served.url, size=(900, 700))
    assert await browser.run("document.querySelector('#search').offsetWidth") > 240

    async def choose(select: str, value: str) -> None:
        await browser.run(
            "(() => { const s = document.getElementById(arguments[0]); s.value = arguments[1];"
            "s.dispatchEvent(new Event('change')); })()",
            select,
            value,
        )

    await choose("order", "name")
    assert await browser.run(SHOWN) == ["b-9", "b-10", "c"]
    await choose("order", "rtt")
    assert (await browser.run(SHOWN))[-1] == "c"
    await choose("carrier", "udp")
    assert await browser.run(SHOWN) == ["c"]
    await browser.click(".tile[data-state=up]")
    assert await browser.run(SHOWN) == ["c"]
    await browser.click(".tile[data-state=down]")
    assert await browser.run(SHOWN) == []


CONTRAST = """
(() => {
  const channel = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const colour = parse(getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const ratio = (one, other) => {
    const [low, high] = [light(one), light(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !element.checkVisibility() || element.closest("option, noscript")) continue;
    const contrast = ratio(parse(getComputedStyle(element).color), ground(element));
    if (contrast < 4.5) found.push(`${element.id || element.className}: ${contrast.toFixed(2)}`);
  }
  for (const mark of document.querySelectorAll(".mark")) {
    if (!mark.checkVisibility()) continue;
    const { backgroundColor, borderTopColor, borderTopWidth } = getComputedStyle(mark);
    const colour = borderTopWidth === "0px" ? backgroundColor : borderTopColor;
    const parent = mark.parentElement;
    const contrast = ratio(parse(colour), ground(parent));
    if (contrast < 3) found.push(`mark ${parent.dataset.state}: ${contrast.toFixed(2)}`);
  }
  return found;
})()
""".strip()


COLOURED = """
[...document.querySelectorAll(".tile *, #share span, .row *")].flatMap((element) => {
  const { backgroundColor, color } = getComputedStyle(element);
  return [backgroundColor, color].map((text) => text.match(/\\d+/g).slice(0, 3).map(Number));
}).filter((channels) => Math.max(...channels) - Math.min(...channels) > 30)
""".strip()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest_twisted.ensureDeferred
async def test_looks(browser: Browser, served: Served, dark: bool, size: tuple[int, int]) -> None:
    """
    In both colour schemes, wide and narrow: nothing is wider than the window, all text and all
    marks have the contrast that WCAG asks for (AA), and one peer can be opened and left.  Without
    the stream there is no colour for a state, and the rest still holds.
    """
    served.fleet.up(*names(30), rtt=0.01)
    served.fleet.suspect("sensor-1")
    served.fleet.down("sensor-2", "sensor-3")
    await browser.open(served.url, dark=dark, size=size)
    ground = await browser.run("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", ground)[0]) < 60) is dark
    for _ in range(2):
        assert await browser.run("document.documentElement.scrollWidth") <= size[0]
        assert await browser.run(CONTRAST) == []
        await browser.click(".row")
        await browser.until("document.querySelectorAll('#history li').length > 0")
    assert await browser.run("document.querySelector('#peers').checkVisibility()") is (size == WIDE)
    await browser.click("#close")
    assert await browser.run("document.querySelector('#peers').checkVisibility()")
    assert await browser.complaints() == []
    assert await browser.run(COLOURED) != []
    await served.vanish()
    await browser.until("document.querySelector('#connection').dataset.state === 'offline'")
    assert await browser.run(COLOURED) == []
    assert await browser.run(CONTRAST) == []
    assert await browser.run("document.documentElement.scrollWidth") <= size[0]


@pytest_twisted.ensureDeferred
async def test_forcedColours(browser: Browser, served: Served) -> None:
    """
    Where the system takes the colours of the page away, the chosen filter, the chosen span and the
    open peer still differ from the others.  All buttons have the size that WCAG asks for (AA).
    """
    served.fleet.up(*names(3))
    await browser.open(f"{served.url}#peer=sensor-1", forced=True)
    await browser.click(".tile[data-state='up']")
    lined = (
        "[...document.querySelectorAll('.tile, #spans button, .row:not([hidden]) .name')]"
        ".filter((each) => getComputedStyle(each).textDecorationLine === 'underline')"
        ".map((each) => each.innerText.split('\\n')[0])"
    )
    await browser.until(f"{lined}.length === 3")
    assert await browser.run(lined) == ["3", "sensor-1", "1 h"]
    small = (
        "[...document.querySelectorAll('button')].map((each) => each.getBoundingClientRect())"
        ".filter(({ width, height }) => height && Math.min(width, height) < 24).length"
    )
    assert await browser.run(small) == 0
    assert await browser.complaints() == []


@pytest_twisted.ensureDeferred
async def test_controlsHaveNames(browser: Browser, served: Served) -> None:
    """
    Each control, and each picture that says something, has a name for a screen reader.
    """
    served.fleet.up("a")
    await browser.open(f"{served.url}#peer=a")
    await browser.until("document.querySelectorAll('#history li').length > 0")
    nameless = (
        "[...document.querySelectorAll("
        "'button, input, select, a, [role=img]:not([hidden]), [role=listbox]')]"
        ".filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.[0].textContent.trim()))"
        ".map((e) => e.outerHTML)"
    )
    assert await browser.run(nameless) == []


@pytest_twisted.ensureDeferred
async def test_everyCauseHasWords(browser: Browser, served: Served) -> None:
    """
    The page has words for each cause of the package, and for no other, and knows its summary.
    """
    await browser.open(served.url)
    known = await browser.run(
        "(await import('./words.js')).summaries".join(["(async () => ", ")()"])
    )
    causes = {
        name: thing.summary
        for name in twisted_heartbeat.__all__
        if isinstance(thing := getattr(twisted_heartbeat, name), type) and issubclass(thing, Cause)
    }
    del causes["Cause"]
    assert mistakesIn("status/static/words.js", known, causes) == []
    assert known == causes


@pytest_twisted.ensureDeferred
async def test_policyIsEnforced(browser: Browser, served: Served) -> None:
    """
    The tests above can fail: code that is put into the page is refused, and the console says so.
    """
    served.fleet.up("a")
    await browser.open(served.url)
    code = "Object.assign(document.createElement('script'), { textContent: 'window.owned = 1' })"
    await browser.run(f"document.body.append({code})")
    from twisted.internet import reactor

    await deferLater(reactor, 0.1)  # type: ignore[arg-type]
    assert await browser.run("window.owned === undefined")
    [complaint] = await browser.complaints()
    assert "Content Security Policy" in complaint
