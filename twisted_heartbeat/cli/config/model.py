# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The model of all settings: sections and their keys.

The file, the options of the command line and the reference page are read from this one model.  A
key stands in the file as C{user-timeout}; the field of its settings class is C{userTimeout}.  Where
a settings class accepts L{None}, the key takes C{false}.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from ...core.backoff import Backoff
from ...core.checkins import Check
from ...core.settings import Heartbeat, KeepAlive, Limits, ServerLimits
from . import kinds
from .kinds import Kind
from .values import CheckIn, Presence, Status, Store, UDPMonitor


@dataclass(frozen=True)
class Key:
    """
    One setting.

    @ivar name: as it stands in the file.
    @ivar words: what it is, for the reference page.
    @ivar off: whether C{false} switches it off.
    @ivar option: the option of the command line that sets it; C{""} if there is none.
    @ivar needed: whether its section cannot do without.
    """

    name: str
    kind: Kind
    words: str
    off: bool = False
    option: str = ""
    needed: bool = False

    @property
    def field(self) -> str:
        """
        The name in the settings class.
        """
        first, *rest = self.name.split("-")
        return first + "".join(part.capitalize() for part in rest)

    @property
    def allowed(self) -> str:
        """
        Which values it takes, in words.
        """
        return self.kind.allowed + (", or false to switch it off" if self.off else "")

    def read(self, value: object) -> object:
        """
        Return the value for the settings class.

        @param value: as the file has it.
        @raise ValueError: if it is not allowed; says what is.
        """
        if self.off and value is False:
            return None
        try:
            return self.kind.read(value)
        except ValueError as error:
            raise ValueError(f"{error}{self.allowed.removeprefix(self.kind.allowed)}") from None


@dataclass(frozen=True)
class Section:
    """
    A table of the file.

    @ivar name: as it stands in the file; C{""} for the whole file.
    @ivar words: what it is, for the reference page.
    @ivar sections: the tables inside of it.
    @ivar several: whether there may be several, as an array of tables.  One of them may be written
        as the text of its C{short} key alone.
    @ivar short: the key for which a text stands.
    @ivar off: whether C{false} in place of the table switches it off.
    @ivar make: the settings class, whose field defaults are the defaults; L{None} if the keys have
        no default.
    """

    name: str
    words: str
    keys: tuple[Key, ...]
    sections: tuple[Section, ...] = field(default=())
    several: bool = False
    short: str = ""
    off: bool = False
    make: Any = None

    def key(self, name: str) -> Key | None:
        """
        Return the key of a name; L{None} if there is none.
        """
        return next((key for key in self.keys if key.name == name), None)

    def section(self, name: str) -> Section | None:
        """
        Return the table of a name; L{None} if there is none.
        """
        return next((section for section in self.sections if section.name == name), None)

    @property
    def names(self) -> list[str]:
        """
        The names of all keys and tables.
        """
        return [key.name for key in self.keys] + [section.name for section in self.sections]

    def default(self, key: Key) -> object:
        """
        Return the default of a key; C{""} where there is none to tell.
        """
        if self.make is None:
            return ""
        found = {one.name: one.default for one in fields(self.make)}
        return found.get(key.field, "")

    def walk(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Section]]:
        """
        Yield this section and all inside of it, each with the names that lead to it.
        """
        yield path, self
        for section in self.sections:
            yield from section.walk((*path, section.name))


HEARTBEAT = Section(
    "heartbeat",
    "How soon a silent peer is pinged, and how long its answer may take.",
    (
        Key(
            "within",
            kinds.BOUND,
            "the bound: from the last byte received to the verdict; in place of the other two",
            option="within",
        ),
        Key("interval", kinds.SECONDS, "silence before a ping; false to watch passively", off=True),
        Key("timeout", kinds.SECONDS, "from the ping to the verdict"),
    ),
    make=Heartbeat,
)

