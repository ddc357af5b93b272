# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The Python that the pages show is Python: it can be pasted.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

CHECKOUT = Path(__file__).parents[2]
PAGES = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").rglob("*.md")])

_BLOCK = re.compile(r"^( *)```python\n(.*?)^\1```", re.DOTALL | re.MULTILINE)


def faultsIn(text: str) -> Iterator[str]:
    """
    Yield the first line of each block of Python that does not compile.  C{await} may stand outside
    of functions, because a page shows parts of coroutines, too.
    """
    for _, block in _BLOCK.findall(text):
        code = dedent(block)
        try:
            compile(code, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except SyntaxError as error:
            yield f"{code.splitlines()[0]}: {error}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_pythonCompiles(page: Path) -> None:
    """
    Each block of Python in a page compiles.
    """
    assert list(faultsIn(page.read_text(encoding="utf-8"))) == []


def test_aFaultIsFound() -> None:
    """
    The check can fail: it sees blocks in lists, and an ellipsis behind a keyword argument.
    """
    text = "- a list:\n\n  ```python\n  f(a=1, ...)\n  ```\n\n```python\nawait f()\n```\n"
    (fault,) = faultsIn(text)
    assert fault.startswith("f(a=1, ...): positional argument follows keyword argument")
