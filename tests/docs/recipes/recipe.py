# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Recipe}: an example of the manual, the real server that it talks to, and how a third party has
that server say something to the example.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"

BOUND = 1.2
"""Seconds that each example is given."""

PASSWORD = "not for the public"

TIMEOUT = 10.0
"""Seconds that the third party waits for the server."""


@dataclass(frozen=True)
class Recipe:
    """
    One example.

    @ivar serve: a port and a folder of its own -> the server's command.
    @ivar connect: the server's port -> the example's arguments, but for the bound.
    @ivar publish: a port and a text -> has the server on that port say that text.
    @ivar needs: the modules, and the commands, without which it can not be run.
    @ivar lament: what the example says, besides, when its server hangs.
    @ivar watches: whether the server, too, finds it when the path to its clients is cut.
    """

    file: str
    serve: Callable[[int, Path], list[object]]
    connect: Callable[[int], list[object]]
    publish: Callable[[int, str], None]
    needs: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    lament: str = ""
    watches: bool = False

    def missing(self) -> list[str]:
        """
        What is needed and not installed.
        """
        return [name for name in self.needs if not _isInstalled(name)]

    def command(self, port: int) -> list[object]:
        """
        How the example is run.
        """
        return [sys.executable, EXAMPLES / "recipes" / self.file, *self.connect(port), BOUND]


def _command(name: str) -> str | None:
    """
    Where a command is.  Debian has servers in a folder that is not on everybody's path.
    """
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")


def _isInstalled(name: str) -> bool:
    if _command(name) is not None:
        return True
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def freePort() -> int:
    """
    A port of this host's on which nobody listens.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def _tell(port: int, *messages: bytes) -> None:
    """
    Tell a server something, and wait for an answer to each.
    """
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as third:
        for message in messages:
            third.sendall(message)
            third.recv(4096)


def _endpoint(port: int) -> list[object]:
    return [f"tcp:127.0.0.1:{port}"]


# Twisted's own protocols, with the server of the example.


def _serves(file: str) -> Callable[[int, Path], list[object]]:
    return lambda port, folder: [
        sys.executable,
        EXAMPLES / "recipes" / file,
        "serve",
        f"tcp:{port}:interface=127.0.0.1",
        BOUND,
    ]


def _connects(port: int) -> list[object]:
    return ["connect", *_endpoint(port)]


def _amp(port: int, text: str) -> None:
    pairs = [(b"_ask", b"1"), (b"_command", b"Publish"), (b"text", text.encode())]
    strings = [part for pair in pairs for part in pair]
    box = b"".join(struct.pack("!H", len(part)) + part for part in strings)
    _tell(port, box + b"\0\0")


def _line(port: int, text: str) -> None:
    _tell(port, b"publish " + text.encode() + b"\r\nand?\r\n")


def _int32(port: int, text: str) -> None:
    strings = [b"publish " + text.encode(), b"echo? "]
    _tell(port, b"".join(struct.pack("!I", len(part)) + part for part in strings))


# Servers of other people's.


def _redisServer(port: int, folder: Path) -> list[object]:
    options = {"port": port, "bind": "127.0.0.1", "save": "", "dir": folder}
    secret = {"requirepass": PASSWORD}
    words = [part for name, value in (options | secret).items() for part in (f"--{name}", value)]
    return [_command("redis-server"), *words]


def _redis(*command: str) -> bytes:
    parts = [f"*{len(command)}", *(f"${len(word)}\r\n{word}" for word in command)]
    return "\r\n".join([*parts, ""]).encode()


def _redisPublish(port: int, text: str) -> None:
    _tell(port, _redis("AUTH", PASSWORD), _redis("PUBLISH", "news", text))


def _redisSet(port: int, text: str) -> None:
    _tell(port, _redis("AUTH", PASSWORD), _redis("SET", "news", text))


def _mosquitto(port: int, folder: Path) -> list[object]:
    configuration = folder / "mosquitto.conf"
    lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "persistence false"]
    if os.geteuid() == 0:
        # It would become somebody else, who may not read its configuration here.
        lines.append("user root")
    configuration.write_text("\n".join([*lines, ""]))
    return [_command("mosquitto"), "-c", configuration]


def _mqtt(port: int, text: str) -> None:
    session = b"\x00\x04MQTT\x04\x02\x00\x00" + b"\x00\x05third"
    message = b"\x00\x04news" + b"\x00\x01" + text.encode()
    packets = [(b"\x10", session), (b"\x32", message)]
    _tell(port, *(kind + bytes([len(body)]) + body for kind, body in packets))


def _webSocketServer(port: int, folder: Path) -> list[object]:
    return [sys.executable, Path(__file__).parent / "websocket_hub.py", port]


def _webSocketUrl(port: int) -> list[object]:
    return [f"ws://127.0.0.1:{port}/"]


def _webSocket(port: int, text: str) -> None:
    from websockets.sync.client import connect

    with connect(f"ws://127.0.0.1:{port}/", open_timeout=TIMEOUT) as third:
        third.send(f"publish {text}")


_LOGIN = {"REDIS_PASSWORD": PASSWORD}
_REDIS = ("redis-server", "txredisapi")

RECIPES = [
    Recipe("amp_hub.py", _serves("amp_hub.py"), _connects, _amp),
    Recipe("line_hub.py", _serves("line_hub.py"), _connects, _line),
    Recipe("int32_hub.py", _serves("int32_hub.py"), _connects, _int32, watches=True),
    Recipe("redis_subscriber.py", _redisServer, _endpoint, _redisPublish, _REDIS, _LOGIN),
    Recipe(
        "redis_commands.py",
        _redisServer,
        _endpoint,
        _redisSet,
        _REDIS,
        _LOGIN,
        lament="no answer: Lost connection",
    ),
    Recipe("mqtt_subscriber.py", _mosquitto, _endpoint, _mqtt, ("mosquitto", "mqtt")),
    Recipe(
        "websocket_client.py",
        _webSocketServer,
        _webSocketUrl,
        _webSocket,
        ("websockets", "wsproto", "twisted.web.websocket"),
    ),
    Recipe(
        "autobahn_client.py",
        _webSocketServer,
        _webSocketUrl,
        _webSocket,
        ("websockets", "autobahn"),
    ),
]
