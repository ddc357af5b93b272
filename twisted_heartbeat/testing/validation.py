# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Checks of arguments: each raises a L{ValueError} of one sentence.
"""

from __future__ import annotations

from math import inf
from typing import cast

from twisted.internet.abstract import isIPAddress, isIPv6Address

from ..core.validation import isNumber


def require(allowed: bool, name: str, value: object, meaning: str) -> None:
    """
    Check one condition.

    @param meaning: what is allowed, in words.

    @raise ValueError: unless C{allowed}.
    """
    if not allowed:
        raise ValueError(f"{name} must be {meaning}, not {value!r}")


def requireNumber(
    name: str, value: object, lowest: float, highest: float = inf, kind: type = float
) -> None:
    """
    Check that a value is a finite number in a closed range; with C{kind=int} a whole number.

    @raise ValueError: if the value is anything else.
    """
    noun = "a whole number" if kind is int else "a number"
    span = f", {lowest} or more" if highest == inf else f" from {lowest} to {highest}"
    allowed = isNumber(value) and (kind is not int or isinstance(value, int))
    require(allowed and lowest <= cast(float, value) <= highest, name, value, noun + span)


def requireAddress(name: str, host: object, port: object, lowestPort: int) -> None:
    """
    Check a host, which must be an IP address, and a port.

    @raise ValueError: if either is invalid.
    """
    allowed = isinstance(host, str) and (isIPAddress(host) or isIPv6Address(host))
    require(allowed, f"the host of {name}", host, "an IPv4 or IPv6 address")
    requireNumber(f"the port of {name}", port, lowestPort, 65535, kind=int)


def requireTarget(target: object, meaning: str) -> None:
    """
    Check that a target is a pair of an IP address and a port from 1 up.

    @raise ValueError: if it is anything else.
    """
    require(isinstance(target, tuple) and len(target) == 2, "target", target, meaning)
    requireAddress("target", *cast(tuple[object, object], target), lowestPort=1)
