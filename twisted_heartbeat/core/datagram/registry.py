# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Registry}: all peers of a monitor, and what each received datagram means.

A datagram passes these checks, the cheapest first.  The first that fails ignores it, and counts it:

 1. its size, version, type and name fit the layout (C{malformed});
 2. its name and key id have a key (C{noKey});
 3. it is of an accepted session, or the second has room for one more unknown (C{unknown});
 4. its MAC is right (C{forged});
 5. it goes forward, as L{PeerSession.judge} decides (otherwise it is C{late} in its session, or
    C{old} in another).

A heartbeat of a peer that has sent too many in this second (C{tooMany}) keeps the peer alive, and
does nothing else.  It must do that, because after a stall of this process a peer's heartbeats of
many seconds are read in one.

What has to be challenged is answered with a challenge, if the second has room for one
(C{unchallenged}).  A peer that is alive needs no room, because a flood of others must not end it,
and its own heartbeats are limited.  No memory is kept for a sender before it has answered; after
that there is one L{PeerSession}, if there is room for another (C{noRoom}).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from enum import Enum
from math import inf
from typing import Generic, NamedTuple, TypeVar

from .cookies import Cookies
from .packet import (
    ACKNOWLEDGE,
    HEADER,
    MAC_SIZE,
    MAX_MILLISECONDS,
    MAX_NAME,
    MAX_SIZE,
    MIN_SIZE,
    Key,
    Malformed,
    Packet,
    Type,
    decode,
    encode,
    isName,
)
from .persecond import PerSecond
from .session import LEFT_LIFE, News, PeerSession
from .settings import DatagramLimits

Keys = Mapping[str, bytes | Mapping[int, bytes]]
"""The keys by peer name: one, with the key id 1; or several by key id, 1 to 255."""

NO_KEY = 0
"""The key id of a datagram without a key."""

UNKEYED = Key(b"")

_unpack = HEADER.unpack_from
_HEADER_SIZE = HEADER.size


class Effect(Enum):
    """
    What a datagram does to a peer.
    """

    NOTHING = "nothing"
    """It is ignored, or challenged."""

    HEARD = "heard"
    SURPLUS = "surplus"
    """It is heard, and beyond the limit of its peer: nothing else comes of it."""

    RECOVERED = "recovered"
    BEGAN = "began"
    LEFT = "left"


Peer = TypeVar("Peer", bound=PeerSession)


class Meaning(NamedTuple, Generic[Peer]):
    """
    What a datagram means.

    @ivar peer: the peer that it is news of; L{None} if there is nothing to tell or to do.
    @ivar reply: what to send back to the address that it came from; empty for nothing.
    @ivar payload: what it carries.
    @ivar former: the session that this one replaces; L{None} if that has ended before.
    @ivar code: the code of a goodbye.
    @ivar isSooner: whether the peer is due sooner than it was, because its bound is shorter.
    """

    effect: Effect
    peer: Peer | None = None
    reply: bytes = b""
    payload: bytes = b""
    former: Peer | None = None
    code: int = 0
    isSooner: bool = False


def keyring(keys: Keys, unauthenticated: Collection[str] = ()) -> dict[bytes, dict[int, Key]]:
    """
    Return the keys by name and key id.

    @param unauthenticated: names of peers without a key.
    @raise ValueError: for a wrong name, key id or key, or a name with a key and without.
    """
    found: dict[bytes, dict[int, Key]] = {}
    # Peers that share a secret share its hashed pads.
    shared: dict[bytes, Key] = {}
    for name, given in keys.items():
        if not isName(name):
            raise ValueError(f"the name {name!r} must have 1 to {MAX_NAME} bytes in UTF-8")
        numbered = given if isinstance(given, Mapping) else {1: given}
        for keyId, secret in numbered.items():
            if not (isinstance(keyId, int) and 1 <= keyId <= 255):
                raise ValueError(f"the key id {keyId!r} of {name!r} must be 1 to 255")
            if not secret:
                raise ValueError(f"the key {keyId} of {name!r} is empty: name it unauthenticated")
        found[name.encode()] = {
            keyId: shared.setdefault(secret, Key(secret)) for keyId, secret in numbered.items()
        }
    for name in unauthenticated:
        if name.encode() in found:
            raise ValueError(f"{name!r} has a key, and cannot be unauthenticated as well")
        found[name.encode()] = {NO_KEY: UNKEYED}
    return found


