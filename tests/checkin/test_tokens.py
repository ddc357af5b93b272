# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.checkin.tokens}.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import LogEvent

from twisted_heartbeat.checkin.tokens import Tokens

from ..conftest import LoggedErrors


def admitted(tokens: Tokens, *pairs: tuple[str, str | None]) -> list[bool]:
    """
    Which of these names and tokens are admitted.
    """
    return [tokens.admit(name, token) for name, token in pairs]


class Time:
    """
    A clock that is set.
    """

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_tokensOfAMapping() -> None:
    """
    A name's own tokens are admitted and prove it.  Shared tokens hold for the other names only, and
    prove none.
    """
    tokens = Tokens({"a": "one", "b": ["two", "three"], "*": "all", "none": []}, Time())
    right: list[tuple[str, str | None]] = [
        ("a", "one"),
        ("b", "two"),
        ("b", "three"),
        ("other", "all"),
        ("none", "all"),
    ]
    wrong: list[tuple[str, str | None]] = [
        ("b", "one"),
        ("a", "all"),
        ("other", "one"),
        ("a", None),
        ("a", ""),
        ("a", "on"),
        ("a", "one\udcff"),
        ("none", ""),
    ]
    assert admitted(tokens, *right) == [True] * len(right)
    assert admitted(tokens, *wrong) == [False] * len(wrong)
    assert [tokens.prove(name) for name in ("a", "b", "none", "other")] == [
        True,
        True,
        False,
        False,
    ]
    assert not Tokens({"a": []}, Time()).admit("a", "")


def test_withoutTokensAllAreAdmitted() -> None:
    """
    L{None}, which has to be said, admits all clients and proves no name.
    """
    tokens = Tokens(None, Time())
    assert admitted(tokens, ("a", None), ("b", "x")) == [True, True]
    assert not tokens.prove("a")


def test_tokensOfAFunction(loggedErrors: LoggedErrors) -> None:
    """
    A function is asked for the tokens of a name, and for no other thing.  One that fails admits
    nobody: its exception is the caller's.
    """
    asked = []

    def tokensOf(name: str) -> Any:
        asked.append(name)
        if name == "broken":
            raise SystemExit(1)
        return {"a": "one", "b": ("two",)}.get(name)

    tokens = Tokens(tokensOf, Time())
    pairs: list[tuple[str, str | None]] = [("a", "one"), ("b", "two"), ("c", "one"), ("c", None)]
    assert admitted(tokens, *pairs) == [True, True, False, False]
    assert asked == ["a", "b", "c", "c"]
    with pytest.raises(SystemExit):
        tokens.admit("broken", "x")
    assert not tokens.prove("broken")
    assert len(loggedErrors.flush(SystemExit)) == 1


def test_eachComparisonIsOfDigests(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Every comparison is of two values of one length, also for a name without a token; and all tokens
    of a name are compared, so that no comparison ends early.
    """
    lengths = []

    def compare(one: bytes, other: bytes) -> bool:
        lengths.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr("twisted_heartbeat.checkin.tokens.compare_digest", compare)
    tokens = Tokens({"a": ["one", "two", "three"]}, Time())
    tokens.admit("a", "one")
    tokens.admit("unknown", "one" * 50)
    assert lengths == [(32, 32)] * 4


def test_tokensOfAFile(tmp_path: Path, events: list[LogEvent]) -> None:
    """
    A file is read again when it has changed, at most once a second.  A file that can not be read
    then leaves the tokens as they were, and the log says so, without a token.
    """
    path = tmp_path / "tokens"
    path.write_text("# name token\n\na  one\na two#2\n*\tall\n")
    time = Time()
    tokens = Tokens(path, time)
    pairs = [("a", "one"), ("a", "two#2"), ("b", "all"), ("b", "one")]
    assert admitted(tokens, *pairs) == [True, True, True, False]
    path.write_text("a three\n")
    assert admitted(tokens, ("a", "one")) == [True]
    time.now = 1.0
    assert admitted(tokens, ("a", "one"), ("a", "three")) == [False, True]
    for broken in ("a secret words", "a/b secret", "a " + "s" * 300):
        path.write_text(broken)
        time.now += 100.0
        assert admitted(tokens, ("a", "three")) == [True]
    os.unlink(path)
    time.now += 100.0
    assert admitted(tokens, ("a", "three")) == [True]
    logged = [str(event["error"]) for event in events if "error" in event]
    assert len(logged) == 4
    assert all("line 1" in text and "secret" not in text for text in logged[:3])


@pytest.mark.parametrize(
    "source",
    [{"a b": "x"}, {"a": ""}, {"a": ["x", ""]}, {"a": "x" * 300}, {"a": [b"x"]}, 7],
)
def test_wrongTokensAreRefused(source: Any) -> None:
    """
    What can be no token, or no name, is refused when it is given, without the token in the words.
    """
    with pytest.raises(ValueError, match="^tokens") as refused:
        Tokens(source, Time())
    assert "xxx" not in str(refused.value)


def test_wrongFileIsRefused(tmp_path: Path) -> None:
    """
    A file that can not be read, or has a wrong line, is refused when it is given.
    """
    with pytest.raises(OSError):
        Tokens(str(tmp_path / "missing"), Time())
    path = tmp_path / "tokens"
    path.write_text("a one\nb\n")
    with pytest.raises(ValueError, match="line 2: it must be a name and a token"):
        Tokens(path, Time())
