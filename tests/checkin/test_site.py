# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.checkin.site}: what arrives before a resource is asked, from clients
that are slow, greedy or hostile.
"""

from __future__ import annotations

import random
import time

import pytest
import pytest_twisted
from twisted.web import http

from twisted_heartbeat import Check, CheckInLimits

from ..support.loopback import wait, within
from ..support.web import Served, connect, serving

GET = b"GET /ping/job HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /ping/job HTTP/1.1\r\nHost: x\r\n"


async def isWell(served: Served) -> bool:
    """
    Whether a real client is served.
    """
    return (await served.ask("job")).code == 200


@pytest.mark.parametrize(
    "begin",
    [b"", b"GET /ping/job HTTP/1.1\r\n", POST + b"Content-Length: 1000\r\n\r\n"],
    ids=["nothing", "headers", "body"],
)
@pytest_twisted.ensureDeferred
async def test_slowRequestEnds(begin: bytes) -> None:
    """
    A request has to arrive within its time, however often a further byte of it comes; its
    connection is aborted then, and no other.
    """
    async with serving(limits=CheckInLimits(requestTime=0.3)) as served:
        began = time.monotonic()
        slow = await connect(served.number)
        slow.transport.write(begin)
        while not slow.lost.called and time.monotonic() < began + 2.0:
            slow.transport.write(b"X")
            await wait(0.03)
        assert 0.25 < time.monotonic() - began < 1.0
        assert await isWell(served)


@pytest_twisted.ensureDeferred
async def test_connectionIsReused() -> None:
    """
    A connection may rest between two requests for longer than a request may take, and several
    requests may be sent at once.
    """
    async with serving(limits=CheckInLimits(requestTime=0.2)) as served:
        client = await connect(served.number)
        client.transport.write(GET)
        await client.until(b"OK")
        await wait(0.4)
        assert not client.lost.called
        client.data = b""
        client.transport.write(GET.replace(b"/job", b"/job/log") * 3)
        await wait(0.1)
        assert client.data.count(b"200 OK") == 3
        client.transport.write(b"GET /ping")
        await within(client.lost)


@pytest_twisted.ensureDeferred
async def test_bodyIsNeverStored(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A body of any size is thrown away as it comes, with a length or in chunks: nothing of it goes to
    a disk, and no more than the limit stays in memory.
    """

    def noFile(*arguments: object, **options: object) -> None:
        raise AssertionError("a body went to a file")

    monkeypatch.setattr(http.tempfile, "TemporaryFile", noFile)
    async with serving() as served:
        for chunked in (False, True):
            client = await connect(served.number)
            piece, pieces = b"y" * 65_536, 100
            if chunked:
                client.transport.write(POST + b"Transfer-Encoding: chunked\r\n\r\n")
            else:
                client.transport.write(POST + b"Content-Length: %d\r\n\r\n" % (65_536 * pieces))
            for _ in range(pieces):
                client.transport.write(b"10000\r\n" + piece + b"\r\n" if chunked else piece)
            client.transport.write(b"0\r\n\r\n" if chunked else b"")
            await client.until(b"\r\n\r\nOK")
            found = served.resource.names["job"].last
            assert found is not None and found.body == b"y" * 10_000
            await client.close()


HOSTILE = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "long line": b"GET /ping/" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "many headers": b"GET /ping/job HTTP/1.1\r\n" + b"A: b\r\n" * 2000 + b"\r\n",
    "long header": b"GET /ping/job HTTP/1.1\r\nA: " + b"b" * 100_000 + b"\r\n\r\n",
    "no name": b"GET /ping/job HTTP/1.1\r\n: b\r\n\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "negative length": POST + b"Content-Length: -1\r\n\r\n",
    "huge length": POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "broken chunks": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "line break in a name": b"GET /ping/job%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: x\r\n\r\n",
    "bare line break": b"GET /ping/job\nX-Evil: 1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "line break in a header": b"GET /ping/j HTTP/1.1\r\nHost: x\r\nA: b\rX-Evil: 1\r\n\r\n",
    "escapes": b"GET /ping/%1b%5b2J/%e2%80%ae HTTP/1.1\r\nHost: x\r\n\r\n",
    "broken escapes": b"GET /ping/%/%zz/%f HTTP/1.1\r\nHost: x\r\n\r\n",
    "a proxy's form": b"GET http://x/ping/job HTTP/1.1\r\nHost: x\r\n\r\n",
    "a star": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "nothing": b"\r\n\r\n\r\n",
    "authorization": GET[:-2] + b"Authorization: Basic " + b"\xff" * 4000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
