# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Kind}: which values a setting takes, in a file and on the command line.

Each kind says in words what it allows.  The words complete the sentence "it must be ...".
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from ...core import wire
from ...core.pingapi import isName
from ...core.settings import MIN_BOUND
from ...core.text import printable
from ...core.validation import isCount, isNumber
from ..status import onLoopback

LONGEST = 1e9
"""Seconds, about thirty years: the longest time that the timers of every system accept."""

_MAX_SHOWN = 200
"""Characters of a wrong value that are shown."""


@dataclass(frozen=True, eq=False)
class Kind:
    """
    Which values a setting takes.

    @ivar allowed: in words.
    @ivar accepts: whether a value of the file is one of them.
    @ivar convert: makes the setting's value from it.
    @ivar isNumber: whether the values are numbers, so that text of the command line becomes one.
    @ivar isSecret: whether the values are not to be repeated in messages.
    @ivar refersTo: what the value names, if it has to be looked up: see
        L{Resolver<twisted_heartbeat.cli.config.resolver.Resolver>}.
    """

    allowed: str
    accepts: Callable[[object], bool]
    convert: Callable[[object], object] = lambda value: value
    isNumber: bool = False
    refersTo: str = ""
    isSecret: bool = False

    def read(self, value: object) -> object:
        """
        Return the setting's value.

        @param value: as the file has it.
        @raise ValueError: if it is not allowed; says what is.
        """
        if not self.accepts(value):
            raise ValueError(self.allowedFor(value))
        return self.convert(value)

    def allowedFor(self, value: object) -> str:
        """
        Return what is allowed, for a sentence about a wrong value.
        """
        if not self.isNumber:
            return self.allowed
        if isinstance(value, str) and isNumber(numberOf(value)):
            return f"{self.allowed}, without quotes"
        if isNumber(value) and isinstance(value, int | float) and value > LONGEST:
            return f"{self.allowed}, and at most {LONGEST:.0f}"
        return self.allowed


def numberOf(text: str) -> object:
    """
    Return the number that a text of the command line is; any other text unchanged.
    """
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def shown(value: object) -> str:
    """
    Return a wrong value for a message, as TOML writes it.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    try:
        text = str(value)
    except ValueError:
        # Python writes no integer of more than 4,300 digits.
        return "a number of thousands of digits"
    if len(text) > _MAX_SHOWN:
        text = f"{text[:_MAX_SHOWN]}..."
    return printable(repr(text) if isinstance(value, str) else text)


def _from(
    least: float, most: float = LONGEST, *, above: bool = False, below: bool = False
) -> Callable[[object], bool]:
    """
    Return the check of a number's range.

    @param above: whether C{least} itself is outside.
    @param below: whether C{most} itself is.
    """

    def accepts(value: object) -> bool:
        if not isNumber(value) or not isinstance(value, int | float):
            return False
        isAbove = value > least if above else value >= least
        return isAbove and (value < most if below else value <= most)

    return accepts


def _float(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)


def _isName(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        wire.encode(wire.Hello(value))
    except ValueError:
        return False
    return True


def _isText(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _isTexts(value: object) -> bool:
    return _isText(value) or (isinstance(value, list) and bool(value) and all(map(_isText, value)))


def _texts(value: object) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    return tuple(text for text in texts if isinstance(text, str))


def placeOf(text: str) -> tuple[str, int]:
    """
    Return the host and the port of a text such as C{hub.example:8471} or C{[::1]:8471}; the host
    may be missing.  The port is -1, and the host missing, if it is none.
    """
    host, _, port = text.rpartition(":")
    isPort = port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535
    isInBrackets = host.startswith("[") and host.endswith("]")
    # Without brackets the end of an IPv6 address would be taken for a port.
    if not isPort or (":" in host and not isInBrackets):
        return "", -1
    return host[1:-1] if isInBrackets else host, int(port)


def isAddress(text: str) -> bool:
    """
    Whether a text is a place to listen at: a port, with or without an IP address.
    """
    host, port = placeOf(text)
    with suppress(ValueError):
        return port >= 0 and (not host or bool(ip_address(host)))
    return False


def isMonitor(text: str) -> bool:
    """
    Whether a text is a place to send to: a host and a port.
    """
    host, port = placeOf(text)
    return port > 0 and isHost(host)


_LABEL = re.compile(r"[\w-]+", re.ASCII)
"""A part of a host's name.  Some names in use have an underscore."""


