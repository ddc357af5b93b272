# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The vectors of C{docs/wire-timing.json}, replayed against this implementation and the device in
Python: what is sent and decided when, how long the end that connects waits, and how times are
rounded.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import ConnectionRefusedError, DNSLookupError, TimeoutError
from twisted.internet.task import Clock

from twisted_heartbeat import (
    Backoff,
    Cause,
    ClosedHere,
    Heartbeat,
    HeartbeatProtocol,
    HostUnreachable,
    PeerClosed,
    PeerReset,
    PeerSilent,
    ProtocolViolation,
)
from twisted_heartbeat.core import wire
from twisted_heartbeat.core.causes import GoodbyeCode, HandshakeFailed
from twisted_heartbeat.core.detector import Decision, FailureDetector
from twisted_heartbeat.core.diagnosis import causeOfFailure
from twisted_heartbeat.core.proof import LinkFacts, isProven

from ..support.modules import imported
from ..support.virtualnetwork import FakeTransport, Recorder

DOCS = Path(__file__).parents[2] / "docs"
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (DOCS / "wire-timing.json").read_text(encoding="utf-8")
)

LATE = 1 / 64 + 0.001
"""Seconds by which the timer wheel may be late, and by which the clock moves here."""


def name(vector: dict[str, Any]) -> str:
    return str(vector.get("why") or ", ".join(f"{k} {v}" for k, v in vector.items()))


class Recorded(FakeTransport):
    """
    A transport that keeps each frame with its time, and the end.
    """

    def __init__(self, clock: Clock, protocol: Any) -> None:
        super().__init__(clock, protocol)
        self.sent: list[tuple[float, str]] = []
        self.end: tuple[float, str] | None = None

    def write(self, data: bytes) -> None:
        """
        Keep it.
        """
        self.sent.append((self._clock.seconds(), data.hex()))

    def loseConnection(self) -> None:
        """
        Keep when.
        """
        self.end = self.end or (self._clock.seconds(), "close")
        super().loseConnection()

    def abortConnection(self) -> None:
        """
        Keep when.
        """
        self.end = self.end or (self._clock.seconds(), "abort")
        super().abortConnection()


def played(vector: dict[str, Any]) -> Recorded:
    """
    What a HeartbeatProtocol does.
    """
    clock = Clock()
    bound = vector["bound"]
    body = {
        "clock": clock,
        "hooks": Recorder(),
        "heartbeat": Heartbeat.within(bound) if bound else None,
        "name": "pump",
    }
    protocol: Any = type("Speaker", (HeartbeatProtocol,), body)()
    transport = Recorded(clock, protocol)
    protocol.makeConnection(transport)
    for at, data in [*vector["in"], (vector["until"] + 2 * LATE, "")]:
        while clock.seconds() < at - 1e-9:
            clock.advance(min(0.001, at - clock.seconds()))
        if data:
            transport.deliver(bytes.fromhex(data))
    transport.lose()
    return transport


def counted(sent: list[str]) -> list[str]:
    """
    The frames with the tokens of the PINGs counted from 1.  All links of a process with the same
    bound share a count.
    """
    tokens = [data[8:16] for data in sent if data.startswith("0102")]
    assert len(set(tokens)) == len(tokens)
    assert "00000000" not in tokens
    return [
        f"{data[:8]}{tokens.index(data[8:16]) + 1:08x}{data[16:]}"
        if data.startswith("0102")
        else data
        for data in sent
    ]


@pytest.mark.parametrize("vector", VECTORS["timing"], ids=name)
def test_protocolSpeaksWhenItsVectorSays(vector: dict[str, Any]) -> None:
    """
    A C{HeartbeatProtocol} sends the bytes of the vector, and ends the link, each at its time.
    """
    transport = played(vector)
    assert counted([data for _, data in transport.sent]) == [data for _, data in vector["out"]]
    times = [at for at, _ in vector["out"]]
    assert [at for at, _ in transport.sent] == pytest.approx(times, abs=LATE)
    if vector["end"] is None:
        assert transport.end is None
    else:
        at, how = vector["end"]
        assert transport.end is not None
        assert transport.end[1] == how
        assert at - 1e-6 <= transport.end[0] <= at + 2 * LATE


