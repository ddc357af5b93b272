# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The plugin as an operator starts it: real processes of C{twist} and C{twistd}, their logs and their
exit statuses.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.programs import (
    DAEMON,
    JSON,
    TWIST,
    TWISTD,
    WAIT_LIMIT,
    Event,
    Run,
    connectTo,
    listen,
    portOf,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="stops processes by POSIX signals")

GATEWAY = Path(__file__).parents[2] / "docs" / "examples" / "gateway.tac"


# What the log promises of each event, by its type.
FIELDS: dict[str, type | tuple[type, ...]] = {
    "event": str,
    "link": str,
    "generation": (int, type(None)),
    "peer": (str, type(None)),
    "cause": (str, type(None)),
    "silence": (int, float, type(None)),
    "bound": (int, float),
}


def misfits(events: list[Event]) -> list[Event]:
    """
    Those that do not have the fields that the documentation says, as plain values.
    """
    return [
        e
        for e in events
        if "event" in e and not all(isinstance(e.get(f, ...), kind) for f, kind in FIELDS.items())
    ]


def test_everyEvent(run: Run, place: str) -> None:
    """
    The main job, as its operator sees it: the peer's process hangs, which is named within the
    bound, and the link replaced; the peer goes for good, and after its time the client gives up,
    with a status that says so.  Each change is one JSON object with plain fields.
    """
    listener = listen(run, place, "--within=2")
    client = connectTo(run, place, "--within=2", "--name=gateway-7", "--give-up-after=1")
    listener.awaitLine("gateway-7")
    connected = client.awaitEvent("connected", generation=1)
    assert connected["peer"] == f"127.0.0.1:{portOf(place)}"

    listener.tell(signal.SIGSTOP)
    client.awaitEvent("suspected")
    listener.tell(signal.SIGCONT)
    client.awaitEvent("recovered", generation=1)

    stoppedAt = time.time()
    listener.tell(signal.SIGSTOP)
    found = client.awaitEvent("disconnected", generation=1)
    listener.tell(signal.SIGCONT)
    assert found["cause"] == "PeerHung"
    assert 1.9 <= found["silence"] <= 2.5
    assert found["log_time"] - stoppedAt <= 2.5

    client.awaitEvent("retrying", cause="PeerHung")
    last = client.awaitEvent("connected", 2)["generation"]
    listener.awaitEvent("connected", 2)
    listener.tell(signal.SIGTERM)
    assert client.awaitEvent("disconnected", generation=last)["reason"].startswith(
        "the peer said goodbye"
    )
    assert client.awaitExit() == 69
    gaveUp = client.named("gaveUp")
    assert [event["cause"] for event in gaveUp] == ["ConnectFailed"]
    names = [event["event"] for event in client.events if "event" in event]
    assert names[:2] == ["connecting", "connected"]
    assert names[-1] == "gaveUp"
    assert misfits(client.events) == misfits(listener.events) == []
    assert client.errors == ""


@pytest.mark.parametrize("who", ["listener", "client"])
def test_sigterm(run: Run, place: str, who: str) -> None:
    """
    SIGTERM ends either side soon, as C{twist} ends, and the other one is told goodbye.
    """
    listener = listen(run, place)
    client = connectTo(run, place)
    client.awaitEvent("connected")
    listener.awaitEvent("connected")
    stopped, other = (listener, client) if who == "listener" else (client, listener)
    stopped.tell(signal.SIGTERM)
    told = other.awaitEvent("disconnected")
    assert told["cause"] == "PeerClosed"
    assert told["reason"].startswith("the peer said goodbye")
    assert stopped.awaitExit(within=5) == -signal.SIGTERM
    assert stopped.named("disconnected")[0]["cause"] == "ClosedHere"
    assert stopped.errors == ""


