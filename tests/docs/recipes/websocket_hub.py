# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A WebSocket server on the C{websockets} library: C{python websocket_hub.py PORT}.

Whoever says C{subscribe} gets what anybody says with C{publish}.  It never pings by itself.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from websockets.asyncio.server import broadcast, serve

subscribers: set[Any] = set()


async def talk(connection: Any) -> None:
    """
    One connection.
    """
    try:
        async for message in connection:
            text = message.decode() if isinstance(message, bytes) else message
            command, _, words = text.partition(" ")
            if command == "subscribe":
                subscribers.add(connection)
            elif command == "publish":
                broadcast(subscribers, words)
    finally:
        subscribers.discard(connection)


async def main() -> None:
    """
    Until somebody ends it.
    """
    async with serve(talk, "127.0.0.1", int(sys.argv[1]), ping_interval=None):
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main())
