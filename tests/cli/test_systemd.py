# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Notifier} and L{Watchdog}, with a socket in systemd's place and virtual time.  What only a process
can show is in C{tests/system/test_systemd.py}.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from twisted_heartbeat.cli.systemd import Notifier
from twisted_heartbeat.timing.wheel import timerWheelFor

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="systemd runs on Linux")


class Supervisor:
    """
    A socket in systemd's place.
    """

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0"))
        self.socket.setblocking(False)

    @property
    def told(self) -> list[str]:
        """
        What has come since the last look.
        """
        datagrams = []
        while True:
            try:
                datagrams.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return datagrams


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """
    The address of either kind.
    """
    if request.param == "path":
        return str(tmp_path / "notify")
    if sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    return f"@twisted_heartbeat-test-{os.getpid()}"


@pytest.fixture
def supervisor(address: str) -> Iterator[Supervisor]:
    """
    systemd.
    """
    made = Supervisor(address)
    yield made
    made.socket.close()


def notifier(
    clock: Clock, status: Callable[[], str] = lambda: "fine", **variables: str
) -> Notifier:
    made = Notifier.fromEnvironment(timerWheelFor(clock), status, variables)
    assert made is not None
    return made


def test_readyAndStopping(supervisor: Supervisor, address: str) -> None:
    """
    READY comes with the status in one datagram, and STOPPING ends all.
    """
    clock = Clock()
    systemd = notifier(clock, NOTIFY_SOCKET=address)
    systemd.changed()
    assert supervisor.told == []
    systemd.ready()
    assert supervisor.told == ["READY=1\nSTATUS=fine"]
    systemd.changed()
    systemd.stopping()
    systemd.stopped()
    assert supervisor.told == ["STOPPING=1\nSTATUS=closing"]
    clock.advance(1000)
    assert supervisor.told == []
    assert clock.getDelayedCalls() == []


def test_statusOnceInASecond(supervisor: Supervisor, address: str) -> None:
    """
    A thousand changes in a second are one status, the last one.
    """
    clock = Clock()
    peers = 0
    systemd = notifier(clock, lambda: f"{peers} peers", NOTIFY_SOCKET=address)
    systemd.ready()
    assert supervisor.told == ["READY=1\nSTATUS=0 peers"]
    for _ in range(1000):
        peers += 1
        systemd.changed()
        clock.advance(0.0005)
    assert supervisor.told == []
    clock.pump([0.1] * 8)
    assert supervisor.told == ["STATUS=1000 peers"]
    systemd.stopping()


def test_statusIsOneLine(supervisor: Supervisor, address: str) -> None:
    """
    No status can forge a second line, or grow without end.
    """
    systemd = notifier(Clock(), lambda: "a\nSTOPPING=1" + "b" * 10_000, NOTIFY_SOCKET=address)
    systemd.ready()
    [told] = supervisor.told
    assert told.startswith("READY=1\nSTATUS=a\\nSTOPPING=1b")
    assert len(told) < 1000


def test_reload(supervisor: Supervisor, address: str) -> None:
    """
    RELOADING has the time that Type=notify-reload needs; what was wrong stays in the status until a
    reload succeeds.
    """
    systemd = notifier(Clock(), NOTIFY_SOCKET=address)
    systemd.ready()
    systemd.reloading()
    systemd.reloaded("hb.toml:3: x: did you mean y?")
    told = supervisor.told
    words, _, stamp = told[1].partition("\nMONOTONIC_USEC=")
    assert words == "RELOADING=1"
    assert stamp.isdecimal()
    fault = "not reloaded: hb.toml:3: x: did you mean y?"
    assert told[2] == f"READY=1\nSTATUS={fault} (fine)"
    systemd.reloading()
    systemd.reloaded()
    assert supervisor.told[1] == "READY=1\nSTATUS=fine"


def watched(clock: Clock, address: str, **variables: str) -> Notifier:
    variables = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "8000000", **variables}
    return notifier(clock, **variables)


def test_watchdog(supervisor: Supervisor, address: str) -> None:
    """
    The watchdog is told twice in its time, from READY until the stop is done.
    """
    clock = Clock()
    systemd = watched(clock, address, WATCHDOG_PID=str(os.getpid()))
    clock.pump([0.1] * 100)
    assert supervisor.told == []
    systemd.ready()
    assert supervisor.told[1:] == ["WATCHDOG=1"]
    clock.pump([0.1] * 100)
    assert supervisor.told == ["WATCHDOG=1"] * 2
    systemd.stopping()
    clock.pump([0.1] * 40)
    assert supervisor.told == ["STOPPING=1\nSTATUS=closing", "WATCHDOG=1"]
    systemd.stopped()
    clock.pump([0.1] * 100)
    assert supervisor.told == []
    assert clock.getDelayedCalls() == []


