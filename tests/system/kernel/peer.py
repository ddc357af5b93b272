# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The peer of the kernel suite, a process of its own: it answers each chunk with one byte, and says
when it did.  On demand it misbehaves in every way that a process can.

There is no Twisted in it, so that nothing under test is also the measure, and no C{asyncio}
transport, because those read ahead.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

from cells import PACE, PEER_NAME, Cell
from reports import obey, report

RECEIVE_BUFFER = 8192
"""Bytes that the kernel holds for a peer that reads slowly."""

IMPATIENCE = 3.5
"""Seconds without a word from the watcher after which a peer that is the client connects anew."""

IMPATIENCE_UNPINGED = 6.0
"""The same where the watcher never says a word."""

RECONNECT = 0.2
RECONNECT_PATIENTLY = 1.0
BACKLOG = 2000
IP_FREEBIND = 15
"""linux/in.h; Python has no name for it before 3.14."""

CONNECT_TIMEOUT = 0.5

_SLOW = ("full", "stall")


class Contexts:
    """
    The certificates, good and bad.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.server = {True: self._server("peer"), False: self._server("stranger")}
        self.client = {True: self._client("ca"), False: self._client("otherCa")}

    def _server(self, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.path.join(self._folder, f"{name}.pem"))
        return context

    def _client(self, name: str) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=os.path.join(self._folder, f"{name}.pem"))


class Conversation:
    """
    The peer's end of one connection.
    """

    def __init__(self, peer: Peer, cell: Cell, sock: socket.socket, manner: str) -> None:
        self.cell = cell
        self.heardAt = time.monotonic()
        self._peer = peer
        self._loop = peer.loop
        self._sock = sock
        self._manner = manner
        self._speaking: asyncio.TimerHandle | None = None
        self._over = False
        sock.setblocking(False)

    def begin(self) -> None:
        """
        Shake hands and say hello, as the manner is.
        """
        if self._manner == "closeAtOnce":
            self.end("told to")
        elif self._manner == "hang":
            pass
        elif self.cell.secure:
            self._wrap()
        else:
            self._greet()

    def _wrap(self) -> None:
        trusted = self._manner != "badCertificate"
        serves = self.cell.side == "client"
        contexts = self._peer.contexts.server if serves else self._peer.contexts.client
        try:
            self._sock = contexts[trusted].wrap_socket(
                self._sock,
                server_side=serves,
                server_hostname=None if serves else PEER_NAME,
                do_handshake_on_connect=False,
            )
        except OSError as error:
            # It was over before it began.
            self.end(repr(error))
            return
        self._loop.add_reader(self._sock, self._handshake)
        self._handshake()

    def _handshake(self) -> None:
        assert isinstance(self._sock, ssl.SSLSocket)
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            return
        except OSError as error:
            self.end(repr(error))
        else:
            self._greet()

    def _greet(self) -> None:
        if self._manner == "mute":
            return
        self.say(b"h")
        if not self._over:
            self._loop.add_reader(self._sock, self._readable)
            self._speak()
            self._readable()

    def _speak(self) -> None:
        if self.cell.speaks:
            self.say(b",")
            self._speaking = self._loop.call_later(self.cell.speaks, self._speak)

    def say(self, data: bytes) -> None:
        """
        Send, and report it.
        """
        if self._over:
            return
        # Before, for afterwards it may have been heard already.
        at = time.monotonic()
        try:
            self._sock.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self.end(repr(error))
        else:
            report("sent", cell=self.cell.name, at=at)

    def _readable(self) -> None:
        if self._over:
            return
        try:
            data = self._receive()
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError as error:
            self.end(repr(error))
            return
        if not data:
            self.end("closed")
            return
        self.heardAt = time.monotonic()
        if self._manner == "finished":
            return
        if self._manner != "halfClosed":
            self.say(b".")
        if self.cell.load in _SLOW:
            self._pause(PACE)
        elif isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            self._loop.call_soon(self._readable)

    def _receive(self) -> bytes:
        if self._manner in ("finished", "halfClosed"):
            # What still comes is not for reading, and TLS would take it for an error.
            return socket.socket.recv(self._sock, 65536)
        return self._sock.recv(65536)

    def _pause(self, seconds: float) -> None:
        if not self._over:
            self._loop.remove_reader(self._sock)
            self._loop.call_later(seconds, self.resume)

    def resume(self) -> None:
        """
        Read again.
        """
        if not self._over and self._manner not in ("hushed", "hang"):
            self._loop.add_reader(self._sock, self._readable)
            self._readable()

    @property
    def patience(self) -> float:
        """
        Seconds until it has been silent for too long for a peer that is the client.
        """
        if self._manner == "hushed":
            return IMPATIENCE
        unpinged = self.cell.load == "keepalive" or self.cell.speaks
        longest = IMPATIENCE_UNPINGED if unpinged else IMPATIENCE
        return self.heardAt + longest - time.monotonic()

    # What it can be told to do.

    def shout(self) -> None:
        """
        Say something now.
        """
        self.say(b"!")

    def hush(self) -> None:
        """
        Read no more: the kernel's window closes.
        """
        self._manner = "hushed"
        self._loop.remove_reader(self._sock)

    def listenAgain(self) -> None:
        """
        Read again.
        """
        self._manner = ""
        self.heardAt = time.monotonic()
        self.resume()

    def finish(self) -> None:
        """
        Close politely.  What still comes is thrown away, for a close with unread data is a reset.
        """
        self._manner = "finished"
        self._sendGoodbye()
        self._sock.shutdown(socket.SHUT_WR)
        self.resume()

    def halfClose(self) -> None:
        """
        Close the sending half, which in TLS is a close_notify and no FIN, and read on.
        """
        self._manner = "halfClosed"
        if self.cell.secure:
            self._sendGoodbye()
        else:
            self._sock.shutdown(socket.SHUT_WR)

    def _sendGoodbye(self) -> None:
        if isinstance(self._sock, ssl.SSLSocket):
            try:
                self._sock.unwrap()
            except OSError:
                # It has been sent; the other side's will not be waited for.
                pass

    def reset(self) -> None:
        """
        End with a RST.
        """
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.end("reset")

    def end(self, why: str) -> None:
        """
        Close the socket.
        """
        if self._over:
            return
        self._over = True
        if self._speaking is not None:
            self._speaking.cancel()
        if self._sock.fileno() != -1:
            self._loop.remove_reader(self._sock)
        self._sock.close()
        report("peerEnded", cell=self.cell.name, why=why)
        self._peer.ended(self)


class Peer:
    """
    All connections of this process.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: str) -> None:
        self.loop = loop
        self.contexts = Contexts(folder)
        self._cells: dict[str, Cell] = {}
        self._listeners: dict[str, list[socket.socket]] = {}
        self._conversations: dict[str, list[Conversation]] = {}
        self._manners: dict[str, str] = {}

    def obey(self, order: dict[str, Any]) -> None:
        """
        Do what the test orders.
        """
        cells = [Cell.fromJson(fields) for fields in order.get("cells", ())]
        what = order["do"]
        if what == "meet":
            for cell in cells:
                self._meet(cell, order.get("times", 1))
        elif what == "leave":
            for cell in cells:
                self._leave(cell)
        elif what == "manner":
            for cell in cells:
                self._manners[cell.name] = order["manner"]
        elif what in ("refuse", "accept"):
            for cell in cells:
                getattr(self, f"_{what}")(cell)
        else:
            for cell in cells:
                for conversation in list(self._conversations[cell.name]):
                    getattr(conversation, what)()
        report("obeyed", number=order["number"])

    def ended(self, conversation: Conversation) -> None:
        """
        A connection has ended.
        """
        cell = conversation.cell
        self._conversations[cell.name].remove(conversation)
        if cell.side == "server":
            wait = RECONNECT_PATIENTLY if cell.patient else RECONNECT
            self.loop.call_later(wait, self._connect, cell)

    def _meet(self, cell: Cell, times: int) -> None:
        self._cells[cell.name] = cell
        self._conversations[cell.name] = []
        self._listeners[cell.name] = []
        self._manners.setdefault(cell.name, "")
        if cell.side == "client":
            self._accept(cell)
        else:
            for _ in range(times):
                self._connect(cell)

    def _leave(self, cell: Cell) -> None:
        self._refuse(cell)
        if self._cells.pop(cell.name, None) is not None:
            for conversation in list(self._conversations[cell.name]):
                conversation.end("left")

    # It is the server.

    def _accept(self, cell: Cell) -> None:
        for address in cell.there:
            listener = socket.socket(_family(address))
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # The address may be one that this host is yet to get.
            listener.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
            if cell.load in _SLOW:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            listener.bind(_resolved(address, cell.port))
            listener.listen(BACKLOG)
            self._listeners[cell.name].append(listener)
            self.loop.add_reader(listener, self._acceptable, cell, listener)

    def _refuse(self, cell: Cell) -> None:
        for listener in self._listeners.get(cell.name, ()):
            self.loop.remove_reader(listener)
            listener.close()
        self._listeners[cell.name] = []

    def _acceptable(self, cell: Cell, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self._converse(cell, sock)

    # It is the client.

    def _connect(self, cell: Cell) -> None:
        if cell.name not in self._cells:
            return
        sock = socket.socket(_family(cell.here))
        sock.setblocking(False)
        if cell.load in _SLOW:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)

        def again() -> None:
            late.cancel()
            self.loop.remove_writer(sock)
            sock.close()
            self.loop.call_later(RECONNECT, self._connect, cell)

        def connected() -> None:
            if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                again()
                return
            late.cancel()
            self.loop.remove_writer(sock)
            self._converse(cell, sock)

        late = self.loop.call_later(CONNECT_TIMEOUT, again)
        try:
            _bind(sock, cell.there)
            sock.connect(_resolved(cell.here, cell.port))
        except BlockingIOError:
            self.loop.add_writer(sock, connected)
        except OSError:
            again()

    def _converse(self, cell: Cell, sock: socket.socket) -> None:
        if cell.name not in self._cells:
            sock.close()
            return
        conversation = Conversation(self, cell, sock, self._manners[cell.name])
        self._conversations[cell.name].append(conversation)
        conversation.begin()
        if cell.side == "server" and not cell.patient:
            self._hurry(conversation)

    def _hurry(self, conversation: Conversation) -> None:
        if conversation not in self._conversations[conversation.cell.name]:
            return
        left = conversation.patience
        if left > 0:
            self.loop.call_later(left, self._hurry, conversation)
        else:
            conversation.reset()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _resolved(address: str, port: int) -> Any:
    """
    The address as a socket takes it, an interface's name in it made a number.
    """
    return socket.getaddrinfo(address, port, flags=socket.AI_NUMERICHOST)[0][4]


def _bind(sock: socket.socket, addresses: tuple[str, ...]) -> None:
    """
    Take the first address that is this host's.

    @raise OSError: if none is.
    """
    for address in addresses[:-1]:
        try:
            sock.bind(_resolved(address, 0))
        except OSError:
            continue
        return
    sock.bind(_resolved(addresses[-1], 0))


def main() -> None:
    """
    Obey until the test has gone.
    """
    loop = asyncio.new_event_loop()
    peer = Peer(loop, sys.argv[1])

    def soon(call: Callable[..., None], *arguments: Any) -> None:
        loop.call_soon_threadsafe(call, *arguments)

    obey(lambda order: soon(peer.obey, order), lambda: soon(loop.stop))
    report("started")
    loop.run_forever()


if __name__ == "__main__":
    main()
