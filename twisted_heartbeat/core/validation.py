# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Checks of settings.  Each failure is one sentence: the field, its value, what is allowed.
"""

from __future__ import annotations

from math import isfinite


def _isNumber(value: object) -> bool:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
    except OverflowError:
        return False


def _require(holds: bool, owner: object, field: str, value: object, allowed: str) -> None:
    """
    @raise ValueError: unless C{holds}.
    """
    if not holds:
        raise ValueError(f"{type(owner).__name__}.{field} is {value!r}: it must be {allowed}")


def _requirePositive(owner: object, *fields: str, orNone: bool = False) -> None:
    allowed = "a number above 0" + (", or None to switch it off" if orNone else "")
    for field in fields:
        value = getattr(owner, field)
        holds = (orNone and value is None) or (_isNumber(value) and value > 0)
        _require(holds, owner, field, value, allowed)
