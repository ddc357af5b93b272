# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.cli.http}: the options for HTTP, and the services that they make.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError

import twisted_heartbeat
from twisted_heartbeat.checkin.resource import CheckInResource
from twisted_heartbeat.checkin.site import CheckInSite
from twisted_heartbeat.cli.checkins import RunningCheckIn, RunningHTTP
from twisted_heartbeat.cli.options import Options
from twisted_heartbeat.cli.service import makeService
from twisted_heartbeat.core.checkins import Check

from ..support.loopback import wait, within
from ..support.pingserver import UUID, pingServer
from ..support.web import ask

EMPTY = str(Path(twisted_heartbeat.__file__).with_name("py.typed"))
"""A file with nothing in it."""

URL = "http://127.0.0.1:1/ping/s3cret/job"


def parsed(*arguments: str, reactor: Any = None) -> Options:
    """
    The options of a command line.
    """
    options = Options(MemoryReactorClock() if reactor is None else reactor)
    options.parseOptions(list(arguments))  # type: ignore[no-untyped-call]
    return options


def test_optionsMakeServices(tmp_path: Path) -> None:
    """
    Each option for HTTP is enough by itself; together they make one resource at all places, and one
    service for each URL.
    """
    tokens = tmp_path / "tokens"
    tokens.write_text("* s3cret\n")
    assert list(makeService(parsed("--check-in", URL)).parts) == [("check-in", URL)]
    other = URL + "2"
    options = parsed(
        *("--http", "tcp:8080", "--http", "tcp:8081:interface=0.0.0.0"),
        *("--check", "job:60:30", "--check", "nightly-backup:86400:3600.5"),
        *("--http-tokens", str(tokens)),
        *("--check-in", URL, "--check-in", other, "--check-in-every", "5"),
    )
    made = makeService(options)
    [resource] = [one for one in made if isinstance(one, CheckInResource)]
    listeners = [one for one in made.parts.values() if isinstance(one, RunningHTTP)]
    checkIns = [one for one in made.parts.values() if isinstance(one, RunningCheckIn)]
    assert all(isinstance(one.service._factory, CheckInSite) for one in listeners)
    assert [one.part.endpoint for one in listeners] == [
        "tcp:8080:interface=127.0.0.1",
        "tcp:8081:interface=0.0.0.0",
    ]
    assert [(one.part.url, one.part.every) for one in checkIns] == [(URL, 5.0), (other, 5.0)]
    assert resource._monitor._checks == {
        "job": Check(period=60.0, grace=30.0),
        "nightly-backup": Check(period=86400.0, grace=3600.5),
    }


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("8080", "tcp:8080:interface=127.0.0.1"),
        ("tcp:8080", "tcp:8080:interface=127.0.0.1"),
        ("tcp6:8080", r"tcp6:8080:interface=\:\:1"),
        ("tcp:8080:interface=192.0.2.1", "tcp:8080:interface=192.0.2.1"),
        ("unix:/run/checks.sock", "unix:/run/checks.sock"),
        ("haproxy:tcp:8080", "haproxy:tcp:8080:interface=127.0.0.1"),
    ],
)
def test_listensOnThisMachineOnly(given: str, used: str) -> None:
    """
    Without a place to listen, only this machine may check in.
    """
    [described] = parsed("--http", given)["http"]
    assert described == used


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--check-in", "ftp://host/s3cret"], "--check-in: it must be a URL"),
        (["--check-in", "http://user:s3cret@host/"], "--check-in: it must be a URL"),
        (["--check-in-every", "0"], "--check-in-every is '0'"),
        (["--check-in-every", "soon"], "--check-in-every is 'soon'"),
        (["--http", "carrier-pigeon:7"], "--http is 'carrier-pigeon:7'"),
        (["--check", "job"], "--check is 'job'"),
        (["--check", "job:1"], "--check is 'job:1'"),
        (["--check", "job:0:1"], "--check is 'job:0:1'"),
        (["--check", "a/b:60:60"], "--check is 'a/b:60:60'"),
        (["--check", "job:nan:1"], "--check is 'job:nan:1'"),
        (["--http-tokens", "/missing"], "--http-tokens is '/missing'"),
        ([], "neither --listen nor --connect is given"),
        (["--check", "job:60:60"], "--check is given and --http is not"),
        (["--check-in", URL, "--http-tokens", EMPTY], "--http-tokens is given and --http"),
    ],
)
def test_wrongOption(arguments: list[str], words: str) -> None:
    """
    A wrong option is one sentence, which repeats no URL.
    """
    with pytest.raises(UsageError) as refused:
        parsed(*arguments)
    assert str(refused.value).startswith(words)
    assert "s3cret" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.fixture
