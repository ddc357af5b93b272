# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{HeartbeatServices}: everything that C{twist heartbeat} runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import ReactorNotRunning

from ..core.diagnosis import describeError
from ..logs import SafeLogger
from ..timing.monotonic import clockFor
from ..timing.wheel import timerWheelFor
from .checkins import RunningCheckIn, RunningHTTP
from .config.values import (
    HTTP,
    CheckIn,
    Config,
    Connect,
    Listen,
    Part,
    Presence,
    Reference,
    Status,
    UDPMonitor,
    UDPSender,
)
from .datagrams import RunningMonitor, RunningSender
from .exitstatus import EX_UNAVAILABLE, exitWith
from .reload import Reloader
from .running import PartObserver, Running, RunningClient, RunningListener, RunningStatus
from .status import makeMetrics
from .systemd import Notifier

if TYPE_CHECKING:
    from ..checkin.resource import CheckInResource
    from ..core.checkins import Check
    from ..link.hooks import LinkHooks
    from ..presence.sqlite import SQLiteStore
    from ..presence.table import PresenceTable
    from ..status.metrics import HeartbeatMetrics
    from .config.loader import Loaded
    from .config.plan import Plan
    from .options import Options

_log = SafeLogger()


class HeartbeatServices(MultiService):
    """
    The parts of one configuration.  It ends the process when none of them can do its work any more.

    @ivar parts: the parts that run, by their keys.
    @ivar objects: what their configuration names.
    @ivar notifier: tells systemd; L{None} if systemd does not ask.
    """

    def __init__(
        self, reactor: Any, *, daemon: bool = False, environment: Mapping[str, str] = os.environ
    ) -> None:
        """
        @param daemon: whether twistd will report the result of the start to a shell.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._daemon = daemon
        self._environment = environment
        self._isReady = False
        self._ended = False
        self._failed: set[tuple[str, ...]] = set()
        self._leaving: set[Deferred[Any]] = set()
        self._observers: list[LinkHooks] = []
        self._presence: PresenceTable | None = None
        self._store: SQLiteStore | None = None
        self._presenceHooks: dict[str, Any] = {}
        self._metrics: HeartbeatMetrics | None = None
        self._checkIns: CheckInResource | None = None
        self._begunWith = Config()
        self.parts: dict[tuple[str, ...], Running] = {}
        self.objects: dict[Any, Any] = {}
        self.notifier: Notifier | None = None

    # The parts.

    @property
    def config(self) -> Config:
        """
        What runs now.  A part that could not be started is not in it.
        """
        parts = tuple(each.part for each in self.parts.values())
        return replace(self._begunWith, parts=parts)

    def begin(self, loaded: Loaded, *, withPresence: bool) -> None:
        """
        Add all parts of a configuration.

        @param withPresence: whether to keep a presence table, also if nothing shows it now.
        """
        config = loaded.config
        self._begunWith = replace(config, checks=None)
        self.objects = dict(loaded.objects)
        if withPresence or any(isinstance(part, Status) for part in config.parts):
            self._keepPresence(loaded)
        for part in config.parts:
            self.start(part, loaded)

    def _keepPresence(self, loaded: Loaded) -> None:
        from ..presence.table import PresenceTable

        config = loaded.config
        self._presenceHooks = _presenceHooksOf(config.presence, loaded)
        self._store = _storeOf(loaded, self._reactor)
        self._presence = PresenceTable(
            store=self._store,
            hooks=list(self._presenceHooks.values()),
            grace=config.presence.grace,
            merge=config.presence.merge,
            clock=self._reactor,
        )
        self._presence.setServiceParent(self)  # type: ignore[no-untyped-call]
        self._metrics = makeMetrics()
        metrics = [] if self._metrics is None else [self._metrics]
        self._observers = [self._presence, *metrics]

    def start(self, part: Part, loaded: Loaded) -> Running:
        """
        Start a part, now or with these services.
        """
        running = self.parts[part.key] = self._make(part, loaded)
        running.service.setServiceParent(self)
        return running

    def _make(self, part: Part, loaded: Loaded) -> Running:
        objects, reactor = loaded.objects, self._reactor
        observer = PartObserver(self.changed, partial(self._gaveUp, part.key))
        observers = [*self._observers, observer]
        end = partial(self._couldNotListen, part.key)
        # The shell waits for the start only.  What a reload starts must not raise.
        daemon = self._daemon and not self.running
        if isinstance(part, Listen):
            return RunningListener(part, objects, reactor, observers, end, daemon=daemon)
        if isinstance(part, Connect):
            return RunningClient(part, objects, reactor, observers)
        if isinstance(part, UDPMonitor):
            return RunningMonitor(part, objects, reactor, observers, end, daemon=daemon)
        if isinstance(part, UDPSender):
            return RunningSender(part, objects, reactor, observers)
        if isinstance(part, CheckIn):
            return RunningCheckIn(part, reactor, self._linksAreUp)
        if isinstance(part, HTTP):
            resource = self._checkInResource(loaded)
            return RunningHTTP(part, objects, resource, end, daemon=daemon)
        assert isinstance(part, Status) and self._presence is not None
        return RunningStatus(
            part, objects, reactor, self._presence, self._metrics, end, daemon=daemon
        )

    def _checkInResource(self, loaded: Loaded) -> CheckInResource:
        """
        Return what all endpoints for check-ins serve.
        """
        if self._checkIns is None:
            # Not at the top, because it loads twisted.web.
            from ..checkin.resource import CheckInResource

            settings, objects = loaded.config.checks, loaded.objects
            assert settings is not None
            tokens = (
                settings.tokenFile and objects[Reference("check-in tokens", settings.tokenFile)]
            )
            hooks = [objects[Reference("hooks", name)] for name in settings.hooks]
            self._checkIns = CheckInResource(
                checks=dict(settings.checks),
                tokens=tokens or None,
                hooks=[*hooks, *self._observers],
                # The presence table closes it: it is the first service, and so stops last.
                store=self._store,
                clock=self._reactor,
            )
            self._checkIns.setServiceParent(self)  # type: ignore[no-untyped-call]
            self._begunWith = replace(self._begunWith, checks=settings)
        return self._checkIns

    def _linksAreUp(self) -> bool:
        clients = [each for each in self.parts.values() if isinstance(each, RunningClient)]
        return all(each.isUp for each in clients)

    def apply(self, plan: Plan, loaded: Loaded) -> Deferred[str]:
        """
        Change what runs, as a plan says.

        @return: fires when all that is to start has started, or has failed: with what has failed,
            in words, or C{""}.
        """
        self.objects = dict(loaded.objects)
        if plan.presence is not None:
            self._changePresence(plan.presence, loaded)
        if plan.checks is not None:
            self._changeChecks(plan.checks)
        closed = [self._stop(part) for part in plan.stop]
        for part in plan.keep:
            self.parts[part.key].renew(part, loaded.objects)
        for change in plan.change:
            running = self.parts[change.new.key]
            running.change(change.new, change.fields, loaded.objects)
            running.renew(change.new, loaded.objects)

        def startRest(_: object) -> Deferred[Any]:
            # Not before the old ports are closed, because a new text may have an old port's number.
            started = [self.start(part, loaded) for part in plan.start]
            return DeferredList([each.whenReady() for each in started])

        applied: Deferred[Any] = DeferredList(closed).addCallback(startRest)
        told: Deferred[str] = applied.addCallback(lambda _: self._removeFailed())
        return told

    def _changePresence(self, presence: Presence, loaded: Loaded) -> None:
        if self._presence is not None:
            former, self._presenceHooks = self._presenceHooks, _presenceHooksOf(presence, loaded)
            for name in former.keys() - self._presenceHooks.keys():
                self._presence.removeHook(former[name])
            for name in self._presenceHooks.keys() - former.keys():
                self._presence.addHook(self._presenceHooks[name])
            self._presence.changeSettings(grace=presence.grace, merge=presence.merge)
        self._begunWith = replace(self._begunWith, presence=presence)

    def _changeChecks(self, checks: tuple[tuple[str, Check], ...]) -> None:
        begun = self._begunWith.checks
        assert self._checkIns is not None and begun is not None
        self._checkIns.setChecks(dict(checks))
        self._begunWith = replace(self._begunWith, checks=replace(begun, checks=checks))

    def _forgetChecks(self) -> None:
        """
        Stop to watch names after the last endpoint that could receive their check-ins.
        """
        if self._checkIns is None or any(
            isinstance(each, RunningHTTP) for each in self.parts.values()
        ):
            return
        self._leave(maybeDeferred(self._checkIns.disownServiceParent), "check-ins")
        self._checkIns = None
        self._begunWith = replace(self._begunWith, checks=None)

    def _stop(self, part: Part) -> Deferred[Any]:
        """
        @return: fires when the part's port is closed.  Its links may be closing for longer.
        """
        closed, stopped = self.parts.pop(part.key).stop()
        self._leave(stopped, part.label)
        return closed

    def _leave(self, stopped: Deferred[Any], label: str) -> None:
        self._leaving.add(stopped)
        stopped.addErrback(
            lambda failure: _log.failure("{part} failed to stop", failure, part=label)
        )
        stopped.addCallback(lambda _: self._leaving.discard(stopped))

    def _removeFailed(self) -> str:
        """
        @return: which ports could not be opened, in words; C{""} if all are open.
        """
        failed, self._failed = self._failed, set()
        parts = [self.parts[key].part for key in self.parts if key in failed]
        for part in parts:
            self._stop(part)
        self._forgetChecks()
        self.changed()
        labels = ", ".join(part.label for part in parts)
        return f"{labels} could not be opened" if labels else ""

    # The process.

    @property
    def status(self) -> str:
        """
        What runs, in a few words.
        """
        listeners = [each for each in self.parts.values() if isinstance(each, RunningListener)]
        clients = [each for each in self.parts.values() if isinstance(each, RunningClient)]
        words = []
        if listeners:
            peers = sum(len(each.factory.peers) for each in listeners)
            words.append(f"{_count(peers, 'peer')} at {_count(len(listeners), 'listener')}")
        if clients:
            up = sum(each.isUp for each in clients)
            words.append(f"{up} of {_count(len(clients), 'link')} up")
        monitors = [each for each in self.parts.values() if isinstance(each, RunningMonitor)]
        if monitors:
            heard = sum(len(each.monitor.peers) for each in monitors)
            words.append(f"{_count(heard, 'sender')} heard")
        return ", ".join(words)

    def changed(self) -> None:
        """
        Note that the L{status} may have changed.
        """
        if self.notifier is not None:
            self.notifier.changed()
        for each in self.parts.values():
            if isinstance(each, RunningCheckIn):
                each.linksChanged()

    def privilegedStartService(self) -> None:
        self._beginToNotify()
        super().privilegedStartService()  # type: ignore[no-untyped-call]

    def _beginToNotify(self) -> None:
        # Not before the start, because the process that twistd starts as a daemon is another one.
        # twist has no privileged start.
        if self.notifier is None:
            wheel = timerWheelFor(clockFor(self._reactor))
            self.notifier = Notifier.fromEnvironment(wheel, lambda: self.status, self._environment)

    def startService(self) -> None:
        self._beginToNotify()
        super().startService()  # type: ignore[no-untyped-call]
        opened = DeferredList([each.whenReady() for each in self.parts.values()])
        opened.addCallback(lambda _: self._reactor.callWhenRunning(self._ready))

    def stopService(self) -> Deferred[Any]:
        if self.notifier is not None:
            self.notifier.stopping()
        stopped: Deferred[Any] = super().stopService()  # type: ignore[no-untyped-call]
        stopped = DeferredList([stopped, *self._leaving], consumeErrors=True)
        return stopped.addCallback(lambda _: self._stopped())

    def _ready(self) -> None:
        if self.running and not self._ended:
            self._isReady = True
            if self.notifier is not None:
                self.notifier.ready()
            for reloader in self._reloaders:
                reloader.begin()

    def _stopped(self) -> None:
        for reloader in self._reloaders:
            reloader.restore()
        if self.notifier is not None:
            self.notifier.stopped()
            self.notifier = None

    @property
    def _reloaders(self) -> list[Reloader]:
        return [each for each in self if isinstance(each, Reloader)]

    def _gaveUp(self, key: tuple[str, ...]) -> None:
        """
        Note that a link is not tried any more, and end the process after the last one.
        """
        if key not in self.parts:
            return
        self.parts[key].hasGivenUp = True
        # Check-ins are sent only while all links are up.
        others = [each for each in self.parts.values() if not isinstance(each, RunningCheckIn)]
        if all(each.hasGivenUp for each in others if each.part.isWork):
            _log.critical("Every link has given up and nothing listens: exiting")
            self._tellEnd("every link has given up")
            self.end(EX_UNAVAILABLE)

    def _couldNotListen(self, key: tuple[str, ...], status: int) -> None:
        """
        End the process, unless it has begun to work: then it runs on without the listener, and the
        next reload tries again.
        """
        if not self._isReady:
            failure = self.parts[key].service.failure
            words = f"{self.parts[key].part.label} could not be opened"
            self._tellEnd(f"{words}: {describeError(failure.value)}", failure.value)
            self.end(status)
        else:
            self._failed.add(key)

    def _tellEnd(self, words: str, error: BaseException | None = None) -> None:
        if self.notifier is not None and not self._ended:
            self.notifier.failed(words, error)

    def end(self, status: int) -> None:
        """
        Stop the reactor, and exit with a status.
        """
        if not self._ended:
            self._ended = True
            self._reactor.addSystemEventTrigger("after", "shutdown", exitWith, status)
            self._reactor.callWhenRunning(self._stopReactor)

    def _stopReactor(self) -> None:
        # A signal may have stopped the reactor already.
        with suppress(ReactorNotRunning):
            self._reactor.stop()


def _presenceHooksOf(presence: Presence, loaded: Loaded) -> dict[str, Any]:
    return {name: loaded.objects[Reference("presence hooks", name)] for name in presence.hooks}


def _storeOf(loaded: Loaded, reactor: Any) -> SQLiteStore | None:
    store = loaded.config.store
    if not store.file:
        return None
    from ..presence.sqlite import SQLiteStore

    path = loaded.objects[Reference("store", store.file)]
    return SQLiteStore(path, keep=store.keep, reactor=reactor)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def makeService(options: Options, environment: Mapping[str, str] = os.environ) -> HeartbeatServices:
    """
    Make the service for a command line.

    @param environment: the variables that systemd has set.
    """
    reactor = options.reactor
    runner: Mapping[str, Any] = options.parent or {}
    daemon = not runner.get("nodaemon", True)
    services = HeartbeatServices(reactor, daemon=daemon, environment=environment)
    # With a file, a status page may come later.
    services.begin(options.loaded, withPresence=bool(options.loader.file))
    if options.loader.file:
        reloader = Reloader(reactor, services, options.loader)
        reloader.setServiceParent(services)  # type: ignore[no-untyped-call]
    return services