def test_lateVisitDoesNotCount(supervisor: Supervisor, address: str) -> None:
    """
    A reactor that was blocked says nothing with its first turn, and is found alive by a visit on
    time soon after.
    """
    clock = Clock()
    systemd = watched(clock, address)
    systemd.ready()
    assert len(supervisor.told) == 2
    clock.advance(7)
    assert supervisor.told == []
    clock.pump([0.1] * 6)
    assert supervisor.told == ["WATCHDOG=1"]
    systemd.stopped()


def test_reactorThatIsAlwaysLate(supervisor: Supervisor, address: str) -> None:
    """
    A reactor whose every turn takes long is not vouched for, although it turns.
    """
    clock = Clock()
    systemd = watched(clock, address)
    systemd.ready()
    assert len(supervisor.told) == 2
    clock.pump([7] * 20)
    assert supervisor.told == []
    systemd.stopped()


def test_watchdogOfNoTime(supervisor: Supervisor, address: str) -> None:
    """
    A time that no reactor can keep does not take a whole processor.
    """
    clock = Clock()
    systemd = watched(clock, address, WATCHDOG_USEC="1")
    systemd.ready()
    for _ in range(3):
        [call] = clock.getDelayedCalls()
        wait = call.getTime() - clock.seconds()
        assert wait >= 0.001
        # The turn is late.
        clock.advance(wait + 0.01)
    systemd.stopped()


NO_WATCHDOG = {
    "unset": {"WATCHDOG_USEC": ""},
    "of another process": {"WATCHDOG_PID": "1"},
    "zero": {"WATCHDOG_USEC": "0"},
    "no number": {"WATCHDOG_USEC": "1e6"},
    "negative": {"WATCHDOG_USEC": "-5"},
    "infinite": {"WATCHDOG_USEC": str(2**64 - 1)},
}


@pytest.mark.parametrize("variables", NO_WATCHDOG.values(), ids=NO_WATCHDOG)
def test_noWatchdog(supervisor: Supervisor, address: str, variables: dict[str, str]) -> None:
    """
    Where systemd does not watch this process, no timer runs.
    """
    clock = Clock()
    watched(clock, address, **variables).ready()
    assert supervisor.told == ["READY=1\nSTATUS=fine"]
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (None, ""),
        (CannotListenError("any", 1, OSError(98, "in use")), "\nERRNO=98"),
        (OSError(13, "denied"), "\nERRNO=13"),
        (CannotListenError("any", 1, "Cannot acquire lock"), ""),
    ],
)
def test_whyItEnds(
    supervisor: Supervisor, address: str, error: BaseException | None, number: str
) -> None:
    """
    A process that ends because of an error says which: in the status, which stays, and by its
    number if the system gave one.
    """
    systemd = notifier(Clock(), NOTIFY_SOCKET=address)
    systemd.failed("could not listen\nREADY=1", error)
    systemd.stopping()
    status = "STATUS=could not listen\\nREADY=1"
    assert supervisor.told == [f"{status}{number}", f"STOPPING=1\n{status}"]


@pytest.mark.parametrize("value", [None, "", "/", "@", "vsock:2:1234", "relative", "./relative"])
def test_nobodyIsTold(value: str | None) -> None:
    """
    Without an address of a UNIX socket there is no notifier.
    """
    variables = {} if value is None else {"NOTIFY_SOCKET": value}
    assert Notifier.fromEnvironment(timerWheelFor(Clock()), lambda: "", variables) is None


def test_nobodyListens(tmp_path: Path, events: list[LogEvent]) -> None:
    """
    A supervisor that is gone is told in the log once, and harms nothing.
    """
    systemd = notifier(Clock(), NOTIFY_SOCKET=str(tmp_path / "gone"))
    for _ in range(100):
        systemd.ready()
    assert [event["log_format"] for event in events] == ["systemd takes no notifications: {error}"]


def test_supervisorThatDoesNotRead(
    supervisor: Supervisor, address: str, events: list[LogEvent]
) -> None:
    """
    A supervisor that does not read does not block the reactor.
    """
    systemd = notifier(Clock(), lambda: "x" * 400, NOTIFY_SOCKET=address)
    for _ in range(2000):
        systemd.ready()
    assert events
    assert supervisor.told
