# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The options of C{twist heartbeat} for heartbeats over UDP.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.python.usage import UsageError

from twisted_heartbeat import UDPHeartbeatMonitor, UDPHeartbeatSender
from twisted_heartbeat.cli.options import Options
from twisted_heartbeat.cli.service import makeService

from ..support.virtualudp import Host, Internet

KEYS = f"# the pumps\npump 1 {'11' * 16}\npump 2 {'22' * 32}\n\nlamp at the gate 1 {'33' * 16}\n"


@pytest.fixture
def keys(tmp_path: Path) -> str:
    """
    A file of keys.
    """
    path = tmp_path / "keys"
    path.write_text(KEYS)
    return str(path)


def parse(host: Host, *arguments: str) -> Options:
    """
    Parse a command line.
    """
    options = Options(host)
    options.parseOptions(arguments)
    return options


def test_senderAndMonitor(keys: str) -> None:
    """
    A sender reports to the monitor of another command line, with the newest of its keys.
    """
    internet = Internet()
    hub, pump = Host(internet, "192.0.2.1"), Host(internet, "192.0.2.2")
    watching = makeService(parse(hub, "--monitor-udp", "8471", "--udp-keys", keys))
    places = ["--udp", "192.0.2.1:8471", "--udp", "192.0.2.9:8471", "--udp-every", "2"]
    sending = makeService(
        parse(pump, *places, "--udp-keys", keys, "--name", "pump", "--within", "20")
    )
    watching.startService()
    sending.startService()
    internet.advance(5.0)
    [monitor] = [each for each in watching if isinstance(each, UDPHeartbeatMonitor)]
    [sender] = [each for each in sending if isinstance(each, UDPHeartbeatSender)]
    peer = monitor.peers["pump"]
    assert (peer.keyId, peer.bound, monitor.source) == (2, 20.0, "udp:8471")
    assert sender.period == 2.0 and len(sender.monitors) == 2
    sending.stopService()
    internet.advance(0.1)
    assert monitor.peers == {}
    watching.stopService()


def test_addresses(keys: str) -> None:
    """
    The monitor listens on an address, also of IPv6.
    """
    host = Host(Internet())
    options = parse(
        host, "--monitor-udp", "[::1]:8471", "--monitor-udp", "192.0.2.1:9", "--udp-keys", keys
    )
    assert options["monitor-udp"] == [("::1", 8471), ("192.0.2.1", 9)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--monitor-udp", "8471"], "--udp-keys is missing"),
        (["--monitor-udp", "port"], r"\[ADDRESS:\]PORT"),
        (["--monitor-udp", "70000"], r"\[ADDRESS:\]PORT"),
        (["--udp", "8471"], "HOST:PORT"),
        (["--udp", "hub:0"], "HOST:PORT"),
        (["--udp", "hub:8471", "KEYS"], "needs a --name"),
        (["--udp", "hub:8471", "KEYS", "--name", "drum"], "needs a --name"),
        (["--udp", "hub:8471", "KEYS", "--name", "pump", "--within", "2"], "raise the bound"),
        (["--udp", "hub:8471", "KEYS", "--name", "pump", "--udp-every", "x"], "a number"),
        (["--udp-keys", "/nowhere/keys"], "No such file"),
        ([], "--monitor-udp"),
    ],
)
def test_wrongOptions(arguments: list[str], words: str, keys: str) -> None:
    """
    What cannot work is one sentence that says what is allowed.
    """
    given = [
        each for one in arguments for each in (["--udp-keys", keys] if one == "KEYS" else [one])
    ]
    with pytest.raises(UsageError, match=words):
        parse(Host(Internet()), *given)


@pytest.mark.parametrize("text", ["pump 1", "pump one 11", "pump 1 1x", "", "# pump 1 11"])
def test_wrongKeys(text: str, tmp_path: Path) -> None:
    """
    A file without keys, or with a line that is none, is refused without telling what is in it.
    """
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(UsageError, match="line 1 must be NAME ID KEY|no key"):
        parse(Host(Internet()), "--udp-keys", str(path))
