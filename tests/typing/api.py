# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The public API as a user's program has it. mypy checks this file and nothing runs it.

A C{type: ignore} marks a call that mypy must refuse. With C{warn_unused_ignores}, which C{strict}
sets, mypy reports the comment as soon as the call is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTCP, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.protocols.basic import LineReceiver

from twisted_heartbeat import (
    Backoff,
    Cause,
    Change,
    Check,
    CheckIn,
    CheckInFailed,
    CheckInLimits,
    CheckInMissed,
    CheckInResource,
    ClosedHere,
    ConnectFailed,
    DatagramHooks,
    DatagramLimits,
    DatagramPeer,
    Evidence,
    Gap,
    GoodbyeCode,
    HandshakeFailed,
    Heartbeat,
    HeartbeatClientFactory,
    HeartbeatClientService,
    HeartbeatFactory,
    HeartbeatMetrics,
    HeartbeatMixin,
    HeartbeatProtocol,
    HeartbeatServerFactory,
    HostUnreachable,
    KeepAlive,
    KeepAliveExpired,
    Limits,
    Link,
    LinkHooks,
    LinkLost,
    MemoryStore,
    NetworkUnreachable,
    PeerClosed,
    PeerHung,
    PeerPresence,
    PeerRecord,
    PeerReset,
    PeerSilent,
    PeerState,
    PermanentFailure,
    PresenceHooks,
    PresenceLimits,
    PresenceStore,
    PresenceTable,
    ProtocolViolation,
    Retry,
    SendFailed,
    SendStalled,
    ServerLimits,
    SQLiteStore,
    StatusResource,
    StoredPresence,
    StoreError,
    UDPHeartbeatMonitor,
    UDPHeartbeatSender,
)
from twisted_heartbeat.testing import BlackHole, FaultProxy

# Settings.
heartbeat: Heartbeat = Heartbeat.within(8)
passive = Heartbeat(interval=None, timeout=30)
bound: float = Heartbeat(interval=20.0, timeout=15.0).bound
keepAlive = KeepAlive(idle=5, interval=5, count=3, userTimeout=None)
limits = Limits(connectTimeout=None, closeTimeout=5, sendStall=15)
serverLimits = ServerLimits(peers=5000, peersPerAddress=None)
backoff = Backoff(initial=1.0, maximum=60.0, spread=0, maxAttempts=None)
delay: float = backoff(1)

Heartbeat(20.0, 15.0)  # type: ignore[call-arg]
KeepAlive(idle="5")  # type: ignore[arg-type]
heartbeat.timeout = 3.0  # type: ignore[misc]

# Check-ins.
checkIns = CheckInResource(
    checks={"job": Check(period=60, grace=30)},
    tokens=lambda name: ["one", "two"],
    hooks=[LinkHooks()],
    limits=CheckInLimits(perName=None),
)
checkIns.setChecks({"job": Check(period=60, grace=10)})
CheckInResource(checks={}, tokens={"job": "s3cret", "*": ["a", "b"]})
CheckInResource(checks={}, tokens="/etc/checks.tokens")
lastRun: float | None = checkIns.names["job"].duration
CheckInResource(checks={})  # type: ignore[call-arg]
checkIn = CheckIn("https://host/ping/job", interval=None, body=lambda: {"load": 0.5})
CheckIn("https://host/ping/job", 60)  # type: ignore[call-arg]


async def job() -> None:
    """
    Report a run.
    """
    async with checkIn.run() as run:
        taken: bool = await run.log(f"run {run.id}")
        assert taken