def withoutTreq(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An interpreter without treq.
    """
    for name in [name for name in sys.modules if name.startswith(("treq", "twisted_heartbeat.ch"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "treq", None)  # type: ignore[arg-type]
    # The import that follows puts other modules in place of these, also into their package.
    monkeypatch.setattr(twisted_heartbeat, "checkin", twisted_heartbeat.checkin)
    # Not by its dotted name, which would load it, if no test has done so before.
    monkeypatch.delitem(vars(twisted_heartbeat), "CheckIn", raising=False)
    # Otherwise the package would keep the modules that are loaded meanwhile.
    monkeypatch.delitem(vars(twisted_heartbeat), "checkin", raising=False)


def test_missingExtra(withoutTreq: None) -> None:
    """
    Without treq the one sentence says what to install.
    """
    with pytest.raises(UsageError, match=r"^--check-in: .*install twisted_heartbeat\[http\]"):
        parsed("--check-in", URL)


def test_missingExtraOfAFile(
    withoutTreq: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    So does that of a file.
    """
    file = tmp_path / "hb.toml"
    file.write_text(f"check-in = '{URL}'")
    with pytest.raises(SystemExit):
        parsed(f"--config={file}")
    words = "check-in is ***: it must be left out, or its extra installed (CheckIn needs treq"
    said = capsys.readouterr().err
    assert said.startswith(f"{file}:1: {words}")
    assert said.endswith("install twisted_heartbeat[http])\n")


@pytest_twisted.ensureDeferred
async def test_deadlinesOutliveTheProcess(tmp_path: Path) -> None:
    """
    The store of a file also keeps the deadlines of check-ins: after a restart a name does not have
    its whole period again.
    """
    from twisted.internet import reactor

    file, remaining = tmp_path / "hb.toml", []
    for period in (10, 1000):
        file.write_text(
            f"http.endpoint = 'tcp:0'\nstore.file = '{tmp_path}/presence'\n"
            f"[[check]]\nname = 'job'\nperiod = {period}\ngrace = 5\n"
        )
        services = makeService(parsed(f"--config={file}", reactor=reactor), {})
        services.startService()
        [resource] = [one for one in services if isinstance(one, CheckInResource)]
        while "job" not in resource.names:
            await wait(0.01)
        remaining.append(
            resource.names["job"].detector.deadline - resource._monitor.wheel.seconds()
        )
        await within(services.stopService())
    assert 14 < remaining[0] <= 15
    assert 5 <= remaining[1] <= 15


@pytest_twisted.ensureDeferred
async def test_servesAndStops() -> None:
    """
    What the options make serves check-ins and checks in, and stops without leaving anything.
    """
    from twisted.internet import reactor

    with pingServer() as other:
        options = parsed(
            *("--http", "tcp:0", "--check", "job:60:30"),
            *("--check-in", f"{other.url}/{UUID}", "--check-in-every", "0.1"),
            reactor=reactor,
        )
        services = makeService(options)
        services.privilegedStartService()
        services.startService()
        [listener] = [
            one.service for one in services.parts.values() if isinstance(one, RunningHTTP)
        ]
        port: Any = await listener._opening
        answer = await ask(f"http://127.0.0.1:{port.getHost().port}/ping/job")
        assert (answer.code, answer.body) == (200, "OK")
        await wait(0.3)
        assert len(other.pings) >= 2
        # The Deferred has been used up.
        listener._opening = None
        await port.stopListening()
        await within(services.stopService())