@pytest_twisted.ensureDeferred
async def test_hostileRequest(data: bytes) -> None:
    """
    No request gets more than an error, none puts a header of its own into an answer, and others are
    served as before.
    """
    async with serving(tokens={"job": "t"}, limits=CheckInLimits(requestTime=0.3)) as served:
        client = await connect(served.number)
        client.transport.write(data)
        await within(client.lost if b"Host" not in data else wait(0.05))
        assert b"200 OK" not in client.data or data.startswith(b"OPTIONS *")
        assert b"Evil" not in client.data
        assert b"Traceback" not in client.data
        assert served.resource.names["job"].last is None
        assert (await served.ask("t/job")).code == 200
        if not client.lost.called:
            await client.close()


@pytest_twisted.ensureDeferred
async def test_randomBytes() -> None:
    """
    Whatever bytes come, and however they are cut, others are served as before.
    """
    draw = random.Random(1)
    pieces = [
        GET,
        POST,
        b"\r\n",
        b" ",
        b"/ping/",
        b"%",
        b"Content-Length: 3",
        b"\x00",
        b"?",
        b"HTTP/",
    ]
    async with serving(limits=CheckInLimits(perAddress=None, perName=None)) as served:
        for _ in range(60):
            client = await connect(served.number)
            for _ in range(draw.randrange(1, 8)):
                client.transport.write(draw.choice(pieces)[: draw.randrange(1, 60)])
                client.transport.write(draw.randbytes(draw.randrange(4)))
            await wait(0.001)
            await client.close()
        assert await isWell(served)


@pytest_twisted.ensureDeferred
async def test_connectionsAreBounded() -> None:
    """
    Those who only hold connections do not shut others out: the oldest connection ends for the next.
    """
    async with serving(limits=CheckInLimits(connections=5)) as served:
        held = [await connect(served.number) for _ in range(20)]
        await wait(0.05)
        assert len(served.site.channels) == 5
        assert [client.lost.called for client in held] == [True] * 15 + [False] * 5
        assert await isWell(served)
        for client in held[15:]:
            await client.close() if not client.lost.called else None


@pytest_twisted.ensureDeferred
async def test_floodOfNames() -> None:
    """
    A client with a token that creates names without end fills its share of memory, and no more;
    what the operator watches is not displaced.
    """
    limits = CheckInLimits(created=50, perAddress=None)
    async with serving(limits=limits) as served:
        client = await connect(served.number)
        for n in range(500):
            client.transport.write(GET.replace(b"/job ", b"/n%d?create=1 " % n))
        await client.until(b"404 Not Found")
        await wait(0.3)
        assert client.data.count(b"201 Created") == 50
        assert client.data.count(b"404 Not Found") == 450
        assert len(served.resource.names) == 51
        await client.close()


@pytest_twisted.ensureDeferred
async def test_floodOfRequests() -> None:
    """
    Of a flood from one address what its rate allows is answered; the rest costs the server little.
    """
    limits = CheckInLimits(perAddress=100, perName=None)
    async with serving(limits=limits) as served:
        client = await connect(served.number)
        count = 2000
        client.transport.write(GET * count)
        began = time.process_time()
        for _ in range(200):
            await wait(0.02)
            if client.data.count(b"HTTP/1.1 ") == count:
                break
        # A few more are allowed while it lasts.
        assert 100 <= client.data.count(b"HTTP/1.1 200 OK") <= 110
        assert client.data.count(b"HTTP/1.1 429 ") >= count - 110
        assert (time.process_time() - began) / count < 0.002
        await client.close()


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "TLS"])
@pytest_twisted.ensureDeferred
async def test_drain(secured: bool) -> None:
    """
    When the site stops, idle connections and half requests end, also over TLS with a peer that
    never answers, within a second or so; and nothing is left.
    """
    async with serving(secured=secured) as served:
        clients = [await connect(served.number) for _ in range(3)]
        clients[1].transport.write(GET[:10])
        clients[2].transport.write(POST + b"Content-Length: 9\r\n\r\nabc")
        await wait(0.05)
        began = time.monotonic()
        await served.port.stopListening()
        await within(served.site.drain())
        assert time.monotonic() - began < 1.6
        assert not served.site.channels
        for client in clients:
            await within(client.lost)


@pytest_twisted.ensureDeferred
async def test_stalledServerKillsNobody() -> None:
    """
    This process is blocked for longer than all bounds, while a check-in waits in the kernel: the
    name that has checked in is not declared dead, and one that has not is.
    """
    check = Check(period=0.5, grace=0.5)
    async with serving(checks={"job": check, "dead": check}) as served:
        assert await isWell(served)
        assert (await served.ask("dead")).code == 200
        client = await connect(served.number)
        await wait(0.1)
        client.transport.write(GET)
        await wait(0)
        time.sleep(2.5)
        await client.until(b"200 OK")
        for _ in range(8):
            assert await isWell(served)
            await wait(0.2)
        down = [name for event, name in served.told.names() if event == "disconnected"]
        assert down == ["dead"]
        await client.close()
