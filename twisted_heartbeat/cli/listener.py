# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Listener}: one port, and the factory behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure

from ..core.diagnosis import describeError
from ..logs import SafeLogger
from .exitstatus import EX_OSERR

if TYPE_CHECKING:
    from ..checkin.site import CheckInSite
    from ..server.factory import HeartbeatServerFactory
    from ..status.site import StatusSite

_log = SafeLogger()


class Listener(Service):
    """
    Listens on one endpoint.  If that fails, it logs one sentence and ends the process.

    @ivar failure: why it does not listen; L{None} if it does.

    Twisted's C{StreamServerEndpointService} raises an immediate error, but only logs a later one
    and runs on without a port.  It also leaves the links open when it stops.
    """

    def __init__(
        self,
        description: str,
        endpoint: Any,
        factory: HeartbeatServerFactory | CheckInSite | StatusSite,
        end: Callable[[int], None],
        *,
        daemon: bool = False,
    ) -> None:
        """
        @param description: the endpoint's text; the C{link} of the log.
        @param end: ends the process; takes an exit status.
        @param daemon: whether twistd will report the result of the start to a shell.
        """
        self._description = description
        self._endpoint = endpoint
        self._factory = factory
        self._end = end
        self._daemon = daemon
        self._opening: Deferred[Any] | None = None
        self._opened: Deferred[None] = Deferred()
        self._closed: Deferred[None] = succeed(None)
        self.failure: Failure | None = None

    def whenOpen(self) -> Deferred[None]:
        """
        Wait for the port.

        @return: fires when it is open, or has failed.
        """
        return _after(self._opened)

    def whenClosed(self) -> Deferred[None]:
        """
        Wait until the port is closed, after L{stopService}; the links may still be draining.
        """
        return _after(self._closed)

    def privilegedStartService(self) -> None:
        """
        Listen, with the privileges that twistd drops after this call.

        @raise Exception: in a daemon, the endpoint's own failure.  Only then the shell gets a
            status other than 0, and the message.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._open()
        if self._daemon and self.failure is not None:
            self.failure.raiseException()

    def startService(self) -> None:
        """
        Listen, unless L{privilegedStartService} has done so.
        """
        super().startService()  # type: ignore[no-untyped-call]
        if self._opening is None:
            self._open()

    def stopService(self) -> Deferred[Any]:
        """
        Close the port, then drain the factory.

        @return: fires when no link is left, within C{Limits.closeTimeout}.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        opening, self._opening = self._opening, None
        if opening is None:
            return self._factory.drain()
        opening.cancel()
        closed: Deferred[None] = Deferred()
        self._closed = closed
        opening.addCallback(lambda port: None if port is None else port.stopListening())
        opening.addBoth(_firing, closed)
        return opening.addCallback(lambda _: self._factory.drain())

    def _open(self) -> None:
        self._opening = maybeDeferred(self._endpoint.listen, self._factory)
        self._opening.addErrback(self._failed)
        self._opening.addBoth(_firing, self._opened)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        assert failure.value is not None
        self.failure = failure
        # Critical, because such events also go to stderr while no log has been started.
        _log.critical(
            "Could not listen at {link}: {reason}",
            link=self._description,
            reason=describeError(failure.value),
        )
        self._end(EX_OSERR)


def _firing(result: Any, waiter: Deferred[None]) -> Any:
    if not waiter.called:
        waiter.callback(None)
    return result


def _after(event: Deferred[None]) -> Deferred[None]:
    """
    Return a Deferred of the caller's own, which fires with an event.
    """
    own: Deferred[None] = Deferred()
    event.addCallback(lambda _: own.callback(None))
    return own
