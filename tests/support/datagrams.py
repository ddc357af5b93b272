# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Senders and a monitor of datagrams without sockets: L{Sensor} makes packets, L{Watch} judges them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted_heartbeat.core.datagram.packet import Key, Packet, Type, decode, encode
from twisted_heartbeat.core.datagram.registry import Effect, Meaning, Registry, keyring
from twisted_heartbeat.core.datagram.session import Look, PeerSession
from twisted_heartbeat.core.datagram.settings import DatagramLimits

SECRET = bytes(range(32))
"""The key of all peers, unless a test needs others."""

HOME = ("192.0.2.1", 4000)
"""Where the datagrams come from, unless a test says otherwise."""


class Sensor:
    """
    A sender of datagrams.

    @ivar sequence: the number of the last heartbeat.
    """

    def __init__(
        self,
        name: str = "pump",
        session: int = 1,
        *,
        bound: float = 6.0,
        interval: float = 1.0,
        secret: bytes = SECRET,
        keyId: int = 1,
        flags: int = 0,
    ) -> None:
        self.name = name
        self.session = session
        self.bound = bound
        self.interval = interval
        self.key = Key(secret)
        self.keyId = keyId
        self.flags = flags
        self.sequence = 0

    def packet(self, now: float, kind: Type = Type.HEARTBEAT, **fields: Any) -> Packet:
        """
        A packet with this sender's fields.

        @param now: the sender's own clock.
        """
        usual: dict[str, Any] = {
            "type": kind,
            "flags": self.flags,
            "keyId": self.keyId,
            "session": self.session,
            "sequence": self.sequence,
            "sent": round(now * 1000) % 2**32,
            "interval": round(self.interval * 1000),
            "bound": round(self.bound * 1000),
            "cookie": 0,
            "name": self.name.encode(),
        }
        return Packet(**usual | fields)

    def heartbeat(self, now: float, **fields: Any) -> bytes:
        """
        The next heartbeat.
        """
        self.sequence += 1
        return encode(self.packet(now, **fields), self.key)

    def answer(self, challenge: bytes, now: float, **fields: Any) -> bytes:
        """
        The answer to a challenge.
        """
        cookie = decode(challenge).cookie
        return encode(self.packet(now, Type.ANSWER, cookie=cookie, **fields), self.key)

    def goodbye(self, now: float, code: int = 0) -> bytes:
        """
        A goodbye.
        """
        self.sequence += 1
        return encode(self.packet(now, Type.GOODBYE, flags=code), self.key)


class Watch:
    """
    A registry, and all that it told.

    @ivar told: the changes with their names, C{"verdict"} and C{"suspected"} included.
    """

    def __init__(
        self,
        keys: Mapping[str, Any] | None = None,
        *,
        restart: int = 0,
        unauthenticated: tuple[str, ...] = (),
        limits: DatagramLimits = DatagramLimits(),  # noqa: B008
        **settings: Any,
    ) -> None:
        ring = keyring({"pump": SECRET} if keys is None else keys, unauthenticated)
        settings = {"bound": 35.0, "limits": limits, **settings}
        secret = bytes([restart]) * 32
        self.registry: Registry[PeerSession] = Registry(ring, secret, PeerSession, **settings)
        self.told: list[tuple[str, str]] = []

    def receive(self, data: bytes, now: float, address: Any = HOME) -> Meaning[PeerSession]:
        """
        Take a datagram.
        """
        meaning = self.registry.receive(data, address, now)
        if meaning.former is not None:
            self.told.append((meaning.former.name, "restarted"))
        if meaning.peer is not None and meaning.effect is not Effect.HEARD:
            self.told.append((meaning.peer.name, meaning.effect.value))
        return meaning

    def meet(self, sensor: Sensor, now: float, address: Any = HOME) -> PeerSession:
        """
        Take a sender's first heartbeat, challenge it, and take its answer.
        """
        reply = self.receive(sensor.heartbeat(now), now, address).reply
        meaning = self.receive(sensor.answer(reply, now), now, address)
        assert meaning.effect is Effect.BEGAN
        assert meaning.peer is not None
        return meaning.peer

    def pass_(self, until: float) -> list[tuple[float, str, Look]]:
        """
        Let time pass: each peer decides when it is due.

        @return: when, who, and what.
        """
        found = []
        for peer in self.registry.peers.values():
            while peer.alive and peer.due <= until:
                at = peer.due
                look = peer.decide(at)
                if look is Look.SUSPECT or look is Look.VERDICT:
                    self.told.append((peer.name, look.value))
                    found.append((at, peer.name, look))
        return found

    def peer(self, name: str = "pump") -> PeerSession:
        """
        A peer that has been met.
        """
        return self.registry.peers[name.encode()]
