# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What the manual notes of Perspective Broker and IRC holds against Twisted's own servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted import version
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.spread.pb import NoSuchMethod, PBServerFactory, Root
from twisted.words.service import InMemoryWordsRealm, IRCFactory

from twisted_heartbeat import PeerSilent
from twisted_heartbeat.testing import BlackHole, FaultProxy

from ...conftest import LoggedErrors
from ...support.loopback import wait, within
from ...support.modules import imported
from .recipe import EXAMPLES

PB_AND_IRC = EXAMPLES / "recipes" / "pb_and_irc.py"

BOUND = 0.6

AMPLE = 20.0

STRETCHES = 3
"""How often a busy machine may fail to give a link one stretch of idleness that it survives."""

Proxies = Callable[..., Deferred[FaultProxy]]
Serve = Callable[[Factory], Deferred[FaultProxy]]


@pytest.fixture
def serve(faultProxy: Proxies) -> Iterator[Serve]:
    """
    Listen behind a proxy until the test ends.
    """
    from twisted.internet import reactor

    ports: list[Any] = []

    def listen(factory: Factory) -> Deferred[FaultProxy]:
        factory.noisy = False
        ports.append(reactor.listenTCP(0, factory, interface="127.0.0.1"))
        return faultProxy(("127.0.0.1", ports[-1].getHost().port))

    yield listen
    for port in ports:
        pytest_twisted.blockon(port.stopListening())


async def keptAndFound(service: Any, proxy: FaultProxy) -> None:
    """
    The link lives while it is idle, for its ping is answered; a cut is found.
    """
    service.startService()
    try:
        for _ in range(STRETCHES):
            await within(service.whenConnected(), AMPLE)
            link = service.link
            await wait(1.5 * BOUND)
            if link.isUp:
                break
        assert link.isUp
        proxy.inject(BlackHole(), connections="existing")
        assert isinstance(await within(link.whenGone(), AMPLE), PeerSilent)
        await within(service.whenConnected(), AMPLE)
    finally:
        await within(service.stopService(), AMPLE)


class Answering(Root):
    """
    A root object with the method that the page asks for.
    """

    def remote_ping(self) -> None:
        """
        Nothing is as good an answer as any.
        """


@pytest_twisted.ensureDeferred
async def test_perspectiveBroker(serve: Serve) -> None:
    """
    A PB server whose root object has the method answers.
    """
    proxy = await serve(PBServerFactory(Answering()))
    await keptAndFound(imported(PB_AND_IRC).pbService(proxy.endpoint(), BOUND), proxy)


@pytest_twisted.ensureDeferred
@pytest.mark.skipif(
    (version.major, version.minor) < (26, 10),
    reason="this Twisted's broker may not be able to read the answer",
)
async def test_perspectiveBrokerWithoutMethod(serve: Serve, loggedErrors: LoggedErrors) -> None:
    """
    With the newest Twisted one that has it not answers all the same, and logs that.
    """
    proxy = await serve(PBServerFactory(Root()))
    await keptAndFound(imported(PB_AND_IRC).pbService(proxy.endpoint(), BOUND), proxy)
    assert loggedErrors.flush(NoSuchMethod)


@pytest_twisted.ensureDeferred
async def test_irc(serve: Serve) -> None:
    """
    An IRC server answers PING, even before it knows who asks.
    """
    realm = InMemoryWordsRealm("irc.example")
    proxy = await serve(IRCFactory(realm, Portal(realm)))
    module = imported(PB_AND_IRC)
    factory = Factory.forProtocol(module.Bot)
    await keptAndFound(module.ircService(proxy.endpoint(), factory, BOUND), proxy)
