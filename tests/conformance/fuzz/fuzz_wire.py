# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A coverage-guided fuzzer of what a peer can send: bytes, however they are cut.

Two targets: C{wire} reads them with L{twisted_heartbeat.core.wire} alone, C{protocol} with a whole
L{HeartbeatProtocol} in virtual time.  Whatever comes, there are frames or a C{ProtocolViolation},
the same ones for any slicing, no other exception, and no more memory than the limits allow.

Run it with C{python tests/conformance/fuzz/fuzz_wire.py wire --seconds 60}; it begins with the
test vectors of C{docs/wire-vectors.json}.  It needs C{atheris}, which is for Linux and macOS.
What it finds is a file of bytes: C{python tests/conformance/fuzz/fuzz_wire.py wire --replay FILE}
shows it again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris

CHECKOUT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(CHECKOUT))

with atheris.instrument_imports(include=["twisted_heartbeat"]):
    from twisted_heartbeat import Heartbeat, HeartbeatProtocol, LinkHooks, ProtocolViolation
    from twisted_heartbeat.core import wire

from twisted.internet.error import ConnectionDone  # noqa: E402
from twisted.internet.task import Clock  # noqa: E402
from twisted.internet.testing import StringTransport  # noqa: E402
from twisted.python.failure import Failure  # noqa: E402

Outcome = tuple[list[wire.Frame], str]


def cutBy(data: bytes) -> tuple[int, list[bytes]]:
    """
    What an input says: a limit in its first byte, how to cut in the next four, and the rest is what
    the peer sends.
    """
    head, stream = data[:5].ljust(5, b"\0"), data[5:]
    slices, at, turn = [], 0, 0
    while at < len(stream):
        size = 1 + head[1 + turn % 4]
        slices.append(stream[at : at + size])
        at, turn = at + size, turn + 1
    return head[0], slices


def read(reader: wire.FrameReader, slices: list[bytes], *, shortly: bool = False) -> Outcome:
    """
    The frames that a reader finds, and its words of a violation if there is one.

    @param shortly: whether to try the short way first.
    """
    found: list[wire.Frame] = []
    try:
        for one in slices:
            short = reader.readSingleFrame(one) if shortly else None
            for frame in reader.receive(one) if short is None else (short,):
                found.append(frame)
            most = wire.HEADER_SIZE + max(reader._maxMessage, 8 + wire.MAX_REASON)
            kept = len(reader._buffer or b"")
            assert kept < most, f"{kept} bytes are kept"
    except ProtocolViolation as violation:
        return found, str(violation)
    return found, ""


def fuzzWire(data: bytes) -> None:
    """
    The readers alone.
    """
    limit, slices = cutBy(data)
    for kind in (wire.FrameReader, wire.StreamReader):
        expected = read(kind(limit), [b"".join(slices)])
        assert read(kind(limit), slices) == expected
        assert read(kind(limit), slices, shortly=True) == expected
        for frame in expected[0]:
            assert list(wire.FrameReader().receive(wire.encode(frame))) == [frame]


class Ear(LinkHooks):
    """
    Hears how the link ends.
    """

    def __init__(self) -> None:
        self.causes: list[BaseException] = []

    def disconnected(self, link: Any, cause: BaseException) -> None:
        self.causes.append(cause)


class Wire(StringTransport):
    """
    Ends when it is told to.
    """

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = self.disconnecting = True


HEARTBEATS = [None, Heartbeat(interval=4, timeout=4), Heartbeat(interval=None, timeout=4)]


def fuzzProtocol(data: bytes) -> None:
    """
    A whole protocol, with time between the slices.
    """
    limit, slices = cutBy(data)
    clock, ear = Clock(), Ear()
    protocol = HeartbeatProtocol()
    protocol.clock, protocol.hooks = clock, ear
    protocol.heartbeat = HEARTBEATS[limit % 3]
    protocol.maxMessage = limit
    transport = Wire()
    protocol.makeConnection(transport)
    for one in slices:
        if transport.disconnecting:
            break
        protocol.dataReceived(one)
        clock.advance(limit / 64)
    protocol.connectionLost(Failure(ConnectionDone()))
    clock.advance(0)
    assert len(ear.causes) == 1, ear.causes
    assert clock.getDelayedCalls() == []
    _, words = read(wire.StreamReader(limit), slices)
    assert words or not isinstance(ear.causes[0], ProtocolViolation), ear.causes
    # What it says itself is in order.
    said, complaint = read(wire.StreamReader(), [transport.value()])
    assert not complaint and isinstance(said[0], wire.Hello)


TARGETS: dict[str, Callable[[bytes], None]] = {"wire": fuzzWire, "protocol": fuzzProtocol}


def seeds(folder: Path) -> None:
    """
    Begin with what is known to be interesting.
    """
    vectors = json.loads((CHECKOUT / "docs" / "wire-vectors.json").read_text(encoding="utf-8"))
    for number, vector in enumerate(vectors["streams"] + vectors["frames"]):
        for size in (3, 255):
            head = bytes([vector.get("limit", 200), size, size, size, size])
            (folder / f"{number}-{size}").write_bytes(head + bytes.fromhex(vector["bytes"]))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60, help="stop after so long (default: 60)")
    parser.add_argument("--runs", type=int, default=-1, help="stop after so many executions")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the mutations; 0: another each time"
    )
    parser.add_argument("--found", default="found-", help="how the names of files found begin")
    parser.add_argument("--corpus", type=Path, help="keep what is interesting in this folder")
    parser.add_argument("--replay", type=Path, help="execute this file only")
    return parser.parse_args()


def main() -> None:
    """
    Fuzz until the budget is spent; the status is 0 if nothing was found.
    """
    given = options()
    target = TARGETS[given.target]
    if given.replay is not None:
        target(given.replay.read_bytes())
        return
    if given.corpus is None:
        # The fuzzer ends its process from inside, and nothing is tidied up there.
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, *sys.argv, f"--corpus={folder}"]
            sys.exit(subprocess.call(command))
    seeds(given.corpus)
    budget = [f"-max_total_time={given.seconds}", f"-runs={given.runs}", f"-seed={given.seed}"]
    limits = ["-max_len=4096", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"]
    found = f"-artifact_prefix={given.found}"
    atheris.Setup([sys.argv[0], *budget, *limits, found, str(given.corpus)], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
