# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{ChangeStream}: the changes of a presence table, sent to many clients as server-sent events.

I{Problem.}  A hundred pages may be open while ten thousand peers go down in one second.  Neither
the pages nor a client that reads slowly may delay the reactor, and each client has to see each
change, also when its connection was cut in between.

I{Idea.}  Changes are collected for L{_COLLECT} seconds, and encoded once, as one event for all
clients.  The last events are kept.  A client has no buffer of its own but a cursor: the number of
the last change that it was sent.  As long as its connection takes data, it is sent what follows.

I{Ids.}  The id of an event is C{RUN.NUMBER}: the name of this process's run, and the event's last
change.  A client that comes back says the id that it saw last, and reads on from there.  A number
of another run counts only if that change was stored: without a store a client begins anew, and so
does one that was told a change that a crash has lost.

I{Invariants.}

  - All changes after C{_keptAfter} are among the kept events, or wait to be encoded.
  - A client whose cursor is before that reads from the table, one page after the other and one
    client at a time, until it has caught up.  What the table has no more is an event C{gap}.
  - A change may be sent twice, and is never left out without a C{gap}.

I{Limits.}  L{_PAGE} changes in one event and L{_COLLECT} seconds between two events bound the time
that a storm takes of the reactor.  Clients, kept bytes and waiting changes have limits, and a
client that takes no data for two heartbeats is cut off.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from secrets import token_hex
from time import time
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredLock, maybeDeferred, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from ..core.presence import Change, Gap, PeerPresence, firstNumberOf, numberOf
from ..logs import SafeLogger
from ..presence.hooks import PresenceHooks
from .encoding import encode, encodeChanges

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.web.http import Request

_log = SafeLogger()

_COLLECT = 0.1
"""Seconds between the first change and the event that tells it; and between two events."""

_PAGE = 400
"""Changes in one event."""

_MAX_WAITING = 20_000
"""Changes that may wait to be encoded.  Clients read what is beyond that from the table."""

_UNSEEN = 1000
"""Changes that are kept while there is no client."""

_HEARTBEAT = 10.0
"""Seconds between two heartbeats, by which client and server know that the other is there."""


class _Event:
    """
    An encoded event.

    @ivar last: the number of its last change.
    """

    __slots__ = ("data", "last")

    def __init__(self, last: int, data: bytes) -> None:
        self.last = last
        self.data = data


@implementer(IPushProducer)
class _Client:
    """
    One open stream.

    @ivar cursor: the number of the last change that it was sent.
    @ivar paused: whether its connection takes no data at present.
    @ivar isReading: whether changes are being read from the table for it.
    @ivar missed: heartbeats in a row at which it was paused.
    @ivar isForeign: whether its cursor is of another run, and not yet found in the table.
    """

    def __init__(
        self, stream: ChangeStream, request: Request, cursor: int, isForeign: bool = False
    ) -> None:
        self.request = request
        self.cursor = cursor
        self.isForeign = isForeign
        self.paused = self.isReading = False
        self.missed = 0
        self._stream = stream

    def send(self, event: _Event) -> None:
        """
        Send an event.
        """
        self.cursor = event.last
        self.request.write(event.data)

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        self.missed = 0
        self._stream.serve(self)

    def stopProducing(self) -> None:
        self._stream.remove(self)


