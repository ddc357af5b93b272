# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A Redis subscriber that notices when the server is gone, even if nothing is ever published.

    python redis_subscriber.py tcp:127.0.0.1:6379
"""

import os
import sys

import txredisapi
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import react
from twisted.logger import globalLogPublisher, textFileLogObserver

from twisted_heartbeat import Heartbeat, HeartbeatClientService


class Subscriber(txredisapi.SubscriberProtocol):
    """A subscriber as txredisapi has it."""

    def messageReceived(self, pattern, channel, message):
        print(f"heard {message}", flush=True)


async def prepare(redis):
    """Bring a new connection to where the last one was: logged in, and subscribed."""
    await redis.whenConnected()
    await redis.subscribe(["news"])


def main(reactor, server="tcp:127.0.0.1:6379", within="8"):
    """Keep a subscriber connected until it is interrupted."""
    globalLogPublisher.addObserver(textFileLogObserver(sys.stdout))
    factory = txredisapi.SubscriberFactory()
    factory.protocol = Subscriber
    factory.password = os.environ.get("REDIS_PASSWORD")
    HeartbeatClientService(
        clientFromString(reactor, server),
        factory,
        prepareConnection=prepare,
        heartbeat=Heartbeat.within(float(within)),
        ping=lambda redis: redis.ping(),
    ).startService()
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