def test_sigtermWhilePeerHangs(run: Run, place: str) -> None:
    """
    A peer that does not answer does not hold the stop up for longer than closeTimeout.
    """
    listener = listen(run, place)
    client = connectTo(run, place)
    client.awaitEvent("connected")
    listener.tell(signal.SIGSTOP)
    client.tell(signal.SIGTERM)
    assert client.awaitExit(within=6) == -signal.SIGTERM


@pytest.mark.parametrize("reactor", ["asyncio", "select", "poll", "epoll"])
def test_anyReactor(run: Run, place: str, reactor: str) -> None:
    """
    C{twist} runs it on the reactor that it was told to, with both sides in one process.
    """
    client = f"--connect=tcp:127.0.0.1:{portOf(place)}"
    arguments = ["heartbeat", "--listen", place, client, "--name=itself"]
    program = run(*JSON, f"--reactor={reactor}", *arguments)
    program.awaitEvent("connected", 2)
    program.tell(signal.SIGTERM)
    assert program.awaitExit(within=5) == -signal.SIGTERM
    assert len(program.named("disconnected")) == 2


@pytest.mark.parametrize(
    ("runner", "reactor"), [(TWIST, "asyncio"), (TWISTD, "default")], ids=["twist", "twistd"]
)
def test_givingUp(run: Run, place: str, runner: list[str], reactor: str) -> None:
    """
    Giving up reaches the exit status, whoever runs it, and on a reactor with a loop of its own.
    """
    where = [f"--connect=tcp:127.0.0.1:{portOf(place)}", "--give-up-after=0.1", "--max-delay=0.2"]
    program = run(*runner, f"--reactor={reactor}", "heartbeat", *where)
    assert program.awaitExit() == 69
    assert any("given up" in line for line in program.lines)


@pytest.fixture
def taken(place: str) -> Iterator[str]:
    """
    An endpoint where somebody else listens.
    """
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(portOf(place))))
        other.listen()
        yield place


@pytest.mark.parametrize("runner", [TWIST, TWISTD], ids=["twist", "twistd"])
def test_portInUse(run: Run, taken: str, runner: list[str]) -> None:
    """
    A port in use ends the process, with one sentence in the log and no traceback.
    """
    program = run(*runner, "heartbeat", "--listen", taken)
    assert program.awaitExit() == 71
    text = "\n".join(program.lines)
    assert text.count(f"Could not listen at {taken}") + text.count("Could not listen at {") == 1
    assert "Address already in use" in text
    assert "Traceback" not in text + program.errors


def test_portInUseOfADaemon(run: Run, taken: str, tmp_path: Path) -> None:
    """
    The shell that starts a daemon is told that it did not start, and why.
    """
    program = run(*DAEMON, "heartbeat", "--listen", taken)
    assert program.awaitExit() == 1
    assert "CannotListenError" in program.errors
    assert f"Could not listen at {taken}" in (tmp_path / "twistd.log").read_text()
    assert not (tmp_path / "twistd.pid").exists()


def test_wrongOption(run: Run) -> None:
    """
    A wrong option is status 64 and one sentence, and nothing starts, nor is anything logged.
    """
    program = run(*TWIST, "--reactor=asyncio", "heartbeat", "--listen=tcp:0", "--within=0")
    assert program.awaitExit() == 64
    assert program.errors.startswith("Error: --within is '0': it must be a number of seconds")
    assert program.lines == []


def test_wrongOptionForTwistd(run: Run) -> None:
    """
    C{twistd} ends in its own way (1, or 0 where it is old) for a wrong option; the sentence is the
    same, and nothing starts.
    """
    program = run(*TWISTD, "heartbeat", "--listen=tcp:0", "--keepalive=5")
    assert program.awaitExit() in (0, 1)
    assert "--keepalive is '5': it must be IDLE,INTERVAL,COUNT" in program.lines[-1]