# Hooks and links.
class Hooks(LinkHooks):
    """
    A hook may return a plain value, a Deferred or nothing, or be a coroutine.
    """

    def connecting(self, attempt: int) -> None:
        """Print a number."""
        print(attempt + 1)

    async def connected(self, link: Link) -> None:
        """Use what a link shows."""
        generation: int = link.generation
        silence: float = link.silence
        roundTrip: float | None = link.rtt
        link.addCleanup(print, generation, silence, roundTrip, sep=" ")

    def disconnected(self, link: Link, cause: Cause) -> Deferred[None]:
        """Use what a cause carries."""
        evidence: Evidence | None = cause.evidence
        code: GoodbyeCode | None = cause.goodbyeCode
        print(evidence, code)
        if isinstance(cause, PeerClosed):
            print(cause.retryAfter + cause.spread)
        link.abort(ClosedHere("no longer needed"))
        return Deferred()

    def retrying(self, retry: Retry) -> None:
        """Use what a retry carries."""
        print(retry.attempt + 1, retry.delay + 0.5, retry.elapsed, retry.cause.evidence)

    def suspected(self, link: str) -> None:  # type: ignore[override]
        """A hook that takes something else than a link."""


def words(cause: Cause) -> str:
    """
    Tell the causes apart.
    """
    match cause:
        case CheckInFailed():
            status: int | None = cause.status
            return f"exit status {status}"
        case CheckInMissed():
            address: str | None = cause.address
            return f"last heard from {address}"
        case PeerHung() | PeerSilent() | KeepAliveExpired():
            return "silent"
        case HostUnreachable() | NetworkUnreachable() | ConnectFailed() | HandshakeFailed():
            return f"not reached: {cause.osError}"
        case PeerReset() | LinkLost() | SendFailed() | SendStalled() | ProtocolViolation():
            return f"lost: {cause.limit}"
    return str(cause)


# Datagrams.
class Sensors(DatagramHooks):
    """
    Is told of senders.
    """

    def connected(self, peer: DatagramPeer) -> None:  # type: ignore[override]
        """Use what a peer shows."""
        lost: int = peer.lost
        jitter: float = peer.jitter
        print(peer.name, peer.peer.host, lost, jitter, peer.isAuthenticated)

    def readingReceived(self, peer: DatagramPeer, reading: bytes) -> None:
        """Use a reading."""
        print(peer.generation, float(reading))

    def disconnected(  # type: ignore[override]
        self, peer: DatagramPeer, cause: Cause
    ) -> None:
        """Use a cause."""
        print(words(cause), peer.silence)


monitor = UDPHeartbeatMonitor(
    {"pump": b"k" * 16, "lamp": {1: b"o" * 16, 2: b"n" * 16}},
    heartbeat=heartbeat,
    hooks=[Sensors(), LinkHooks()],
    limits=DatagramLimits(peers=10, maxBound=60.0),
    port=8471,
    groups=["239.255.84.71"],
    unauthenticated=["toy"],
)
monitor.setKeys({"pump": b"k" * 16})
monitor.changeSettings(heartbeat=Heartbeat.within(8), limits=DatagramLimits(peers=10))
ignored: Mapping[str, int] = monitor.ignored
sender = UDPHeartbeatSender(
    [("hub.example", 8471), ("192.0.2.7", 8471)],
    name="pump",
    key=b"k" * 16,
    allowLoss=0.2,
    reading=lambda: b"21.5",
)
UDPHeartbeatSender(("hub.example", 8471), name="toy", key=None, unauthenticated=True, watch=False)
UDPHeartbeatSender("hub.example:8471", name="pump", key=b"k" * 16)  # type: ignore[arg-type]
UDPHeartbeatSender(("hub.example", 8471), name="pump")  # type: ignore[call-arg]
DatagramLimits(10)  # type: ignore[call-arg]


# Mix in.
class Sensor(HeartbeatMixin, LineReceiver):
    """
    A protocol of the user's that pings by itself.
    """

    def sendPing(self) -> None:
        """Make the peer speak."""
        assert self.transport is not None
        self.transport.write(b"ping\r\n")


class Device(HeartbeatProtocol):
    """
    A protocol that speaks the built-in protocol.
    """

    def messageReceived(self, message: bytes) -> None:
        """Answer."""
        sent: Deferred[None] = self.sendMessage(message)
        sent.addErrback(print)


# Wrap, on either side.
def ping(protocol: Any) -> object:
    """
    Make the peer speak.
    """
    return protocol.sendPing()


def admit(address: IAddress, certificate: Any, hello: Any) -> str | None:
    """
    Decide about a peer.
    """
    return None if address else "unknown"


