# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The examples and the command lines of the pages about check-ins, each run as a user runs it.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.utils import getProcessOutputAndValue

from ..support.loopback import wait, within
from ..support.pingserver import UUID, pingServer
from .conftest import Start
from .recipes.recipe import freePort

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = CHECKOUT / "docs" / "examples" / "checkins"
PAGE = CHECKOUT / "docs" / "howto" / "watch-cron-jobs.md"

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """
    The file of tokens that the page shows.
    """
    [text] = re.findall(r"```text\n(# name .*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "checks.tokens"
    path.write_text(text)
    return path


async def run(program: str, *arguments: str, **options: Any) -> tuple[str, str, int]:
    """
    Run a program to its end.

    @return: what it has printed, on both streams, and its exit status.
    """
    running = getProcessOutputAndValue(program, arguments, **options)
    out, error, status = await within(running, 30.0)
    return out.decode(), error.decode(), status


def shellOf(page: Path) -> str:
    """
    The script that the page shows for a job with its start, its exit status and its output.
    """
    [script] = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return str(script)


@pytest_twisted.ensureDeferred
async def test_serverAndItsJobs(start: Start, tokens: Path, tmp_path: Path) -> None:
    """
    The server of the page hears the script of the page, and the job of the page, and prints which
    job is down, why, and which is up again.
    """
    port = freePort()
    server = start(sys.executable, EXAMPLES / "server.py", port, tokens)
    await server.says("ready")
    url = f"http://127.0.0.1:{port}/ping/Yb8eX0n2mS0q/nightly-backup"
    script = shellOf(PAGE).replace(":8080/", f":{port}/")
    assert url in script
    backup = tmp_path / "backup"
    for text, printed in [
        (
            "echo saving; echo disk full >&2; exit 4",
            r"DOWN .*CheckInFailed: exit status 4: disk full",
        ),
        ("echo saved", "UP nightly-backup"),
    ]:
        backup.write_text(f"#!/bin/sh\n{text}\n")
        backup.chmod(0o755)
        expected = server.says(printed, len(server.lines))
        out, error, _ = await run(
            "/bin/sh", "-c", script, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}
        )
        assert (out, error) == ("", "")
        await expected
    expected = server.says(
        r"DOWN nightly-backup: CheckInFailed: .*FileNotFoundError", len(server.lines)
    )
    job = str(EXAMPLES / "job.py")
    _, _, status = await run(sys.executable, job, url, str(tmp_path / "missing"))
    assert status == 1
    await expected
    expected = server.says("UP nightly-backup", len(server.lines))
    assert await run(sys.executable, job, url, str(tokens)) == ("3\n", "", 0)
    await expected


@pytest_twisted.ensureDeferred
async def test_commandLineOfTheServer(start: Start, tokens: Path) -> None:
    """
    C{twist heartbeat --http} serves what its page says, stops at once when it is told to, and its
    log has no token.
    """
    port = freePort()
    command = [sys.executable, "-m", "twisted", "--log-format=text", "heartbeat"]
    command += ["--http", f"tcp:{port}", "--check", "nightly-backup:0.5:0.5"]
    server = start(*command, "--http-tokens", tokens)
    await server.says("CheckInSite starting")
    [line] = re.findall(r'"(http://.*create=1.*?)"', PAGE.read_text(encoding="utf-8"))
    url = line.replace(":8080/", f":{port}/")
    missed = server.says("nightly-backup: disconnected, CheckInMissed: it has not checked in since")
    assert (await run("/usr/bin/curl", "-sS", "-m", "10", url))[0] == "Created"
    base = f"http://127.0.0.1:{port}/ping"
    answers = [await run("/usr/bin/curl", "-sS", f"{base}/wrong/host-17") for _ in range(2)]
    assert [answer[0] for answer in answers] == ["unauthorized"] * 2
    await missed
    text = server.said
    assert "check-ins: host-17: connected" in text
    assert "Yb8eX0n2mS0q" not in text and "f3Qd71LwVh9z" not in text and "wrong/" not in text


@pytest_twisted.ensureDeferred
async def test_gatewayThatChecksInWhileItsLinkIsUp(start: Start) -> None:
    """
    The gateway of the page checks in while its link is up, and no longer when its hub is gone; and
    so does the command line.
    """
    with pingServer() as other:
        port = freePort()
        url, hub = f"{other.url}/{UUID}", f"tcp:127.0.0.1:{port}"
        twist = [sys.executable, "-m", "twisted", "heartbeat"]
        start(sys.executable, EXAMPLES / "gateway.py", url, hub)
        # So that a hub that starts slowly is found soon after it has started.
        options = ["--max-delay", "1", "--check-in-every", "0.5"]
        start(*twist, "--connect", hub, "--check-in", f"{url}?rid={UUID}", *options)
        await wait(1.5)
        assert other.pings == []
        listening = start(*twist, "--listen", f"tcp:{port}:interface=127.0.0.1")
        for _ in range(1200):
            if {ping.rid for ping in other.pings} == {None, UUID}:
                break
            await wait(0.05)
        assert {ping.rid for ping in other.pings} == {None, UUID}
        assert any(b'"state": "connected"' in ping.body for ping in other.pings)
        await listening.end()
        await wait(0.5)
        count = len(other.pings)
        await wait(1.5)
        assert len(other.pings) == count
