# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.checkin.client}, against a server of the ping API that shares no code
with the package.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any
from uuid import UUID as RunID

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.ssl import Certificate
from twisted.logger import LogEvent, formatEvent
from twisted.web.client import BrowserLikePolicyForHTTPS

from twisted_heartbeat import Backoff, Check, CheckIn, ClosedHere
from twisted_heartbeat.core.checkins import Signal

from ..conftest import LoggedErrors
from ..support.loopback import NAME, authority, wait, within
from ..support.pingserver import PING_KEY, UUID, Handler, PingServer, pingServer
from ..support.web import serving

SOON = Backoff(initial=0.02, maximum=0.05, jitter=None, maxElapsed=0.5)


@pytest.fixture
def server() -> Iterator[PingServer]:
    """
    The other server.
    """
    with pingServer() as running:
        yield running


def checkInTo(server: PingServer, path: str = UUID, **settings: Any) -> CheckIn:
    """
    A service that checks in there.
    """
    settings = {"interval": 0.1, "retryPolicy": SOON, "timeout": 2.0, **settings}
    return CheckIn(f"{server.url}/{path}", **settings)


async def until(holds: Callable[[], object], seconds: float = 5.0) -> None:
    """
    Wait until something holds.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        await wait(0.005)


def settled(service: CheckIn) -> Any:
    """
    Wait until a check-in was taken, or was not.
    """
    return until(lambda: service.failures or service.sinceTaken is not None)


# The schedule.


@pytest_twisted.ensureDeferred
async def test_checksInOnAGrid(server: PingServer) -> None:
    """
    It checks in at once and then at each interval, over one connection, with a small JSON body.
    """
    service = checkInTo(server)
    began = time.monotonic()
    service.startService()
    await until(lambda: len(server.pings) == 6)
    await service.stopService()
    offsets = [ping.at - began - 0.1 * number for number, ping in enumerate(server.pings)]
    # The first one waits for its connection, and a busy machine may delay another.
    assert median(offsets) == pytest.approx(0.0, abs=0.06)
    assert server.connections == 1
    assert server.kinds == ["success"] * 6
    ping = server.pings[2]
    assert ping.method == "POST"
    assert ping.headers["Content-Type"] == "application/json"
    body = json.loads(ping.body)
    assert (body["host"], body["number"], body["interval"]) == (socket.gethostname(), 3, 0.1)
    assert service.failures == 0 and service.sinceTaken is not None
    count = len(server.pings)
    await wait(0.25)
    assert len(server.pings) == count


@pytest.mark.parametrize(
    ("settings", "method", "body", "kind"),
    [
        ({"method": "GET"}, "GET", b"", None),
        ({"body": "words"}, "POST", b"words", "text/plain; charset=utf-8"),
        ({"body": b"\x00\xff"}, "POST", b"\x00\xff", "text/plain; charset=utf-8"),
        ({"body": lambda: {"load": 0.5}}, "POST", b'{"load": 0.5}', "application/json"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_methodAndBody(
    server: PingServer, settings: Any, method: str, body: bytes, kind: str | None
) -> None:
    """
    The method and the body are the user's choice.  A GET has no body.
    """
    service = checkInTo(server, interval=60.0, **settings)
    service.startService()
    await until(lambda: server.pings)
    await service.stopService()
    [ping] = server.pings
    assert (ping.method, ping.body, ping.headers.get("Content-Type")) == (method, body, kind)


@pytest_twisted.ensureDeferred
async def test_bodyFunctionThatFails(server: PingServer, loggedErrors: LoggedErrors) -> None:
    """
    If the function for the body fails, the check-in is sent without one, and the log says so once.
    """

    def body() -> Any:
        raise SystemExit(1)

    service = checkInTo(server, interval=0.05, body=body)
    service.startService()
    await until(lambda: len(server.pings) >= 3)
    await service.stopService()
    assert {ping.body for ping in server.pings} == {b""}
    assert len(loggedErrors.flush(SystemExit)) == 1


@pytest_twisted.ensureDeferred
async def test_slugCreatesItsCheck(server: PingServer) -> None:
    """
    The query of the URL is sent with each check-in, and 201 is a success as 200 is.
    """
    service = checkInTo(server, f"{PING_KEY}/new-check?create=1", token="t")
    service.startService()
    await until(lambda: len(server.pings) == 2)
    await service.stopService()
    assert "new-check" in server.checks
    assert server.pings[0].headers["Authorization"] == "Bearer t"
    assert service.failures == 0


@pytest_twisted.ensureDeferred
async def test_nextIsOnTime(server: PingServer) -> None:
    """
    A server that answers nothing for a while delays no check-in: the next takes the place of the
    one that is under way, on the grid.
    """
    arrivals = []

    def hang(request: Handler) -> bool:
        arrivals.append(time.monotonic())
        if len(arrivals) < 4:
            time.sleep(0.5)
        return False

    server.misbehave = hang
    service = checkInTo(server, interval=0.2, timeout=10.0)
    service.startService()
    await until(lambda: len(arrivals) == 3)
    assert service.failures == 2
    await until(lambda: len(arrivals) == 6)
    await service.stopService()
    gaps = [at - arrivals[0] for at in arrivals]
    assert gaps == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], abs=0.09)
    await wait(0.5)


@pytest_twisted.ensureDeferred
async def test_stalledProcessSendsOneCheckIn(server: PingServer) -> None:
    """
    After a stall of this process the check-ins that were missed are not made up for, and the grid
    is kept.
    """
    service = checkInTo(server, interval=0.2)
    service.startService()
    await until(lambda: len(server.pings) == 1)
    time.sleep(0.9)
    await wait(0.45)
    await service.stopService()
    gaps = [ping.at - server.pings[0].at for ping in server.pings]
    assert gaps[1:] == pytest.approx([0.9, 1.0, 1.2], abs=0.08)


# Servers that do not take it.


@pytest_twisted.ensureDeferred
async def test_retriesUntilTaken(server: PingServer, events: list[LogEvent]) -> None:
    """
    A check-in that is not taken is sent again with backoff, and the log says once that it was not,
    and once that it is again.
    """

    def refuse(request: Handler) -> bool:
        if server.requests <= 3:
            request.answer(503)
        return server.requests <= 3

    server.misbehave = refuse
    service = checkInTo(server, interval=60.0)
    service.startService()
    await until(lambda: server.pings)
    await until(lambda: service.failures == 0)
    await service.stopService()
    assert server.requests == 4
    logged = [formatEvent(event) for event in events if "check-in" in (formatEvent(event) or "")]
    place = server.url.removesuffix("/ping")
    assert logged == [
        f"{place}: a check-in was not taken: NotTaken: the server answered 503",
        f"{place}: check-ins are taken, after 3 that were not",
    ]


@pytest.mark.parametrize("limit", [{"maxAttempts": 2}, {"maxElapsed": 0.05}])
@pytest_twisted.ensureDeferred
async def test_limitsOfThePolicyEndNoCheckInOfTheInterval(
    server: PingServer, limit: dict[str, Any]
) -> None:
    """
    A check-in of the interval is sent again until it is taken or the next is due, however long that
    is: the policy's limits are for the reports of jobs.
    """

    def refuse(request: Handler) -> bool:
        if server.requests <= 8:
            request.answer(503)
        return server.requests <= 8

    server.misbehave = refuse
    policy = Backoff(initial=0.02, maximum=0.05, jitter=None, **limit)
    service = checkInTo(server, interval=60.0, retryPolicy=policy)
    service.startService()
    await until(lambda: server.pings)
    await service.stopService()
    assert server.requests == 9


@pytest.mark.parametrize("code", [301, 302, 307, 308, 400, 401, 404, 405, 409, 413])
@pytest_twisted.ensureDeferred
async def test_finalAnswerIsNotRepeated(server: PingServer, code: int) -> None:
    """
    An answer that would be the same again is not provoked again, and no redirect is followed: it
    could lead the token elsewhere.
    """

    def answer(request: Handler) -> bool:
        request.answer(code, Location=f"{server.url}/{UUID}")
        return True

    server.misbehave = answer
    service = checkInTo(server, interval=60.0, method="GET")
    service.startService()
    await until(lambda: service.failures)
    await wait(0.15)
    await service.stopService()
    assert (server.requests, server.pings, service.failures) == (1, [], 1)


@pytest_twisted.ensureDeferred
async def test_otherFinalReasonIsLogged(server: PingServer, events: list[LogEvent]) -> None:
    """
    Failures that may pass are logged once.  A final answer after them is logged too, because only
    a person can mend that.
    """
    codes = [503, 500, 404, 404, 401]

    def refuse(request: Handler) -> bool:
        request.answer(codes[min(server.requests, len(codes)) - 1])
        return True

    server.misbehave = refuse
    service = checkInTo(server)
    service.startService()
    await until(lambda: server.requests >= 7)
    await service.stopService()
    logged = [event["reason"] for event in events if "was not taken" in event["log_format"]]
    assert logged == [f"NotTaken: the server answered {code}" for code in (503, 404, 401)]


@pytest_twisted.ensureDeferred
async def test_retryAfterIsHeeded(server: PingServer) -> None:
    """
    A server that asks for a pause has it.
    """
    arrivals = []

    def limit(request: Handler) -> bool:
        arrivals.append(time.monotonic())
        if len(arrivals) == 1:
            request.answer(429, Retry_After="1")
        return len(arrivals) == 1

    server.misbehave = limit
    patient = Backoff(initial=0.02, maximum=0.05, jitter=None)
    service = checkInTo(server, interval=60.0, retryPolicy=patient)
    service.startService()
    await until(lambda: server.pings)
    await service.stopService()
    assert arrivals[1] - arrivals[0] >= 1.0


@pytest_twisted.ensureDeferred
async def test_serverThatIsDownAndComesBack() -> None:
    """
    While nothing listens, check-ins fail and are due as before; when the server is there they are
    taken again, without a restart.
    """
    with pingServer() as first:
        port = int(first.url.split(":")[2].split("/")[0])
    service = checkInTo(first, interval=0.5)
    service.startService()
    await until(lambda: service.failures >= 2)
    with pingServer(port=port) as second:
        await until(lambda: len(second.pings) >= 3)
        assert service.failures == 0
        await service.stopService()


@pytest_twisted.ensureDeferred
async def test_connectionThatTheServerHasClosed(server: PingServer) -> None:
    """
    A server may close a connection between two check-ins: the next is sent again over a new one.
    """

    def close(request: Handler) -> bool:
        request.close_connection = True
        return False

    server.misbehave = close
    service = checkInTo(server)
    service.startService()
    await until(lambda: len(server.pings) == 4)
    await service.stopService()
    assert server.connections >= 4


def silent(request: Handler) -> bool:
    """
    Answer nothing for a while.
    """
    time.sleep(0.6)
    return False


def halfAnswer(request: Handler) -> bool:
    """
    Answer with the beginning of a body, and then nothing for a while.
    """
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nOK")
    time.sleep(0.6)
    request.close_connection = True
    return True


def endless(request: Handler) -> bool:
    """
    Answer without an end.
    """
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n")
    try:
        for _ in range(2000):
            request.wfile.write(b"x" * 65536)
    except OSError:
        pass
    request.close_connection = True
    return True


def garbage(request: Handler) -> bool:
    """
    Answer something else.
    """
    request.wfile.write(b"\x00\x1b[2J what?\r\n\r\n")
    request.close_connection = True
    return True


@pytest.mark.parametrize("how", [silent, halfAnswer, endless, garbage])
@pytest_twisted.ensureDeferred
async def test_misbehavingServer(
    server: PingServer, how: Callable[[Handler], bool], events: list[LogEvent]
) -> None:
    """
    A server that answers nothing, half of an answer, without an end, or nonsense, costs no more
    than the timeout and little memory; the check-in is sent again.
    """
    server.misbehave = how
    service = checkInTo(server, interval=60.0, timeout=0.2)
    service.startService()
    if how is endless:
        await until(lambda: service.sinceTaken is not None)
    else:
        await until(lambda: server.requests >= 3)
        assert service.failures >= 2
        texts = [formatEvent(event) or "" for event in events]
        [said] = [text for text in texts if "was not taken" in text]
        assert said.isprintable()
    await service.stopService()
    await wait(0.7)


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "TLS"])
@pytest_twisted.ensureDeferred
async def test_endlessHeaderIsCutOff(tmp_path: Path, secured: bool) -> None:
    """
    A server that sends a header without an end is not read for longer than a header may be, so that
    it can not fill the memory until the timeout.
    """
    written = [0]

    def endlessHeader(request: Handler) -> bool:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n")
        lines = (b"X: " + b"y" * 15_000 + b"\r\n") * 20
        try:
            for _ in range(1000):
                request.wfile.write(lines)
                written[0] += len(lines)
        except OSError:
            pass
        request.close_connection = True
        return True

    path = tmp_path / "server.pem"
    authority().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
    with pingServer(certificate=str(path) if secured else None) as server:
        server.misbehave = endlessHeader
        service = checkInTo(server, interval=60.0, timeout=4.0, policy=policy())
        service.startService()
        await until(lambda: service.failures)
        await service.stopService()
    assert written[0] < 30_000_000


# The end.


@pytest.mark.parametrize("how", [silent, halfAnswer])
@pytest_twisted.ensureDeferred
async def test_stopWhileARequestIsUnderWay(
    server: PingServer, how: Callable[[Handler], bool]
) -> None:
    """
    A stop in the middle of a request or of its answer ends at once, and leaves nothing behind.
    """
    server.misbehave = how
    service = checkInTo(server, timeout=30.0, interval=60.0)
    service.startService()
    await until(lambda: server.requests)
    await wait(0.05)
    began = time.monotonic()
    await within(service.stopService())
    assert time.monotonic() - began < 0.3
    await wait(0.7)


@pytest_twisted.ensureDeferred
async def test_stopWhileConnecting() -> None:
    """
    A stop while a connection is being made, or while it waits to try again, leaves nothing behind.
    """
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    with listening:
        # Bound and not listening: refused at once.
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/ping/job"
        service = CheckIn(url, interval=60.0, retryPolicy=Backoff(initial=30.0, jitter=None))
        service.startService()
        await until(lambda: service.failures)
        await service.stopService()
        # And on to a second start and stop, in the same instant.
        service.startService()
        await service.stopService()


# TLS.


def policy(name: str = NAME) -> Any:
    """
    Trust the authority of the tests.
    """
    return BrowserLikePolicyForHTTPS(trustRoot=Certificate.loadPEM(authority().cert_pem.bytes()))


@pytest_twisted.ensureDeferred
async def test_certificateIsChecked(tmp_path: Path, events: list[LogEvent]) -> None:
    """
    Over TLS the server's certificate is checked: its authority and its name.  With the right ones
    the check-in is taken; otherwise nothing is sent, and the log says why.
    """
    good, other = tmp_path / "good.pem", tmp_path / "other.pem"
    authority().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(good))
    authority().issue_cert(NAME).private_key_and_cert_chain_pem.write_to_path(str(other))
    for path, trusted, taken in [(good, True, True), (good, False, False), (other, True, False)]:
        with pingServer(certificate=str(path)) as server:
            settings = {"policy": policy()} if trusted else {}
            service = checkInTo(server, interval=60.0, **settings)
            service.startService()
            await settled(service)
            await service.stopService()
            assert bool(server.pings) == taken
            await wait(0.05)
    reasons = [event["reason"] for event in events if "was not taken" in event["log_format"]]
    assert len(reasons) == 2
    assert "certificate verify failed" in reasons[0]
    assert "VerificationError" in reasons[1]


# Jobs.


@pytest_twisted.ensureDeferred
async def test_runThatSucceeds(server: PingServer) -> None:
    """
    A run reports its start, a line for the log, and its success, all with one run id.
    """
    checkIn = checkInTo(server)
    async with checkIn.run() as run:
        await wait(0.02)
        assert await run.log("half way")
    assert sorted(server.kinds) == ["log", "start", "success"]
    assert {ping.rid for ping in server.pings} == {run.id}
    assert str(RunID(run.id)) == run.id
    assert server.pings[-1].kind == "success"


@pytest_twisted.ensureDeferred
async def test_runThatFails(server: PingServer) -> None:
    """
    A run that raises reports the end of its traceback, and the exception is the caller's as before.
    """
    with pytest.raises(ZeroDivisionError):
        async with checkInTo(server).run():
            _ = 1 / 0
    assert server.kinds == ["start", "fail"]
    text = server.pings[-1].body.decode()
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith("ZeroDivisionError: division by zero\n")
    assert "1 / 0" in text


@pytest.mark.parametrize("limit", [None, 50, 1_000_000])
@pytest_twisted.ensureDeferred
async def test_longTracebackIsCutAtItsBeginning(server: PingServer, limit: int | None) -> None:
    """
    Of a body that is too long the end is sent, because there the exception stands: 100 kB, or as
    much as the server keeps.
    """
    server.bodyLimit = limit
    with pytest.raises(RuntimeError):
        async with checkInTo(server).run():
            # So that the server's limit is known from the answer to the start.
            await until(lambda: server.pings)
            await wait(0.05)
            raise RuntimeError("x" * 200_000 + "the end")
    body = server.pings[-1].body
    assert body.endswith(b"the end\n")
    assert len(body) == min(limit or 100_000, 100_000)


@pytest.mark.parametrize(
    ("code", "status"), [(None, 0), (0, 0), (3, 3), (255, 255), (256 + 7, 7), (-1, 255)]
)
@pytest_twisted.ensureDeferred
async def test_exitStatusOfARun(server: PingServer, code: int | None, status: int) -> None:
    """
    C{sys.exit} in a run is reported as the exit status that the process would have.
    """
    with pytest.raises(SystemExit):
        async with checkInTo(server).run():
            sys.exit(code)
    ping = server.pings[-1]
    assert (ping.status, ping.kind) == (status, "fail" if status else "success")


@pytest_twisted.ensureDeferred
async def test_exitWithWords(server: PingServer) -> None:
    """
    C{sys.exit} with a text is a failure.
    """
    with pytest.raises(SystemExit):
        async with checkInTo(server).run():
            sys.exit("no configuration")
    assert server.pings[-1].kind == "fail"
    assert b"no configuration" in server.pings[-1].body


@pytest_twisted.ensureDeferred
async def test_cancelledRun(server: PingServer) -> None:
    """
    A run that is cancelled is reported as failed, and stays cancelled.
    """

    async def job() -> None:
        async with checkInTo(server).run():
            await Deferred()

    running = Deferred.fromCoroutine(job())
    await until(lambda: server.pings)
    running.cancel()
    with pytest.raises(CancelledError):
        await within(running)
    assert server.kinds == ["start", "fail"]


@pytest_twisted.ensureDeferred
async def test_closedCoroutine(server: PingServer) -> None:
    """
    A coroutine that is closed can wait for nothing; its failure is still reported.
    """
    checkIn = checkInTo(server)

    async def job() -> None:
        async with checkIn.run():
            await Deferred()

    coroutine = job()
    coroutine.send(None)
    await until(lambda: server.pings)
    coroutine.close()
    await until(lambda: server.kinds == ["start", "fail"])
    await checkIn.stopService()


def refusingEnds(times: int) -> Callable[[Handler], bool]:
    """
    Answer 503 to so many reports of an end.
    """
    refused = []

    def refuse(request: Handler) -> bool:
        refuses = "/start" not in request.path and len(refused) < times
        if refuses:
            refused.append(request.path)
            request.answer(503)
        return refuses

    return refuse


@pytest_twisted.ensureDeferred
async def test_cancelledReportLeavesNothing(server: PingServer) -> None:
    """
    A job that is cancelled while its end waits to be sent again leaves no connection.
    """
    server.misbehave = refusingEnds(1)
    checkIn = checkInTo(server, retryPolicy=Backoff(initial=30.0, jitter=None))

    async def job() -> None:
        async with checkIn.run():
            pass

    running = Deferred.fromCoroutine(job())
    await until(lambda: checkIn.failures)
    running.cancel()
    with pytest.raises(CancelledError):
        await within(running)


@pytest.mark.parametrize(("hangs", "kind"), [(True, "fail"), (False, "success")])
@pytest_twisted.ensureDeferred
async def test_closedCoroutineLeavesNothing(server: PingServer, hangs: bool, kind: str) -> None:
    """
    The end of a coroutine that is closed, in its job or during the report, is sent until it is
    taken; then its connections are closed.
    """
    server.misbehave = refusingEnds(2)
    checkIn = checkInTo(server)

    async def job() -> None:
        async with checkIn.run():
            if hangs:
                await Deferred()

    coroutine = job()
    coroutine.send(None)
    await until(lambda: server.pings)
    coroutine.close()
    await until(lambda: server.kinds == ["start", kind])
    await until(lambda: not checkIn.failures)
    await wait(0.05)


@pytest_twisted.ensureDeferred
async def test_jobIsNotDisturbed() -> None:
    """
    Without a server the job begins at once and runs as ever; its end is delayed by no more than the
    policy says, and no exception comes of the report.
    """
    with pingServer() as gone:
        pass
    began = time.monotonic()
    started = None
    async with checkInTo(gone).run():
        started = time.monotonic()
        result = 42
    assert result == 42
    assert started - began < 0.05
    assert 0.4 < time.monotonic() - began < 1.5


@pytest_twisted.ensureDeferred
async def test_longRetryAfterDoesNotHoldAJob(server: PingServer) -> None:
    """
    A server that asks for a longer wait than the policy has does not hold a job up.
    """

    def limit(request: Handler) -> bool:
        request.answer(429, Retry_After="900")
        return True

    server.misbehave = limit
    began = time.monotonic()
    async with checkInTo(server).run():
        pass
    assert time.monotonic() - began < 1.0
    assert server.requests == 2


@pytest_twisted.ensureDeferred
async def test_runsSideBySide(server: PingServer) -> None:
    """
    Runs of one service that is not started do not end each other's connections.
    """
    checkIn = checkInTo(server)

    async def job(seconds: float) -> None:
        async with checkIn.run():
            await wait(seconds)

    await gatherResults([Deferred.fromCoroutine(job(n / 50)) for n in range(5)])
    assert sorted(server.kinds) == ["start"] * 5 + ["success"] * 5
    assert len({ping.rid for ping in server.pings}) == 5


@pytest_twisted.ensureDeferred
async def test_endNeverOvertakesItsStart(server: PingServer) -> None:
    """
    A start that the server is slow to take is waited for, because a start that arrived after its
    end would be a run without one.
    """

    def slow(request: Handler) -> bool:
        if request.path.split("?")[0].endswith("/start"):
            time.sleep(0.3)
        return False

    server.misbehave = slow
    async with checkInTo(server).run():
        pass
    assert server.kinds == ["start", "success"]


@pytest_twisted.ensureDeferred
async def test_runBesideTheInterval(server: PingServer) -> None:
    """
    Runs and the check-ins of a service that runs share its connections.
    """
    service = checkInTo(server)
    service.startService()
    for _ in range(3):
        async with service.run():
            await wait(0.05)
    await service.stopService()
    assert server.kinds.count("start") == 3
    assert server.connections <= 3


# While a link is up.


def links(count: int) -> list[Any]:
    """
    What hooks are told of.
    """
    return [SimpleNamespace() for _ in range(count)]


@pytest_twisted.ensureDeferred
async def test_onlyWhileLinksAreUp(server: PingServer) -> None:
    """
    With the hooks of two clients it checks in only while both have a link: at once when the last
    one comes, and not any more when one goes.
    """
    service = checkInTo(server)
    one, two = service.linkHooks(), service.linkHooks()
    service.startService()
    link, other = links(2)
    one.connected(link)
    await wait(0.15)
    assert server.pings == []
    two.connected(link)
    two.connected(other)
    await until(lambda: len(server.pings) >= 2)
    two.disconnected(link, ClosedHere())
    await until(lambda: len(server.pings) >= 4)
    two.disconnected(other, ClosedHere())
    await wait(0.05)
    count = len(server.pings)
    await wait(0.3)
    assert len(server.pings) == count
    two.connected(link)
    await until(lambda: len(server.pings) == count + 1, 0.09)
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_endOfALinkThatWasNeverConnected(server: PingServer) -> None:
    """
    A port scan or a newcomer that is not admitted ends without ever having been up, and stops no
    check-ins of a server that has a link.
    """
    service = checkInTo(server)
    hooks = service.linkHooks()
    service.startService()
    link, *scans = links(4)
    hooks.connected(link)
    for scan in scans:
        hooks.disconnected(scan, ClosedHere())
    await until(lambda: len(server.pings) >= 3)
    hooks.disconnected(link, ClosedHere())
    await wait(0.05)
    count = len(server.pings)
    await wait(0.25)
    assert len(server.pings) == count
    await service.stopService()


# Settings.


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/ping/s3cret",
        "host/ping/s3cret",
        "http:///ping/s3cret",
        "https://user:s3cret@host/ping/a",
        "https://host:99999/s3cret",
        "https://host/ping/s3cret\r\nX: y",
        "https://host/ping/s3cret a",
        "https://höst/s3cret",
        "http://[::1/s3cret",
    ],
)
def test_wrongURLIsRefused(url: str) -> None:
    """
    A URL that can not be used is refused in one sentence, which does not repeat it.
    """
    with pytest.raises(ValueError, match=r"^CheckIn\.url: it must be") as refused:
        CheckIn(url)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "settings", [{"interval": 0}, {"timeout": None}, {"timeout": -1}, {"method": "PUT"}]
)
def test_wrongSettingIsRefused(settings: dict[str, Any]) -> None:
    """
    A wrong setting is one sentence that names it.
    """
    with pytest.raises(ValueError, match=rf"^CheckIn\.{next(iter(settings))} is "):
        CheckIn("http://host/ping/a", **settings)


@pytest_twisted.ensureDeferred
async def test_clientAndServerOfThisPackage() -> None:
    """
    Client and server of this package understand each other: runs have durations, and the bearer
    token proves the name.
    """
    checks = {"job": Check(period=60.0, grace=60.0)}
    async with serving(checks=checks, tokens={"job": "t"}) as served:
        with pytest.raises(RuntimeError):
            async with CheckIn(f"{served.url}/job", token="t", retryPolicy=SOON).run():
                await wait(0.1)
                raise RuntimeError("boom")
        name = served.resource.names["job"]
        assert name.last is not None and name.last.signal is Signal.FAIL
        assert name.duration == pytest.approx(0.1, abs=0.08)
        assert name.isAuthenticated
        assert str(served.told.causes[-1]) == "it said fail: RuntimeError: boom"
