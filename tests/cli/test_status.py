# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The status page of C{twist heartbeat}: where it listens, its token, and what it is told.
"""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError

from twisted_heartbeat.cli import status
from twisted_heartbeat.cli.config.values import Reference
from twisted_heartbeat.cli.datagrams import RunningMonitor, RunningSender
from twisted_heartbeat.cli.options import Options
from twisted_heartbeat.cli.service import makeService
from twisted_heartbeat.cli.status import onLoopback, readToken

from ..status.web import Connection
from ..support.virtualudp import Host, Internet

TOKEN = "correct-horse-battery"


@pytest.mark.parametrize(
    ("given", "used"),
    {
        "8080": "tcp:8080:interface=127.0.0.1",
        "tcp:8080": "tcp:8080:interface=127.0.0.1",
        "tcp:8080:backlog=5": "tcp:8080:backlog=5:interface=127.0.0.1",
        "tcp6:8080": r"tcp6:8080:interface=\:\:1",
        "ssl:8443:privateKey=k.pem": "ssl:8443:privateKey=k.pem:interface=127.0.0.1",
        "haproxy:tcp:8080": "haproxy:tcp:8080:interface=127.0.0.1",
        "keepalive:tcp:8080": "keepalive:tcp:8080:interface=127.0.0.1",
        "tcp:8080:interface=0.0.0.0": "tcp:8080:interface=0.0.0.0",
        r"tcp6:8080:interface=\:\:": r"tcp6:8080:interface=\:\:",
        "unix:/run/status.sock": "unix:/run/status.sock",
        "systemd:domain=INET:index=0": "systemd:domain=INET:index=0",
    }.items(),
)
def test_loopbackUnlessSaidOtherwise(given: str, used: str) -> None:
    """
    The page is seen from this machine alone, unless its endpoint names an interface.
    """
    assert onLoopback(given) == used


def test_tokenFromAFile(tmp_path: Path) -> None:
    """
    The token is what the file holds, without the line's end; what can be no token is one sentence,
    which does not tell it.
    """
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert readToken(str(file)) == TOKEN
    options = Options(MemoryReactorClock())
    options.parseOptions(["--listen=tcp:1", f"--status-token-file={file}", "--status=8080"])
    assert options.loaded.objects[Reference("token", str(file))] == TOKEN
    for bad in ("short\n", "x" * 5000, "two words are no token\n"):
        file.write_text(bad)
        with pytest.raises(UsageError, match="^--status-token-file is .*token") as refused:
            options.parseOptions(["--listen=tcp:1", f"--status-token-file={file}"])
        assert bad.strip() not in str(refused.value)
    file.write_bytes(b"\xff" * 20)
    with pytest.raises(UsageError, match="^--status-token-file is "):
        options.parseOptions(["--listen=tcp:1", f"--status-token-file={file}"])


def servicesFor(reactor: Any, *arguments: str) -> Any:
    """
    The services of a command line.
    """
    options = Options(reactor)
    options.parseOptions(arguments)
    return makeService(options)


def test_listensOnLoopback() -> None:
    """
    The page has a port of its own, on loopback, beside those of the links.
    """
    reactor = MemoryReactorClock()
    services = servicesFor(reactor, "--listen=tcp:7000", "--status=8080")
    services.privilegedStartService()
    services.startService()
    [peers, page] = sorted(reactor.tcpServers)
    assert (peers[0], peers[3]) == (7000, "")
    assert (page[0], page[3]) == (8080, "127.0.0.1")
    services.stopService()


def test_metricsOfAllParts(tmp_path: Path) -> None:
    """
    What any part refuses is in the metrics of the page.
    """
    keys = tmp_path / "keys"
    keys.write_text(f"pump 1 {'ab' * 16}\n")
    reactor: Any = MemoryReactorClock()
    reactor.listenUDP = Host(Internet()).listenUDP
    services = servicesFor(
        reactor,
        *("--status=8080", "--http=tcp:8081", "--check=job:60:60", f"--udp-keys={keys}"),
        *("--monitor-udp=8471", "--udp=192.0.2.1:8471", "--name=pump"),
    )
    services.startService()
    for part in services.parts.values():
        if isinstance(part, RunningMonitor | RunningSender):
            watcher = part.monitor if isinstance(part, RunningMonitor) else part.service
            watcher.datagramReceived(b"neither here nor there", ("192.0.2.7", 4000))
    connection = Connection(services._checkIns.site().resource, reactor)
    assert connection.ask("/ping/job/start").status == 200
    assert connection.ask("/ping/unknown").status == 404
    text = services._metrics.render().decode()
    for expected in (
        'datagrams_ignored_total{reason="malformed"} 1.0',
        'datagrams_ignored_total{reason="foreign"} 1.0',
        'check_ins_received_total{signal="start"} 1.0',
        'check_ins_refused_total{reason="unknownName"} 1.0',
    ):
        assert expected in text
    connection.close()
    services.stopService()


def test_withoutTheExtra(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without prometheus-client the page is there, and only the metrics are missing.
    """
    monkeypatch.setattr(status, "find_spec", lambda name: None)
    assert status.makeMetrics() is None
    services = servicesFor(MemoryReactorClock(), "--listen=tcp:7000", "--status=8080")
    assert services


def test_noPageNeedsNoWebServer(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Without the option nothing of the page is imported.
    """
    real = builtins.__import__

    def watched(name: str, *details: Any) -> Any:
        assert "web" not in name and "prometheus" not in name
        return real(name, *details)

    monkeypatch.setattr(builtins, "__import__", watched)
    assert servicesFor(MemoryReactorClock(), "--listen=tcp:7000")
