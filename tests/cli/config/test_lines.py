# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{linesOf}: the lines of a TOML file's keys.
"""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from twisted_heartbeat.cli.config.lines import linesOf


def test_linesOfEachForm() -> None:
    """
    Headers, arrays of tables, dotted keys, quoted keys and inline tables are found.
    """
    text = """# a comment
a = 1
[b]   # c = 2
c = "[x]"
"d.e" = 3
f.g = 4

[[h]]
i = 5
[h.j]
k = 6
[[h]]
i = {l = 7, m = [8]}
"""
    assert linesOf(text) == {
        ("a",): 2,
        ("b",): 3,
        ("b", "c"): 4,
        ("b", "d.e"): 5,
        ("b", "f"): 6,
        ("b", "f", "g"): 6,
        ("h",): 8,
        ("h", 0): 8,
        ("h", 0, "i"): 9,
        ("h", 0, "j"): 10,
        ("h", 0, "j", "k"): 11,
        ("h", 1): 12,
        ("h", 1, "i"): 13,
        ("h", 1, "i", "l"): 13,
        ("h", 1, "i", "m"): 13,
        ("h", 1, "i", "m", 0): 13,
    }


def test_tablesWithoutAHeader() -> None:
    """
    A table without a header of its own is where the first header inside of it is; its own header
    goes before that, wherever it stands.
    """
    text = "[a.b.c]\nd = 1\n[a.e]\n[a]\nf = 2\n[[g.h]]\n"
    assert linesOf(text) == {
        ("a",): 4,
        ("a", "b"): 1,
        ("a", "b", "c"): 1,
        ("a", "b", "c", "d"): 2,
        ("a", "e"): 3,
        ("a", "f"): 5,
        ("g",): 6,
        ("g", "h"): 6,
        ("g", "h", 0): 6,
    }


def test_uncertainLinesAreLeftOut() -> None:
    """
    In a value of several lines only the key's own line is certain; what looks like a key inside of
    a text is none.
    """
    text = 'a = [\n  1,\n  {b = 2},\n]\nc = """\nd = 3\n[e]\n"""\nf = 4\n'
    assert linesOf(text) == {("a",): 1, ("c",): 5, ("f",): 9}


def test_longStatementEndsTheSearch() -> None:
    """
    After a statement of hundreds of lines no line is told: each further one would cost more.
    """
    text = "a = 1\nb = [\n" + "1,\n" * 300 + "]\nc = 2\n"
    assert linesOf(text) == {("a",): 1}


def test_carriageReturns() -> None:
    """
    The lines of an editor of Windows are found as well.
    """
    assert linesOf('a = 1\r\n[b]\r\nc = "d"\r\n') == {("a",): 1, ("b",): 2, ("b", "c"): 3}


def test_hugeValueEndsTheSearch() -> None:
    """
    A value of long lines, which would be parsed again with each of them, ends the search as well.
    """
    text = "a = 1\nb = [\n" + f'"{"x" * 50_000}",\n' * 20 + "]\nc = 2\n"
    assert linesOf(text) == {("a",): 1}


KEYS = st.sampled_from(["a", "b", "c"])
STATEMENTS = st.one_of(
    st.builds("{} = 1".format, KEYS),
    st.builds("{}.{} = 1".format, KEYS, KEYS),
    st.builds("[{}]".format, KEYS),
    st.builds("[{}.{}]".format, KEYS, KEYS),
    st.builds("[[{}]]".format, KEYS),
    st.builds("[[{}.{}]]".format, KEYS, KEYS),
    st.builds("{} = [\n1,\n2]".format, KEYS),
    st.builds("{} = {{a = 1}}".format, KEYS),
    st.just("# a = 1"),
    st.just(""),
)


@given(st.lists(STATEMENTS, max_size=12))
def test_eachPathIsInTheFile(statements: list[str]) -> None:
    """
    Of any file that is valid, each path that has a line leads to something, and the last key of the
    path stands on that line.
    """
    text = "\n".join(statements)
    try:
        document = tomllib.loads(text)
    except ValueError:
        return
    lines = text.split("\n")
    for path, number in linesOf(text).items():
        found: Any = document
        for part in path:
            found = found[part]
        names = [part for part in path if isinstance(part, str)]
        assert names[-1] in lines[number - 1]
