# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{LinkEvents}: tells the log and the application's hooks what happens to links.

All links of a factory or service share one L{LinkEvents}.  Its observers have the methods of
L{LinkHooks}.  The first is always the L{LogObserver}; those of the setting C{hooks} follow.

An event is told after the transition that it is about, to one observer after the other.  What an
observer raises is logged, and neither the other observers nor the link's caller notice it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred, succeed
from twisted.logger import LogLevel
from twisted.python.failure import Failure

from ..core.causes import Cause, ClosedHere, PeerClosed, PeerReset
from ..core.counters import SourceCounters
from ..core.text import printable, textOf
from ..logs import SafeLogger
from .hooks import LinkHooks
from .usercode import cancel

if TYPE_CHECKING:
    from ..core.commands import Retry
    from ..core.settings import Heartbeat
    from .hooks import Hooks
    from .watched import Watched

_Observer = TypeVar("_Observer")

_hookLog = SafeLogger()
_eventLog = SafeLogger("twisted_heartbeat")


_EVIDENCE_FIELDS = (
    "sinceAck",
    "sinceData",
    "unacknowledged",
    "retransmits",
    "window",
    "probes",
    "rtt",
    "simultaneousVerdicts",
)


def observersOf(hooks: _Observer | Sequence[_Observer] | None) -> tuple[_Observer, ...]:
    """
    Return the observers that a setting C{hooks} stands for.
    """
    if hooks is None:
        return ()
    return tuple(hooks) if isinstance(hooks, Sequence) else (hooks,)


def runHook(
    name: str,
    hook: Callable[..., object],
    *arguments: object,
    failed: Callable[[Failure], None] | None = None,
    overdue: Collection[str] = (),
) -> Deferred[Any]:
    """
    Call a hook, and log what it raises.

    @param failed: called with that, once it is logged.
    @param overdue: the hooks that were cancelled because their time was over.
    @return: fires when the hook has finished, also if it failed.
    """

    def logged(failure: Failure) -> None:
        if name in overdue and failure.check(CancelledError):
            return
        _hookLog.failure("The hook {hook} failed", failure, hook=name)
        if failed is not None:
            failed(failure)

    return maybeDeferred(hook, *arguments).addErrback(logged)


def _show(observer: object, counters: SourceCounters) -> None:
    watchCounters = getattr(observer, "watchCounters", None)
    if watchCounters is not None:
        watchCounters(counters)


class LinkEvents:
    """
    The observers of all links of one factory or service.

    @ivar log: the observer that writes the log.
    """

    __slots__ = ("_counters", "_observers", "log")

    def __init__(self, name: str | None, heartbeat: Heartbeat | None, hooks: Hooks | None) -> None:
        """
        @param name: what the log calls the links.
        @param heartbeat: theirs, unless a link has another.
        """
        self.log = LogObserver(name, heartbeat)
        self._observers = (self.log, *observersOf(hooks))
        self._counters: SourceCounters | None = None

    @property
    def counters(self) -> SourceCounters:
        """
        What the factory or service counts without an event for each.  An observer that has a method
        C{watchCounters} is given it, once.
        """
        if self._counters is None:
            self._counters = SourceCounters()
            for observer in self._observers:
                runHook("watchCounters", _show, observer, self._counters)
        return self._counters

    def emit(
        self, event: str, *details: object, failed: Callable[[Failure], None] | None = None
    ) -> Deferred[None]:
        """
        Log an event, and call the hook of that name of every observer.

        @param event: the name of a method of L{LinkHooks}.
        @param details: its arguments.
        @param failed: called with each exception of an observer, once it is logged.
        @return: fires when all observers have finished.  Cancelling it cancels the others.
        """
        # An object of the application's may lack the method.  That is logged like its failure.
        call = methodcaller(event, *details)
        overdue: list[str] = []
        pending = []
        for observer in self._observers:
            running = runHook(event, call, observer, failed=failed, overdue=overdue)
            if not running.called or running.paused:
                pending.append(running)
        if not pending:
            return succeed(None)

        def cancelAll(_: object) -> None:
            overdue.append(event)
            for hook in pending:
                cancel(hook)

        def finish(_: object) -> None:
            # After cancelling, a hook that ignores that may still finish.
            if not finished.called:
                finished.callback(None)

        finished: Deferred[None] = Deferred(cancelAll)
        DeferredList(pending).addCallback(finish)
        return finished


