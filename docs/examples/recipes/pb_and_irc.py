# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Perspective Broker and IRC: what to ping with.
"""

from twisted.spread.pb import PBClientFactory
from twisted.words.protocols.irc import IRCClient

from twisted_heartbeat import Heartbeat, HeartbeatClientService


def pbService(endpoint, within=8.0):
    """Call a method of the root object: def remote_ping(self): pass."""
    return HeartbeatClientService(
        endpoint,
        PBClientFactory(),
        heartbeat=Heartbeat.within(within),
        ping=lambda broker: broker.remoteForName("root").callRemote("ping"),
    )


class Bot(IRCClient):
    """Says who it is on each new connection, as every IRCClient does, and joins again."""

    nickname = "sensor"
    # IRCClient's own heartbeat sends PING every two minutes, and does not check the answer.
    heartbeatInterval = None

    def signedOn(self):
        self.join("#news")


def ircService(endpoint, factory, within=8.0):
    """Send PING, and the server has to answer PONG."""
    return HeartbeatClientService(
        endpoint,
        factory,
        heartbeat=Heartbeat.within(within),
        ping=lambda bot: bot.sendLine("PING heartbeat"),
    )