class ChangeStream(PresenceHooks):
    """
    Sends the changes of a presence table to many clients.

    @ivar run: the name of this run, in the ids of events.
    """

    def __init__(
        self,
        presence: Any,
        clock: IReactorTime,
        *,
        maxClients: int,
        maxKept: int,
        now: Callable[[], float] = time,
    ) -> None:
        """
        @param presence: the L{PresenceTable<twisted_heartbeat.presence.table.PresenceTable>}.
        @param maxClients: streams at a time.
        @param maxKept: bytes of encoded events that are kept for clients that come back.
        @param now: tells the time in seconds since 1970.
        """
        self._presence = presence
        self._clock = clock
        self._maxClients = maxClients
        self._maxKept = maxKept
        self._now = now
        self.run = token_hex(4)
        # Known with the first change: until then the table may still have to load its store.
        self._kept: int | None = None
        self._waiting: deque[Change] = deque()
        self._events: deque[_Event] = deque()
        self._keptBytes = 0
        self._clients: dict[_Client, None] = {}
        self._collecting: IDelayedCall | None = None
        self._heartbeat: IDelayedCall | None = None
        # One page at a time, so that the clients that catch up together do not hold up the reactor.
        self._reading = DeferredLock()

    @property
    def isFull(self) -> bool:
        """
        Whether there is no room for one more client.
        """
        return len(self._clients) >= self._maxClients

    @property
    def transports(self) -> set[Any]:
        """
        The transports of the clients.
        """
        return {client.request.channel.transport for client in self._clients}

    def changed(self, change: Change) -> None:
        """
        Take a change of the table.
        """
        if self._kept is None:
            self._kept = change.number - 1
        self._waiting.append(change)
        if not self._clients:
            if len(self._waiting) > _UNSEEN:
                self._forget(self._waiting[0].number)
            return
        if len(self._waiting) > _MAX_WAITING:
            self._forget(change.number)
        self._collect()

    def missed(self, gap: Gap, peers: Sequence[PeerPresence]) -> None:
        """
        Changes were lost.  The clients learn of the gap when they read the table.
        """
        self._forget(gap.last)
        if self._clients:
            self._collect()

    def position(self, eventId: str) -> tuple[int, bool] | None:
        """
        Return the number up to which a client has seen the changes, and whether it is of another
        run.

        @param eventId: the id of the last event that it saw.
        @return: L{None} if the id says nothing about this table.
        """
        run, _, digits = eventId.rpartition(".")
        if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
            return None
        number, isForeign = int(digits), run != self.run
        highest = self._presence.latestRestored if isForeign else self._presence.latest
        return (number, isForeign) if number <= highest else None

    def add(self, request: Request, eventId: str | None) -> None:
        """
        Send a client all changes after an event, and those to come.

        @param eventId: L{None} for only those to come.
        """
        latest = self._presence.latest
        position = (latest, False) if eventId is None else self.position(eventId)
        client = _Client(self, request, *(position or (latest, False)))
        if not self._clients and self._waiting and self._waiting[0].number <= client.cursor:
            # Otherwise they would be sent in one event with those that it has not seen.
            self._forget(client.cursor)
        self._clients[client] = None
        request.registerProducer(client, True)
        request.notifyFinish().addErrback(lambda _: self.remove(client))
        request.write(b"retry: 2000\n\n" + self._time())
        if position is None:
            client.send(self._gap(0, latest))
        if self._heartbeat is None:
            self._heartbeat = self._clock.callLater(_HEARTBEAT, self._beat)
        if self._waiting:
            self._collect()
        self.serve(client)

    def remove(self, client: _Client) -> None:
        """
        Forget a client whose connection has ended.
        """
        self._clients.pop(client, None)
        if not self._clients:
            self._stopTimers()

    def close(self) -> None:
        """
        End all streams.
        """
        clients, self._clients = self._clients, {}
        self._stopTimers()
        for client in clients:
            client.request.unregisterProducer()
            client.request.finish()

    @property
    def _keptAfter(self) -> int:
        latest: int = self._presence.latest
        return latest if self._kept is None else self._kept

    def serve(self, client: _Client) -> None:
        """
        Send a client what follows its cursor, as far as its connection takes it.
        """
        if client.isReading or client.paused:
            return
        if client.cursor < self._keptAfter or client.isForeign:
            self._catchUp(client)
            return
        # From the end, because most clients have seen all but the last.
        following = []
        for event in reversed(self._events):
            if event.last <= client.cursor:
                break
            following.append(event)
        for event in reversed(following):
            if client.paused or client not in self._clients:
                return
            client.send(event)

    # Collecting.

    def _collect(self) -> None:
        if self._collecting is None:
            self._collecting = self._clock.callLater(_COLLECT, self._encodeWaiting)

    def _encodeWaiting(self) -> None:
        self._collecting = None
        waiting = self._waiting
        page = [waiting.popleft() for _ in range(min(len(waiting), _PAGE))]
        if page:
            self._keep(self._event(page))
        if waiting:
            self._collect()
        for client in list(self._clients):
            self.serve(client)

    def _keep(self, event: _Event) -> None:
        self._events.append(event)
        self._keptBytes += len(event.data)
        while self._keptBytes > self._maxKept and len(self._events) > 1:
            oldest = self._events.popleft()
            self._keptBytes -= len(oldest.data)
            self._kept = oldest.last

    def _forget(self, last: int) -> None:
        """
        Keep neither an event nor a waiting change up to a number.  Clients that miss them read
        them from the table.
        """
        self._kept = last
        self._events.clear()
        self._keptBytes = 0
        while self._waiting and self._waiting[0].number <= last:
            self._waiting.popleft()

    # Catching up.

    def _catchUp(self, client: _Client) -> None:
        client.isReading = True
        self._reading.run(self._readPage, client).addErrback(partial(self._readFailed, client))

    def _readPage(self, client: _Client) -> Deferred[None]:
        if client not in self._clients:
            client.isReading = False
            return succeed(None)
        reading: Deferred[Sequence[Change | Gap]]
        since = max(0, client.cursor - client.isForeign)
        reading = maybeDeferred(self._presence.changes, since, _PAGE)
        return reading.addCallback(partial(self._pageRead, client))

    def _pageRead(self, client: _Client, page: Sequence[Change | Gap]) -> None:
        client.isReading = False
        if client not in self._clients:
            return
        if client.isForeign:
            client.isForeign = False
            if client.cursor and not (page and numberOf(page[0]) == client.cursor):
                # It was told a change that was not stored before a crash.
                client.send(self._gap(0, self._presence.latest))
                self.serve(client)
                return
            page = page[1:] if client.cursor else page
        # What follows is among the kept events, and would be told once more.
        missed = [each for each in page if firstNumberOf(each) <= self._keptAfter]
        for event in self._eventsOf(missed):
            client.send(event)
        if not missed and client.cursor < self._keptAfter:
            # The numbers up to here were never used.
            client.cursor = self._keptAfter
        self.serve(client)

    def _readFailed(self, client: _Client, failure: Failure) -> None:
        _log.failure("The status page could not read the changes", failure)
        client.isReading = client.isForeign = False
        if client in self._clients:
            client.send(self._gap(client.cursor + 1, self._keptAfter))
            self.serve(client)

    def _eventsOf(self, page: Sequence[Change | Gap]) -> list[_Event]:
        events: list[_Event] = []
        changes: list[Change] = []
        for each in page:
            if isinstance(each, Gap):
                events += [self._event(changes)] if changes else []
                changes = []
                events.append(self._gap(each.first, each.last))
            else:
                changes.append(each)
        return events + ([self._event(changes)] if changes else [])

    # Events.

    def _event(self, changes: Sequence[Change]) -> _Event:
        data = encodeChanges(changes, self._presence.peers)
        return self._encoded("changes", changes[-1].number, data)

    def _gap(self, first: int, last: int) -> _Event:
        return self._encoded("gap", last, encode({"first": first, "last": last}))

    def _encoded(self, kind: str, last: int, data: bytes) -> _Event:
        head = f"id: {self.run}.{last}\nevent: {kind}\ndata: ".encode("ascii")
        return _Event(last, head + data + b"\n\n")

    def _time(self) -> bytes:
        """
        Return a heartbeat: a comment, and this machine's time, because a page sees no comments.
        """
        return b": heartbeat\nevent: time\ndata: " + encode({"at": round(self._now(), 3)}) + b"\n\n"

    def _beat(self) -> None:
        self._heartbeat = self._clock.callLater(_HEARTBEAT, self._beat)
        beat = self._time()
        for client in list(self._clients):
            if not client.paused:
                client.request.write(beat)
                continue
            client.missed += 1
            if client.missed >= 2:
                self._cutOff(client)

    def _cutOff(self, client: _Client) -> None:
        self.remove(client)
        # A polite close would wait until the client has read all that is buffered.
        transport: Any = client.request.channel.transport
        getattr(transport, "abortConnection", transport.loseConnection)()

    def _stopTimers(self) -> None:
        calls = (self._collecting, self._heartbeat)
        self._collecting = self._heartbeat = None
        for call in calls:
            if call is not None and call.active():
                call.cancel()
