# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a L{Reconnector<twisted_heartbeat.core.reconnector.Reconnector>} orders its driver to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .causes import Cause


@dataclass(frozen=True, slots=True)
class Retry:
    """
    The decision to try again after a delay.

    @ivar attempt: failures in a row, 1 or more: attempts, and the loss of a link before them.
    @ivar delay: seconds until the next attempt.
    @ivar cause: why the last one ended.
    @ivar elapsed: seconds since the first of them.
    """

    attempt: int
    delay: float
    cause: Cause
    elapsed: float


# The orders.


@dataclass(frozen=True, slots=True)
class Attempt:
    """
    Try to connect.

    @ivar number: 1 for the first since the last link was proven.
    """

    number: int


@dataclass(frozen=True, slots=True)
class CancelAttempt:
    """
    Give the attempt up; L{Reconnector.failed} follows when it is gone.
    """


@dataclass(frozen=True, slots=True)
class Prepare:
    """
    Prepare the new link; L{Reconnector.prepared} or L{Reconnector.rejected} follows.
    """


@dataclass(frozen=True, slots=True)
class CancelPrepare:
    """
    What prepares the link shall stop: nobody waits for it any more.
    """


@dataclass(frozen=True, slots=True)
class Announce:
    """
    The link is prepared and in use.
    """


@dataclass(frozen=True, slots=True)
class Abort:
    """
    End the link at once; L{Reconnector.lost} follows.
    """

    cause: Cause


@dataclass(frozen=True, slots=True)
class Close:
    """
    End the link politely, within its limit; L{Reconnector.lost} follows.
    """


@dataclass(frozen=True, slots=True)
class CleanUp:
    """
    The link has ended: run its cleanups; L{Reconnector.cleaned} follows.
    """

    cause: Cause


@dataclass(frozen=True, slots=True)
class ReportFailure:
    """
    An attempt came to nothing: tell whoever waits for a connection.
    """

    cause: Cause


@dataclass(frozen=True, slots=True)
class ChooseDelay:
    """
    How long to wait?  L{Reconnector.delayChosen} follows.

    @ivar attempt: failures in a row, as in L{Retry}.
    @ivar cause: the last one's.
    """

    attempt: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Wait:
    """
    Wait; L{Reconnector.waited} follows.
    """

    retry: Retry


@dataclass(frozen=True, slots=True)
class CancelWait:
    """
    Nobody waits any more.
    """


@dataclass(frozen=True, slots=True)
class GiveUp:
    """
    There will be no further attempt.
    """

    cause: Cause


@dataclass(frozen=True, slots=True)
class Stopped:
    """
    Nothing is left: no attempt, no link, no wait.
    """


Command = (
    Attempt
    | CancelAttempt
    | Prepare
    | CancelPrepare
    | Announce
    | Abort
    | Close
    | CleanUp
    | ReportFailure
    | ChooseDelay
    | Wait
    | CancelWait
    | GiveUp
    | Stopped
)