class Registry(Generic[Peer]):
    """
    The peers of one monitor.  Times are running time, in seconds.

    @ivar peers: by name, as it stands in the datagrams.
    @ivar ignored: how many datagrams were ignored, by reason.
    """

    def __init__(
        self,
        keys: dict[bytes, dict[int, Key]],
        secret: bytes,
        make: Callable[[Packet, object, float, float], Peer],
        *,
        bound: float,
        limits: DatagramLimits,
        challenge: bool = True,
    ) -> None:
        """
        @param secret: random bytes, drawn at this start.
        @param make: makes a peer, with the parameters of L{PeerSession}.
        @param bound: seconds, for a sender that states none.
        @param challenge: L{False} for senders that never receive anything.
        """
        self.keys = keys
        self.peers: dict[bytes, Peer] = {}
        self.ignored: dict[str, int] = {}
        self._make = make
        self._bound = bound
        self._limits = limits
        self._challenge = challenge
        self._cookies = Cookies(secret)
        self._unknown = PerSecond(limits.unknownPerSecond)
        self._challenges = PerSecond(limits.challengesPerSecond)
        self._forgetAt = 0.0
        self._heard: Meaning[Peer] = Meaning(Effect.HEARD)
        self._surplus: Meaning[Peer] = Meaning(Effect.SURPLUS)
        self._nothing: Meaning[Peer] = Meaning(Effect.NOTHING)

    def changeSettings(self, bound: float, limits: DatagramLimits) -> None:
        """
        Apply another bound and other limits, those of a bound with the next heartbeat of each peer.
        No peer is forgotten because fewer of them may be known now.

        @param bound: as for the constructor.
        """
        self._bound = bound
        self._limits = limits
        self._unknown = PerSecond(limits.unknownPerSecond)
        self._challenges = PerSecond(limits.challengesPerSecond)
        for peer in self.peers.values():
            # No packet has this bound, so that the next heartbeat takes the long way.
            peer.asked = -1

    def receive(self, data: bytes, address: object, now: float) -> Meaning[Peer]:
        """
        Take a datagram.
        """
        meaning = self._receiveNextHeartbeat(data, address, now)
        return self._receivePacket(data, address, now) if meaning is None else meaning

    def _receiveNextHeartbeat(
        self, data: bytes, address: object, now: float
    ) -> Meaning[Peer] | None:
        """
        Take the commonest datagram: the next heartbeat of a peer that is alive and not suspected,
        without payload.  It repeats checks of L{_receivePacket} without building a packet, because
        ten thousand come in a second (C{benchmarks/datagrams.py}).

        @return: L{None}, with nothing changed, if it is anything else.
        """
        size = len(data)
        if not MIN_SIZE <= size <= MAX_SIZE:
            return None
        version, kind, flags, keyId, session, sequence, sent, interval, asked, _, length = _unpack(
            data
        )
        end = _HEADER_SIZE + length
        name = data[_HEADER_SIZE:end]
        peer = self.peers.get(name)
        if peer is None or peer.session != session or sequence <= peer.window.highest:
            return None
        if kind != 1 or version != 1 or flags or end != size - MAC_SIZE or asked != peer.asked:
            return None
        if peer.suspected or not peer.alive:
            return None
        keys = self.keys.get(name)
        key = None if keys is None else keys.get(keyId)
        if key is None:
            return None
        if not key.accepts(data):
            return self._ignore("forged")
        if not peer.advance(sequence, sent, interval, now):
            return None
        peer.address = address
        peer.keyId = keyId
        if not peer.isWithin(self._limits.peerPerSecond, now):
            self._ignore("tooMany")
            return self._surplus
        return self._heard

    def _receivePacket(self, data: bytes, address: object, now: float) -> Meaning[Peer]:
        """
        Take any datagram: make the checks above, then do what its sender and type ask for.
        """
        try:
            packet = decode(data)
        except Malformed:
            return self._ignore("malformed")
        kind, name, payload = packet.type, packet.name, packet.payload
        limits = self._limits
        if kind > Type.GOODBYE or len(name) > limits.maxName or len(payload) > limits.maxPayload:
            return self._ignore("malformed")
        peer = self.peers.get(name)
        keys = self.keys.get(name)
        key = None if keys is None else keys.get(packet.keyId)
        if key is None:
            return self._ignore("noKey")
        isAccepted = peer is not None and peer.session == packet.session
        if not isAccepted and not self._unknown.allows(now):
            return self._ignore("unknown")
        if not key.accepts(data):
            return self._ignore("forged")
        if peer is None:
            return self._receiveFromUnknown(packet, key, address, now)
        if kind == Type.GOODBYE:
            return self._receiveGoodbye(peer, packet, now)
        return self._receiveFromKnown(peer, packet, key, address, now)

    def _receiveFromUnknown(
        self, packet: Packet, key: Key, address: object, now: float
    ) -> Meaning[Peer]:
        """
        Take an authentic datagram of a peer that is not known.
        """
        if packet.type == Type.GOODBYE:
            return self._ignore("old")
        if self._challenge and not self._isAnswer(packet, address, now):
            return self._challengeIt(packet, key, address, now)
        if len(self.peers) >= self._limits.peers:
            self.forget(now)
            if len(self.peers) >= self._limits.peers:
                return self._ignore("noRoom")
        return self._begin(None, packet, key, address, now)

    def _receiveGoodbye(self, peer: Peer, packet: Packet, now: float) -> Meaning[Peer]:
        """
        Take a goodbye of a known peer: only a session that is alive can end.
        """
        if packet.session != peer.session:
            return self._ignore("old")
        if not peer.alive or peer.judge(packet, True, now) is News.LATE:
            return self._ignore("late")
        peer.end(now)
        return Meaning(Effect.LEFT, peer, code=packet.flags)

    def _receiveFromKnown(
        self, peer: Peer, packet: Packet, key: Key, address: object, now: float
    ) -> Meaning[Peer]:
        """
        Take an authentic heartbeat or answer of a known peer.
        """
        flags, payload = packet.flags, packet.payload
        isAccepted = packet.session == peer.session
        # Replays do not count; otherwise a flood of them would silence the peer.
        isLater = isAccepted and packet.sequence > peer.window.highest
        isTooMuch = isLater and not peer.isWithin(self._limits.peerPerSecond, now)
        if isTooMuch:
            self._ignore("tooMany")
            flags, payload = 0, b""
        news = peer.judge(packet, not self._challenge, now)
        if news is News.CHALLENGE and self._isAnswer(packet, address, now):
            news = peer.judge(packet, True, now)
        if news is News.LATE or news is News.OLD:
            return self._ignore(news.value)
        if news is News.BEGIN or news is News.CHALLENGE:
            if isTooMuch:
                return self._nothing
            if news is News.BEGIN:
                return self._begin(peer, packet, key, address, now)
            return self._challengeIt(packet, key, address, now, isAccepted and peer.alive)
        peer.address = address
        peer.keyId = packet.keyId
        peer.asked = packet.bound
        bound = self._boundOf(packet)
        isSooner = peer.setBound(bound)
        reply = self._acknowledge(packet, key, bound) if flags & ACKNOWLEDGE else b""
        if news is News.RECOVERED:
            return Meaning(Effect.RECOVERED, peer, reply, payload, isSooner=isSooner)
        if reply or payload or isSooner:
            return Meaning(Effect.HEARD, peer, reply, payload, isSooner=isSooner)
        return self._surplus if isTooMuch else self._heard

    def forget(self, now: float) -> None:
        """
        Forget the peers whose end is so far back that no answer of theirs can still be valid.
        Without challenges the memory of a dead peer is all that reveals a replay, and is kept.
        """
        if self._challenge and now >= self._forgetAt:
            # Each time costs a look at all peers.
            self._forgetAt = now + LEFT_LIFE / 4
            ended = [key for key, peer in self.peers.items() if now >= peer.endedAt + LEFT_LIFE]
            for key in ended:
                del self.peers[key]

    def _ignore(self, reason: str) -> Meaning[Peer]:
        self.ignored[reason] = self.ignored.get(reason, 0) + 1
        return self._nothing

    def _boundOf(self, packet: Packet) -> float:
        limits = self._limits
        stated = packet.bound / 1000 if packet.bound else self._bound
        return min(max(stated, limits.minBound), limits.maxBound)

    def _isAnswer(self, packet: Packet, address: object, now: float) -> bool:
        return packet.type == Type.ANSWER and self._cookies.accepts(
            packet.cookie, address, packet.keyId, packet.name, packet.session, now
        )

    def _begin(
        self, former: Peer | None, packet: Packet, key: Key, address: object, now: float
    ) -> Meaning[Peer]:
        bound = self._boundOf(packet)
        peer = self._make(packet, address, bound, now)
        replaced = None
        if former is not None:
            peer.succeed(former, now, LEFT_LIFE if self._challenge else inf)
            if former.alive:
                former.end(now)
                replaced = former
        self.peers[packet.name] = peer
        asked = packet.flags & ACKNOWLEDGE
        reply = self._acknowledge(packet, key, bound) if asked else b""
        return Meaning(Effect.BEGAN, peer, reply, packet.payload, replaced)

    def _challengeIt(
        self, packet: Packet, key: Key, address: object, now: float, isAlive: bool = False
    ) -> Meaning[Peer]:
        if not isAlive and not self._challenges.allows(now):
            return self._ignore("unchallenged")
        self.ignored["challenged"] = self.ignored.get("challenged", 0) + 1
        cookie = self._cookies.make(address, packet.keyId, packet.name, packet.session, now)
        reply = packet.reply(Type.CHALLENGE, cookie=cookie)
        return Meaning(Effect.NOTHING, reply=encode(reply, key))

    def _acknowledge(self, packet: Packet, key: Key, bound: float) -> bytes:
        milliseconds = min(round(bound * 1000), MAX_MILLISECONDS)
        return encode(packet.reply(Type.ACKNOWLEDGEMENT, bound=milliseconds), key)