def test_gatewayTac(run: Run, place: str) -> None:
    """
    The documented .tac: the service is a child of an Application, reports over its link, and takes
    its leave when twistd stops.
    """
    listener = listen(run, place)
    server = f"tcp:127.0.0.1:{portOf(place)}"
    gateway = run(*TWISTD, "-y", str(GATEWAY), SERVER=server)
    listener.awaitLine("gateway-7")
    gateway.awaitLine("uplink: connected")
    gateway.tell(signal.SIGTERM)
    assert listener.awaitEvent("disconnected")["reason"].startswith("the peer said goodbye")
    assert gateway.awaitExit(within=5) == -signal.SIGTERM
    assert [line for line in gateway.lines if "Traceback" in line or "#error" in line] == []


def test_othersAtExit(run: Run, tmp_path: Path) -> None:
    """
    The exit status costs nobody else's exit function its turn, whenever it was registered.
    """
    (tmp_path / "leaving.py").write_text(
        "import atexit\n"
        "from twisted_heartbeat.cli.exitstatus import exitWith\n"
        "atexit.register(print, 'before')\n"
        "exitWith(69)\n"
        "atexit.register(print, 'after')\n"
    )
    program = run("leaving.py")
    assert program.awaitExit() == 69
    assert sorted(set(program.lines)) == ["after", "before"]


# The prefixes.


def armedTimers(port: str) -> list[str]:
    """
    Which timer is armed at the server's end of each of its connections: C{"02"} is keepalive's.
    Source: proc_tcp.rst of the kernel's documentation.
    """
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    here = f":{int(port):04X}"
    established = [row for row in rows if row[1].endswith(here) and row[3] == "01"]
    return [row[5].partition(":")[0] for row in established]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the timers are read from Linux")
@pytest.mark.parametrize("prefix", ["", "keepalive:"])
def test_keepAliveOfAStockServer(run: Run, place: str, prefix: str) -> None:
    """
    C{twist web} with C{keepalive:} before its endpoint, on a reactor of its own, has the kernel
    watch each connection; without it nobody does.
    """
    end = ":idle=30" if prefix else ""
    server = run(*TWIST, "--reactor=asyncio", "web", f"--listen={prefix}{place}{end}")
    server.awaitLine("starting on")
    with socket.create_connection(("127.0.0.1", int(portOf(place))), WAIT_LIMIT) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: peer.example\r\n\r\n")
        assert client.recv(5) == b"HTTP/"
        assert armedTimers(portOf(place)) == (["02"] if prefix else ["00"])
    server.tell(signal.SIGTERM)
    server.awaitExit()
    assert "Traceback" not in "\n".join(server.lines)


def test_heartbeatOverATunnel(run: Run, place: str) -> None:
    """
    C{twist heartbeat} on both ends of a C{heartbeat:} endpoint: a peer that hangs is named, and the
    link is replaced, as without it.
    """
    listener = listen(run, f"heartbeat:{place}:within=2", "--within=2")
    client = run(
        *JSON,
        "heartbeat",
        f"--connect=heartbeat:keepalive:tcp:127.0.0.1:{portOf(place)}:within=2:idle=30",
        "--max-delay=0.2",
        "--within=2",
    )
    words = f"heartbeat:keepalive:tcp:127.0.0.1:{portOf(place)}:within=2:idle=30"
    client.awaitEvent("connected", link=words)
    listener.tell(signal.SIGSTOP)
    found = client.awaitEvent("disconnected", link=words)
    listener.tell(signal.SIGCONT)
    assert found["cause"] == "PeerHung"
    client.awaitEvent("connected", 2, link=words)
    client.tell(signal.SIGTERM)
    assert client.awaitExit() == -signal.SIGTERM


def test_wrongEndpoint(run: Run) -> None:
    """
    A misspelt argument of a prefix is status 64 and one sentence that names it.
    """
    program = run(*TWIST, "heartbeat", "--connect=keepalive:tcp:127.0.0.1:1:idel=5")
    assert program.awaitExit() == 64
    assert "there is no argument 'idel' here: keepalive: takes idle," in program.errors
