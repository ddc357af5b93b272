# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The program of the page about presence: it tells who comes and goes, and remembers.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest_twisted

from .conftest import Start

CHECKOUT = Path(__file__).parents[2]
WATCHER = CHECKOUT / "docs" / "examples" / "presence_watcher.py"

CLIENT = """
import sys
from twisted.internet import endpoints, protocol, reactor
from twisted_heartbeat import Backoff, HeartbeatClientService, HeartbeatProtocol

factory = protocol.Factory()
factory.protocol = type("Sensor", (HeartbeatProtocol,), {"name": "sensor-17"})
hub = endpoints.clientFromString(reactor, f"tcp:127.0.0.1:{sys.argv[1]}")
HeartbeatClientService(hub, factory, Backoff(initial=0.1, maximum=0.2, spread=0.1)).startService()
reactor.run()
"""


@pytest_twisted.ensureDeferred
async def test_watcherRemembers(tmp_path: Path, start: Start) -> None:
    """
    The example tells of a sensor that comes, of one that the restart has made unknown and that is
    back, and of one that has gone, after the grace time.
    """
    assert os.access(WATCHER, os.R_OK)
    watcher = start(sys.executable, WATCHER, tmp_path / "presence.db", 0)
    _, listening = await watcher.says(r"listening on port (\d+)")
    port = listening[1]
    sensor = start(sys.executable, "-c", CLIENT, port)
    await watcher.says("^tcp/sensor-17 was unknown and is up")
    await watcher.end()
    assert "down" not in watcher.said
    again = start(sys.executable, WATCHER, tmp_path / "presence.db", port)
    await again.says("^tcp/sensor-17 is unknown")
    await again.says("^tcp/sensor-17 was up and is unknown. the watcher was restarted")
    await again.says("^tcp/sensor-17 was unknown and is up")
    await sensor.end()
    await again.says("^tcp/sensor-17 was up and is suspect. .*FIN")
    await again.says(r"^tcp/sensor-17 was suspect and is down. .*grace time\)")
