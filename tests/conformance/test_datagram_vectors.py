# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The test vectors of the datagram protocol, C{docs/datagram-vectors.json}, against this package, and
the example of the page against the vectors.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from twisted_heartbeat import UDPHeartbeatSender
from twisted_heartbeat.core.datagram.estimator import ArrivalEstimator
from twisted_heartbeat.core.datagram.packet import (
    MAC_SIZE,
    Key,
    Malformed,
    Packet,
    Type,
    decode,
    encode,
)
from twisted_heartbeat.core.datagram.registry import Effect
from twisted_heartbeat.core.datagram.schedule import Schedule
from twisted_heartbeat.core.datagram.session import Look

from ..support.datagrams import HOME, Sensor, Watch
from ..support.virtualudp import Host, Internet

DOCS = Path(__file__).parents[2] / "docs"
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (DOCS / "datagram-vectors.json").read_text(encoding="utf-8")
)
ELSEWHERE = ("198.51.100.9", 9)


def vectors(kind: str) -> Any:
    """
    A test for each vector of a kind.
    """
    return pytest.mark.parametrize("vector", VECTORS[kind], ids=lambda vector: vector["why"])


@vectors("packets")
def test_packet(vector: dict[str, Any]) -> None:
    """
    Each packet of the vectors is encoded to its bytes, and decoded from them; its MAC is that of
    the standard library.
    """
    fields, data, key = (
        vector["packet"],
        bytes.fromhex(vector["bytes"]),
        Key(bytes.fromhex(vector["key"])),
    )
    packet = Packet(
        type=Type[fields["type"]],
        flags=fields["flags"],
        keyId=fields["keyId"],
        session=int(fields["session"], 16),
        sequence=fields["sequence"],
        sent=fields["sent"],
        interval=fields["interval"],
        bound=fields["bound"],
        cookie=int(fields["cookie"], 16),
        name=fields["name"].encode(),
        payload=bytes.fromhex(fields["payload"]),
    )
    assert encode(packet, key) == data
    assert decode(data) == packet
    mac = hmac.new(key.secret, data[:-MAC_SIZE], hashlib.sha256).digest()
    assert data[-MAC_SIZE:] == mac[:MAC_SIZE]


@vectors("malformed")
def test_malformed(vector: dict[str, Any]) -> None:
    """
    What is no datagram of the protocol is refused, though its MAC may be right.
    """
    with pytest.raises(Malformed):
        decode(bytes.fromhex(vector["bytes"]))


@vectors("forged")
def test_forged(vector: dict[str, Any]) -> None:
    """
    What is not authentic is not accepted.
    """
    assert not Key(bytes(range(32))).accepts(bytes.fromhex(vector["bytes"]))


@vectors("schedule")
def test_schedule(vector: dict[str, Any]) -> None:
    """
    Heartbeats leave when the vectors say, for these random numbers.
    """
    draws = iter(vector["draws"])
    schedule = Schedule(vector["period"], vector["start"], lambda: next(draws))
    now = vector["start"]
    for send in vector["sends"]:
        now = schedule.following(now)
        assert now == pytest.approx(send["at"])
        assert schedule.latest == pytest.approx(send["latest"])


@vectors("suspicion")
def test_suspicion(vector: dict[str, Any]) -> None:
    """
    The next heartbeat is expected when the vectors say, and the peer is suspected halfway to the
    verdict.
    """
    bound = vector["bound"] / 1000
    estimator: ArrivalEstimator | None = None
    for arrival in vector["arrivals"]:
        at, sent, interval = arrival["at"], arrival["sent"], arrival["interval"] / 1000
        if estimator is None:
            estimator = ArrivalEstimator(at, sent, interval)
        else:
            assert estimator.heard(at, sent, interval, bound)
        assert estimator.expected == pytest.approx(arrival["expected"])
        suspectAt = estimator.expected + (bound - interval) / 2
        assert suspectAt == pytest.approx(arrival["suspectAt"])
        assert at + bound == pytest.approx(arrival["deadline"])


@vectors("sessions")
def test_session(vector: dict[str, Any]) -> None:
    """
    A monitor takes these events, at these times, for what the vectors say.
    """
    watch = Watch()
    challenges: dict[str, bytes] = {}
    for step in vector["steps"]:
        assert _result(watch, step, challenges) == step["result"], step


def _result(watch: Watch, step: dict[str, Any], challenges: dict[str, bytes]) -> str:
    at, event, session = step["at"], step["event"], step.get("session", "1")
    looks = [(when, look) for when, _, look in watch.pass_(at)]
    if event == "time":
        assert len(looks) <= 1
        if not looks:
            return "nothing"
        assert looks[0][0] == pytest.approx(at)
        return {Look.SUSPECT: "suspected", Look.VERDICT: "verdict"}[looks[0][1]]
    sensor = Sensor(session=int(session), bound=18.0, interval=3.0)
    fields = {"sequence": step["sequence"]}
    if "sent" in step:
        fields["sent"] = step["sent"]
    if "bound" in step:
        fields["bound"] = step["bound"]
    if event == "answer":
        data = sensor.answer(challenges[session], at, **fields)
    else:
        kind = Type[event.upper()]
        data = encode(sensor.packet(at, kind, **fields), sensor.key)
    meaning = watch.receive(data, at, ELSEWHERE if step.get("from") else HOME)
    if meaning.reply:
        challenges[session] = meaning.reply
        return "challenged"
    if meaning.effect is Effect.NOTHING:
        return "ignored"
    return "heard" if meaning.effect is Effect.RECOVERED else meaning.effect.value


@vectors("challenges")
def test_challenge(vector: dict[str, Any]) -> None:
    """
    The sender answers the challenges that the vectors say, and nothing else.
    """
    internet = Internet()
    home = Host(internet)
    sender = UDPHeartbeatSender(
        ("192.0.2.9", 8471), name="pump", key=bytes(range(32)), reactor=home
    )
    sender.startService()
    sender._session.number = 0x0123456789ABCDEF
    while len(internet.carried) < 3:
        internet.advance(0.1)
    [source] = {source for _, source, _, _ in internet.carried}
    internet.deliver(bytes.fromhex(vector["bytes"]), ("192.0.2.9", 8471), source)
    answers = [decode(data) for _, _, _, data in internet.carried[3:]]
    sender.stopService()
    assert len(answers) == vector["answered"]
    for answer in answers:
        assert (answer.type, answer.sequence) == (Type.ANSWER, 3)
        assert answer.cookie == 0x1122334455667788


def test_theExampleOfThePage() -> None:
    """
    The bytes of the page's example are those of a vector.
    """
    page = (DOCS / "datagram-protocol.md").read_text(encoding="utf-8")
    example = page.partition("### Example\n")[2]
    shown = example.partition("```text\n")[2].partition("```")[0]
    found = "".join(line.partition("|")[0] for line in shown.splitlines())
    assert "".join(found.split()) == VECTORS["packets"][1]["bytes"]