KEEPALIVE = Section(
    "keepalive",
    "The operating system's own probes on an idle connection.",
    (
        Key("idle", kinds.COUNT, "seconds of idleness before the first probe", option="keepalive"),
        Key("interval", kinds.COUNT, "seconds between probes", option="keepalive"),
        Key("count", kinds.COUNT, "probes that may stay unanswered", option="keepalive"),
        Key("user-timeout", kinds.SECONDS, "for which sent data may stay unacknowledged", off=True),
    ),
    off=True,
    make=KeepAlive,
)

LIMITS = Section(
    "limits",
    "The time and the memory that one link may take.",
    (
        Key("connect-timeout", kinds.SECONDS, "for an attempt, with its TLS handshake", off=True),
        Key("close-timeout", kinds.SECONDS, "that a close may go without progress", off=True),
        Key("cleanup-timeout", kinds.SECONDS, "for all cleanups of a link together", off=True),
        Key("send-stall", kinds.SECONDS, "that a send buffer may go without progress", off=True),
        Key("max-buffered", kinds.COUNT, "bytes that may wait to be sent", off=True),
    ),
    make=Limits,
)

SERVER_LIMITS = Section(
    "server-limits",
    "What the peers of a listener may take of it.",
    (
        Key("peers", kinds.COUNT, "links at a time", off=True),
        Key("peers-per-address", kinds.COUNT, "links at a time from one address", off=True),
        Key("hello-timeout", kinds.SECONDS, "in which a peer has to say hello", off=True),
        Key("admission-timeout", kinds.SECONDS, "from the hello until it is admitted", off=True),
        Key("max-message", kinds.COUNT, "bytes of a received message", off=True),
        Key("max-held", kinds.COUNT, "bytes that are kept before a peer is admitted", off=True),
        Key("pings-per-second", kinds.COUNT, "pings that a peer may send in a second", off=True),
    ),
    make=ServerLimits,
)

BACKOFF = Section(
    "backoff",
    "How long to wait before the next attempt to connect.",
    (
        Key("initial", kinds.SECONDS, "the ceiling of the first wait"),
        Key("maximum", kinds.SECONDS, "the longest wait", option="max-delay"),
        Key("factor", kinds.FACTOR, "by which the ceiling grows with each attempt"),
        Key("jitter", kinds.JITTER, "how a wait is drawn below its ceiling", off=True),
        Key("spread", kinds.SECONDS_OR_0, "the first ceiling after a loss that a whole fleet sees"),
        Key("stable-after", kinds.SECONDS_OR_0, "after which a link is proven in any case"),
        Key("max-attempts", kinds.COUNT, "failures in a row after which it gives up", off=True),
        Key(
            "max-elapsed",
            kinds.SECONDS,
            "since the first of these failures after which it gives up",
            off=True,
            option="give-up-after",
        ),
    ),
    make=Backoff,
)

_NAME = Key("name", kinds.NAME, "what this process calls itself on its links", option="name")
_HOOKS = Key("hooks", kinds.HOOKS, "dotted names of `LinkHooks`, or of their classes")

LISTEN = Section(
    "listen",
    "Watch the peers that connect to this endpoint.",
    (
        Key("endpoint", kinds.LISTEN, "where to listen", option="listen", needed=True),
        _NAME,
        _HOOKS,
        Key("admit", kinds.CALLABLE, "the dotted name of a function that admits peers"),
    ),
    (HEARTBEAT, KEEPALIVE, LIMITS, SERVER_LIMITS),
    several=True,
    short="endpoint",
)

CONNECT = Section(
    "connect",
    "Keep one link up to the listener at this endpoint.",
    (
        Key("endpoint", kinds.CONNECT, "where to connect", option="connect", needed=True),
        _NAME,
        _HOOKS,
    ),
    (HEARTBEAT, KEEPALIVE, LIMITS, BACKOFF),
    several=True,
    short="endpoint",
)

UDP = Section(
    "udp",
    "Send heartbeats over UDP.",
    (
        Key(
            "monitors",
            kinds.UDP_PLACES,
            "where to; of several, the first that is well",
            option="udp",
            needed=True,
        ),
        Key(
            "key-file",
            kinds.UDP_KEYS,
            "the file with the key of the name",
            option="udp-keys",
            needed=True,
        ),
        Key("name", kinds.NAME, "as the monitors know it; by default the file's name"),
        Key(
            "every",
            kinds.SECONDS,
            "between two heartbeats; by default it follows from the bound",
            option="udp-every",
        ),
        Key("allow-loss", kinds.LOSS, "the rate of loss that makes no false verdict"),
        Key("all", kinds.FLAG, "whether each heartbeat goes to all monitors"),
        _HOOKS,
    ),
    (HEARTBEAT,),
)

