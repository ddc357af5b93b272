# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The commands that a L{Reconnector<twisted_heartbeat.core.reconnector.Reconnector>} gives its driver.
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
    @ivar cause: why the last attempt failed, or the link was lost.
    @ivar elapsed: seconds since the first of these failures.
    """

    attempt: int
    delay: float
    cause: Cause
    elapsed: float


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
    Cancel the attempt; L{Reconnector.failed} follows when nothing is left of it.
    """


@dataclass(frozen=True, slots=True)
class Prepare:
    """
    Prepare the new link; L{Reconnector.prepared} or L{Reconnector.rejected} follows.
    """


@dataclass(frozen=True, slots=True)
class CancelPrepare:
    """
    Cancel the preparation of the link.
    """


@dataclass(frozen=True, slots=True)
class Announce:
    """
    Announce the link as connected, because it is prepared.
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
    Run the cleanups of the link, which has ended; L{Reconnector.cleaned} follows.
    """


@dataclass(frozen=True, slots=True)
class ReportFailure:
    """
    Report a failed attempt to the callers that wait for a connection.
    """

    cause: Cause


@dataclass(frozen=True, slots=True)
class ChooseDelay:
    """
    Choose how long to wait; L{Reconnector.delayChosen} follows.

    @ivar attempt: failures in a row, as in L{Retry}.
    @ivar cause: why the last of them happened.
    """

    attempt: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Wait:
    """
    Wait for the delay of the retry; L{Reconnector.waited} follows.
    """

    retry: Retry


@dataclass(frozen=True, slots=True)
class CancelWait:
    """
    Cancel the wait.
    """


@dataclass(frozen=True, slots=True)
class GiveUp:
    """
    Give up: no further attempt follows.
    """

    cause: Cause


@dataclass(frozen=True, slots=True)
class Stopped:
    """
    Report that no attempt, link or wait is left.
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
