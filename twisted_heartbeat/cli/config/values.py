# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Config}: everything that C{twist heartbeat} is to do.

Each part has the settings that hold for it, whether the part says them itself or the whole file.
Therefore two configurations differ in a part exactly if the part's values differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import urlsplit

from ...core.backoff import Backoff
from ...core.checkins import Check
from ...core.settings import MIN_BOUND, Heartbeat, KeepAlive, Limits, ServerLimits

Path = tuple[str | int, ...]
"""The names that lead to a key of the file; the entries of a list are counted from 0."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """
    Something that runs by itself, and is started and stopped by itself.

    @cvar NEEDS_RESTART: the fields that cannot be changed while the process runs.
    @cvar isWork: whether it is worth running for by itself; a page about others is not.
    @ivar path: where the file has it; no setting.
    """

    NEEDS_RESTART: ClassVar[frozenset[str]] = frozenset()
    isWork: ClassVar[bool] = True

    path: Path = field(default=(), compare=False)

    @property
    def key(self) -> tuple[str, ...]:
        """
        What identifies the part: two parts of one key are the same part, with other settings.
        """
        raise NotImplementedError

    @property
    def label(self) -> str:
        """
        What the log calls it.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class LinkPart(Part):
    """
    What holds for the links of a part.

    @ivar name: what this process calls itself on them.
    @ivar hooks: dotted names.
    """

    name: str = ""
    heartbeat: Heartbeat = Heartbeat()
    keepAlive: KeepAlive | None = KeepAlive()
    limits: Limits = Limits()
    hooks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Listen(LinkPart):
    """
    A listener.

    @ivar endpoint: the string of its endpoint.
    @ivar admit: a dotted name; C{""} to admit all peers.
    """

    endpoint: str
    serverLimits: ServerLimits = ServerLimits()
    admit: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        return ("listen", self.endpoint)

    @property
    def label(self) -> str:
        return f"listen {self.endpoint}"


@dataclass(frozen=True, kw_only=True)
class Connect(LinkPart):
    """
    A link that is kept up.

    @ivar endpoint: the strings of its endpoints.
    """

    endpoint: tuple[str, ...]
    backoff: Backoff = Backoff()

    @property
    def key(self) -> tuple[str, ...]:
        # Two names are two peers for the other side, so each has a link of its own.
        return ("connect", *self.endpoint, self.name)

    @property
    def description(self) -> str:
        """
        The C{link} of the log.
        """
        return ", ".join(self.endpoint)

    @property
    def label(self) -> str:
        return f"connect {self.description}"


@dataclass(frozen=True, kw_only=True)
class Status(Part):
    """
    A page that shows who is alive.

    @ivar endpoint: the string of its endpoint.
    @ivar tokenFile: the file that holds the token of its visitors; C{""} to ask for none.
    @ivar title: the heading of the page.
    """

    isWork: ClassVar[bool] = False

    endpoint: str = ""
    tokenFile: str = ""
    title: str = "Heartbeat"

    @property
    def key(self) -> tuple[str, ...]:
        return ("status", self.endpoint)

    @property
    def label(self) -> str:
        return f"status {self.endpoint}"


@dataclass(frozen=True, kw_only=True)
class UDPMonitor(Part):
    """
    Watches the senders of heartbeats over UDP.

    @ivar address: a port, or an address and a port.
    @ivar place: the address, C{""} for all, and the port.
    @ivar keyFile: the file of the senders' keys.
    @ivar heartbeat: its bound holds for senders that state none.
    @ivar hooks: dotted names.
    """

    # The hooks of a session are told of its begin and its end, or of neither.
    NEEDS_RESTART: ClassVar[frozenset[str]] = frozenset({"hooks"})

    address: str
    place: tuple[str, int]
    keyFile: str
    heartbeat: Heartbeat = Heartbeat()
    hooks: tuple[str, ...] = ()
    peers: int = 100_000
    minBound: float = MIN_BOUND
    maxBound: float = 86_400.0

    @property
    def key(self) -> tuple[str, ...]:
        return ("monitor", self.address)

    @property
    def label(self) -> str:
        return f"monitor {self.address}"