def isHost(text: str) -> bool:
    """
    Whether a text is an IP address, or a name that could be looked up.
    """
    with suppress(ValueError):
        return bool(ip_address(text))
    try:
        labels = text.encode("idna").decode("ascii").removesuffix(".").split(".")
    except UnicodeError:
        return False
    if not all(map(_LABEL.fullmatch, labels)):
        return False
    if not labels[-1].isdecimal():
        return True
    # The last part of no name is a number, but inet_aton(3) knows shorter forms of an address.
    with suppress(OSError):
        return bool(socket.inet_aton(text))
    return False


def _onLoopback(value: object) -> object:
    assert isinstance(value, str)
    return onLoopback(value)


SECONDS = Kind("a number of seconds above 0", _from(0, above=True), _float, True)
SECONDS_OR_0 = Kind("a number of seconds, 0 or more", _from(0), _float, True)
BOUND = Kind(f"a number of seconds, at least {MIN_BOUND}", _from(MIN_BOUND), _float, True)
COUNT = Kind(
    "a whole number, 1 or more",
    lambda value: isinstance(value, int) and isCount(value) and value <= LONGEST,
    isNumber=True,
)
FACTOR = Kind("a number, 1 or more", _from(1), _float, True)
JITTER = Kind(
    '"full" or a fraction from 0 to 1',
    lambda value: value == "full" or _from(0, 1)(value),
    lambda value: value if value == "full" else _float(value),
    True,
)
NAME = Kind(f"text of at most {wire.MAX_NAME} bytes in UTF-8", _isName)
TEXT = Kind("text", _isText)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
LISTEN = Kind("an endpoint such as tcp:8470", _isText, refersTo="listen")
CONNECT = Kind(
    "an endpoint such as tcp:server.example:8470, or a list of them",
    _isTexts,
    _texts,
    refersTo="connect",
)
CALLABLE = Kind('a dotted name such as "package.module.function"', _isText, refersTo="callable")
STATUS = Kind(
    "an endpoint such as tcp:8080, or only a port", _isText, _onLoopback, refersTo="listen"
)
UDP_KEYS = Kind(
    "the path of a file with a name, a key id and a key in each line",
    _isText,
    refersTo="udp keys",
)
UDP_PLACES = Kind(
    "a HOST:PORT such as hub.example:8471, or a list of them",
    lambda value: _isTexts(value) and all(map(isMonitor, _texts(value))),
    _texts,
)
UDP_ADDRESSES = Kind(
    "a port such as 8471 in quotes, an IP address and a port such as 127.0.0.1:8471, or a list of "
    "them",
    lambda value: _isTexts(value) and all(map(isAddress, _texts(value))),
    _texts,
)
LOSS = Kind(
    "a fraction from 0 to below 1",
    _from(0, 1, below=True),
    _float,
    True,
)
CHECK_IN = Kind("the URL of a check", _isText, refersTo="check-in", isSecret=True)
CHECK_NAME = Kind(
    "a name of letters, digits, '-', '_' and '.', which is no number and not start, fail or log",
    lambda value: isinstance(value, str) and isName(value),
)
HTTP = Kind(
    "an endpoint such as tcp:8080, or a list of them",
    _isTexts,
    lambda value: tuple(map(onLoopback, _texts(value))),
    refersTo="listen",
)
CHECK_IN_TOKENS = Kind(
    "the path of a file with a name and a token in each line", _isText, refersTo="check-in tokens"
)
TOKEN_FILE = Kind("the path of a file that holds a token", _isText, refersTo="token")
STORE = Kind("the path of a file, in a folder that is there", _isText, refersTo="store")
PRESENCE_HOOKS = Kind(
    'a dotted name such as "package.module.name", or a list of them',
    _isTexts,
    _texts,
    refersTo="presence hooks",
)
HOOKS = Kind(
    'a dotted name such as "package.module.name", or a list of them',
    _isTexts,
    _texts,
    refersTo="hooks",
)
