# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.checkin.resource}: real HTTP over loopback.
"""

from __future__ import annotations

import base64
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.logger import LogEvent, formatEvent
from twisted.web.resource import Resource
from twisted.web.server import Site

from twisted_heartbeat import Check, CheckInFailed, CheckInLimits, CheckInResource
from twisted_heartbeat.core.checkins import Signal

from ..conftest import LoggedErrors
from ..support.checkins import Memory
from ..support.loopback import wait, within
from ..support.web import Served, ask, serving

RUN = "123e4567-e89b-12d3-a456-426614174000"
TOKENS = {"job": "own-token", "*": "shared-token"}
"""The shared one holds for all names but C{job}."""

needsCurl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def last(served: Served, name: str = "job") -> Any:
    """
    The last check-in of a name.
    """
    return served.resource.names[name].last


# What the API documents.


@pytest.mark.parametrize(
    ("path", "signal", "status"),
    [
        ("job", Signal.SUCCESS, None),
        ("job/", Signal.SUCCESS, None),
        ("job/start", Signal.START, None),
        ("job/fail", Signal.FAIL, None),
        ("job/log", Signal.LOG, None),
        ("job/0", Signal.SUCCESS, 0),
        ("any-key/job/255", Signal.FAIL, 255),
    ],
)
@pytest_twisted.ensureDeferred
async def test_eachRoute(path: str, signal: Signal, status: int | None) -> None:
    """
    Each route is answered 200 and OK to GET, POST and HEAD, and means what it says.
    """
    async with serving() as served:
        addresses = set()
        for method in ("GET", "POST", "HEAD"):
            answer = await served.ask(f"{path}?rid={RUN}", method)
            assert answer.code == 200
            assert answer.body == ("" if method == "HEAD" else "OK")
            assert answer.header("content-type") == "text/plain; charset=utf-8"
            assert answer.header("ping-body-limit") == "10000"
            found = last(served)
            assert (found.signal, found.status, found.run) == (signal, status, RUN)
            assert found.address.startswith("127.0.0.1:")
            addresses.add(found.address)
        assert len(addresses) == 3


@pytest.mark.parametrize(
    ("path", "code", "body"),
    [
        ("", 404, "not found"),
        ("other", 404, "not found"),
        ("other/start", 404, "not found"),
        ("job/256", 400, "invalid url format"),
        ("job?rid=7", 400, "invalid uuid format"),
        ("a/b/c/d", 400, "invalid url format"),
        ("new?create=1&period=x", 400, "invalid period: it must be a number of seconds"),
        ("new?create=1&period=0.2", 400, "invalid period: it must be 1 seconds or more"),
        ("new?create=1", 201, "Created"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_otherAnswers(path: str, code: int, body: str) -> None:
    """
    What is wrong is answered as the API documents, and changes nothing.
    """
    async with serving() as served:
        answer = await served.ask(path)
        assert (answer.code, answer.body) == (code, body)
        assert last(served) is None


@pytest_twisted.ensureDeferred
async def test_otherMethods() -> None:
    """
    Other methods are refused, with those that are allowed.
    """
    async with serving() as served:
        for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "BREW"):
            answer = await served.ask("job", method)
            assert (answer.code, answer.header("allow")) == (405, "GET, HEAD, POST")
        assert last(served) is None


@pytest_twisted.ensureDeferred
async def test_createdNameIsCreatedOnce() -> None:
    """
    The first check-in with C{create=1} creates the name, with the period and the grace time that it
    asks for; later ones change neither.
    """
    async with serving() as served:
        first = await served.ask("key/new/start?create=1&period=7&grace=2.5", "POST")
        assert (first.code, first.body) == (201, "Created")
        again = await served.ask("key/new?create=1&period=9", "POST")
        assert (again.code, again.body) == (200, "OK")
        assert served.resource.names["new"].check == Check(period=7.0, grace=2.5)


@pytest_twisted.ensureDeferred
async def test_missAndFailureAreTold() -> None:
    """
    Over real HTTP and in real time: a fail is told at once, a miss within 50 ms after the bound.
    """
    from twisted.internet import reactor

    check = Check(period=0.3, grace=0.3)
    async with serving(checks={"job": check, "quiet": check}) as served:
        asked = reactor.seconds()  # type: ignore[attr-defined]
        await served.ask("quiet")
        await served.ask("job")
        await served.ask("job/3", "POST", data=b"no space left")
        await wait(0.75)
        events = {(event, name): at for at, event, name, _ in served.told.events}
        # The check-in came between the request and the call of its hook.
        assert events["disconnected", "quiet"] - asked >= 0.6
        assert events["disconnected", "quiet"] - events["connected", "quiet"] <= 0.66
        assert ("suspected", "quiet") in events
        [failed] = [one for one in served.told.causes if isinstance(one, CheckInFailed)]
        assert str(failed) == "exit status 3: no space left"


# Bodies.


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
@pytest_twisted.ensureDeferred
async def test_bodyIsCut(kind: str) -> None:
    """
    A body is kept up to the limit, and cut beyond that, whatever it calls itself.
    """
    async with serving() as served:
        for size in (0, 9_999, 10_000, 10_001, 2_000_000):
            body = b"rid=7&create=1&" * (size // 15 + 1)
            headers = {"Content-Type": kind}
            answer = await served.ask("job", "POST", data=body[:size], headers=headers)
            assert answer.code == 200
            assert last(served).body == body[: min(size, 10_000)]


@pytest_twisted.ensureDeferred
async def test_bodyInAnotherSite() -> None:
    """
    In a site of the user's own the body is cut as well, after Twisted has stored it.
    """
    from twisted.internet import reactor

    resource = CheckInResource(
        checks={"job": Check()}, tokens=None, limits=CheckInLimits(body=100), source="mine"
    )
    root = Resource()
    root.putChild(b"ping", resource)
    resource.startService()
    port: Any = reactor.listenTCP(0, Site(root), interface="127.0.0.1")
    url = f"http://127.0.0.1:{port.getHost().port}/ping/job"
    answer = await ask(url, "POST", data=b"x" * 300_000)
    assert answer.code == 200
    found = resource.names["job"].last
    assert found is not None and found.body == b"x" * 100
    await resource.stopService()
    await port.stopListening()


# Tokens.


def basic(user: str, password: str) -> dict[str, str]:
    """
    The header of RFC 7617.
    """
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("path", "headers", "name"),
    [
        ("own-token/job", {}, "job"),
        ("shared-token/other", {}, "other"),
        ("job", {"Authorization": "Bearer own-token"}, "job"),
        ("other/start", {"Authorization": "bearer  shared-token "}, "other"),
        ("job", basic("anyone", "own-token"), "job"),
        ("job", basic("own-token", ""), "job"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_rightToken(path: str, headers: dict[str, str], name: str) -> None:
    """
    A token may stand in the path, or be a bearer token or a password.  Only a name's own token
    proves the name.
    """
    checks = {"job": Check(), "other": Check()}
    async with serving(checks=checks, tokens=TOKENS) as served:
        assert (await served.ask(path, headers=headers)).code == 200
        assert last(served, name) is not None
        assert served.resource.names["job"].isAuthenticated
        assert not served.resource.names["other"].isAuthenticated


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("job", {}),
        ("job/start", {}),
        ("other", {}),
        ("own-token/other?create=1", {}),
        ("wrong-token/job", {}),
        ("shared-token/job", {}),
        ("wrong-token/job", {"Authorization": "Bearer own-token"}),
        ("OWN-TOKEN/job", {}),
        ("job", {"Authorization": "Bearer"}),
        ("job", {"Authorization": "Bearer wrong-token"}),
        ("job", {"Authorization": "Basic own-token"}),
        ("job", {"Authorization": "Basic !!!!"}),
        ("job", {"Authorization": "Basic /////w=="}),
        ("job", {"Authorization": "Digest own-token"}),
        ("job", basic("own-token", "wrong-token")),
        ("job?token=own-token", {}),
    ],
)
@pytest_twisted.ensureDeferred
async def test_wrongToken(path: str, headers: dict[str, str], events: list[LogEvent]) -> None:
    """
    Without the right token every name is answered in the same way, whether there is such a name or
    not, nothing changes, and the log has no token.
    """
    async with serving(tokens=TOKENS) as served:
        answer = await served.ask(path, headers=headers)
        assert (answer.code, answer.body) == (401, "unauthorized")
        assert answer.headers.getRawHeaders(b"www-authenticate") == [
            b'Bearer realm="check-ins"',
            b'Basic realm="check-ins"',
        ]
        assert last(served) is None and set(served.resource.names) == {"job"}
    assert not [event for event in events if "-token" in (formatEvent(event) or "").lower()]
    assert "wrong-token" not in repr(events).lower()


@pytest_twisted.ensureDeferred
async def test_tokenIsHiddenFromTheAccessLog(tmp_path: Path) -> None:
    """
    The access log of a site of the user's own shows the name, and no token.
    """
    from twisted.internet import reactor

    resource = CheckInResource(checks={"job": Check()}, tokens=TOKENS)
    root = Resource()
    root.putChild(b"ping", resource)
    resource.startService()
    site = Site(root, logPath=str(tmp_path / "access.log"))
    port: Any = reactor.listenTCP(0, site, interface="127.0.0.1")
    url = f"http://127.0.0.1:{port.getHost().port}/ping"
    for path in ("own-token/job", "own-token/job/start?rid=x", "own-token/job/a/b", "job"):
        await ask(f"{url}/{path}")
    await resource.stopService()
    await port.stopListening()
    [log] = tmp_path.iterdir()
    lines = log.read_text().splitlines()
    assert [line.split('"')[3] for line in lines] == [
        "GET /ping/***/job HTTP/1.1",
        "GET /ping/***/job/start HTTP/1.1",
        "GET /ping/***/job/a/b HTTP/1.1",
        "GET /ping/job HTTP/1.1",
    ]


@pytest_twisted.ensureDeferred
async def test_tokenFunctionThatFails(loggedErrors: LoggedErrors) -> None:
    """
    If the function for tokens fails, the client is asked to come again, and the failure is logged.
    """

    def tokensOf(name: str) -> str:
        raise SystemExit(1)

    async with serving(tokens=tokensOf) as served:
        answer = await served.ask("x/job")
        assert (answer.code, answer.header("retry-after")) == (503, "5")
        # Once for the request, and once when the name's watch began.
        assert len(loggedErrors.flush(SystemExit)) == 2
        for _ in range(5):
            await served.ask("x/job")
        # Any client can ask.
        assert loggedErrors.flush(SystemExit) == []
    assert len(loggedErrors.flush(SystemExit)) == 1


# Rates.


@pytest_twisted.ensureDeferred
async def test_rateOfAName(events: list[LogEvent]) -> None:
    """
    A name that checks in too often is answered 429, with the time to wait; another name is not.
    The log says it once.
    """
    limits = CheckInLimits(perName=3)
    async with serving(checks={"a": Check(), "b": Check()}, limits=limits) as served:
        answers = [await served.ask("a") for _ in range(6)]
        assert [answer.code for answer in answers] == [200, 200, 200, 429, 429, 429]
        assert answers[3].body == "too many requests"
        assert 1 <= int(answers[3].header("retry-after") or 0) <= 20
        assert (await served.ask("b")).code == 200
    refused = [event for event in events if "was refused" in event["log_format"]]
    assert [event["others"] for event in refused] == [0, 1]


@pytest_twisted.ensureDeferred
async def test_rateOfAnAddress() -> None:
    """
    An address that asks too often is answered 429, whatever it asks for: wrong tokens too are
    tried slowly.  A wrong token takes nothing from the name's own rate.
    """
    limits = CheckInLimits(perAddress=4, perName=1)
    async with serving(tokens=TOKENS, limits=limits) as served:
        codes = [(await served.ask(f"guess{n}/job")).code for n in range(3)]
        codes.append((await served.ask("own-token/job")).code)
        codes += [(await served.ask("own-token/job")).code for _ in range(2)]
        assert codes == [401, 401, 401, 200, 429, 429]


# The life of the service.


@pytest_twisted.ensureDeferred
async def test_notStarted() -> None:
    """
    Before the service is started, and while the store is read, a client is asked to come again.
    """
    store = Memory()
    store.hold = True
    async with serving(start=False, store=store) as served:
        assert (await served.ask("job")).code == 503
        served.resource.startService()
        answer = await served.ask("job")
        assert (answer.code, answer.header("retry-after")) == (503, "5")
        store.held.pop().callback(None)
        store.hold = False
        assert (await served.ask("job")).code == 200
        assert served.resource.running


# Programs of others.


async def curl(*arguments: str) -> str:
    """
    What curl prints.
    """
    found = shutil.which("curl")
    assert found is not None
    command = ("-sS", "--max-time", "5", "-w", " %{http_code}", *arguments)
    out, error, _ = await within(getProcessOutputAndValue(found, command), 10.0)
    assert error == b""
    return out.decode()


@needsCurl
@pytest_twisted.ensureDeferred
async def test_curl(tmp_path: Path) -> None:
    """
    The command lines of cron jobs work as their authors wrote them.
    """
    log = tmp_path / "job.log"
    log.write_bytes(b"line\n" * 10_000)
    async with serving(tokens=TOKENS) as served:
        job = f"{served.url}/own-token/job"
        assert await curl("-f", "--retry", "3", job) == "OK 200"
        assert await curl("-f", "-o", "/dev/null", f"{job}/1") == " 200"
        assert last(served).status == 1
        assert await curl("--data-raw", "a=b&c=d", job) == "OK 200"
        assert last(served).body == b"a=b&c=d"
        assert await curl("--data-binary", f"@{log}", f"{job}/fail") == "OK 200"
        assert last(served).body == log.read_bytes()[:10_000]
        assert await curl("-F", f"file=@{log}", f"{job}/log") == "OK 200"
        assert b"Content-Disposition" in last(served).body
        chunked = ["-H", "Transfer-Encoding: chunked", "--data-binary", f"@{log}"]
        assert await curl(*chunked, job) == "OK 200"
        assert last(served).body == log.read_bytes()[:10_000]
        assert await curl("-u", "x:own-token", f"{served.url}/job/start") == "OK 200"
        assert await curl("--http1.0", job) == "OK 200"
        assert await curl("--head", "-o", "/dev/null", job) == " 200"
        assert await curl(f"{served.url}/shared-token/new?create=1") == "Created 201"
        # curl itself resolves dots in a path, unless it is told not to.
        assert await curl("--path-as-is", f"{served.url}/own-token/../job") == (
            "invalid url format 400"
        )


@pytest.mark.parametrize("signal", ["success", "start", "fail", "exit_code"])
@pytest_twisted.ensureDeferred
async def test_thirdPartyClient(signal: str) -> None:
    """
    The package C{healthchecks-io}, made for the service of that name, works unchanged.
    """
    healthchecks = pytest.importorskip("healthchecks_io")
    async with serving(tokens=TOKENS) as served:

        def send() -> Any:
            client = healthchecks.Client(ping_key="own-token", ping_url=f"{served.url}/")
            with client:
                if signal == "exit_code":
                    return client.exit_code_ping(exit_code=3, slug="job", data="out")
                return getattr(client, f"{signal}_ping")(slug="job", data="out")

        answered, text = await within(deferToThread(send), 10.0)
        assert answered and text == "OK"
        expected = {"exit_code": Signal.FAIL}.get(signal) or Signal(signal)
        assert (last(served).signal, last(served).body) == (expected, b"out")


@pytest.mark.parametrize("fails", [False, True])
@pytest_twisted.ensureDeferred
async def test_thirdPartyDecorator(fails: bool) -> None:
    """
    The package C{healthchecks-decorator} reports a job's start and end.
    """
    decorator = pytest.importorskip("healthchecks_decorator")
    async with serving(tokens=TOKENS) as served:

        @decorator.healthcheck(url=f"{served.url}/own-token/job", send_start=True)
        def job() -> None:
            if fails:
                raise RuntimeError("boom")

        running = deferToThread(job)
        if fails:
            with pytest.raises(RuntimeError):
                await within(running, 10.0)
        else:
            await within(running, 10.0)
        assert last(served).signal is (Signal.FAIL if fails else Signal.SUCCESS)
        assert served.resource.names["job"].duration is not None
