# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{AttemptRound}: tries several endpoints, one after the other, in one round (RFC 8305).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IDelayedCall, IProtocolFactory, IStreamClientEndpoint
from twisted.python.failure import Failure

from ..core.causes import ClosedHere, RetryPace
from ..timing.deadline import cancelCalls
from .attempt import AttemptOwner, EndpointAttempt, failureOf
from .preparation import Preparation

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..link.link import Link
    from .preparation import PrepareConnection


ANSWER_WITHIN = 1.0
"""
Seconds without an answer after which another endpoint is tried beside the first, as the connection
attempt delay of RFC 8305.  C{reconnectNow} replaces an attempt that is older than this.
"""


class AttemptRound:
    """
    One try of each of several endpoints.  The first link that is prepared wins.

    The first endpoint is tried at once.  The next is tried when one has failed, or has not led to a
    prepared link within L{ANSWER_WITHIN}.  When one has won, the others are cancelled, and their
    links closed.  If the winner's link then ends and has proven nothing, another round L{goes
    on<winnerFailed>} with the endpoints that have not failed.  The round fails when all endpoints
    have failed, or one of them for good (L{PermanentFailure}).  Its cause is the one that is
    retried soonest; of several, that of the endpoint that was tried first.
    """

    def __init__(
        self,
        owner: AttemptOwner,
        prepareConnection: PrepareConnection | None,
        over: Callable[[AttemptRound], None],
    ) -> None:
        """
        @param over: called after the round has led to a link, once nothing is left of the other
            candidates.
        """
        self.owner = owner
        self.prepareConnection = prepareConnection
        self._callOver = over
        self._untried: deque[Candidate] = deque()
        self._running: list[Candidate] = []
        self._left: list[Candidate] = []
        self._failures: list[tuple[int, Cause, Failure]] = []
        self._cancelled = self._ended = False
        self._timer: IDelayedCall | None = None
        self.winner: Candidate | None = None

    def add(self, endpoints: Iterable[IStreamClientEndpoint], factory: IProtocolFactory) -> None:
        """
        Add the endpoints to try, before the round begins.
        """
        self._untried.extend(
            Candidate(self, position, endpoint, factory)
            for position, endpoint in enumerate(endpoints)
        )

    def begin(self) -> None:
        self._tryNext()

    def cancel(self, cause: Cause) -> None:
        """
        Cancel the round.  C{attemptFailed} follows when nothing is left of it.
        """
        if self.winner is None and not self._cancelled:
            self._failures = [(0, cause, failureOf(cause))]
            self._cancelOthers(cause)

    def prepared(self, candidate: Candidate, link: Link) -> None:
        """
        Handle that a candidate's link is prepared: the candidate wins.
        """
        self.winner = candidate
        self._running.remove(candidate)
        self._left = [*self._running, *self._untried]
        self._cancelOthers(ClosedHere("the link to another endpoint was prepared first"))
        self.owner.attemptConnected(link)

    def failed(self, candidate: Candidate, cause: Cause, failure: Failure) -> None:
        """
        Handle that a candidate has failed, and nothing is left of it.
        """
        self._running.remove(candidate)
        if self._cancelled:
            self._endWhenComplete()
        elif cause.pace is RetryPace.NEVER:
            self._failures = [(candidate.position, cause, failure)]
            self._cancelOthers(cause)
            self._endWhenComplete()
        else:
            self._failures.append((candidate.position, cause, failure))
            self._tryNext()

    def winnerFailed(self, cause: Cause) -> AttemptRound | None:
        """
        Handle that the winner's link has ended, and has proven nothing.

        @return: a round of the endpoints that are left; L{None} if this round has failed.
        """
        winner, left = self.winner, self._left
        assert winner is not None
        self._failures.append((winner.position, cause, failureOf(cause)))
        if not left or cause.pace is RetryPace.NEVER:
            return None
        rest = AttemptRound(self.owner, self.prepareConnection, self._callOver)
        rest._untried.extend(candidate.forRound(rest) for candidate in left)
        rest._failures.extend(self._failures)
        return rest

    @property
    def failure(self) -> tuple[Cause, Failure]:
        """
        Why the round has failed.
        """
        _, cause, failure = min(self._failures, key=_soonestFirst)
        return cause, failure

    @property
    def losersLeft(self) -> bool:
        """
        Whether the cancellation of a candidate that has not won is still under way.
        """
        return bool(self._running)

    def _tryNext(self) -> None:
        self._cancelTimer()
        if not self._untried:
            self._endWhenComplete()
            return
        candidate = self._untried.popleft()
        self._running.append(candidate)
        if self._untried:
            self._timer = self.owner.config.clock.callLater(ANSWER_WITHIN, self._unanswered)
        candidate.begin()

    def _unanswered(self) -> None:
        self._timer = None
        self._tryNext()

    def _cancelOthers(self, cause: Cause) -> None:
        self._cancelled = True
        self._cancelTimer()
        self._untried.clear()
        for candidate in list(self._running):
            candidate.cancel(cause)

    def _endWhenComplete(self) -> None:
        if self._running or self._ended:
            return
        self._ended = True
        if self.winner is not None:
            self._callOver(self)
        else:
            self.owner.attemptFailed(*self.failure)

    def _cancelTimer(self) -> None:
        cancelCalls(self._timer)
        self._timer = None


