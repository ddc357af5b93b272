# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The tester's end of a connection tells a reset from a FIN.
"""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Factory

from twisted_heartbeat.conformance.connection import Connection
from twisted_heartbeat.transport.compat import disconnectSelectable

from ...support.loopback import Loopback, within
from ...support.virtualnetwork import KeptFactory


@pytest.mark.parametrize("isReset", [True, False], ids=["reset", "FIN"])
@pytest_twisted.ensureDeferred
async def test_endWithoutInput(plain: Loopback, isReset: bool) -> None:
    """
    What the reactor takes for a FIN, because there was no input, may be a reset.
    """
    from twisted.internet import reactor

    peers = KeptFactory()
    endpoint = plain.endpoint(plain.listen(peers))
    connection = await within(
        endpoint.connect(Factory.forProtocol(lambda: Connection(reactor)))  # type: ignore[arg-type]
    )
    await within(connection.sleep(0.05))
    [peer] = peers.built
    if isReset:
        peer.transport.abortConnection()
    else:
        peer.transport.loseConnection()
    # Right after that is carried out, and before the reactor polls.
    end = (reactor, connection.transport, CONNECTION_DONE)
    reactor.callLater(0, disconnectSelectable, *end)  # type: ignore[attr-defined]
    await within(connection.until(lambda: connection.isOver, 5))
    assert connection.wasReset is isReset
    assert (connection.finAt is None) is isReset
    connection.reset()
    await within(connection.until(lambda: connection.endedAt is not None, 5))