def pings(vector: dict[str, Any]) -> list[float]:
    return [at for at, data in vector["out"] if data.startswith("0102")]


WATCHED = [
    vector
    for vector in VECTORS["timing"]
    if vector["bound"] and pings(vector) and (vector["end"] or ["", "abort"])[1] == "abort"
]


@pytest.mark.parametrize("vector", WATCHED, ids=name)
def test_detectorDecidesWhenItsVectorSays(vector: dict[str, Any]) -> None:
    """
    The failure detector alone pings twice and decides at the times of the vector.
    """
    detector = FailureDetector(Heartbeat.within(vector["bound"]), 0.0)
    heard = [at for at, _ in vector["in"]]
    asked: list[float] = []
    verdicts: list[float] = []
    for _ in range(100):
        while heard and heard[0] <= detector.due:
            detector.heardAt = heard.pop(0)
            detector.due = min(detector.due, detector.heardAt)
            if detector.due == detector.heardAt:
                detector.decide(detector.heardAt)
        now = detector.due
        if now > vector["until"]:
            break
        decision = detector.decide(now)
        if decision in (Decision.PING, Decision.SUSPECT):
            asked.append(now)
        elif decision is Decision.VERDICT:
            verdicts.append(now)
    assert asked == pytest.approx(pings(vector))
    assert verdicts == pytest.approx([vector["end"][0]] if vector["end"] else [])


CAUSES: dict[str, Cause] = {
    "no answer to the attempt": causeOfFailure(TimeoutError()),
    "the attempt was refused": causeOfFailure(ConnectionRefusedError()),
    "no such name": causeOfFailure(DNSLookupError()),
    "no way to the host or its network": HostUnreachable(),
    "the TLS handshake failed": HandshakeFailed(),
    "the peer was silent, or took no data": PeerSilent(),
    "a close without a GOODBYE, or a reset": PeerReset(),
    "a violation": ProtocolViolation(),
    "this side closed the link": ClosedHere(),
}


def causeOf(vector: dict[str, Any]) -> Cause:
    """
    What ends the attempt or the link of a vector.
    """
    if vector["cause"] != "GOODBYE":
        return CAUSES[vector["cause"]]
    known = vector["code"] in {code.value for code in GoodbyeCode}
    return PeerClosed(
        goodbyeCode=GoodbyeCode(vector["code"]) if known else GoodbyeCode.CLOSING,
        retryAfter=vector.get("retryAfter", 0.0),
        spread=vector.get("spread", 0.0),
    )


@pytest.mark.parametrize("vector", VECTORS["waits"], ids=name)
def test_backoffWaitsAsItsVectorSays(vector: dict[str, Any]) -> None:
    """
    With the default settings the wait for a cause, a count and a draw is the vector's.
    """
    wait = Backoff().delay(vector["n"], causeOf(vector), lambda: vector["draw"])
    assert wait == pytest.approx(vector["wait"], abs=0.001)


@pytest.fixture(scope="module")
def device() -> Any:
    """
    The device in Python, as a module.
    """
    return imported(DOCS / "examples" / "device.py")


def deviceWait(device: Any, vector: dict[str, Any]) -> float:
    """
    Seconds that the device in Python waits.
    """
    cause = causeOf(vector)
    if isinstance(cause, PeerClosed):
        body = [round(vector[field] * 1000) for field in ("retryAfter", "spread")]
        link = device.Link.__new__(device.Link)
        link.token = vector["code"]
        with pytest.raises(device.Ended) as caught:
            link.leave(device.struct.pack("!II", *body))
        ended = caught.value
    else:
        slow, together = cause.pace.value == "slow", cause.fleetWide
        pace = device.SLOW if slow else device.TOGETHER if together else device.USUAL
        ended = device.Ended("", pace)
    width = min(2 ** (vector["n"] - 1), 60) * device.SECOND
    return float(device.waitAfter(ended, width) / 1000)


