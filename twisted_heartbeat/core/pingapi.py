# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a request of the ping API means: path and query in, a L{CheckInRequest} out.

Source: healthchecks.io, page "Pinging API".  Of what it says, this differs: a name takes the place
of both the UUID and the slug, a token that of the ping key, and C{period} and C{grace} may stand
beside C{create=1}.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs

from .checkins import Signal

MAX_NAME = 100
"""Characters of a name."""

MAX_TOKEN = 200
"""Characters of a token."""

_MAX_PARAMETERS = 16

_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_STATUS = re.compile(r"[0-9]+")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")

_SIGNALS = {"start": Signal.START, "fail": Signal.FAIL, "log": Signal.LOG}


class BadCheckIn(ValueError):
    """
    A request that means nothing.  Its text is the answer's: it repeats nothing of the request.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckInRequest:
    """
    One check-in, as it was requested.

    @ivar token: the token in the path; L{None} without one.
    @ivar status: the exit status; L{None} without one.
    @ivar run: the run id, in lower case; L{None} without one.
    @ivar create: whether to create the name if it is not known.
    @ivar period: what the name is to have, in seconds, if it is created; L{None} for the default.
    @ivar grace: the same.
    """

    name: str
    token: str | None = None
    signal: Signal = Signal.SUCCESS
    status: int | None = None
    run: str | None = None
    create: bool = False
    period: float | None = None
    grace: float | None = None


def isName(text: str) -> bool:
    """
    Whether a check may have this name: letters, digits, C{-}, C{_} and C{.}, a letter or digit
    first, and neither a number nor one of the words that may follow a name in a path.
    """
    return bool(_NAME.fullmatch(text)) and not isAction(text)


def isAction(text: str) -> bool:
    """
    Whether a text that follows a name in a path says what the check-in means.
    """
    return text in _SIGNALS or bool(_STATUS.fullmatch(text))


def parseRequest(path: Sequence[bytes], query: bytes) -> CheckInRequest:
    """
    Parse a request.

    @param path: the segments after C{/ping/}, each unquoted.
    @param query: what follows the question mark, as it came.
    @raise BadCheckIn: if it means nothing.
    """
    segments = [_text(segment, "invalid url format") for segment in path]
    if len(segments) > 1 and not segments[-1]:
        segments.pop()
    action = segments.pop() if len(segments) > 1 and isAction(segments[-1]) else None
    if not 1 <= len(segments) <= 2 or not isName(segments[-1]):
        raise BadCheckIn("invalid url format")
    token = segments[0] if len(segments) == 2 else None
    if token is not None and not 1 <= len(token) <= MAX_TOKEN:
        raise BadCheckIn("invalid url format")
    signal, status = _parseAction(action)
    parameters = _parseQuery(query)
    run = parameters.get("rid")
    if run is not None and not _UUID.fullmatch(run):
        raise BadCheckIn("invalid uuid format")
    create = parameters.get("create") == "1"
    return CheckInRequest(
        name=segments[-1],
        token=token,
        signal=signal,
        status=status,
        run=None if run is None else run.lower(),
        create=create,
        period=_parseSeconds("period", parameters) if create else None,
        grace=_parseSeconds("grace", parameters) if create else None,
    )


def _text(raw: bytes, otherwise: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadCheckIn(otherwise) from None


def _parseAction(action: str | None) -> tuple[Signal, int | None]:
    if action is None:
        return Signal.SUCCESS, None
    signal = _SIGNALS.get(action)
    if signal is not None:
        return signal, None
    # int() itself refuses thousands of digits.
    status = int(action[:4])
    if status > 255 or len(action) > 3:
        raise BadCheckIn("invalid url format")
    return (Signal.FAIL if status else Signal.SUCCESS), status


def _parseQuery(query: bytes) -> dict[str, str]:
    """
    Return the last value of each parameter.
    """
    try:
        found = parse_qs(
            _text(query, "invalid query"),
            keep_blank_values=True,
            errors="replace",
            max_num_fields=_MAX_PARAMETERS,
        )
    except ValueError:
        raise BadCheckIn("invalid query") from None
    return {key: values[-1] for key, values in found.items()}


def _parseSeconds(name: str, parameters: dict[str, str]) -> float | None:
    text = parameters.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise BadCheckIn(f"invalid {name}: it must be a number of seconds")
    return float(text)
