# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What each datagram means to a monitor: only forward, only from the peer, within limits.
"""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_heartbeat.core.causes import GoodbyeCode
from twisted_heartbeat.core.datagram.cookies import LIFE
from twisted_heartbeat.core.datagram.packet import (
    ACKNOWLEDGE,
    MAX_SIZE,
    Type,
    decode,
    encode,
)
from twisted_heartbeat.core.datagram.registry import Effect, keyring
from twisted_heartbeat.core.datagram.session import LEFT_LIFE, MAX_LEFT, Look
from twisted_heartbeat.core.datagram.settings import DatagramLimits

from ...support.datagrams import HOME, SECRET, Sensor, Watch

ELSEWHERE = ("198.51.100.9", 9)


@pytest.fixture
def watch() -> Watch:
    """
    A monitor that has just started.
    """
    return Watch()


def test_newSessionIsChallenged(watch: Watch) -> None:
    """
    Promise 21: the first heartbeat of a session proves nothing until its sender has answered.
    """
    pump = Sensor()
    meaning = watch.receive(pump.heartbeat(0.0), 0.0)
    assert meaning.effect is Effect.NOTHING
    assert watch.registry.peers == {}
    answered = watch.receive(pump.answer(meaning.reply, 0.1), 0.1)
    assert answered.effect is Effect.BEGAN
    assert watch.peer().heardAt == 0.1


def test_challengeIsNotLarger(watch: Watch) -> None:
    """
    Promise 21: a challenge and an acknowledgement are no larger than what provoked them.
    """
    for name in ("p", "x" * 128):
        watch = Watch({name: SECRET})
        sensor = Sensor(name, flags=ACKNOWLEDGE)
        for payload in (b"", b"1" * 512):
            first = sensor.heartbeat(0.0, payload=payload)
            challenge = watch.receive(first, 0.0).reply
            assert 0 < len(challenge) <= len(first)
        answer = sensor.answer(challenge, 0.0)
        acknowledgement = watch.receive(answer, 0.0).reply
        assert decode(acknowledgement).type == Type.ACKNOWLEDGEMENT
        assert len(acknowledgement) <= len(answer)


def test_replayedHeartbeatIsLate(watch: Watch) -> None:
    """
    Promise 21: a datagram counts once.
    """
    pump = Sensor()
    watch.meet(pump, 0.0)
    heartbeat = pump.heartbeat(1.0)
    assert watch.receive(heartbeat, 1.0).effect is Effect.HEARD
    for address in (HOME, ELSEWHERE):
        meaning = watch.receive(heartbeat, 2.0, address)
        assert (meaning.effect, meaning.reply) == (Effect.NOTHING, b"")
    assert watch.peer().heardAt == 1.0
    assert watch.peer().address == HOME
    assert watch.peer().duplicates == 2


def test_reorderedHeartbeatIsNoNews(watch: Watch) -> None:
    """
    Promise 21: a datagram that was overtaken changes nothing but the statistics.
    """
    pump = Sensor()
    watch.meet(pump, 0.0)
    first, second = pump.heartbeat(1.0), pump.heartbeat(2.0)
    watch.receive(second, 2.0)
    assert watch.peer().lost == 1
    assert watch.receive(first, 3.0).effect is Effect.NOTHING
    assert watch.peer().heardAt == 2.0
    assert (watch.peer().lost, watch.peer().reordered) == (0, 1)


@pytest.mark.parametrize("kept", [True, False])
def test_replayAfterRestart(kept: bool) -> None:
    """
    Promise 21: after a restart of the monitor, nothing recorded before makes a peer look alive,
    neither heartbeats nor answers nor goodbyes.
    """
    pump, before = Sensor(flags=ACKNOWLEDGE), Watch()
    first = pump.heartbeat(0.0)
    answer = pump.answer(before.receive(first, 0.0).reply, 0.0)
    before.receive(answer, 0.0)
    recorded = [first, answer, pump.heartbeat(1.0), pump.heartbeat(2.0), pump.goodbye(3.0)]
    after = Watch(restart=1)
    if kept:
        # The peer itself has come back, and died.
        after.meet(pump, 3.0)
        after.pass_(20.0)
        after.told.clear()
    for data in recorded:
        meaning = after.receive(data, 20.0)
        assert meaning.effect is Effect.NOTHING
    assert after.told == []
    assert all(not peer.alive for peer in after.registry.peers.values())


def test_recordedButNeverDelivered(watch: Watch) -> None:
    """
    Promise 21: heartbeats that were recorded and held back do not make a dead peer look alive,
    although the monitor has never seen them.
    """
    pump = Sensor()
    watch.meet(pump, 0.0)
    held = [pump.heartbeat(float(second)) for second in range(1, 60)]
    assert [look for _, _, look in watch.pass_(6.0)] == [Look.SUSPECT, Look.VERDICT]
    for second, data in enumerate(held):
        assert watch.receive(data, 7.0 + second).effect is Effect.NOTHING
    assert not watch.peer().alive


@pytest.mark.parametrize("stretch", [1.05, 1.3, 2.0, 5.5])
def test_heldBackOneByOne(watch: Watch, stretch: float) -> None:
    """
    Promise 21: a recorder that passes heartbeats on ever later keeps a dead peer alive for no
    longer than one bound more.
    """
    pump = Sensor()
    watch.meet(pump, 0.0)
    lastAccepted = 0.0
    for second in range(1, 2000):
        at = second * stretch
        watch.pass_(at)
        if watch.receive(pump.heartbeat(float(second)), at).effect is not Effect.NOTHING:
            lastAccepted = at
            assert at - second <= pump.bound + 0.001
    assert lastAccepted > 0.0
    watch.pass_(10_000.0)
    assert not watch.peer().alive


def test_lateHeartbeatIsChallenged(watch: Watch) -> None:
    """
    A sender whose clock drifts, or was set back, is challenged, answers, and goes on.
    """
    pump = Sensor()
    watch.meet(pump, 100.0)
    meaning = watch.receive(pump.heartbeat(50.0), 101.0)
    assert meaning.effect is Effect.NOTHING
    assert watch.receive(pump.answer(meaning.reply, 50.0), 101.1).effect is Effect.HEARD
    assert watch.receive(pump.heartbeat(51.0), 102.0).effect is Effect.HEARD


def test_answerCountsForItsSenderOnly(watch: Watch) -> None:
    """
    Promise 21: an answer counts only from the address, with the session and in the time of its
    challenge.
    """
    pump = Sensor()
    challenge = watch.receive(pump.heartbeat(0.0), 0.0).reply
    answer = pump.answer(challenge, 0.0)
    other = Sensor(session=2)
    other.sequence = 1
    assert watch.receive(answer, 0.0, ELSEWHERE).effect is Effect.NOTHING
    assert watch.receive(other.answer(challenge, 0.0), 0.0).effect is Effect.NOTHING
    assert watch.receive(answer, LIFE + 0.001).effect is Effect.NOTHING
    assert watch.receive(answer, LIFE / 2 - 0.001).effect is Effect.BEGAN
    assert watch.receive(answer, LIFE / 2 - 0.001).effect is Effect.NOTHING


def test_guessedCookieIsNone(watch: Watch) -> None:
    """
    A wrong cookie, and the 0 of a heartbeat, answer nothing.
    """
    pump = Sensor()
    pump.sequence = 1
    for cookie in (0, 1, 2**64 - 1):
        answer = encode(pump.packet(0.0, Type.ANSWER, cookie=cookie), pump.key)
        assert watch.receive(answer, 0.0).effect is Effect.NOTHING


def test_restartedPeer(watch: Watch) -> None:
    """
    A new session that has answered ends the one before; what that one still sends is old.
    """
    before, after = Sensor(session=1), Sensor(session=2)
    first = watch.meet(before, 0.0)
    watch.meet(after, 1.0)
    assert watch.told == [("pump", "began"), ("pump", "restarted"), ("pump", "began")]
    assert not first.alive
    assert watch.receive(before.heartbeat(1.5), 1.5).reply == b""
    assert watch.registry.ignored["old"] == 1
    assert watch.peer().session == 2


def test_leftSessionIsRemembered(watch: Watch) -> None:
    """
    The answer of a session that the peer has left does not bring that back while its cookie is
    valid.
    """
    before, after = Sensor(session=1), Sensor(session=2)
    watch.meet(before, 0.0)
    before.sequence += 5
    challenge = watch.receive(after.heartbeat(1.0), 1.0).reply
    cookie = watch.registry._cookies.make(HOME, 1, b"pump", 1, 1.0)
    watch.receive(after.answer(challenge, 1.0), 1.0)
    replay = encode(before.packet(1.0, Type.ANSWER, cookie=cookie), before.key)
    assert watch.receive(replay, 1.0).effect is Effect.NOTHING
    assert LEFT_LIFE > LIFE


def test_leftSessionsAreBounded(watch: Watch) -> None:
    """
    A peer that restarts again and again takes no more memory.
    """
    for session in range(1, 3 * MAX_LEFT):
        watch.meet(Sensor(session=session), session / 100)
    assert len(watch.peer().left) <= MAX_LEFT


def test_forgedIsIgnored(watch: Watch) -> None:
    """
    Promise 21: nothing that is signed by another key, or changed in one bit, is accepted.
    """
    pump = Sensor()
    watch.meet(pump, 0.0)
    forger = Sensor(secret=b"another key of a forger")
    forger.sequence = 50
    for data in (forger.heartbeat(1.0), forger.goodbye(1.0)):
        meaning = watch.receive(data, 1.0, ELSEWHERE)
        assert (meaning.effect, meaning.reply) == (Effect.NOTHING, b"")
    good = pump.heartbeat(1.0, payload=b"21.5")
    for place in range(8 * len(good)):
        flipped = bytearray(good)
        flipped[place // 8] ^= 1 << place % 8
        meaning = watch.receive(bytes(flipped), 1.0)
        assert (meaning.effect, meaning.reply) == (Effect.NOTHING, b"")
    assert watch.peer().heardAt == 0.0
    assert watch.receive(good, 1.0).effect is Effect.HEARD


def test_truncatedAndOversizedAreIgnored(watch: Watch) -> None:
    """
    Promise 21: no part of a datagram is accepted, nor one that is too long.
    """
    pump = Sensor()
    watch.meet(pump, 0.0)
    good = pump.heartbeat(1.0, payload=b"21.5")
    for size in range(len(good)):
        assert watch.receive(good[:size], 1.0).effect is Effect.NOTHING
        assert watch.receive(good[size + 1 :], 1.0).effect is Effect.NOTHING
    for data in (good + b"\0", good + bytes(MAX_SIZE), good * 2):
        assert watch.receive(data, 1.0).effect is Effect.NOTHING
    assert watch.peer().heardAt == 0.0


def test_reflectedIsIgnored(watch: Watch) -> None:
    """
    Promise 21: the monitor's own datagrams, sent back to it, are of the wrong direction.
    """
    pump = Sensor(flags=ACKNOWLEDGE)
    challenge = watch.receive(pump.heartbeat(0.0), 0.0).reply
    acknowledgement = watch.receive(pump.answer(challenge, 0.0), 0.0).reply
    for data in (challenge, acknowledgement):
        meaning = watch.receive(data, 0.0)
        assert (meaning.effect, meaning.reply) == (Effect.NOTHING, b"")
    assert watch.registry.ignored["malformed"] == 2


def test_reKeyedIsIgnored() -> None:
    """
    Promise 21: a datagram with another key id, or the key of another peer, is not accepted.
    """
    watch = Watch({"pump": {1: SECRET, 2: b"the next key of it"}, "lamp": b"the key of the lamp"})
    pump = Sensor()
    watch.meet(pump, 0.0)
    for keyId, secret in ((2, SECRET), (1, b"the key of the lamp"), (3, SECRET), (0, b"")):
        other = Sensor(secret=secret, keyId=keyId)
        other.sequence = 9
        assert watch.receive(other.heartbeat(1.0), 1.0).effect is Effect.NOTHING


def test_keyRotation() -> None:
    """
    A session goes on over a change of its key, while both keys are known; the old one is refused as
    soon as it is taken away.
    """
    newer = b"the next key of it"
    watch = Watch({"pump": {1: SECRET, 2: newer}})
    pump = Sensor()
    watch.meet(pump, 0.0)
    pump.key, pump.keyId = type(pump.key)(newer), 2
    assert watch.receive(pump.heartbeat(1.0), 1.0).effect is Effect.HEARD
    watch.registry.keys = keyring({"pump": {2: newer}})
    assert watch.receive(pump.heartbeat(2.0), 2.0).effect is Effect.HEARD
    pump.key, pump.keyId = type(pump.key)(SECRET), 1
    assert watch.receive(pump.heartbeat(3.0), 3.0).effect is Effect.NOTHING
    assert watch.told == [("pump", "began")]


def test_addressMayChange(watch: Watch) -> None:
    """
    A peer is its name and session: a NAT that rebinds its port, or another network, changes
    nothing.
    """
    pump = Sensor()
    watch.meet(pump, 0.0)
    for second, address in enumerate([ELSEWHERE, ("192.0.2.1", 4001), ("2001:db8::1", 7)], 1):
        watch.receive(pump.heartbeat(float(second)), float(second), address)
        assert watch.peer().address == address
    assert watch.told == [("pump", "began")]


def test_goodbye(watch: Watch) -> None:
    """
    A goodbye ends the session at once, once, and says why; after it, a replay brings nothing back.
    """
    pump = Sensor()
    watch.meet(pump, 0.0)
    heartbeat, goodbye = pump.heartbeat(1.0), pump.goodbye(1.0, GoodbyeCode.MOVED)
    meaning = watch.receive(goodbye, 1.0)
    assert (meaning.effect, meaning.code) == (Effect.LEFT, GoodbyeCode.MOVED)
    assert watch.pass_(100.0) == []
    for data in (goodbye, heartbeat, pump.heartbeat(2.0)):
        assert watch.receive(data, 2.0).effect is Effect.NOTHING
    assert watch.receive(Sensor("lamp").goodbye(0.0), 0.0).effect is Effect.NOTHING


def test_goodbyeOfAnotherSessionIsIgnored(watch: Watch) -> None:
    """
    A recorded goodbye of an earlier session ends nothing.
    """
    before, after = Sensor(session=1), Sensor(session=2)
    watch.meet(before, 0.0)
    recorded = before.goodbye(0.5)
    watch.meet(after, 1.0)
    assert watch.receive(recorded, 1.0).effect is Effect.NOTHING
    assert watch.peer().alive


def test_deadPeerComesBack(watch: Watch) -> None:
    """
    A peer that was only cut off is challenged when it is heard again, and is alive after its
    answer.
    """
    pump = Sensor()
    watch.meet(pump, 0.0)
    watch.pass_(7.0)
    meaning = watch.receive(pump.heartbeat(8.0), 8.0)
    assert watch.receive(pump.answer(meaning.reply, 8.0), 8.0).effect is Effect.BEGAN
    told = [what for _, what in watch.told]
    assert told == ["began", "suspect", "verdict", "began"]


def test_boundIsClipped() -> None:
    """
    The bound is the sender's, within the limits of the monitor, which the acknowledgement tells.
    """
    limits = DatagramLimits(minBound=5.0, maxBound=60.0)
    for stated, applied in ((1.0, 5.0), (6.0, 6.0), (3600.0, 60.0), (0.0, 35.0)):
        watch = Watch(limits=limits)
        pump = Sensor(bound=stated, flags=ACKNOWLEDGE)
        reply = watch.receive(pump.heartbeat(0.0), 0.0).reply
        reply = watch.receive(pump.answer(reply, 0.0), 0.0).reply
        assert watch.peer().bound == applied
        assert decode(reply).bound == applied * 1000
        reply = watch.receive(pump.heartbeat(1.0), 1.0).reply
        assert watch.peer().bound == applied
        assert decode(reply).bound == applied * 1000


def test_acknowledgementIsForTheAskingOnly(watch: Watch) -> None:
    """
    A heartbeat that asks for no acknowledgement gets none.
    """
    pump = Sensor()
    watch.meet(pump, 0.0)
    assert watch.receive(pump.heartbeat(1.0), 1.0).reply == b""
    pump.flags = ACKNOWLEDGE
    heartbeat = pump.heartbeat(2.0, payload=b"21.5")
    meaning = watch.receive(heartbeat, 2.0)
    found, sent = decode(meaning.reply), decode(heartbeat)
    assert (found.type, found.sequence, found.sent) == (
        Type.ACKNOWLEDGEMENT, sent.sequence, sent.sent)  # fmt: skip
    assert meaning.payload == b"21.5"


def test_withoutChallenge() -> None:
    """
    A sender that cannot receive is taken at its first heartbeat; within the life of the monitor
    only forward still holds.
    """
    watch = Watch(challenge=False)
    pump = Sensor()
    first = pump.heartbeat(0.0)
    assert watch.receive(first, 0.0).effect is Effect.BEGAN
    watch.pass_(10.0)
    assert watch.receive(first, 11.0).effect is Effect.NOTHING
    watch.registry.forget(1000.0)
    assert watch.receive(first, 1000.0).effect is Effect.NOTHING
    restarted = Sensor(session=2)
    assert watch.receive(restarted.heartbeat(0.0), 1001.0).effect is Effect.BEGAN
    assert watch.receive(pump.heartbeat(1.0), 2000.0).effect is Effect.NOTHING


def test_unauthenticatedByName() -> None:
    """
    A peer without a key is accepted only if its name is listed, and never for one with a key.
    """
    watch = Watch(unauthenticated=("toy",))
    toy = Sensor("toy", secret=b"", keyId=0)
    watch.meet(toy, 0.0)
    for name in ("pump", "doll"):
        assert watch.receive(Sensor(name, secret=b"", keyId=0).heartbeat(0.0), 0.0).reply == b""
    assert watch.registry.ignored == {"challenged": 1, "noKey": 2}


@pytest.mark.parametrize(
    ("keys", "unauthenticated", "words"),
    [
        ({"pump": b"short"}, (), "5 bytes"),
        ({"pump": b""}, (), "empty"),
        ({"pump": {0: SECRET}}, (), "1 to 255"),
        ({"pump": {256: SECRET}}, (), "1 to 255"),
        ({"pump": SECRET}, ("pump",), "as well"),
    ],
)
def test_wrongKeys(keys: Any, unauthenticated: tuple[str, ...], words: str) -> None:
    """
    A key that cannot be is refused with a reason.
    """
    with pytest.raises(ValueError, match=words):
        keyring(keys, unauthenticated)


# Floods.


def test_floodOfUnknownNames(watch: Watch) -> None:
    """
    Promise 17: a flood from many addresses and names takes no memory, and gets no reply.
    """
    pump = Sensor()
    watch.meet(pump, 0.0)
    flood = [Sensor(f"bot-{number}").heartbeat(0.0) for number in range(500)]
    tracemalloc.start()
    try:
        for number, data in enumerate(flood):
            watch.receive(data, 1.0, (f"10.0.0.{number % 250}", number))
        before = tracemalloc.get_traced_memory()[0]
        for round_ in range(10):
            for number, data in enumerate(flood):
                assert not watch.receive(data, 1.0, (f"10.0.{round_}.0", number)).reply
        assert tracemalloc.get_traced_memory()[0] - before < 4096
    finally:
        tracemalloc.stop()
    assert len(watch.registry.peers) == 1
    assert watch.receive(pump.heartbeat(1.0), 1.0).effect is Effect.HEARD


def test_floodOfReplaysFromManyAddresses() -> None:
    """
    Promise 17: authentic recordings from forged addresses provoke no more challenges in a second
    than the limit, keep no memory, and do not disturb the peers that are known.
    """
    limits = DatagramLimits(unknownPerSecond=100, challengesPerSecond=20)
    watch = Watch({"pump": SECRET, "lamp": SECRET}, limits=limits)
    pump, lamp = Sensor(), Sensor("lamp", session=5)
    watch.meet(pump, 0.5)
    recorded = lamp.heartbeat(0.0)
    replies = [
        watch.receive(recorded, 1.0 + number / 10_000, (f"10.0.{number % 250}.1", number)).reply
        for number in range(5000)
    ]
    assert sum(map(bool, replies)) == 20
    assert list(watch.registry.peers) == [b"pump"]
    ignored = watch.registry.ignored
    assert (ignored["unchallenged"], ignored["unknown"]) == (80, 4900)
    assert watch.receive(pump.heartbeat(1.5), 1.5).effect is Effect.HEARD
    # In the next second there is room again.
    watch.meet(lamp, 2.1)


def test_floodDoesNotKeepAlivePeerFromItsChallenge() -> None:
    """
    Promise 17: a peer that is alive and has to be challenged, because its clock is slow, is
    challenged although a flood of recordings has used all challenges of the second.
    """
    limits = DatagramLimits(challengesPerSecond=20)
    watch = Watch({"pump": SECRET, "lamp": SECRET}, limits=limits)
    pump, recorded = Sensor(), Sensor("lamp", session=5).heartbeat(0.0)
    watch.meet(pump, 100.0)
    for number in range(100):
        watch.receive(recorded, 101.0, ("10.0.0.1", number))
    assert watch.registry.ignored["unchallenged"] == 80
    challenge = watch.receive(pump.heartbeat(50.0), 101.5).reply
    assert watch.receive(pump.answer(challenge, 50.0), 101.6).effect is Effect.HEARD


def test_unknownNamesTakeNoRoom() -> None:
    """
    Promise 17: a flood of names and key ids without a key keeps no sender from being met.
    """
    watch = Watch(limits=DatagramLimits(unknownPerSecond=2))
    for number in range(100):
        for name, keyId in ((f"bot-{number}", 1), ("pump", 9)):
            watch.receive(Sensor(name, keyId=keyId).heartbeat(1.0), 1.0)
    assert watch.registry.ignored == {"noKey": 200}
    watch.meet(Sensor(), 1.0)


def test_peersAreLimited() -> None:
    """
    Promise 17: there are no more peers than the limit; one that ended long ago makes room.
    """
    names = [f"peer-{number}" for number in range(4)]
    watch = Watch(dict.fromkeys(names, SECRET), limits=DatagramLimits(peers=3))
    sensors = [Sensor(name) for name in names]
    for sensor in sensors[:3]:
        watch.meet(sensor, 0.0)
    reply = watch.receive(sensors[3].heartbeat(1.0), 1.0).reply
    assert watch.receive(sensors[3].answer(reply, 1.0), 1.0).effect is Effect.NOTHING
    assert watch.registry.ignored["noRoom"] == 1
    for second in range(1, 40):
        for sensor in sensors[:2]:
            watch.receive(sensor.heartbeat(float(second)), float(second))
        watch.pass_(float(second))
    watch.meet(sensors[3], 40.0)
    assert len(watch.registry.peers) == 3


@pytest.mark.parametrize("payload", [b"", b"21.5"])
def test_peerMayNotFlood(payload: bytes) -> None:
    """
    Promises 7 and 17: what a peer sends beyond its limit keeps it alive, for this process may have
    stalled, but is neither acknowledged nor handed on.
    """
    watch = Watch(limits=DatagramLimits(peerPerSecond=5))
    pump = Sensor(bound=0.5, flags=ACKNOWLEDGE if payload else 0)
    watch.meet(pump, 0.0)
    found = [watch.receive(pump.heartbeat(1.5, payload=payload), 1.5) for _ in range(50)]
    assert [meaning.effect for meaning in found] == [Effect.HEARD] * 5 + [Effect.SURPLUS] * 45
    assert [meaning.payload for meaning in found] == [payload] * 5 + [b""] * 45
    assert sum(bool(meaning.reply) for meaning in found) == (5 if payload else 0)
    assert watch.registry.ignored["tooMany"] == 45
    watch.receive(pump.heartbeat(1.9), 1.9)
    watch.pass_(2.3)
    assert watch.peer().alive


def test_floodOfAPeerIsNotChallenged() -> None:
    """
    Promise 17: heartbeats beyond the limit of their peer, alive or dead, provoke no challenges.
    """
    for isDead in (False, True):
        watch = Watch(limits=DatagramLimits(peerPerSecond=5))
        pump = Sensor()
        watch.meet(pump, 100.0)
        watch.pass_(110.0 if isDead else 101.0)
        assert watch.peer().alive is not isDead
        replies = [watch.receive(pump.heartbeat(50.0), 111.0).reply for _ in range(50)]
        assert sum(map(bool, replies)) == 5


def test_floodOfReplaysDoesNotSilenceThePeer() -> None:
    """
    Promise 17: recorded heartbeats of a living peer, played again thousands of times, do not use up
    what the peer itself may send.
    """
    watch = Watch(limits=DatagramLimits(peerPerSecond=5))
    pump = Sensor()
    watch.meet(pump, 0.0)
    recorded = pump.heartbeat(1.0)
    assert watch.receive(recorded, 1.0).effect is Effect.HEARD
    for _ in range(1000):
        watch.receive(recorded, 2.0, ELSEWHERE)
    assert watch.receive(pump.heartbeat(2.0), 2.0).effect is Effect.HEARD
    assert watch.peer().address == HOME


def test_limitsOfNameAndPayload() -> None:
    """
    The monitor may set lower limits than the layout.
    """
    limits = DatagramLimits(maxName=4, maxPayload=3)
    watch = Watch({"pump": SECRET, "pumps": SECRET}, limits=limits)
    assert not watch.receive(Sensor("pumps").heartbeat(0.0), 0.0).reply
    assert not watch.receive(Sensor().heartbeat(0.0, payload=b"21.5"), 0.0).reply
    assert watch.receive(Sensor().heartbeat(0.0, payload=b"21."), 0.0).reply


@given(st.binary(max_size=MAX_SIZE + 10), st.integers(0, 10))
def test_anyBytes(data: bytes, cut: int) -> None:
    """
    Promise 17: no bytes make the monitor raise, reply, or keep anything.
    """
    watch = Watch(unauthenticated=("a",))
    good = Sensor("a", secret=b"", keyId=0).heartbeat(0.0)
    for tried in (data, good[:cut] + data, data + good[cut:]):
        if tried != good:
            meaning = watch.receive(tried, 0.0)
            assert (meaning.effect, meaning.reply) == (Effect.NOTHING, b"")
    assert watch.registry.peers == {}
