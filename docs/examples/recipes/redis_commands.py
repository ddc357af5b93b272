# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Redis commands that fail in time when the server is gone, and go on when it is back.

    python redis_commands.py tcp:127.0.0.1:6379
"""

import os
import sys

import txredisapi
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import deferLater, react
from twisted.logger import globalLogPublisher, textFileLogObserver

from twisted_heartbeat import Heartbeat, HeartbeatClientService


async def main(reactor, server="tcp:127.0.0.1:6379", within="8"):
    """Look for news until it is interrupted."""
    globalLogPublisher.addObserver(textFileLogObserver(sys.stdout))
    password = os.environ.get("REDIS_PASSWORD")
    factory = txredisapi.RedisFactory("redis", 0, 1, isLazy=True, password=password)
    HeartbeatClientService(
        clientFromString(reactor, server),
        factory,
        # Logged in, and the database selected.
        prepareConnection=lambda redis: redis.whenConnected(),
        heartbeat=Heartbeat.within(float(within)),
        ping=lambda redis: redis.ping(),
    ).startService()

    # What txredisapi.lazyConnection() would have returned: it uses the connection that is up.
    redis = factory.handler
    while True:
        try:
            print("heard", await redis.get("news"), flush=True)
        except txredisapi.ConnectionError as error:
            print("no answer:", error, flush=True)
        await deferLater(reactor, 0.5)


if __name__ == "__main__":
    react(main, sys.argv[1:])