def test_deviceWaitsAsTheVectorsSay(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The waits of the device in Python are those of the vectors, in whole milliseconds.
    """
    for vector in VECTORS["waits"]:
        draw = vector["draw"]
        monkeypatch.setattr(device, "part", lambda most, draw=draw: int(most * draw))
        assert deviceWait(device, vector) == pytest.approx(vector["wait"], abs=0.002), vector


@pytest.mark.parametrize("vector", VECTORS["proofs"], ids=name)
def test_countGoesOnAsItsVectorSays(vector: dict[str, Any]) -> None:
    """
    A link leaves the count of failures as the vector says.
    """
    facts = LinkFacts(
        cause=causeOf(vector),
        upFor=vector["up"],
        prepared=True,
        builtIn=True,
        heard=vector["hello"],
    )
    proven = isProven(facts, Backoff().stableAfter)
    assert (1 if proven else vector["n"] + 1) == vector["then"]


@pytest.mark.parametrize("vector", VECTORS["rounding"], ids=name)
def test_timesAreRoundedAsTheirVectorSays(vector: dict[str, Any]) -> None:
    """
    A time in seconds becomes the number of the vector on the wire.
    """
    field, seconds = vector["field"], vector["seconds"]
    if field == "hold":
        found = wire.encodePing(1, seconds)[2:4]
    elif field in ("needs", "offers"):
        body = wire.encode(wire.Hello("", **{field: seconds}))[12:]
        found = body[:4] if field == "needs" else body[4:8]
    else:
        body = wire.encode(wire.Goodbye("", **{field: seconds}))[12:]
        found = body[:4] if field == "retryAfter" else body[4:8]
    assert int.from_bytes(found, "big") == vector["value"]


EXAMPLE = re.compile(
    r"\| (?P<cause>[^|]+) \| (?P<n>\d+) \| (?P<draw>[0-9.]+) \| (?P<wait>[0-9.]+) s \|"
)
HINT = re.compile(r"GOODBYE with (\d)(?:, retryAfter ([0-9.]+))?(?: s)?(?:, spread ([0-9.]+) s)?")


def test_theDocumentsWaits() -> None:
    """
    The waits that the document gives as examples are those of this package.
    """
    text = (DOCS / "wire-protocol.md").read_text(encoding="utf-8")
    rows = [match.groupdict() for match in EXAMPLE.finditer(text)]
    assert len(rows) == 8
    short = {
        "silence": "the peer was silent, or took no data",
        "a close without a GOODBYE": "a close without a GOODBYE, or a reset",
    }
    for row in rows:
        words = row["cause"]
        goodbye = HINT.fullmatch(words)
        vector: dict[str, Any] = {"cause": short.get(words, words)}
        if goodbye is not None:
            code, after, spread = goodbye.groups()
            hint = {"retryAfter": float(after or 0), "spread": float(spread or 0)}
            vector = {"cause": "GOODBYE", "code": int(code), **hint}
        draw = float(row["draw"])
        wait = Backoff().delay(int(row["n"]), causeOf(vector), lambda draw=draw: draw)  # type: ignore[misc]
        assert wait == pytest.approx(float(row["wait"])), words


def test_theDocumentsTraffic() -> None:
    """
    The traffic that the document states follows from the bound: a PING and a PONG of twelve bytes
    for each 4/7 of it, and 180 bytes of packets.
    """
    text = (DOCS / "wire-protocol.md").read_text(encoding="utf-8")
    row = re.compile(r"\| (\d+) (s|min) \| ([0-9,]+) \| ([0-9,]+) \| ([0-9,]+) \|")
    rows = [match.groups() for match in row.finditer(text)]
    assert len(rows) == 4
    for number, unit, pings, frames, packets in rows:
        rounds = 3600 / (int(number) * (60 if unit == "min" else 1) * 4 / 7)
        for told, each in ((pings, 1), (frames, 24), (packets, 180)):
            assert float(told.replace(",", "")) == pytest.approx(rounds * each, rel=0.05)
