# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The fault proxy without any test framework. Run with: python testing_script.py
"""

from __future__ import annotations

from twisted.application.internet import ClientService
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols.wire import Echo

from twisted_heartbeat.testing import AcceptThenClose, FaultProxy


async def main(reactor):
    """Break a client's connection, let it fail three times, and see it come back."""
    server = reactor.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
    proxy = FaultProxy(reactor, target=("127.0.0.1", server.getHost().port))
    await proxy.listen()
    client = ClientService(
        proxy.endpoint(), Factory.forProtocol(Echo), retryPolicy=lambda attempt: 0.05
    )
    client.startService()
    await client.whenConnected()
    print("connected through", proxy.description)

    # The next three connections are accepted and closed at once.
    proxy.inject(AcceptThenClose())
    proxy.reset()
    await proxy.whenConnectionsMade(4)

    proxy.heal()
    await proxy.whenConnectionsMade(5)
    print("came back after", proxy.connectionsMade, "connections")

    await client.stopService()
    await proxy.close()
    await server.stopListening()


react(main)