@dataclass(frozen=True, kw_only=True)
class UDPSender(Part):
    """
    Sends heartbeats over UDP.

    @ivar places: the host and the port of each monitor.
    @ivar name: as the monitors know it.
    @ivar keyFile: the file with the key of that name.
    @ivar every: seconds between two heartbeats; L{None} to follow from the bound.
    @ivar allowLoss: the rate of loss that is allowed for; L{None} for the usual one.
    @ivar all: whether each heartbeat goes to all monitors, in place of failover.
    @ivar hooks: dotted names.
    """

    places: tuple[tuple[str, int], ...]
    name: str
    keyFile: str
    heartbeat: Heartbeat = Heartbeat()
    every: float | None = None
    allowLoss: float | None = None
    all: bool = False
    hooks: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, ...]:
        return ("udp",)

    @property
    def label(self) -> str:
        return f"udp as {self.name}"


@dataclass(frozen=True, kw_only=True)
class CheckIn(Part):
    """
    Tells a web server that this process is alive.

    @ivar url: may hold a token, and so does not appear in any message.
    @ivar every: seconds from one check-in to the next.
    """

    url: str = ""
    every: float = 60.0

    @property
    def key(self) -> tuple[str, ...]:
        return ("check-in", self.url)

    @property
    def label(self) -> str:
        try:
            host = urlsplit(self.url).hostname
        except ValueError:
            # The resolver will say what is wrong with it.
            host = None
        return f"check-in at {host or 'no host'}"


@dataclass(frozen=True, kw_only=True)
class HTTP(Part):
    """
    Receives check-ins at an endpoint.
    """

    endpoint: str

    @property
    def key(self) -> tuple[str, ...]:
        return ("http", self.endpoint)

    @property
    def label(self) -> str:
        return f"http {self.endpoint}"


@dataclass(frozen=True, kw_only=True)
class Checks:
    """
    What has to check in, at all L{HTTP} endpoints.

    @ivar checks: the name of each, and how often.
    @ivar tokenFile: the file of their tokens; C{""} to ask for none.
    @ivar hooks: dotted names.
    """

    checks: tuple[tuple[str, Check], ...] = ()
    tokenFile: str = ""
    hooks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Store:
    """
    Where changes of presence are kept.

    @ivar file: the path of an SQLite database; C{""} to keep them in memory.
    @ivar keep: how many changes are kept.
    """

    file: str = ""
    keep: int = 100_000


@dataclass(frozen=True, kw_only=True)
class Presence:
    """
    How the states of a peer's carriers are combined, see C{PresenceTable}.

    @ivar grace: seconds from the end of a peer's last link until the peer is down.
    @ivar merge: whether equal names on different carriers are one peer in any case.
    @ivar hooks: dotted names.
    """

    grace: float = 0.0
    merge: bool = False
    hooks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reference:
    """
    A text that names something outside of the file.

    @ivar kind: what it is, see L{Resolver<twisted_heartbeat.cli.config.resolver.Resolver>}.
    @ivar path: where it stands.
    """

    kind: str
    text: str
    path: Path = field(default=(), compare=False)


@dataclass(frozen=True, kw_only=True)
class Config:
    """
    Everything that is to run.

    @ivar parts: what is started, changed and stopped by itself.
    @ivar store: cannot be changed while the process runs.
    @ivar checks: L{None} in a running configuration that does not receive check-ins, so that it can
        begin to.
    @ivar references: all that has to be looked up before anything can run.
    """

    parts: tuple[Part, ...] = ()
    presence: Presence = Presence()
    store: Store = Store()
    checks: Checks | None = Checks()
    references: tuple[Reference, ...] = field(default=(), compare=False)
