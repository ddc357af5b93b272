# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{twisted_heartbeat.core.commands} under any order of events, with a driver that only keeps
books.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from twisted_heartbeat.core import commands as orders
from twisted_heartbeat.core.causes import Cause, HostUnreachable, PeerClosed, PermanentFailure
from twisted_heartbeat.core.commands import Command
from twisted_heartbeat.core.reconnector import Reconnector, State

CAUSES = st.sampled_from([PeerClosed, HostUnreachable, PermanentFailure])
MOST_ATTEMPTS = 4


class Books(RuleBasedStateMachine):
    """
    A driver that carries nothing out: it notes what is to be answered, and the rules answer.

    @ivar open: the orders that wait for their answer, by kind.
    @ivar live: the links that are up.
    @ivar cleanups: how often each link was cleaned up.
    @ivar stops: what was asked to stop and has not stopped yet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.supervision = Reconnector(lambda failures, attempts, elapsed: attempts > MOST_ATTEMPTS)
        self.now = 0.0
        self.wanted = self.renewing = False
        self.open: set[str] = set()
        self.generation = 0
        self.live: set[int] = set()
        self.cleanups: dict[int, int] = {}
        self.stops = 0

    # The driver.

    def obey(self, given: list[Command]) -> None:
        for order in given:
            getattr(self, f"carry{type(order).__name__}")(order)

    def begin(self, what: str) -> None:
        assert what not in self.open, f"a second {what}"
        self.open.add(what)

    def carryAttempt(self, order: orders.Attempt) -> None:
        assert self.wanted, "an attempt after stop"
        assert not self.live and not self.open, f"an attempt beside {self.live or self.open}"
        assert order.number >= 1
        self.begin("attempt")

    def carryCancelAttempt(self, order: orders.CancelAttempt) -> None:
        assert "attempt" in self.open and (self.renewing or not self.wanted)

    def carryPrepare(self, order: orders.Prepare) -> None:
        assert self.live
        self.begin("prepare")

    def carryCancelPrepare(self, order: orders.CancelPrepare) -> None:
        self.open.remove("prepare")

    def carryAnnounce(self, order: orders.Announce) -> None:
        assert self.live and self.wanted

    def carryAbort(self, order: orders.Abort) -> None:
        assert self.live and self.wanted

    def carryClose(self, order: orders.Close) -> None:
        assert self.live

    def carryCleanUp(self, order: orders.CleanUp) -> None:
        assert not self.live, "cleanups while the link is up"
        self.cleanups[self.generation] = self.cleanups.get(self.generation, 0) + 1
        self.begin("cleanup")

    def carryReportFailure(self, order: orders.ReportFailure) -> None:
        assert self.wanted and not self.live

    def carryChooseDelay(self, order: orders.ChooseDelay) -> None:
        assert self.wanted and not self.live and order.attempt >= 1
        self.begin("choice")

    def carryWait(self, order: orders.Wait) -> None:
        assert self.wanted and not self.live and order.retry.elapsed >= 0
        self.begin("wait")

    def carryCancelWait(self, order: orders.CancelWait) -> None:
        self.open.remove("wait")

    def carryGiveUp(self, order: orders.GiveUp) -> None:
        assert self.wanted and not self.live and not self.open

    def carryStopped(self, order: orders.Stopped) -> None:
        # Whoever chooses a delay may be told to stop meanwhile: then nobody asks any more.
        self.open.discard("choice")
        assert not self.live and not self.open, f"stopped beside {self.live or self.open}"
        self.stops = 0

    # The answers.

    def lose(self, cause: Cause, proven: bool) -> None:
        self.live.clear()
        self.obey(self.supervision.lost(cause, self.now, proven=proven))

    @rule()
    def start(self) -> None:
        self.wanted = True
        self.obey(self.supervision.start())

    @rule()
    def stop(self) -> None:
        self.wanted = False
        self.stops += 1
        self.obey(self.supervision.stop())

    @rule(cause=CAUSES)
    def retry(self, cause: type[Cause]) -> None:
        if self.supervision.state in (State.STOPPED, State.GAVE_UP):
            self.wanted = True
        self.obey(self.supervision.retry(cause(), self.now))

    @rule()
    def renew(self) -> None:
        self.renewing = True
        self.obey(self.supervision.renew())
        self.renewing = False

    @rule(seconds=st.floats(0.0, 100.0))
    def advance(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: "attempt" in self.open)
    @rule()
    def connect(self) -> None:
        self.open.remove("attempt")
        self.generation += 1
        self.live.add(self.generation)
        self.obey(self.supervision.connected())

    @precondition(lambda self: "attempt" in self.open)
    @rule(cause=CAUSES)
    def fail(self, cause: type[Cause]) -> None:
        self.open.remove("attempt")
        self.obey(self.supervision.failed(cause(), self.now))

    @precondition(lambda self: "prepare" in self.open)
    @rule()
    def prepare(self) -> None:
        self.open.remove("prepare")
        self.obey(self.supervision.prepared())

    @precondition(lambda self: "prepare" in self.open)
    @rule(cause=CAUSES)
    def reject(self, cause: type[Cause]) -> None:
        self.open.remove("prepare")
        self.obey(self.supervision.rejected(cause()))

    @precondition(lambda self: self.live)
    @rule(cause=CAUSES, proven=st.booleans())
    def lost(self, cause: type[Cause], proven: bool) -> None:
        self.lose(cause(), proven)

    @precondition(lambda self: "cleanup" in self.open)
    @rule()
    def clean(self) -> None:
        self.open.remove("cleanup")
        self.obey(self.supervision.cleaned(self.now))

    @precondition(lambda self: "choice" in self.open)
    @rule(delay=st.floats(0.0, 60.0))
    def choose(self, delay: float) -> None:
        self.open.remove("choice")
        self.obey(self.supervision.chosen(delay, self.now))

    @precondition(lambda self: "wait" in self.open)
    @rule()
    def endWait(self) -> None:
        self.open.remove("wait")
        self.obey(self.supervision.waited())

    @rule()
    def reset(self) -> None:
        self.supervision.forgive()
        assert self.supervision.failures == 0

    @rule(data=st.data())
    def comeLate(self, data: st.DataObject) -> None:
        """
        An answer to what is over changes nothing.
        """
        one = self.supervision
        answers: dict[str, list[Callable[[], list[Command]]]] = {
            "attempt": [one.connected, lambda: one.failed(PeerClosed(), self.now)],
            "prepare": [one.prepared],
            "link": [lambda: one.lost(PeerClosed(), self.now, proven=True)],
            "cleanup": [lambda: one.cleaned(self.now)],
            "choice": [lambda: one.chosen(1.0, self.now)],
            "wait": [one.waited],
        }
        expected = self.open | ({"link"} if self.live else set())
        late = [answer for what in answers.keys() - expected for answer in answers[what]]
        answer = data.draw(st.sampled_from(sorted(late, key=repr)) if late else st.just(list))
        before = (one.state, one.failures)
        assert answer() == []
        assert (one.state, one.failures) == before

    # What always holds.

    @invariant()
    def atMostOneOfEach(self) -> None:
        """
        At most one live link, and one thing at a time that leads to another.
        """
        assert len(self.live) <= 1
        assert len((self.open - {"prepare"}) | ({"link"} if self.live else set())) <= 1

    @invariant()
    def cleanedUpOnce(self) -> None:
        """
        Each link that is gone was cleaned up exactly once, and no link that is up.
        """
        gone = set(range(1, self.generation + 1)) - self.live
        assert self.cleanups == dict.fromkeys(gone, 1)

    @invariant()
    def neverWedged(self) -> None:
        """
        Whenever a link is wanted, there is one, or something leads to it, or it was given up.
        """
        state = self.supervision.state
        if self.live or self.open:
            assert state not in (State.STOPPED, State.GAVE_UP)
        else:
            assert state in (State.STOPPED, State.GAVE_UP)
            assert state is State.STOPPED or self.wanted

    @invariant()
    def everyStopIsAnswered(self) -> None:
        """
        Who asked to stop waits only for something that is still open.
        """
        assert not self.stops or self.live or self.open

    def teardown(self) -> None:
        """
        It can always be stopped: by answering what is open, and in few steps.
        """
        self.stop()
        for _ in range(4):
            if "attempt" in self.open:
                self.fail(PeerClosed)
            elif self.live:
                self.lose(PeerClosed(), False)
            elif "cleanup" in self.open:
                self.clean()
        assert self.supervision.state is State.STOPPED
        assert not self.stops and not self.open and not self.live
        self.cleanedUpOnce()


class TestSupervision(Books.TestCase):  # type: ignore[misc, valid-type]
    """
    Cleanups exactly once per link, no attempt after stop, stop always fires, at most one live link,
    at most one attempt or wait, and no answer that comes late counts: promises 9, 10, 16.
    """

    settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