wrapped = HeartbeatFactory(Factory.forProtocol(Protocol), heartbeat=heartbeat, ping=ping)
server = HeartbeatServerFactory(
    Factory.forProtocol(Device),
    heartbeat=Heartbeat.within(35),
    hooks=Hooks(),
    admit=admit,
    serverLimits=serverLimits,
)
peers: Mapping[int, Link] = server.peers
named: Link | None = server.named("pump-3")
drained: Deferred[None] = server.drain(retryAfter=1.0, spread=12.0)


# Keep a link up.
async def prepare(protocol: Any) -> None:
    """
    Log in.
    """
    if not await protocol.logIn():
        raise PermanentFailure("the password is wrong")


def client(endpoint: IStreamClientEndpoint) -> HeartbeatClientService:
    """
    Make a service with all of its arguments, one for several endpoints, and one of a factory of
    this package.
    """
    HeartbeatClientService([endpoint, endpoint], Factory.forProtocol(Protocol))
    HeartbeatClientService(endpoint, wrapped)
    service = HeartbeatClientService(
        endpoint,
        Factory.forProtocol(Sensor),
        backoff,
        Clock(),
        prepare,
        heartbeat=heartbeat,
        keepAlive=keepAlive,
        limits=limits,
        hooks=Hooks(),
        ping=ping,
        name="sensor",
    )
    service.startService()
    service.reconnectNow()
    current: Link | None = service.link
    print(current)
    return service


class SensorFactory(HeartbeatClientFactory):
    """
    A factory for a connector.
    """

    heartbeat = Heartbeat.within(8)


def connect(reactor: IReactorTCP) -> None:
    """
    Give it to a reactor.
    """
    reactor.connectTCP("hub", 7000, SensorFactory())


# Presence.
class Pager(PresenceHooks):
    """
    Is told of changes.
    """

    async def changed(self, change: Change) -> None:
        """Use what a change shows."""
        state: PeerState = change.state
        number: int = change.number
        cause: str | None = change.cause
        print(change.name, state, number, cause)

    def missed(self, gap: Gap, peers: Sequence[PeerPresence]) -> None:
        """Use what a peer shows."""
        heard: list[float | None] = [peer.lastHeard for peer in peers]
        print(gap.first, gap.last, heard)


async def presence() -> PresenceStore:
    """
    Make a table, and ask it.
    """
    store = SQLiteStore("presence.db", keep=1000)
    limits = PresenceLimits(gone=10)
    table = PresenceTable(store=store, hooks=[Pager()], grace=5, merge=True, limits=limits)
    table.changeSettings(grace=2, merge=False)
    PresenceTable(store=object())  # type: ignore[arg-type]
    HeartbeatServerFactory(hooks=[Hooks(), table])
    table.subscribe("pager", Pager(), since=0)
    metrics = HeartbeatMetrics()
    page = StatusResource(table, token="a token of 20 chars.", metrics=metrics, hosts=["hub"])
    StatusResource(table, "a token of 20 chars.")  # type: ignore[call-arg]
    HeartbeatFactory(Factory.forProtocol(Device), hooks=[table, metrics])
    text: bytes = metrics.render()
    print(text, len(page.streams))
    table.startService()
    try:
        await table.whenLoaded()
    except StoreError as error:
        print(error)
    page.close()
    peers: Mapping[str, PeerPresence] = table.peers
    changes: list[Change | Gap] = await table.changes(since=0)
    changes += await table.history("pump-3", limit=5)
    print(peers, table.peer("pump-3"), table.latest)
    await table.stopService()
    stored: StoredPresence = await store.load()
    records: Sequence[PeerRecord] = stored.peers
    print([(record.change.number, record.bound, record.lastHeard) for record in records])
    return MemoryStore()


# Test.
async def cut(reactor: Any, port: int) -> None:
    """
    Use the proxy of the test kit.
    """
    proxy: FaultProxy = FaultProxy(reactor, ("127.0.0.1", port))
    await proxy.listen()
    proxy.inject(BlackHole(), toward="client", connections="existing")
    proxy.heal()
    await proxy.close()
