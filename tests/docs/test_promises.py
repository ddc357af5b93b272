# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The page of the promises names tests that exist, and each promise that a test cites.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
TESTS = CHECKOUT / "tests"
PAGE = CHECKOUT / "docs" / "project" / "promises.md"

PROMISES = range(1, 25)
_CITED = re.compile(r"\b[Pp]romises?\s+(\d+(?:(?:,\s+|\s+and\s+|\s+to\s+|,\s+and\s+)\d+)*)")


def rowsOf(page: str) -> dict[int, list[str]]:
    """
    The cells of each row, by the number of its promise.
    """
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE)
    assert len({number for number, _ in rows}) == len(rows)
    return {int(number): cells.split(" | ") for number, cells in rows}


@cache
def namesIn(path: Path) -> frozenset[str]:
    """
    The names that pytest collects from a file: functions, and the classes that a state machine of
    hypothesis is assigned to.
    """
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {it.id for it in node.targets if isinstance(it, ast.Name)}
    return frozenset(name for name in names if name.lower().startswith("test"))


def missingIn(row: list[str]) -> Iterator[str]:
    """
    Yield the tests and benchmarks of a row that do not exist.
    """
    for named in re.findall(r"`([\w/.]+(?:::\w+)?)`", " ".join(row[1:])):
        file, _, test = named.partition("::")
        path = TESTS / file if test else CHECKOUT / file
        if not path.is_file() or (test and test not in namesIn(path)):
            yield named


def test_eachPromiseHasTests() -> None:
    """
    The page has each promise once, in one sentence, with the tests that fail if it is not kept.
    """
    rows = rowsOf(PAGE.read_text(encoding="utf-8"))
    assert sorted(rows) == list(PROMISES)
    for words, tests, *_ in rows.values():
        assert words.endswith(".")
        assert "::test_" in tests


@pytest.mark.parametrize("number", PROMISES)
def test_namedTestsExist(number: int) -> None:
    """
    Each test and each benchmark that the row of a promise names is there.
    """
    assert list(missingIn(rowsOf(PAGE.read_text(encoding="utf-8"))[number])) == []


def test_citedPromisesExist() -> None:
    """
    A test that cites a promise by its number cites one that the page has.
    """
    cited = {}
    for path in sorted(TESTS.rglob("*.py")):
        for numbers in _CITED.findall(path.read_text(encoding="utf-8")):
            cited |= {int(number): path.name for number in re.findall(r"\d+", numbers)}
    assert len(cited) > 20
    assert {number: name for number, name in cited.items() if number not in PROMISES} == {}


def test_missingTestIsFound() -> None:
    """
    The check above can fail.
    """
    row = [
        "Words.",
        "`docs/test_promises.py::test_gone`, `docs/gone.py::test_x`",
        "`benchmarks/x.py`",
    ]
    own = "`docs/test_promises.py::test_missingTestIsFound`, `benchmarks/storm.py`"
    assert list(missingIn(row)) == [
        "docs/test_promises.py::test_gone",
        "docs/gone.py::test_x",
        "benchmarks/x.py",
    ]
    assert list(missingIn(["Words.", own, ""])) == []
