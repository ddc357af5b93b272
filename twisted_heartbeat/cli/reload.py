# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Reloader}: reads the file again on SIGHUP.

A signal handler runs between two instructions of the main thread, also in the middle of a change
to the data of a link.  Therefore it only asks the reactor to call L{Reloader.reload}.

The new file is checked whole.  If it is wrong, nothing changes.  Otherwise L{diff} says what has to
be done, and a part that is the same in both files is not touched, but for its certificates.
"""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure

from ..logs import SafeLogger
from .config.faults import ConfigError, keyName
from .config.plan import diff

if TYPE_CHECKING:
    from .config.loader import Loader
    from .config.plan import Plan
    from .service import HeartbeatServices

_log = SafeLogger()


class Reloader(Service):
    """
    Reads the file again on SIGHUP, while the service runs.

    The handler is not installed where SIGHUP was ignored, as nohup(1) starts a process, and not
    where there is no such signal (Windows).
    """

    def __init__(self, reactor: Any, services: HeartbeatServices, loader: Loader) -> None:
        self._reactor = reactor
        self._services = services
        self._loader = loader
        self._previous: Any = None
        self._installed = False
        self._hasBegun = False
        self._isEnding = False
        self._pending: Deferred[Any] | None = None
        self._again = False

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        # Not before the reactor runs, because it installs its own handlers when it begins to.
        self._reactor.callWhenRunning(self._install)
        self._reactor.addSystemEventTrigger("before", "shutdown", self._shutDown)

    def _shutDown(self) -> None:
        self._isEnding = True

    def begin(self) -> None:
        """
        Read the file from now on, and at once if a signal came already.  To be called when all
        ports have opened: at the end of a reload systemd is told that this process is ready.
        """
        self._hasBegun = True
        if self._again:
            self._again = False
            self.reload()

    def restore(self) -> None:
        """
        Put the previous handler back, unless the process ends: usually that handler would end it at
        once.  To be called when all services have stopped.
        """
        if self._installed and not self._isEnding:
            self._installed = False
            signal.signal(signal.SIGHUP, self._previous)

    def _install(self) -> None:
        if not self.running or not hasattr(signal, "SIGHUP"):
            return
        self._previous = signal.getsignal(signal.SIGHUP)
        if self._previous in (signal.SIG_IGN, None):
            _log.info("SIGHUP is ignored, and so the file is not read again")
            return
        try:
            signal.signal(signal.SIGHUP, self._signalled)
        except ValueError as error:
            _log.warn("SIGHUP does not read the file again: {error}", error=error)
        else:
            self._installed = True

    def _signalled(self, number: int, frame: object) -> None:
        if self.running:
            self._reactor.callFromThread(self.reload)

    def reload(self) -> Deferred[Any]:
        """
        Read the file again, and do what it says.  While that is under way, a second call is made
        when it is done.  Before L{begin}, it is made then.

        @return: fires when it is done, or at once if it is put off.
        """
        if not self.running:
            return succeed(None)
        if self._pending is not None or not self._hasBegun:
            self._again = True
            return succeed(None)
        self._pending = pending = self._reload()
        return pending.addBoth(self._done)

    def _done(self, _: object) -> Deferred[Any] | None:
        self._pending = None
        again, self._again = self._again, False
        return self.reload() if again else None

    def _reload(self) -> Deferred[Any]:
        file, services = self._loader.file, self._services
        if services.notifier is not None:
            services.notifier.reloading()
        try:
            loaded = self._loader.load(services.objects)
        except ConfigError as error:
            for sentence in error.sentences:
                _log.error("{sentence}", sentence=sentence)
            _log.error("{file} is wrong: nothing is changed", file=file)
            return succeed(error.sentences[0]).addCallback(self._tellDone)
        except BaseException:
            # Code of the application runs here.  systemd waits to be told that the reload is done.
            _log.failure("{file} could not be read again: nothing is changed", file=file)
            return succeed("the log says why").addCallback(self._tellDone)
        for sentence in loaded.stale:
            _log.error("The old certificate stays in use: {sentence}", sentence=sentence)
        plan = diff(services.config, loaded.config)
        self._tellPlan(plan)
        applying = maybeDeferred(services.apply, plan, loaded)
        applying.addCallbacks(partial(self._applied, plan), self._failed)
        return applying.addCallback(self._tellDone)

    def _applied(self, plan: Plan, fault: str) -> str:
        _log.info("{file} was read again: {plan}", file=self._loader.file, plan=plan.summary)
        return fault

    def _failed(self, failure: Failure) -> str:
        _log.failure("The reload failed", failure)
        return "the log says why"

    def _tellDone(self, fault: str) -> None:
        if self._services.notifier is not None and self.running:
            self._services.notifier.reloaded(fault)

    def _tellPlan(self, plan: Plan) -> None:
        changed = [(change.new.label, change.fields) for change in plan.change]
        if plan.presence is not None:
            changed.append(("presence", plan.presenceFields))
        for label, fields in changed:
            _log.info("{part}: changed {names}", part=label, names=", ".join(map(keyName, fields)))
        if plan.checks is not None:
            _log.info("check: {count} watched from now on", count=len(plan.checks))
        for key in plan.restart:
            _log.warn("{key} needs a restart: the old value stays", key=key)
        for part in plan.start:
            _log.info("{part}: starts", part=part.label)
        for part in plan.stop:
            _log.info("{part}: stops", part=part.label)
