# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Text of a peer or of user code, made safe for a log and a terminal.
"""

from __future__ import annotations

MAX_PRINTED = 1024
"""Characters of one text that are printed.  A goodbye's reason, 1,024 bytes, is never cut."""

_CUT = "..."


def printable(text: str) -> str:
    """
    Escape every character of a text that is not printable, and cut the text at L{MAX_PRINTED}.

    A peer's text, or a user's exception, may hold escape sequences that rewrite the lines of a
    terminal, line breaks that forge a second event, and bidirectional marks that reorder what is
    read.  They are escaped here only: where text becomes a cause's words, the description of an
    error, or a field of the log.

    Printable is what C{str.isprintable} says: no control and format characters, surrogates, unused
    characters (Unicode categories Cc, Cf, Cs, Co, Cn), and no separators but the space (Zl, Zp,
    Zs).  Each other character is written as in a Python string, C{\\x1b} or C{\\u202e}.

    @return: the text itself where nothing has to change.
    """
    if len(text) > MAX_PRINTED:
        text = text[: MAX_PRINTED - len(_CUT)] + _CUT
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else _escaped(each) for each in text)


def textOf(value: object) -> str:
    """
    Convert an object of user code to text.  If its C{str} raises, its class's name stands for it;
    otherwise a log line or a cause would fail because of it.
    """
    try:
        return str(value)
    except BaseException:
        return f"<{type(value).__name__}: str() failed>"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
