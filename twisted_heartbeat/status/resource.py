# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{StatusResource}: the status page, its data, its stream and its metrics, for C{twisted.web}.

It only reads: each answer is to C{GET} or C{HEAD}, and no request changes anything.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from ..core.presence import Change, Gap
from ..core.validation import isCount, require
from ..logs import SafeLogger
from ..timing.monotonic import clockFor
from ..timing.wheel import timerWheelFor
from .access import SECURITY_HEADERS, Access, hideQuery
from .assets import ASSETS, Asset
from .encoding import changeFields, encode, peerFields
from .roundtrips import RoundTrips
from .snapshot import Download, Snapshots
from .stream import ChangeStream

if TYPE_CHECKING:
    from twisted.web.server import Request

    from .metrics import HeartbeatMetrics

_log = SafeLogger()

_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"

_NO_METRICS = (
    "This status page was made without metrics. They need twisted_heartbeat[metrics] to be "
    "installed, and in a program of yours metrics=HeartbeatMetrics()."
)

_FOREIGN = (
    "This page was asked for by a name that is not this machine's. Ask by IP address or as "
    "localhost. Behind a proxy use a token, or list the name in hosts."
)

_NO_PEER = (
    "there is no peer of this name: a name is asked for as in /presence.json, such as tcp/sensor-17"
)

_NEWEST = 50
"""Changes that a new page shows at once."""

_HISTORY, _MAX_HISTORY = 200, 2000
"""Changes in the history of one peer: unless a request says otherwise, and at most."""

_READ_TIMEOUT = 2.0
"""Seconds that the store has to tell the newest changes, before the page is shown without them."""


