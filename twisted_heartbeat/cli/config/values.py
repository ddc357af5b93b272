# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Config}: everything that C{twist heartbeat} is to do.

Each part has the settings that hold for it, whether the part says them itself or the whole file.
Therefore two configurations differ in a part exactly if the part's values differ.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import ClassVar

from ...core.backoff import Backoff
from ...core.settings import Heartbeat, KeepAlive, Limits, ServerLimits

Path = tuple[str | int, ...]
"""The names that lead to a key of the file; the entries of a list are counted from 0."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """
    Something that runs by itself, and is started and stopped by itself.

    @cvar NEEDS_RESTART: the fields that cannot be changed while the process runs.
    @ivar path: where the file has it; no setting.
    """

    NEEDS_RESTART: ClassVar[frozenset[str]] = frozenset()

    path: Path = field(default=(), compare=False)

    @property
    def key(self) -> tuple[str, ...]:
        """
        What identifies the part: two parts of one key are the same part, with other settings.
        """
        raise NotImplementedError

    @property
    def title(self) -> str:
        """
        What the log calls it.
        """
        raise NotImplementedError

    def changes(self, other: Part) -> tuple[str, ...]:
        """
        Return the names of the fields in which another part differs.
        """
        return tuple(
            one.name
            for one in fields(self)
            if one.compare and getattr(self, one.name) != getattr(other, one.name)
        )


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
    def title(self) -> str:
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
    def title(self) -> str:
        return f"connect {self.description}"


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

    @ivar references: all that has to be looked up before anything can run.
    """

    parts: tuple[Part, ...] = ()
    references: tuple[Reference, ...] = field(default=(), compare=False)
