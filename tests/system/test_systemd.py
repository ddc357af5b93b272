# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What C{twist heartbeat} tells systemd: real processes, and a socket in systemd's place.
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..support.programs import JSON, TWISTD, WAIT_LIMIT, Run, portOf

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")

UNIT = Path(__file__).parents[2] / "docs" / "examples" / "twisted-heartbeat.service"

BLOCKING = """
import time

from twisted_heartbeat import LinkHooks


class Blocking(LinkHooks):
    def connected(self, link):
        time.sleep(1.5)
"""
"""Hooks that block the reactor for 1.5 seconds when a peer comes."""


class Supervisor:
    """
    A socket in systemd's place, and the datagrams that came, each with its time.
    """

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0"))
        self.told: list[tuple[float, str]] = []

    def listen(self, seconds: float, until: Callable[[str], bool] = lambda text: False) -> bool:
        """
        Receive for so long.

        @param until: ends it, with a datagram for which it holds.
        @return: whether that has come.
        """
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0:
            self.socket.settimeout(remaining)
            try:
                text = self.socket.recv(4096).decode()
            except TimeoutError:
                break
            self.told.append((time.monotonic(), text))
            if until(text):
                return True
        return False

    def awaits(self, words: str) -> str:
        """
        Wait for a datagram with these words.
        """
        assert self.listen(WAIT_LIMIT, lambda text: words in text), self.told
        return self.told[-1][1]

    def times(self, words: str) -> list[float]:
        """
        When the datagrams with these words came.
        """
        return [at for at, text in self.told if words in text]


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """
    The address of either kind.
    """
    return str(tmp_path / "notify") if request.param == "path" else f"@{tmp_path}"


@pytest.fixture
def supervisor(address: str) -> Iterator[Supervisor]:
    """
    systemd.
    """
    made = Supervisor(address)
    yield made
    made.socket.close()


@pytest.mark.parametrize("address", ["abstract"], indirect=True)
def test_lifeOfAService(run: Run, place: str, address: str, supervisor: Supervisor) -> None:
    """
    READY comes when the port is open, the watchdog is told meanwhile, the status follows the peers,
    and STOPPING comes with the signal and not after the links have closed.
    """
    service = run(
        *JSON, "heartbeat", "--listen", place, NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000"
    )
    assert supervisor.awaits("READY=1") == "READY=1\nSTATUS=0 peers at 1 listener"
    client = run(*JSON, "heartbeat", f"--connect=tcp:127.0.0.1:{portOf(place)}")
    assert supervisor.awaits("STATUS=") == "STATUS=1 peer at 1 listener"
    supervisor.listen(1.2)
    watched = supervisor.times("WATCHDOG=1")
    assert max(b - a for a, b in zip(watched, watched[1:], strict=False)) < 0.9
    client.tell(signal.SIGSTOP)
    begun = time.monotonic()
    service.tell(signal.SIGTERM)
    supervisor.awaits("STOPPING=1")
    assert supervisor.times("STOPPING=1")[0] - begun < 1
    client.tell(signal.SIGCONT)
    assert service.awaitExit() == -signal.SIGTERM
    assert service.errors == ""


@pytest.mark.parametrize("address", ["path"], indirect=True)
def test_blockedReactor(
    run: Run, place: str, address: str, supervisor: Supervisor, tmp_path: Path
) -> None:
    """
    A reactor that is blocked tells the watchdog nothing, so that systemd would end it; when it
    turns again in time it does.
    """
    (tmp_path / "blocking.py").write_text(BLOCKING)
    (tmp_path / "hb.toml").write_text(f'hooks = "blocking.Blocking"\nlisten = "{place}"\n')
    run(*JSON, "heartbeat", "--config=hb.toml", NOTIFY_SOCKET=address, WATCHDOG_USEC="800000")
    supervisor.awaits("READY=1")
    supervisor.listen(0.5)
    run(*JSON, "heartbeat", f"--connect=tcp:127.0.0.1:{portOf(place)}")

    def gaps() -> list[float]:
        watched = supervisor.times("WATCHDOG=1")
        return [b - a for a, b in zip(watched, watched[1:], strict=False)]

    def turnsAgain(text: str) -> bool:
        return max(gaps(), default=0) > 1.4 and gaps()[-1] < 0.8

    # The block is longer than the time of the watchdog: systemd would have ended the process.
    assert supervisor.listen(WAIT_LIMIT, turnsAgain), gaps()