def _soonestFirst(failed: tuple[int, Cause, Failure]) -> tuple[bool, bool, int]:
    position, cause, _ = failed
    forGood = cause.pace is RetryPace.NEVER
    return not forGood, cause.pace is not RetryPace.NORMAL, position


class Candidate(AttemptOwner):
    """
    One endpoint in a round: its attempt, and the preparation of its link.

    @ivar position: its place in the order of the round, from 0 on.
    """

    def __init__(
        self,
        round: AttemptRound,
        position: int,
        endpoint: IStreamClientEndpoint,
        factory: IProtocolFactory,
    ) -> None:
        self.position = position
        self.config = round.owner.config
        self._round = round
        self._endpoint = endpoint
        self._factory = factory
        self._attempt = EndpointAttempt(self)
        self._preparation: Preparation | None = None
        self._link: Link | None = None

    def forRound(self, round: AttemptRound) -> Candidate:
        """
        Return a candidate for the same endpoint, in another round.
        """
        return Candidate(round, self.position, self._endpoint, self._factory)

    def begin(self) -> None:
        self._attempt.begin(self._endpoint, self._factory)

    def cancel(self, cause: Cause) -> None:
        """
        Cancel the attempt, or close its link; L{AttemptRound.failed} follows.
        """
        if self._link is None:
            self._attempt.cancel(cause)
        else:
            self._cancelPreparation()
            self._link.close(cause)

    def attemptConnected(self, link: Link) -> None:
        self._link = link
        prepareConnection = self._round.prepareConnection
        if prepareConnection is None:
            self._prepared()
            return
        self._preparation = Preparation(self.config, self._prepared, link.abort)
        self._preparation.begin(prepareConnection, link.outermost)

    def attemptFailed(self, cause: Cause, failure: Failure) -> None:
        self._round.failed(self, cause, failure)

    def linkLost(self, link: Link, cause: Cause) -> None:
        if self._round.winner is self:
            self._round.owner.linkLost(link, cause)
            return
        self._cancelPreparation()
        link.teardown.cleanUp()
        link.whenGone().addCallback(lambda _: self._round.failed(self, cause, failureOf(cause)))

    def _prepared(self) -> None:
        # A link that is being closed is lost in a moment.
        if self._link is not None and self._link.isUp:
            self._round.prepared(self, self._link)

    def _cancelPreparation(self) -> None:
        if self._preparation is not None:
            self._preparation.cancel()
