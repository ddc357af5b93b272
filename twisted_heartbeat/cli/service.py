# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The services behind C{twist heartbeat}: L{Listener} and L{Watch}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from ..client.service import HeartbeatClientService
from ..core.diagnosis import describeError
from ..core.text import printable
from ..logs import SafeLogger
from ..protocol.heartbeat import HeartbeatProtocol
from ..server.factory import HeartbeatServerFactory
from .exitstatus import EX_OSERR, EX_UNAVAILABLE, _GiveUp, exitWith

if TYPE_CHECKING:
    from ..core import wire
    from .options import Options, Place

_log = SafeLogger()


class NamedProtocol(HeartbeatProtocol):
    """
    Logs what the other side calls itself.

    @ivar words: the endpoint's, for the log.
    """

    words = ""

    def helloReceived(self, hello: wire.Hello) -> None:
        if hello.name and self.link is not None:
            _log.info(
                "{link}: the peer of generation {generation} calls itself {name!r}",
                link=self.words,
                generation=self.link.generation,
                name=printable(hello.name),
            )


class NamedFactory(Factory):
    """
    Makes speakers that have a name.
    """

    noisy = False
    protocol = NamedProtocol

    def __init__(self, name: str, words: str) -> None:
        self._name = name
        self._words = words

    def logPrefix(self) -> str:
        return self._words

    def buildProtocol(self, addr: Any) -> NamedProtocol:
        speaker = NamedProtocol()
        speaker.factory = self
        speaker.name = self._name
        speaker.words = self._words
        return speaker


class Listener(Service):
    """
    Listens at one place.  Where it can not, that is one sentence in the log, and the end.

    Twisted's C{StreamServerEndpointService} raises the error, or logs it and runs on without a
    port, by whether it comes at once; and leaves the links open when it stops.
    """

    def __init__(
        self,
        place: Place,
        factory: HeartbeatServerFactory,
        end: Callable[[int], None],
        *,
        daemon: bool = False,
    ) -> None:
        """
        @param end: takes an exit status, and ends the process.
        @param daemon: whether twistd is about to tell a shell how the start went.
        """
        self._place = place
        self._factory = factory
        self._end = end
        self._daemon = daemon
        self._opening: Deferred[Any] | None = None
        self._failure: Failure | None = None

    def privilegedStartService(self) -> None:
        """
        Listen, with the privileges that twistd gives up after this.

        @raise Exception: in a daemon, whatever the endpoint failed with; the shell gets its status
            and its message, where any other way out were status 0.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._open()
        if self._daemon and self._failure is not None:
            self._failure.raiseException()

    def startService(self) -> None:
        """
        Listen, unless that is done already.
        """
        super().startService()  # type: ignore[no-untyped-call]
        if self._opening is None:
            self._open()

    def stopService(self) -> Deferred[Any]:
        """
        Close the port, and then drain the factory of its links.

        @return: fires when nothing is left, within C{Limits.closeTimeout}.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        opening, self._opening = self._opening, None
        if opening is None:
            return self._factory.drain()
        opening.cancel()
        opening.addCallback(lambda port: None if port is None else port.stopListening())
        return opening.addCallback(lambda _: self._factory.drain())

    def _open(self) -> None:
        self._opening = maybeDeferred(self._place.endpoint.listen, self._factory)
        self._opening.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        assert failure.value is not None
        self._failure = failure
        # Critical, so that it is seen on stderr as well where the log has not begun.
        _log.critical(
            "Could not listen at {link}: {reason}",
            link=self._place.words,
            reason=describeError(failure.value),
        )
        self._end(EX_OSERR)


class Watch(MultiService):
    """
    All that one command line asks for.  It ends the process when none of that can be done.
    """

    def __init__(self, reactor: Any, *, daemon: bool = False) -> None:
        """
        @param daemon: as for L{Listener}.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._reactor = reactor
        self._daemon = daemon
        self._listens = False
        self._trying = 0
        self._ended = False

    def listen(self, place: Place, factory: HeartbeatServerFactory) -> None:
        """
        Watch whoever connects there.
        """
        self._listens = True
        listener = Listener(place, factory, self.end, daemon=self._daemon)
        listener.setServiceParent(self)  # type: ignore[no-untyped-call]

    def connect(self, service: HeartbeatClientService) -> None:
        """
        Have a link kept up.
        """
        self._trying += 1
        service.setServiceParent(self)  # type: ignore[no-untyped-call]

    def oneGaveUp(self) -> None:
        """
        A link is not tried any more.
        """
        self._trying -= 1
        if not self._trying and not self._listens:
            _log.critical("Every --connect has given up and there is no --listen: exiting")
            self.end(EX_UNAVAILABLE)

    def end(self, status: int) -> None:
        """
        Stop the reactor, and exit with this status.
        """
        if not self._ended:
            self._ended = True
            self._reactor.addSystemEventTrigger("after", "shutdown", exitWith, status)
            self._reactor.callWhenRunning(self._stopReactor)

    def _stopReactor(self) -> None:
        # A signal may have stopped it already.
        with suppress(ReactorNotRunning):
            self._reactor.stop()


def makeService(options: Options) -> Watch:
    """
    The service for a command line.
    """
    reactor = options.reactor
    runner: Mapping[str, Any] = options.parent or {}
    watch = Watch(reactor, daemon=not runner.get("nodaemon", True))
    settings = {"heartbeat": options["heartbeat"], "keepAlive": options["keepAlive"]}
    for place in options["listen"]:
        speakers = NamedFactory(options["name"], place.words)
        factory = HeartbeatServerFactory(speakers, clock=reactor, name=place.words, **settings)
        watch.listen(place, factory)
    for place in options["connect"]:
        client = HeartbeatClientService(
            place.endpoint,
            NamedFactory(options["name"], place.words),
            options["backoff"],
            reactor,
            hooks=_GiveUp(watch),
            name=place.words,
            **settings,
        )
        watch.connect(client)
    return watch
