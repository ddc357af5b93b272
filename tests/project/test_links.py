# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The links of all pages lead somewhere, those of the root's pages too, which Sphinx does not build.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PAGES = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")])

_FENCE = re.compile(r"^(?:```|~~~).*?^(?:```|~~~)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def textOf(page: Path) -> str:
    """
    The text of a page without its blocks of code, and without code in lines.
    """
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


@cache
def anchorsOf(page: Path) -> frozenset[str]:
    """
    The anchors of a page's headings, as GitHub and MyST make them.
    """
    anchors = set()
    for heading in _HEADING.findall(textOf(page)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchors.add(re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-"))
    return frozenset(anchors)


def broken(page: Path, text: str) -> Iterator[str]:
    """
    Yield the links of a page that lead nowhere.
    """
    for link in _LINK.findall(re.sub(r"`[^`\n]*`", "x", text)):
        target, _, anchor = link.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        path = page if not target else page.parent / target
        if not path.exists():
            yield link
        elif anchor and path.suffix == ".md" and anchor not in anchorsOf(path.resolve()):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_linksLeadSomewhere(page: Path) -> None:
    """
    Each relative link names a file that is there, and a heading that it has.
    """
    assert list(broken(page.resolve(), textOf(page))) == []


def test_aBrokenLinkIsFound() -> None:
    """
    The check of the links can fail.
    """
    page = CHECKOUT / "README.md"
    text = "[a](docs/lost.md), [b](docs/index.md#lost), [c](https://lost.example), ![d](docs)"
    assert list(broken(page, text)) == ["docs/lost.md", "docs/index.md#lost"]
