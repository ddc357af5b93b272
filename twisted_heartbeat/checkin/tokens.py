# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Tokens}: who may check in under which name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from hmac import compare_digest

from ..core.pingapi import MAX_TOKEN, isName
from ..files import readFile
from ..logs import SafeLogger, Shortage

ANY_NAME = "*"
"""The name whose tokens hold for all names that have none of their own."""

TokenSource = (
    Mapping[str, str | Iterable[str]]
    | Callable[[str], str | Iterable[str] | None]
    | str
    | os.PathLike[str]
)
"""What a setting C{tokens} takes: a mapping, a function from a name to its tokens, or a file."""

_MAX_SIZE = 64 * 1024 * 1024
"""Bytes of a file of tokens."""

_log = SafeLogger()


class Tokens:
    """
    The tokens of all names.

    A name that has tokens of its own is proven by them.  The shared tokens, those of C{*}, hold for
    the other names, and prove none of them.

    A token is compared in constant time, and never logged.  A name without tokens costs the same
    comparison as any other.
    """

    def __init__(self, source: TokenSource | None, seconds: Callable[[], float]) -> None:
        """
        @param source: L{None} to admit all clients.
        @param seconds: tells the time.
        @raise ValueError: if the mapping, or a line of the file, is not of the form that it has to
            have.  The text repeats no token.
        @raise OSError: if the file cannot be read.
        """
        self._lookUp: Callable[[str], Iterable[str]] | None
        if source is None:
            self._lookUp = None
        elif isinstance(source, str | os.PathLike):
            self._lookUp = _TokenFile(source, seconds).lookUp
        elif isinstance(source, Mapping):
            self._lookUp = _checkedMapping(source).__getitem__
        elif callable(source):
            self._lookUp = _fromFunction(source)
        else:
            raise ValueError(
                f"tokens is {type(source).__name__}: it must be a mapping, a function, the path of "
                "a file, or None"
            )

    def admit(self, name: str, token: str | None) -> bool:
        """
        Whether a client with this token may check in under this name.

        @raise Exception: what a function of the user's raises.
        """
        if self._lookUp is None:
            return True
        return _contains(self._lookUp(name) or self._lookUp(ANY_NAME), token)

    def prove(self, name: str) -> bool:
        """
        Whether each client that may check in under this name is proven to have it.
        """
        try:
            return self._lookUp is not None and bool(self._lookUp(name))
        except BaseException:
            _log.failure("The function that returns the tokens of a name failed")
            return False


def _contains(tokens: Iterable[str], token: str | None) -> bool:
    # Digests have one length, so that the time does not depend on a token's.
    claimed = _digest("" if token is None else token)
    found = False
    # A name without tokens costs one comparison, too.
    for one in tokens or ("",):
        found |= compare_digest(_digest(one), claimed) and bool(one)
    return found


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


class _Table(dict[str, tuple[str, ...]]):
    """
    The tokens by name.  A name that is missing has none.
    """

    def __missing__(self, name: str) -> tuple[str, ...]:
        return ()


def _several(tokens: str | Iterable[str] | None) -> tuple[str, ...]:
    if tokens is None:
        return ()
    return (tokens,) if isinstance(tokens, str) else tuple(tokens)


def _checkedMapping(source: Mapping[str, str | Iterable[str]]) -> _Table:
    table = _Table()
    for name, tokens in source.items():
        table[name] = _several(tokens)
        _check(name, table[name], f"tokens[{name!r}]")
    return table


def _check(name: str, tokens: Iterable[str], where: str) -> None:
    if name != ANY_NAME and not isName(name):
        raise ValueError(f"{where}: the name must be that of a check, or {ANY_NAME}")
    for token in tokens:
        if not isinstance(token, str) or not 1 <= len(token) <= MAX_TOKEN:
            raise ValueError(f"{where}: a token must be a text of 1 to {MAX_TOKEN} characters")


def _fromFunction(
    source: Callable[[str], str | Iterable[str] | None],
) -> Callable[[str], Iterable[str]]:
    def lookUp(name: str) -> Iterable[str]:
        # The function is asked for names only.
        return () if name == ANY_NAME else _several(source(name))

    return lookUp


class _TokenFile:
    """
    A file of tokens: in each line a name and a token, with white space between.  C{*} stands for
    all names.  A line that begins with C{#} is a comment.

    The file is read again when it has changed, so that a token is replaced without a restart.  A
    file that cannot be read then leaves the tokens as they were, and the log says so.
    """

    LOOK_EVERY = 1.0
    """Seconds between two looks at the file."""

    def __init__(self, path: str | os.PathLike[str], seconds: Callable[[], float]) -> None:
        self._path = path
        self._seconds = seconds
        self._unreadable = Shortage(_log, "The tokens are not read again: {error}", seconds)
        self._seen = self._identity()
        self._table = self._read()
        self._lookedAt = seconds()

    def lookUp(self, name: str) -> Iterable[str]:
        """
        Return the tokens of a name.
        """
        now = self._seconds()
        if now >= self._lookedAt + self.LOOK_EVERY:
            self._lookedAt = now
            self._lookAgain()
        return self._table[name]

    def _lookAgain(self) -> None:
        try:
            seen = self._identity()
            if seen != self._seen:
                self._table = self._read()
                self._seen = seen
        except (OSError, ValueError) as error:
            self._unreadable.met(error)

    def _identity(self) -> tuple[int, ...]:
        status = os.stat(self._path)
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _read(self) -> _Table:
        table = _Table()
        text = readFile(self._path, _MAX_SIZE).decode("utf-8-sig")
        for number, line in enumerate(text.split("\n"), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            where = f"{os.fspath(self._path)}, line {number}"
            if len(words) != 2:
                raise ValueError(f"{where}: it must be a name and a token")
            name, token = words
            _check(name, [token], where)
            table[name] = (*table[name], token)
        return table
