# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The test vectors of C{docs/wire-vectors.json}, replayed against this implementation: what is handed
to whoever writes another one holds for this one as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from twisted.internet.task import Clock

from twisted_heartbeat import HeartbeatProtocol, ProtocolViolation
from twisted_heartbeat.core import wire
from twisted_heartbeat.core.causes import GoodbyeCode
from twisted_heartbeat.core.wire.negotiation import Direction, Negotiated

from ..support.virtualnetwork import FakeTransport, Recorder

DOCS = Path(__file__).parents[2] / "docs"
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (DOCS / "wire-vectors.json").read_text(encoding="utf-8")
)


def frameOf(fields: dict[str, Any]) -> wire.Frame:
    """
    The frame that a vector describes.
    """
    values = {name: value for name, value in fields.items() if name != "type"}
    if "message" in values:
        values["message"] = bytes.fromhex(values["message"])
    if "code" in values:
        values["code"] = GoodbyeCode(values["code"])
    kinds: dict[str, Any] = {kind.__name__.upper(): kind for kind in get_args(wire.Frame)}
    frame: wire.Frame = kinds[fields["type"]](**values)
    return frame


def name(vector: dict[str, Any]) -> str:
    return str(vector.get("why") or vector.get("bytes", "")[:24])


def outcome(reader: wire.FrameReader, slices: list[bytes]) -> tuple[list[wire.Frame], bool]:
    """
    The frames that a reader finds in slices, and whether there is a violation.
    """
    found: list[wire.Frame] = []
    try:
        for one in slices:
            for frame in reader.receive(one):
                found.append(frame)
    except ProtocolViolation:
        return found, True
    return found, False


@pytest.mark.parametrize("vector", VECTORS["frames"], ids=name)
def test_frameHasTheBytesOfItsVector(vector: dict[str, Any]) -> None:
    """
    A frame has the bytes that the vector says, and they are that frame.
    """
    frame, data = frameOf(vector["frame"]), bytes.fromhex(vector["bytes"])
    assert wire.encode(frame) == data
    assert outcome(wire.FrameReader(), [data]) == ([frame], False)


@pytest.mark.parametrize("vector", VECTORS["streams"], ids=name)
def test_streamGivesTheFramesOfItsVector(vector: dict[str, Any]) -> None:
    """
    The beginning of a direction gives the frames that the vector says, and a violation or none,
    cut at each place and into single bytes.
    """
    data = bytes.fromhex(vector["bytes"])
    expected = [frameOf(fields) for fields in vector["frames"]], vector["violation"]
    limit = vector.get("limit", wire.MAX_MESSAGE)
    cuts = [[data[:cut], data[cut:]] for cut in range(len(data) + 1)]
    for slices in [*cuts, [data[at : at + 1] for at in range(len(data))]]:
        assert outcome(wire.StreamReader(limit), slices) == expected


@pytest.mark.parametrize("vector", VECTORS["streams"], ids=name)
def test_protocolEndsAsItsVectorSays(vector: dict[str, Any]) -> None:
    """
    A C{HeartbeatProtocol} hears the same: a violation ends its link, a goodbye closes it, and
    whatever else leaves it up.
    """
    heard: list[wire.Frame] = []

    class Heard(HeartbeatProtocol):
        maxMessage = vector.get("limit", wire.MAX_MESSAGE)
        hooks = Recorder()
        clock = Clock()

        def frameReceived(self, frame: wire.Frame) -> None:
            heard.append(frame)
            super().frameReceived(frame)

    protocol = Heard()
    transport = FakeTransport(Heard.clock, protocol)
    protocol.makeConnection(transport)
    transport.deliver(bytes.fromhex(vector["bytes"]))
    assert heard == [frameOf(fields) for fields in vector["frames"]]
    assert transport.aborting == vector["violation"]
    parted = any(isinstance(frame, wire.Goodbye) for frame in heard)
    assert transport.disconnecting == (parted or vector["violation"])
    transport.lose()


@pytest.mark.parametrize("vector", VECTORS["agreements"])
def test_bothEndsNegotiateAsTheVectorSays(vector: dict[str, Any]) -> None:
    """
    Two hellos come to what the vector says, and to the same on both ends.
    """
    mine, theirs = frameOf(vector["mine"]), frameOf(vector["theirs"])
    assert isinstance(mine, wire.Hello) and isinstance(theirs, wire.Hello)
    agreement, other = Negotiated.of(mine, theirs), Negotiated.of(theirs, mine)
    for way in ("outgoing", "incoming"):
        direction: Direction = getattr(agreement, way)
        found = {"within": direction.within, "unasked": direction.unsolicitedInterval}
        assert {**found, "pinged": direction.pinged} == vector[way]
    assert (other.outgoing, other.incoming) == (agreement.incoming, agreement.outgoing)


def test_theDocumentsSession() -> None:
    """
    The bytes of the session in the document are what it says they are.
    """
    text = (DOCS / "wire-protocol.md").read_text(encoding="utf-8")
    session = text.split("## A session")[1].split("## A minimal peer")[0]
    blocks = [block.split("```")[0] for block in session.split("```text")[1:]]
    found = [outcome(wire.FrameReader(), [bytes.fromhex(block)]) for block in blocks]
    assert found == [
        ([wire.Hello("pump", 8, 8)], False),
        ([wire.Hello("", 35, 35)], False),
        ([wire.Data(b"21.5")], False),
        ([wire.Ping(1, 8)], False),
        ([wire.Pong(1)], False),
        ([wire.Goodbye("restart", 5, 10)], False),
    ]


def test_theDocumentsNumbers() -> None:
    """
    The limits that the document states are the ones that hold.
    """
    text = (DOCS / "wire-protocol.md").read_text(encoding="utf-8")
    assert wire.HEADER_SIZE == 12
    assert f"| 1 | HELLO | needs (4), offers (4), name | 8 to {8 + wire.MAX_NAME} |" in text
    goodbye = f"8 to {8 + wire.MAX_REASON} |"
    assert f"| 5 | GOODBYE | retryAfter (4), spread (4), reason | {goodbye}" in text
    assert f"({wire.MAX_MESSAGE:,} bytes)" in text
    for kind in wire.FrameType:
        assert f"| {kind.value} | {kind.name} |" in text
    for parting in GoodbyeCode:
        assert f"| {parting.value} | {parting.name} |" in text
