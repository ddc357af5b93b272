# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{linesOf}: on which line of a TOML file each key stands.

Problem: C{tomllib} tells no lines, and a second parser of TOML would be another place for errors.

Idea: a TOML file is a sequence of statements, each of which is valid TOML alone: a header, a key
with its value, a comment.  Lines are added to a statement until C{tomllib} accepts it.  It then
also tells the names.

A line that is not certain is left out: that of a key inside of a value of several lines, and all
lines after a statement of more than L{_MAX_LINES} lines, or after L{_MAX_PARSED}.

Cost: each line is parsed once, and the lines of a long value once for each line.  It is paid only
when there is a fault to report.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

from .values import Path

_MAX_LINES = 200

_MAX_PARSED = 4 * 1024 * 1024
"""Characters that are parsed in all: a long value is parsed again with each of its lines."""


def linesOf(text: str) -> dict[Path, int]:
    """
    Return the lines of the keys and headers, the first line of each, from 1 on.

    @param text: valid TOML.
    """
    lines: dict[Path, int] = {}
    # Of tables without a header of their own: a header inside of them.
    implied: dict[Path, int] = {}
    tables: dict[Path, int] = {}
    here: Path = ()
    for number, statement, found in _statements(text):
        if statement.lstrip().startswith("["):
            here = _headerPath(found, tables)
            lines.setdefault(here, number)
            if isinstance(here[-1], int):
                lines.setdefault(here[:-1], number)
            for end in range(1, len(here)):
                implied.setdefault(here[:end], number)
        elif "\n" in statement:
            for name in found:
                lines.setdefault((*here, name), number)
        else:
            for path in _pathsIn(found, here):
                lines.setdefault(path, number)
    return implied | lines


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """
    Yield each statement, with its first line and what C{tomllib} makes of it.
    """
    begin = 1
    pending: list[str] = []
    parsed = 0
    # A carriage return alone is no end of a line, so that no statement could end in one.
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not pending:
            begin = number
        pending.append(line)
        statement = "\n".join(pending)
        parsed += len(statement)
        if parsed > _MAX_PARSED:
            return
        try:
            found = tomllib.loads(statement)
        except ValueError:
            if len(pending) >= _MAX_LINES:
                return
            continue
        pending.clear()
        if found:
            yield begin, statement, found


def _headerPath(found: dict[str, Any], tables: dict[Path, int]) -> Path:
    """
    Return the path of the table that a header begins.

    @param tables: the number of tables in each array so far.
    """
    path: Path = ()
    inner: Any = found
    while inner:
        [(name, inner)] = inner.items()
        path = (*path, name)
        if isinstance(inner, list):
            tables[path] = tables.get(path, 0) + 1
            inner = None
        if path in tables:
            path = (*path, tables[path] - 1)
    return path


def _pathsIn(value: Any, here: Path) -> Iterator[Path]:
    items = enumerate(value) if isinstance(value, list) else value.items()
    for name, inner in items:
        path = (*here, name)
        yield path
        if isinstance(inner, dict | list):
            yield from _pathsIn(inner, path)