MONITOR = Section(
    "monitor",
    "Watch the senders of heartbeats over UDP.",
    (
        Key(
            "address",
            kinds.UDP_ADDRESSES,
            "where to listen",
            option="monitor-udp",
            needed=True,
        ),
        Key(
            "key-file",
            kinds.UDP_KEYS,
            "the file with the senders' keys",
            option="udp-keys",
            needed=True,
        ),
        Key("peers", kinds.COUNT, "senders that are known at a time"),
        Key("min-bound", kinds.BOUND, "for a sender that asks for a shorter bound"),
        Key("max-bound", kinds.BOUND, "for a sender that asks for a longer bound"),
        _HOOKS,
    ),
    (HEARTBEAT,),
    make=UDPMonitor,
)

CHECK_IN = Section(
    "check-in",
    "Tell a web server that this process is alive, while all its links are up.",
    (
        Key(
            "url",
            kinds.CHECK_IN,
            "where, for example https://host/ping/NAME",
            option="check-in",
            needed=True,
        ),
        Key("every", kinds.SECONDS, "from one check-in to the next", option="check-in-every"),
    ),
    several=True,
    short="url",
    make=CheckIn,
)

HTTP = Section(
    "http",
    "Receive check-ins.",
    (
        Key(
            "endpoint",
            kinds.HTTP,
            "where, under the path /ping/NAME: on loopback, unless interface= says otherwise",
            option="http",
            needed=True,
        ),
        Key(
            "token-file",
            kinds.CHECK_IN_TOKENS,
            "the tokens of the names; none by default",
            option="http-tokens",
        ),
        _HOOKS,
    ),
)

CHECK = Section(
    "check",
    "A name that has to check in.",
    (
        Key("name", kinds.CHECK_NAME, "its name", option="check", needed=True),
        Key("period", kinds.SECONDS, "in which it has to check in once", option="check"),
        Key("grace", kinds.SECONDS, "beyond that until it is missed", option="check"),
    ),
    several=True,
    make=Check,
)

STATUS = Section(
    "status",
    "A page that shows who is alive.",
    (
        Key(
            "endpoint",
            kinds.STATUS,
            "where to show it: on loopback, unless interface= says otherwise",
            option="status",
            needed=True,
        ),
        Key(
            "token-file",
            kinds.TOKEN_FILE,
            "the token that its visitors need; none by default",
            option="status-token-file",
        ),
        Key("title", kinds.TEXT, "the heading of the page"),
    ),
    make=Status,
)

PRESENCE = Section(
    "presence",
    "How the states of a peer's carriers are combined.",
    (
        Key("grace", kinds.SECONDS_OR_0, "from the end of a peer's last link until it is down"),
        Key("merge", kinds.FLAG, "whether equal names on different carriers are always one peer"),
        Key("hooks", kinds.PRESENCE_HOOKS, "dotted names of `PresenceHooks`, or of their classes"),
    ),
    make=Presence,
)

STORE = Section(
    "store",
    "Where the changes of presence are kept, and the deadlines of check-ins.",
    (
        Key(
            "file", kinds.STORE, "an SQLite database, which is made; without it they are in memory"
        ),
        Key("keep", kinds.COUNT, "how many changes the file keeps"),
    ),
    make=Store,
)

FILE = Section(
    "",
    "What holds for all links that do not say otherwise.",
    (_NAME, _HOOKS),
    (
        HEARTBEAT,
        KEEPALIVE,
        LIMITS,
        SERVER_LIMITS,
        BACKOFF,
        LISTEN,
        CONNECT,
        UDP,
        MONITOR,
        CHECK_IN,
        HTTP,
        CHECK,
        STATUS,
        PRESENCE,
        STORE,
    ),
)
"""The whole file."""
