# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.core.causes}.
"""

from __future__ import annotations

import errno
import pickle
from typing import Any

import pytest
from twisted.internet import error
from twisted.python.failure import Failure

from twisted_heartbeat.core import causes
from twisted_heartbeat.core.causes import (
    Cause,
    CheckInFailed,
    CheckInMissed,
    ClosedHere,
    ConnectFailed,
    HandshakeFailed,
    HostUnreachable,
    KeepAliveExpired,
    LinkLost,
    NetworkUnreachable,
    PeerClosed,
    PeerHung,
    PeerReset,
    PeerSilent,
    PermanentFailure,
    ProtocolViolation,
    RetryPace,
    SendFailed,
    SendStalled,
)
from twisted_heartbeat.core.diagnosis import (
    causeOfErrno,
    causeOfFailure,
    causeOfLoss,
    causeOfSilence,
    describeError,
)
from twisted_heartbeat.core.evidence import Evidence, VerdictBatch

# What each cause is to code that knows Twisted alone.
TWISTEDS: dict[type[Cause], list[type[Exception]]] = {
    PeerSilent: [error.ConnectionLost],
    PeerHung: [PeerSilent, error.ConnectionLost],
    CheckInMissed: [PeerSilent, error.ConnectionLost],
    CheckInFailed: [error.ConnectionLost],
    KeepAliveExpired: [error.ConnectionLost],
    PeerReset: [error.ConnectionLost],
    HostUnreachable: [error.ConnectionLost, error.NoRouteError, error.ConnectError],
    NetworkUnreachable: [error.ConnectionLost, error.NoRouteError, error.ConnectError],
    SendFailed: [error.ConnectionLost],
    SendStalled: [error.ConnectionLost],
    LinkLost: [error.ConnectionLost],
    PeerClosed: [error.ConnectionDone],
    ClosedHere: [error.ConnectionDone],
    ConnectFailed: [error.ConnectError],
    HandshakeFailed: [error.ConnectionLost, error.ConnectError],
    ProtocolViolation: [error.ConnectionLost],
    PermanentFailure: [error.ConnectError],
}

ALL = list(TWISTEDS)

SLOWLY = {HostUnreachable, NetworkUnreachable, HandshakeFailed, ProtocolViolation}

FLEET_WIDE = {PeerReset, LinkLost, PeerClosed}

VERDICTS = {PeerSilent, PeerHung, CheckInMissed, KeepAliveExpired, SendStalled}
VERDICTS |= {HostUnreachable, NetworkUnreachable}

ERRNOS = {
    errno.ECONNRESET: PeerReset,
    errno.ETIMEDOUT: KeepAliveExpired,
    errno.EHOSTUNREACH: HostUnreachable,
    errno.EHOSTDOWN: HostUnreachable,
    errno.ENETUNREACH: NetworkUnreachable,
    errno.ENETDOWN: NetworkUnreachable,
    errno.EPIPE: SendFailed,
}


def test_everyCauseIsHere() -> None:
    """
    No cause escapes the tests below.
    """
    found = {
        thing
        for thing in vars(causes).values()
        if isinstance(thing, type) and issubclass(thing, Cause) and thing is not Cause
    }
    assert found == set(ALL)


@pytest.mark.parametrize("cause", ALL)
def test_isTwistedsOwnError(cause: type[Cause]) -> None:
    """
    C{reason.check(ConnectionLost)} in existing code keeps working.
    """
    for base in (Cause, *TWISTEDS[cause]):
        assert Failure(cause()).check(base) is base


def test_lossesAndClosesAreNotMixed() -> None:
    """
    No cause is both a clean end and a lost connection, or code that checks for one sees both.
    """
    done = {cause for cause in ALL if issubclass(cause, error.ConnectionDone)}
    assert done == {PeerClosed, ClosedHere}
    assert not [cause for cause in done if issubclass(cause, error.ConnectionLost)]


@pytest.mark.parametrize("cause", ALL)
def test_saysASentence(cause: type[Cause]) -> None:
    """
    Without words of its own a cause is a sentence, a user's one-line subclass too; with words it
    is just those.
    """
    assert str(cause())[0].isupper() and str(cause()).endswith(".")
    assert "\n" not in str(cause())
    assert str(cause("the cable is out")) == "the cable is out"
    mine: type[Cause] = type("Mine", (cause,), {})
    assert str(mine()) == str(cause())


def test_hasWhatTwistedsConnectErrorHas() -> None:
    """
    Code that reads C{osError} of a ConnectError finds it.
    """
    kinds: list[Any] = [cause for cause in ALL if issubclass(cause, error.ConnectError)]
    assert causes.ConnectFailed in kinds
    assert {kind().osError for kind in kinds} == {None}


def test_paceOfEachCause() -> None:
    """
    Each cause is retried at its own pace, and only a person's word stops it.
    """
    assert {cause for cause in ALL if cause.pace is RetryPace.SLOW} == SLOWLY
    assert {cause for cause in ALL if cause.pace is RetryPace.NEVER} == {PermanentFailure}


def test_causesOfAWholeFleetAreMarked() -> None:
    """
    What everybody at the same peer sees in the same instant is marked, and nothing else.
    """
    assert {cause for cause in ALL if cause.fleetWide} == FLEET_WIDE


def test_verdictsAreMarked() -> None:
    """
    The causes by which this side finds a peer dead are marked, and nothing else.
    """
    assert {cause for cause in ALL if cause.isVerdict} == VERDICTS


@pytest.mark.parametrize("cause", ALL)
def test_causesCanBePickled(cause: type[Cause]) -> None:
    """
    A cause keeps its class and its words on the way to another process.
    """
    copy = pickle.loads(pickle.dumps(cause("gone")))
    assert type(copy) is cause and str(copy) == "gone"


# Evidence


def test_evidenceStaysWithItsCause() -> None:
    """
    Evidence belongs to one cause, not to its class.
    """
    evidence = Evidence(sinceAck=1.0)
    assert PeerSilent(evidence=evidence).evidence is evidence
    assert PeerSilent().evidence is None


@pytest.mark.parametrize(
    ("evidence", "answers"),
    [
        (Evidence(), False),
        (Evidence(unanswered=0, retransmits=0, probes=0), True),
        (Evidence(unanswered=1, retransmits=0, probes=0), False),
        (Evidence(unanswered=0, retransmits=1, probes=0), False),
        (Evidence(unanswered=0, retransmits=0, probes=1), False),
    ],
)
def test_kernelAnswers(evidence: Evidence, answers: bool) -> None:
    """
    The peer's kernel answers when nothing that it was asked is open; unknown is no answer.
    """
    assert evidence.kernelAnswers is answers


def test_simultaneousVerdicts() -> None:
    """
    Links of one batch all know, in the end, how many they were; a lone link is one.
    """
    batch = VerdictBatch()
    first = Evidence(_batch=batch)
    batch.links = 3
    assert (first.simultaneousVerdicts, Evidence().simultaneousVerdicts) == (3, 1)


# Naming


@pytest.mark.parametrize("number", ERRNOS)
def test_causeOfErrno(number: int) -> None:
    """
    Each errno of the network has its own cause, whose words tell it.
    """
    cause = causeOfErrno(number)
    assert type(cause) is ERRNOS[number]
    assert str(cause).endswith(f"[errno {number}]")
    assert cause.osError == number
    assert cause.evidence is None


@pytest.mark.parametrize("number", [0, errno.EAGAIN, errno.EBADF, 99999])
def test_errnoThatSaysNothing(number: int) -> None:
    """
    No cause is made up from an errno that says nothing of the peer.
    """
    assert causeOfErrno(number) is None


@pytest.mark.parametrize("number", ERRNOS)
def test_errnoSurvivesToTheCause(number: int) -> None:
    """
    What the kernel said comes first, and Twisted's error stays chained to it.
    """
    for handshaking in (False, True):
        reason = error.ConnectionLost()
        cause = causeOfLoss(reason, number=number, handshaking=handshaking)
        assert type(cause) is ERRNOS[number]
        assert cause.__cause__ is reason


NO_WAY = {
    0: PeerSilent,
    errno.EHOSTUNREACH: HostUnreachable,
    errno.EHOSTDOWN: HostUnreachable,
    errno.EACCES: HostUnreachable,
    errno.ENETUNREACH: NetworkUnreachable,
    errno.ENETDOWN: NetworkUnreachable,
    errno.EINVAL: NetworkUnreachable,
    errno.EADDRNOTAVAIL: NetworkUnreachable,
    errno.EBADF: PeerSilent,
}
ANSWERS = {"unanswered": 0, "retransmits": 0, "probes": 0}


@pytest.mark.parametrize("number", NO_WAY)
def test_silenceWithoutAnAnswerOfTheKernel(number: int) -> None:
    """
    A silence is named from what this host says of the way to the peer, and keeps its evidence.
    """
    evidence = Evidence(unanswered=1)
    cause = causeOfSilence(
        evidence, 8.0, "nothing came", pingArrived=False, askRoute=lambda: number
    )
    assert type(cause) is NO_WAY[number]
    assert str(cause).startswith("nothing came")
    assert cause.evidence is evidence


@pytest.mark.parametrize(
    ("evidence", "pingArrived", "expected"),
    [
        (Evidence(), True, PeerHung),
        (Evidence(), False, PeerSilent),
        (Evidence(**ANSWERS, window=0), False, PeerHung),
        (Evidence(**ANSWERS, sinceAck=3.9), False, PeerHung),
        (Evidence(**ANSWERS, sinceAck=4.0), False, PeerSilent),
        (Evidence(**ANSWERS), False, PeerSilent),
        (Evidence(**{**ANSWERS, "probes": 1}, window=0), False, PeerSilent),
    ],
)
def test_silenceOfAProcess(evidence: Evidence, pingArrived: bool, expected: type[Cause]) -> None:
    """
    A peer is hung only if its kernel has taken the ping, keeps the window closed, or has answered
    in the later half of the silence.  The way to it is asked for in any other case only.
    """
    asked: list[int] = []
    cause = causeOfSilence(
        evidence,
        8.0,
        "nothing came",
        pingArrived=pingArrived,
        askRoute=lambda: asked.append(1) or 0,
    )
    assert type(cause) is expected
    assert bool(asked) is (expected is PeerSilent)


@pytest.mark.parametrize(
    ("reason", "closedHere", "handshaking", "expected"),
    [
        (error.ConnectionDone(), False, False, PeerClosed),
        (error.ConnectionDone(), True, False, ClosedHere),
        (error.ConnectionLost(), False, False, LinkLost),
        (error.ConnectionLost(), True, False, ClosedHere),
        (error.ConnectionAborted(), False, False, ClosedHere),
        (error.ConnectionAborted(), False, True, ClosedHere),
        (error.ConnectionDone(), False, True, HandshakeFailed),
        (error.ConnectionLost(), False, True, HandshakeFailed),
        (OSError("certificate verify failed"), False, True, HandshakeFailed),
        (ZeroDivisionError("division by zero"), False, False, ClosedHere),
    ],
    ids=repr,
)
def test_causeOfLoss(
    reason: Exception, closedHere: bool, handshaking: bool, expected: type[Cause]
) -> None:
    """
    Without an errno the loss is named from what Twisted says, which stays chained to it.
    """
    cause = causeOfLoss(reason, closedHere=closedHere, handshaking=handshaking)
    assert type(cause) is expected
    assert cause.__cause__ is reason


@pytest.mark.parametrize(
    ("reason", "known", "expected"),
    [
        (error.ConnectionLost(), {}, ClosedHere),
        (error.ConnectionLost(), {"handshaking": True}, ClosedHere),
        (error.ConnectionLost(), {"finished": True}, PeerClosed),
        (error.ConnectionLost(), {"number": errno.ECONNRESET}, PeerReset),
        (error.ConnectionDone(), {}, PeerClosed),
        (PeerSilent(), {}, PeerSilent),
        (ZeroDivisionError("division by zero"), {}, ClosedHere),
    ],
    ids=repr,
)
def test_lossWhenTheReactorHasStopped(
    reason: Exception, known: dict[str, Any], expected: type[Cause]
) -> None:
    """
    The reactor of this side closes what is open when it stops.  What the peer did before that, and
    what has a name already, keeps its name.
    """
    assert type(causeOfLoss(reason, reactorStopped=True, **known)) is expected


def test_wordsOfAnErrorAreKept() -> None:
    """
    What a protocol or a handshake raised is told in the cause's own words.
    """
    raised = causeOfLoss(ZeroDivisionError("division by zero"))
    failed = causeOfLoss(OSError("bad certificate"), handshaking=True)
    assert str(raised) == "the protocol raised ZeroDivisionError: division by zero"
    assert str(failed) == "the TLS handshake failed: OSError: bad certificate"


def test_lossWithoutAnyReason() -> None:
    """
    A transport that gives no reason at all is not told as if the protocol had raised one.
    """
    assert "NoneType" not in str(causeOfLoss(None))


@pytest.mark.parametrize("cause", ALL)
def test_causePassesThrough(cause: type[Cause]) -> None:
    """
    First cause wins: what has a name already keeps it, whatever else is known.
    """
    named = cause("first")
    assert causeOfLoss(named, number=errno.EPIPE, closedHere=True, handshaking=True) is named
    assert causeOfFailure(named) is named


@pytest.mark.parametrize(
    ("raised", "kind", "pace", "fleetWide"),
    [
        (error.ConnectionRefusedError(), ConnectFailed, RetryPace.NORMAL, True),
        (error.DNSLookupError("no such host"), ConnectFailed, RetryPace.SLOW, False),
        (error.NoRouteError(), ConnectFailed, RetryPace.SLOW, False),
        (
            error.NoRouteError(errno.EHOSTUNREACH, "no route"),
            HostUnreachable,
            RetryPace.SLOW,
            False,
        ),
        (error.ConnectError(errno.ENETUNREACH), NetworkUnreachable, RetryPace.SLOW, False),
        (error.TCPTimedOutError(errno.ETIMEDOUT), ConnectFailed, RetryPace.NORMAL, False),
        (error.TimeoutError(), ConnectFailed, RetryPace.NORMAL, False),
        (error.ConnectError(), ConnectFailed, RetryPace.NORMAL, False),
        (ValueError("prepare"), ConnectFailed, RetryPace.NORMAL, False),
    ],
    ids=repr,
)
def test_causeOfFailure(
    raised: Exception, kind: type[Cause], pace: RetryPace, fleetWide: bool
) -> None:
    """
    A failed attempt is retried at the pace of what it failed for, and keeps what was raised.
    """
    cause = causeOfFailure(raised)
    assert type(cause) is kind
    assert (cause.pace, cause.fleetWide) == (pace, fleetWide)
    assert cause.__cause__ is raised


def test_oneFailureDoesNotMarkTheNext() -> None:
    """
    What is known of one attempt's failure is not known of all others.
    """
    causeOfFailure(error.ConnectionRefusedError())
    causeOfFailure(error.DNSLookupError())
    assert not ConnectFailed.fleetWide
    assert ConnectFailed.pace is RetryPace.NORMAL


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (ValueError("bad\n  news"), "ValueError: bad news"),
        (ValueError(), "ValueError"),
    ],
)
def test_errorIsDescribedInOneLine(raised: Exception, words: str) -> None:
    """
    An error in words is one line with its class and what it says, if it says anything.
    """
    assert describeError(raised) == words