class LogObserver(LinkHooks):
    """
    The observer that writes the log: each event is one structured event of C{twisted.logger}.

    The page about C{twist} documents the fields and levels.
    """

    def __init__(self, name: str | None, heartbeat: Heartbeat | None) -> None:
        self._name = name
        self._bound = None if heartbeat is None else heartbeat.bound

    def write(self, event: str, level: Any = LogLevel.info, **fields: object) -> None:
        """
        Log one event.  Its texts are L{printable}, because some of them are the peer's.

        @param event: the hook's name.
        """
        cause = fields.pop("cause", None)
        known: dict[str, object] = {"link": self._name, "bound": self._bound}
        known |= {"carrier": None, "generation": None, "peer": None, "silence": None, **fields}
        words = "{link}: {event}"
        if "delay" in known:
            words += " in {delay} s"
        if known.get("watch") == "keepalive":
            # Otherwise a reader of the text takes the link for one that is watched.
            words += ", without pings"
        if isinstance(cause, Cause):
            words += ", {cause}: {reason}"
            known["reason"] = textOf(cause)
            if cause.goodbyeCode is not None:
                known["code"] = int(cause.goodbyeCode)
                known["retryAfter"] = cause.retryAfter
        where = ["{name}"] if known.get("name") else []
        if known["peer"] is not None:
            where.append("{peer}")
        if known["generation"] is not None:
            where.append("generation {generation}")
        if where:
            words += f" [{', '.join(where)}]"
        name = None if cause is None else type(cause).__name__
        texts = {key: printable(value) for key, value in known.items() if isinstance(value, str)}
        _eventLog.emit(level, words, event=event, cause=name, **known | texts)

    def connecting(self, attempt: int) -> None:
        self.write("connecting", attempt=attempt)

    def connected(self, link: Watched) -> None:
        self.write("connected", **link.eventFields(), watch=link.watch)

    def suspected(self, link: Watched) -> None:
        self.write("suspected", LogLevel.warn, **link.eventFields())

    def recovered(self, link: Watched) -> None:
        self.write("recovered", **link.eventFields())

    def disconnected(self, link: Watched, cause: Cause, others: int | None = None) -> None:
        """
        @param others: how many ends with this kind of cause were left out before this one; L{None}
            if they have not been limited yet.
        """
        if others is None and link.logLimit is not None:
            self._limit(self.disconnected, link, cause)
            return
        fields: dict[str, object] = {} if others is None else {"others": others}
        # Port scans and health checks leave in these ways, and need no warning.
        usual = ClosedHere if others is None else (ClosedHere, PeerClosed, PeerReset)
        level = LogLevel.info if isinstance(cause, usual) else LogLevel.warn
        # As plain values, which every log can write.
        evidence = cause.evidence
        known = evidence and {name: getattr(evidence, name) for name in _EVIDENCE_FIELDS}
        fields |= {"cause": cause, "evidence": known}
        self.write("disconnected", level, **link.eventFields(), **fields)

    def refused(self, link: Watched, cause: Cause, others: int | None = None) -> None:
        """
        @param others: as of L{disconnected}.
        """
        if others is None and link.logLimit is not None:
            self._limit(self.refused, link, cause)
            return
        fields: dict[str, object] = {} if others is None else {"others": others}
        fields |= {"cause": cause, "name": link.name}
        self.write("refused", LogLevel.warn, **link.eventFields(), **fields)

    def retrying(self, retry: Retry) -> None:
        delay = round(retry.delay, 3)
        self.write("retrying", attempt=retry.attempt, delay=delay, cause=retry.cause)

    def gaveUp(self, cause: Cause) -> None:
        self.write("gaveUp", LogLevel.error, cause=cause)

    def _limit(self, write: Callable[..., None], link: Watched, cause: Cause) -> None:
        """
        Write the end of a link, unless the limit of its owner suppresses it.

        @param write: takes the link, the cause, and how many others were left out.
        """
        limit = link.logLimit
        assert limit is not None
        limit.log(type(cause), link.seconds(), link.wheel, partial(write, link, cause))
