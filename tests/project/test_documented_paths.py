# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The paths that documents and settings name exist, so that a reader finds what they point to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .test_architecture import packageFiles

CHECKOUT = Path(__file__).parents[2]
PACKAGE = CHECKOUT / "twisted_heartbeat"
ARCHITECTURE = CHECKOUT / "docs" / "project" / "architecture.md"

NAMING = ["CONTRIBUTING.md", "README.md", "SECURITY.md", "tox.ini", ".ci/run"]
PAGES = [CHECKOUT / name for name in NAMING]
PAGES += [ARCHITECTURE, *sorted((CHECKOUT / "docs" / "project" / "decisions").glob("*.md"))]

_CODE = re.compile(r"`([\w./-]+/[\w./-]*|[\w-]+\.(?:py|md|ini|cfg|toml))`")
_TEST = re.compile(r"(?<![\w/.])(?:tests|benchmarks|docs)/[\w/.-]*[\w/]")


def pathsIn(text: str) -> Iterator[str]:
    """
    Yield what looks like a path of the checkout: a word with a slash, or with a suffix, in code
    quotes; and a path below one of the folders, anywhere.
    """
    for found in _CODE.findall(text):
        if not found.startswith("/") and found not in ELSEWHERE:
            yield found
    yield from _TEST.findall(text)


ELSEWHERE = {
    "quic/recovery.py",
    "protocol.py",
    "connection-backoff.md",
    ".tox/bench/tmp/",
    "charts/",
}
"""Paths of other projects, and of what a command makes."""


def exists(path: str) -> bool:
    """
    Whether a path is in the checkout, from its root, from the package or from the documents.
    """
    return any((base / path).exists() for base in (CHECKOUT, PACKAGE, CHECKOUT / "docs"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_namedPathsExist(page: Path) -> None:
    """
    A document that sends its reader to a file names one that is there.
    """
    missing = {path for path in pathsIn(page.read_text(encoding="utf-8")) if not exists(path)}
    assert missing == set()


def test_architectureNamesEachModule() -> None:
    """
    The page of the architecture lists each module, or its folder.
    """
    files = [path.relative_to(PACKAGE) for path in packageFiles().values()]
    named = set(pathsIn(ARCHITECTURE.read_text(encoding="utf-8")))
    assert [
        path.as_posix()
        for path in files
        if path.stem != "__init__"
        if path.as_posix() not in named and f"{path.parent.as_posix()}/" not in named
    ] == []


def stepsOf(page: str) -> list[tuple[list[str], list[str]]]:
    """
    The numbered steps of the walks through the code: the names in code quotes, and the files.
    """
    rows = re.findall(r"^\| \d+ \| (.*) \| (`[^|]*) \|$", page, re.MULTILINE)
    return [
        (re.findall(r"`([\w.]+)[^`]*`", text), re.findall(r"`([^`]+)`", files))
        for text, files in rows
    ]


def test_stepsNameWhatTheirFilesHave() -> None:
    """
    What a step of a walk names stands in one of the files of that step.
    """
    steps = stepsOf(ARCHITECTURE.read_text(encoding="utf-8"))
    assert len(steps) >= 20
    missing = []
    for names, files in steps:
        text = "\n".join((PACKAGE / name).read_text(encoding="utf-8") for name in files)
        words = set(re.findall(r"\w+", text))
        missing += [f"{name} in {files}" for name in names if not words >= set(name.split("."))]
    assert missing == []


def test_aMissingPathIsFound() -> None:
    """
    The check of the paths can fail.
    """
    text = "`core/lost.py`, `lost.md`, tests/test_lost.py, `time.time()`, `and/or`"
    assert sorted(path for path in pathsIn(text) if not exists(path)) == [
        "and/or",
        "core/lost.py",
        "lost.md",
        "tests/test_lost.py",
    ]
