# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.core.pingapi}.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from twisted_heartbeat.core.checkins import Signal
from twisted_heartbeat.core.pingapi import (
    BadCheckIn,
    CheckInRequest,
    isName,
    parseRequest,
)

RUN = "123e4567-e89b-12d3-a456-426614174000"


def parsed(url: str) -> CheckInRequest:
    """
    Parse what follows C{/ping/}.
    """
    path, _, query = url.partition("?")
    return parseRequest([unquote_to_bytes(part) for part in path.split("/")], query.encode())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("backup", CheckInRequest(name="backup")),
        ("backup/", CheckInRequest(name="backup")),
        ("backup/start", CheckInRequest(name="backup", signal=Signal.START)),
        ("backup/fail", CheckInRequest(name="backup", signal=Signal.FAIL)),
        ("backup/log", CheckInRequest(name="backup", signal=Signal.LOG)),
        ("backup/0", CheckInRequest(name="backup", status=0)),
        ("backup/255", CheckInRequest(name="backup", signal=Signal.FAIL, status=255)),
        ("key/backup", CheckInRequest(name="backup", token="key")),
        ("key/backup/", CheckInRequest(name="backup", token="key")),
        ("key/backup/7", CheckInRequest(name="backup", token="key", signal=Signal.FAIL, status=7)),
        ("start/backup", CheckInRequest(name="backup", token="start")),
        (RUN, CheckInRequest(name=RUN)),
        (f"{RUN}/start?rid={RUN.upper()}", CheckInRequest(name=RUN, signal=Signal.START, run=RUN)),
        ("host.example-7_b", CheckInRequest(name="host.example-7_b")),
        ("b%61ckup", CheckInRequest(name="backup")),
        ("key/a?create=1", CheckInRequest(name="a", token="key", create=True)),
        ("a?create=0&period=5", CheckInRequest(name="a")),
        ("a?period=5&grace=nonsense", CheckInRequest(name="a")),
        (
            "a?create=1&period=86400&grace=0.5&other=1",
            CheckInRequest(name="a", create=True, period=86400.0, grace=0.5),
        ),
        ("a?create=0&create=1", CheckInRequest(name="a", create=True)),
    ],
)
def test_whatARequestMeans(url: str, expected: CheckInRequest) -> None:
    """
    The paths and the query of the ping API, and what is added to it.
    """
    assert parsed(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/",
        "a/b/c/d",
        "a//start",
        "//a",
        "start",
        "start/fail",
        "17",
        "key/17/start",
        "backup/256",
        "backup/" + "9" * 5000,
        "backup/-1",
        "backup/START ",
        "..",
        "key/..",
        ".hidden",
        "a%2Fb",
        "a%00",
        "a%0d%0aSet-Cookie:x",
        "a%20b",
        "%ff%fe",
        "na%C3%AFve",
        "a%2561",
        "x" * 101,
        "k" * 201 + "/a",
        "a?rid=123",
        "a?rid={123e4567-e89b-12d3-a456-426614174000}",
        "a?rid=",
        "a?create=1&period=-5",
        "a?create=1&period=1e3",
        "a?create=1&period=nan",
        "a?create=1&period=inf",
        "a?create=1&grace=",
        "a?create=1&grace=" + "9" * 400,
        "a?" + "&".join(f"k{n}=v" for n in range(100)),
    ],
)
def test_requestThatMeansNothing(url: str) -> None:
    """
    Everything else is refused, with a text that repeats nothing of the request.
    """
    with pytest.raises(BadCheckIn) as refused:
        parsed(url)
    assert str(refused.value) in {
        "invalid url format",
        "invalid uuid format",
        "invalid query",
        "invalid period: it must be a number of seconds",
        "invalid grace: it must be a number of seconds",
    }


@given(st.lists(st.binary(max_size=40), max_size=5), st.binary(max_size=60))
@example([b"a"], b"rid=%FF")
@example([b"a"], b"\xff=1")
def test_noInputBreaksTheParser(path: list[bytes], query: bytes) -> None:
    """
    Any bytes are either a check-in with a name of plain characters, or refused.
    """
    try:
        request = parseRequest(path, query)
    except BadCheckIn:
        return
    assert isName(request.name)
    assert request.name.isascii() and request.name.isprintable()
    assert request.status is None or 0 <= request.status <= 255
