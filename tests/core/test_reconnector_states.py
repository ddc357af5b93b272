# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{twisted_heartbeat.core.reconnector} under any order of events, with a driver that only keeps
books.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from twisted_heartbeat.core import commands
from twisted_heartbeat.core.causes import Cause, HostUnreachable, PeerClosed, PermanentFailure
from twisted_heartbeat.core.commands import Command
from twisted_heartbeat.core.reconnector import Reconnector, State

CAUSES = st.sampled_from([PeerClosed, HostUnreachable, PermanentFailure])
MOST_ATTEMPTS = 4


class Books(RuleBasedStateMachine):
    """
    A driver that carries nothing out: it notes what is to be answered, and the rules answer.

    @ivar open: the commands that wait for their answer, by kind.
    @ivar live: the links that are up.
    @ivar cleanups: how often each link was cleaned up.
    @ivar stops: what was asked to stop and has not stopped yet.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reconnector = Reconnector(lambda failures, attempts, elapsed: attempts > MOST_ATTEMPTS)
        self.now = 0.0
        self.wanted = self.renewing = False
        self.open: set[str] = set()
        self.generation = 0
        self.live: set[int] = set()
        self.cleanups: dict[int, int] = {}
        self.stops = 0

    # The driver.

    def perform(self, issued: list[Command]) -> None:
        for command in issued:
            getattr(self, f"on{type(command).__name__}")(command)

    def begin(self, what: str) -> None:
        assert what not in self.open, f"a second {what}"
        self.open.add(what)

    def onAttempt(self, command: commands.Attempt) -> None:
        assert self.wanted, "an attempt after stop"
        assert not self.live and not self.open, f"an attempt beside {self.live or self.open}"
        assert command.number >= 1
        self.begin("attempt")

    def onCancelAttempt(self, command: commands.CancelAttempt) -> None:
        assert "attempt" in self.open and (self.renewing or not self.wanted)

    def onPrepare(self, command: commands.Prepare) -> None:
        assert self.live
        self.begin("prepare")

    def onCancelPrepare(self, command: commands.CancelPrepare) -> None:
        self.open.remove("prepare")

    def onAnnounce(self, command: commands.Announce) -> None:
        assert self.live and self.wanted

    def onAbort(self, command: commands.Abort) -> None:
        assert self.live and self.wanted

    def onClose(self, command: commands.Close) -> None:
        assert self.live

    def onCleanUp(self, command: commands.CleanUp) -> None:
        assert not self.live, "cleanups while the link is up"
        self.cleanups[self.generation] = self.cleanups.get(self.generation, 0) + 1
        self.begin("cleanup")

    def onReportFailure(self, command: commands.ReportFailure) -> None:
        assert self.wanted and not self.live

    def onChooseDelay(self, command: commands.ChooseDelay) -> None:
        assert self.wanted and not self.live and command.attempt >= 1
        self.begin("choice")

    def onWait(self, command: commands.Wait) -> None:
        assert self.wanted and not self.live and command.retry.elapsed >= 0
        self.begin("wait")

    def onCancelWait(self, command: commands.CancelWait) -> None:
        self.open.remove("wait")

    def onGiveUp(self, command: commands.GiveUp) -> None:
        assert self.wanted and not self.live and not self.open

    def onStopped(self, command: commands.Stopped) -> None:
        # Whoever chooses a delay may be told to stop meanwhile: then nobody asks any more.
        self.open.discard("choice")
        assert not self.live and not self.open, f"stopped beside {self.live or self.open}"
        self.stops = 0

    # The answers.

    def lose(self, cause: Cause, proven: bool) -> None:
        self.live.clear()
        self.perform(self.reconnector.lost(cause, self.now, proven=proven))

    @rule()
    def start(self) -> None:
        self.wanted = True
        self.perform(self.reconnector.start())

    @rule()
    def stop(self) -> None:
        self.wanted = False
        self.stops += 1
        self.perform(self.reconnector.stop())

    @rule(cause=CAUSES)
    def retry(self, cause: type[Cause]) -> None:
        if self.reconnector.state in (State.STOPPED, State.GAVE_UP):
            self.wanted = True
        self.perform(self.reconnector.retry(cause(), self.now))

    @rule()
    def renew(self) -> None:
        self.renewing = True
        self.perform(self.reconnector.renew())
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
        self.perform(self.reconnector.connected())

    @precondition(lambda self: "attempt" in self.open)
    @rule(cause=CAUSES)
    def fail(self, cause: type[Cause]) -> None:
        self.open.remove("attempt")
        self.perform(self.reconnector.failed(cause(), self.now))

    @precondition(lambda self: "prepare" in self.open)
    @rule()
    def prepare(self) -> None:
        self.open.remove("prepare")
        self.perform(self.reconnector.prepared())

    @precondition(lambda self: "prepare" in self.open)
    @rule(cause=CAUSES)
    def reject(self, cause: type[Cause]) -> None:
        self.open.remove("prepare")
        self.perform(self.reconnector.rejected(cause()))

    @precondition(lambda self: self.live)
    @rule(cause=CAUSES, proven=st.booleans())
    def lost(self, cause: type[Cause], proven: bool) -> None:
        self.lose(cause(), proven)

    @precondition(lambda self: "cleanup" in self.open)
    @rule()
    def clean(self) -> None:
        self.open.remove("cleanup")
        self.perform(self.reconnector.cleaned(self.now))

    @precondition(lambda self: "choice" in self.open)
    @rule(delay=st.floats(0.0, 60.0))
    def choose(self, delay: float) -> None:
        self.open.remove("choice")
        self.perform(self.reconnector.delayChosen(delay, self.now))

    @precondition(lambda self: "wait" in self.open)
    @rule()
    def endWait(self) -> None:
        self.open.remove("wait")
        self.perform(self.reconnector.waited())

    @rule()
    def reset(self) -> None:
        self.reconnector.resetFailures()
        assert self.reconnector.failures == 0

    @rule(data=st.data())
    def comeLate(self, data: st.DataObject) -> None:
        """
        An answer to what is over changes nothing.
        """
        one = self.reconnector
        answers: dict[str, list[Callable[[], list[Command]]]] = {
            "attempt": [one.connected, lambda: one.failed(PeerClosed(), self.now)],
            "prepare": [one.prepared],
            "link": [lambda: one.lost(PeerClosed(), self.now, proven=True)],
            "cleanup": [lambda: one.cleaned(self.now)],
            "choice": [lambda: one.delayChosen(1.0, self.now)],
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
        state = self.reconnector.state
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
        assert self.reconnector.state is State.STOPPED
        assert not self.stops and not self.open and not self.live
        self.cleanedUpOnce()


class TestSupervision(Books.TestCase):  # type: ignore[misc, valid-type]
    """
    Cleanups exactly once per link, no attempt after stop, stop always fires, at most one live link,
    at most one attempt or wait, and no answer that comes late counts: promises 9, 10, 16.
    """

    settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