class StatusResource(Resource):
    """
    Shows a presence table:

     - C{/}: the page.
     - C{/presence.json}: all peers and the newest changes; C{/presence/NAME.json}: one peer.
     - C{/events}: the changes as server-sent events.
     - C{/metrics}: for Prometheus.
     - C{/healthz}, C{/readyz}: whether this process answers, and whether the table is ready.

    Give it to a C{Site}, alone or as the child of another resource.
    """

    isLeaf = True

    def __init__(
        self,
        presence: Any,
        *,
        token: str | None = None,
        metrics: HeartbeatMetrics | None = None,
        title: str = "Heartbeat",
        hosts: Collection[str] = (),
        maxStreams: int = 100,
        maxKept: int = 4 * 1024 * 1024,
        clock: Any = None,
    ) -> None:
        """
        @param presence: the L{PresenceTable<twisted_heartbeat.presence.table.PresenceTable>}.
        @param token: what a request has to show; L{None} for nothing.  C{/healthz} and C{/readyz}
            answer without it.
        @param metrics: what C{/metrics} shows; L{None} for no metrics.
        @param title: the heading of the page.
        @param hosts: names of this machine, see L{Access}.
        @param maxStreams: how many C{/events} may be open at a time.
        @param maxKept: bytes of the newest events that are kept for streams that come back.
        @param clock: a reactor or a clock; the global reactor if L{None}.
        @raise ValueError: if a value is not allowed.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        for field, value in (("maxStreams", maxStreams), ("maxKept", maxKept)):
            require(isCount(value), self, field, value, "a whole number, 1 or more")
        self._presence = presence
        self._access = Access(token, hosts)
        self._metrics = metrics
        self._title = title
        self._clock = clockFor(clock)
        self._stream = ChangeStream(presence, self._clock, maxClients=maxStreams, maxKept=maxKept)
        self._snapshots = Snapshots(presence, self._clock)
        self._roundTrips = RoundTrips(presence, self._clock)
        if metrics is not None:
            metrics.watchPresence(presence)
            metrics.watchWheel(timerWheelFor(self._clock))
        presence.addHook(self._stream)

    def close(self) -> None:
        """
        End all streams, and leave the table.
        """
        self._presence.removeHook(self._stream)
        self._stream.close()
        self._roundTrips.stop()

    @property
    def streams(self) -> set[Any]:
        """
        The transports of the open streams.
        """
        return self._stream.transports

    def render(self, request: Request) -> Any:
        answer = self._render(request)
        if request.method == b"HEAD" and answer and isinstance(answer, bytes):
            # Twisted would drop the body as well, and log two lines about it each time.
            request.setHeader(b"Content-Length", b"%d" % len(answer))
            return b""
        return answer

    def _render(self, request: Request) -> Any:
        for name, value in SECURITY_HEADERS.items():
            request.setHeader(name, value)
        request.setHeader(b"Cache-Control", b"no-store")
        hideQuery(request)
        if request.method not in (b"GET", b"HEAD"):
            request.setHeader(b"Allow", b"GET, HEAD")
            return _text(request, 405, "Only GET and HEAD are allowed here.")
        path = request.postpath
        if path in ([b"healthz"], [b"readyz"]):
            return self._renderProbe(request, path[0])
        if self._access.isForeignHost(request):
            return _text(request, 421, _FOREIGN)
        if not path:
            # The page's own links are relative to a folder.
            return _redirect(request, request.path.rpartition(b"/")[2] + b"/")
        if path == [b""] and self._access.login(request):
            return _redirect(request, b"./")
        if not self._access.isGranted(request):
            request.setHeader(b"WWW-Authenticate", b"Bearer")
            words = "A token is needed: open the page once with ?token=TOKEN at its end, or send"
            return _text(request, 401, f"{words} Authorization: Bearer TOKEN.")
        return self._renderGranted(request, path)

    def _renderGranted(self, request: Request, path: list[bytes]) -> Any:
        if len(path) == 1:
            asset = ASSETS.get(path[0])
            if asset is not None:
                return _renderAsset(request, asset)
            render = {
                b"presence.json": self._renderPresence,
                b"events": self._renderEvents,
                b"metrics": self._renderMetrics,
            }.get(path[0])
            if render is not None:
                return render(request)
        if path[0] == b"presence" and path[-1].endswith(b".json"):
            # A name may hold slashes, escaped or not.
            name = b"/".join(path[1:]).removesuffix(b".json")
            return self._renderPeer(request, name)
        return _text(request, 404, "There is nothing here.")

    def _renderProbe(self, request: Request, which: bytes) -> bytes:
        if which == b"readyz" and not self._presence.isLoaded:
            return _text(request, 503, "not ready: the presence table is not loaded")
        return _text(request, 200, "ok")

    # The data.

    def _renderPresence(self, request: Request) -> Any:
        if not self._presence.isLoaded:
            return _unavailable(request, "the presence table is not loaded")
        request.setHeader(b"Content-Type", _JSON)
        self._roundTrips.keepSampling()
        if request.method == b"HEAD":
            return b""
        since = max(0, self._presence.latest - _NEWEST)
        reading = maybeDeferred(self._presence.changes, since, _NEWEST)
        # A slow store must not keep the page from being shown.
        reading.addTimeout(_READ_TIMEOUT, self._clock)
        reading.addErrback(_nothingRead)
        reading.addCallback(partial(self._sendSnapshot, request))
        return _answerLater(request, reading)

    def _sendSnapshot(self, request: Request, newest: Sequence[Change | Gap]) -> None:
        snapshot = self._snapshots.take()
        head = {
            "title": self._title,
            "at": round(time(), 3),
            "id": f"{self._stream.run}.{snapshot.latest}",
            "counts": snapshot.counts,
            "changes": [changeFields(each) for each in _changesIn(newest)],
        }
        Download(request, head, snapshot, self._clock).start()

    def _renderPeer(self, request: Request, name: bytes) -> Any:
        try:
            peer = self._presence.peer(name.decode("utf-8"))
        except UnicodeDecodeError:
            peer = None
        if peer is None:
            return _json(request, 404, {"error": _NO_PEER})
        limit = min(_argument(request, b"limit", _HISTORY), _MAX_HISTORY)
        reading: Deferred[Any] = Deferred.fromCoroutine(self._readHistory(peer.name, limit))
        reading.addCallbacks(
            partial(self._sendPeer, request, peer.name), partial(_storeFailed, request)
        )
        return _answerLater(request, reading)

    async def _readHistory(self, name: str, limit: int) -> tuple[list[Change], float | None]:
        """
        Read the changes of a peer.

        @return: with them, since when no other change is missing; L{None} if that is not known.
        """
        history = _changesIn(await self._presence.history(name, limit))
        if len(history) == limit:
            return history, history[0].at
        # A gap may come before the oldest change.
        oldest = _changesIn(await self._presence.changes(0, 2))
        return history, oldest[0].at if oldest else None

    def _sendPeer(
        self, request: Request, name: str, known: tuple[list[Change], float | None]
    ) -> None:
        history, knownFrom = known
        # Once more, because the store may have taken its time.
        peer = self._presence.peer(name)
        fields = {
            "at": round(time(), 3),
            "peer": None if peer is None else peerFields(peer),
            "history": [changeFields(each) for each in history],
            "knownFrom": None if knownFrom is None else round(knownFrom, 3),
            "roundTrips": self._roundTrips.of(name),
        }
        request.write(_json(request, 200, fields))
        request.finish()

    def _renderEvents(self, request: Request) -> Any:
        if not self._presence.isLoaded:
            return _unavailable(request, "the presence table is not loaded")
        if self._stream.isFull:
            return _unavailable(request, "as many streams are open as may be")
        request.setHeader(b"Content-Type", b"text/event-stream")
        # nginx would otherwise hold the events back until its buffer is full.
        request.setHeader(b"X-Accel-Buffering", b"no")
        if request.method == b"HEAD":
            return b""
        seen = request.getHeader(b"last-event-id") or (request.args or {}).get(b"since", [b""])[0]
        self._stream.add(request, seen.decode("ascii", "replace") or None)
        return NOT_DONE_YET

    def _renderMetrics(self, request: Request) -> bytes:
        if self._metrics is None:
            return _text(request, 404, _NO_METRICS)
        request.setHeader(b"Content-Type", self._metrics.contentType.encode("ascii"))
        return self._metrics.render()


def _renderAsset(request: Request, asset: Asset) -> bytes:
    request.setHeader(b"Content-Type", asset.contentType)
    request.setHeader(b"Cache-Control", b"no-cache")
    if request.setETag(asset.tag):
        # The browser has it.
        return b""
    return asset.data


def _argument(request: Request, name: bytes, default: int) -> int:
    text = (request.args or {}).get(name, [b""])[0]
    isNumber = text.isdigit() and len(text) <= 9
    return max(1, int(text)) if isNumber else default


def _answerLater(request: Request, answering: Deferred[None]) -> int:
    """
    Let a request wait for its answer, and stop that if the client goes away before.
    """

    def failed(failure: Failure) -> None:
        _log.failure("The status page could not answer {path}", failure, path=request.path)

    def goneAway(_: Failure) -> None:
        isOpen.clear()
        answering.cancel()

    isOpen = [request]
    request.notifyFinish().addErrback(goneAway)
    answering.addErrback(lambda failure: failed(failure) if isOpen else None)
    return NOT_DONE_YET


def _changesIn(read: Sequence[Change | Gap]) -> list[Change]:
    return [each for each in read if isinstance(each, Change)]


def _nothingRead(failure: Failure) -> list[Change | Gap]:
    """
    Go on without the newest changes, unless the client has gone.
    """
    if failure.check(CancelledError):
        failure.raiseException()
    return []


def _storeFailed(request: Request, failure: Failure) -> None:
    if failure.check(CancelledError):
        # The client has gone.
        failure.raiseException()
    _log.failure("The status page could not read a history", failure)
    request.write(_json(request, 503, {"error": "the store does not answer"}))
    request.finish()


def _unavailable(request: Request, words: str) -> bytes:
    request.setHeader(b"Retry-After", b"5")
    return _json(request, 503, {"error": words})


def _redirect(request: Request, to: bytes) -> bytes:
    request.redirect(to)
    request.setResponseCode(303)
    return b""


def _json(request: Request, status: int, fields: object) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", _JSON)
    return encode(fields)


def _text(request: Request, status: int, words: str) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"Content-Type", _TEXT)
    return f"{words}\n".encode()
