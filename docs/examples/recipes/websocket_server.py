# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A WebSocket server on the websockets library, to try the two clients with.

    python websocket_server.py 8765
"""

import asyncio
import sys

from websockets.asyncio.server import serve


async def greet(connection):
    """Answer each message."""
    async for message in connection:
        await connection.send(f"you said {message}")


async def main(port="8765"):
    """Serve until it is interrupted."""
    async with serve(greet, "127.0.0.1", int(port)):
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
