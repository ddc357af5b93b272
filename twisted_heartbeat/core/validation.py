# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Checks of settings.  Each failure is one sentence: the field, its value, what is allowed.
"""

from __future__ import annotations

from math import isfinite
from typing import Any


def isNumber(value: object) -> bool:
    """
    Whether a value is a finite number; C{True} and C{False} are none.
    """
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    except OverflowError:
        return False


def isCount(value: Any) -> bool:
    """
    Whether a value is a whole number, 1 or more.
    """
    return isNumber(value) and value >= 1 and value == int(value)


def require(holds: bool, owner: object, field: str, value: object, allowed: str) -> None:
    """
    Raise an error that says what is allowed, unless C{holds}.

    @raise ValueError: if it does not hold.
    """
    if not holds:
        raise ValueError(f"{type(owner).__name__}.{field} is {value!r}: it must be {allowed}")


def requirePositive(owner: object, *fields: str, orNone: bool = False) -> None:
    """
    Require that each of these fields is a number above 0.

    @param orNone: whether L{None} is allowed too.
    @raise ValueError: for the first field that is anything else.
    """
    allowed = "a number above 0" + (", or None to switch it off" if orNone else "")
    for field in fields:
        value = getattr(owner, field)
        holds = (orNone and value is None) or (isNumber(value) and value > 0)
        require(holds, owner, field, value, allowed)
