# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The presence table as the observer of links over real sockets.
"""

from __future__ import annotations

import pytest_twisted
from twisted.internet.protocol import Factory

from twisted_heartbeat import (
    HeartbeatMetrics,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    PeerState,
    PresenceTable,
)

from ..support.loopback import QUICK, Loopback, wait, within


@pytest_twisted.ensureDeferred
async def test_peersWithoutNameGoByAddress(loopback: Loopback) -> None:
    """
    A server's peers without a name go by their addresses, so that they are apart, and are forgotten
    when they are gone.  The server goes by the name of the client's service, and stays.
    """
    table, clients = PresenceTable(), PresenceTable()
    factory = HeartbeatServerFactory(heartbeat=QUICK, hooks=table, name="sensors")
    endpoint = loopback.endpoint(loopback.listen(factory))
    carrier = "tls" if loopback.secured else "tcp"
    for each in (table, clients):
        each.startService()
    services = [
        loopback.service(
            endpoint,
            Factory.forProtocol(HeartbeatProtocol),
            heartbeat=QUICK,
            hooks=clients,
            name=f"uplink-{number}",
        )
        for number in range(3)
    ]
    for service in services:
        await within(service.whenConnected())
    for _ in range(100):
        await wait(0.02)
        if len(factory.peers) == len(table.peers) == 3:
            break
    ends = [link.peer for link in factory.peers.values()]
    assert set(table.peers) == {f"{carrier}/{end.host}:{end.port}" for end in ends}
    assert not any(peer.isNamed for peer in table.peers.values())
    assert set(clients.peers) == {f"{carrier}/uplink-{number}" for number in range(3)}
    for service in services:
        await within(service.stopService())
    await within(factory.drain())
    await wait(0.02)
    assert not table.peers
    assert set(clients.states().values()) == {PeerState.DOWN}
    for each in (table, clients):
        await within(each.stopService())


@pytest_twisted.ensureDeferred
async def test_reconnectsAreCounted(plain: Loopback) -> None:
    """
    A client's second link is a reconnect in its metrics; a server's second link is none.
    """
    server, client = HeartbeatMetrics(), HeartbeatMetrics()
    factory = HeartbeatServerFactory(heartbeat=QUICK, hooks=server)
    service = plain.service(
        plain.endpoint(plain.listen(factory)),
        Factory.forProtocol(HeartbeatProtocol),
        heartbeat=QUICK,
        hooks=client,
    )
    first = await within(service.whenConnected())
    first.transport.abortConnection()
    await wait(0.1)
    await within(service.whenConnected())
    await wait(0.1)
    sample = 'heartbeat_reconnects_total{carrier="tcp"}'
    assert f"{sample} 1.0" in client.render().decode()
    assert f"{sample} 1.0" not in server.render().decode()
    await within(service.stopService())
    await within(factory.drain())