@pytest.mark.parametrize("address", ["path"], indirect=True)
def test_reload(run: Run, place: str, address: str, supervisor: Supervisor, tmp_path: Path) -> None:
    """
    SIGHUP is told as Type=notify-reload wants it: RELOADING with a time not before the signal, then
    READY; also when the file is wrong, which the status says.
    """
    file = tmp_path / "hb.toml"
    file.write_text(f'listen = "{place}"')
    service = run(*TWISTD, "heartbeat", "--config=hb.toml", NOTIFY_SOCKET=address)
    supervisor.awaits("READY=1")
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    service.tell(signal.SIGHUP)
    _, _, stamp = supervisor.awaits("RELOADING=1").partition("\nMONOTONIC_USEC=")
    assert before <= int(stamp) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert supervisor.awaits("READY=1") == "READY=1\nSTATUS=0 peers at 1 listener"
    file.write_text(f'listen = "{place}"\nx = 1')
    service.tell(signal.SIGHUP)
    supervisor.awaits("RELOADING=1")
    told = supervisor.awaits("READY=1")
    assert f"STATUS=not reloaded: {file}:2: x: there is no such key" in told
    assert supervisor.times("WATCHDOG=1") == []


@pytest.mark.parametrize("runner", [JSON, TWISTD], ids=["twist", "twistd"])
@pytest.mark.parametrize("address", ["path"], indirect=True)
def test_startThatFails(
    run: Run, place: str, address: str, supervisor: Supervisor, runner: list[str]
) -> None:
    """
    A process that cannot listen never says that it is ready, and says what the matter is.
    """
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(portOf(place))))
        other.listen()
        service = run(*runner, "heartbeat", "--listen", place, NOTIFY_SOCKET=address)
        assert service.awaitExit() == 71
    supervisor.listen(0.1)
    assert supervisor.times("READY=1") == []
    why = f"STATUS=listen {place} could not be opened: CannotListenError: "
    first, *_ = [text for _, text in supervisor.told]
    assert first.startswith(why)
    assert first.endswith("\nERRNO=98")
    assert all(why in text for _, text in supervisor.told)


@pytest.mark.parametrize("address", ["path"], indirect=True)
def test_wrongFile(
    run: Run, place: str, address: str, supervisor: Supervisor, tmp_path: Path
) -> None:
    """
    The fault of a wrong file is the status.
    """
    (tmp_path / "hb.toml").write_text(f'listen = "{place}"\nx = 1')
    service = run(*JSON, "heartbeat", "--config=hb.toml", NOTIFY_SOCKET=address)
    assert service.awaitExit() == 64
    supervisor.listen(0.1)
    [(_, told)] = supervisor.told
    assert told.startswith(f"STATUS=not started: {tmp_path}/hb.toml:2: x: there is no such key")


@pytest.mark.parametrize("address", ["path"], indirect=True)
def test_daemon(run: Run, place: str, address: str, supervisor: Supervisor, tmp_path: Path) -> None:
    """
    A daemon of C{twistd} is another process than the one that systemd has started: it says that it
    is ready, and leaves the watchdog of the other process alone.
    """
    starter = run(
        "-c",
        "import os, sys; os.environ['WATCHDOG_PID'] = str(os.getpid()); "
        "sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()",
        "heartbeat",
        "--listen",
        place,
        NOTIFY_SOCKET=address,
        WATCHDOG_USEC="200000",
    )
    try:
        supervisor.awaits("READY=1")
        assert starter.awaitExit() == 0
        supervisor.listen(0.5)
        assert supervisor.times("WATCHDOG=1") == []
    finally:
        daemon = int((tmp_path / "twistd.pid").read_text())
        subprocess.run(["kill", str(daemon)], check=True)
        supervisor.awaits("STOPPING=1")


def test_unitFile(tmp_path: Path) -> None:
    """
    systemd understands each line of the documented unit, and a wrong line would be found.
    """
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    unit = tmp_path / UNIT.name

    def complaints(text: str) -> list[str]:
        unit.write_text(text)
        command = ["systemd-analyze", "verify", "--man=no", str(unit)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [line for line in result.stderr.splitlines() if unit.name in line]
        # systemd before 253 does not know it, and keeps the line before.
        return [line for line in lines if not line.endswith("ignoring: notify-reload")]

    # The program's own path need not exist here.
    text = re.sub(r"/usr/bin/twist\b", sys.executable, UNIT.read_text())
    assert complaints(text) == []
    assert complaints(text.replace("WatchdogSec", "WatchDogSec")) != []
