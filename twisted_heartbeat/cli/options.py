# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The options of C{twist heartbeat}.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.python.usage import Options as _Options
from twisted.python.usage import UsageError

from ..core import wire
from ..core.backoff import Backoff
from ..core.diagnosis import describeError
from ..core.settings import MIN_BOUND, Heartbeat, KeepAlive
from .exitstatus import EX_OSERR, EX_UNAVAILABLE

_LONGEST = 1e9
"""Seconds, some thirty years: what the timers of every system can hold."""


_MORE_HELP = f"""
Examples:
  twist heartbeat --listen tcp:8470 --within 8
  twist heartbeat --connect tcp:server.example:8470 --name gateway-7 --within 8
  twist --log-format=json heartbeat --connect tcp:server.example:8470

Exit status:
  64  an option is wrong (twistd: 1)
  {EX_UNAVAILABLE}  every --connect has given up, and there is no --listen
  {EX_OSERR}  a --listen failed (twistd as a daemon: 1)
"""

_HELP = {
    "version": "Display Twisted version and exit.",
    "help": "Display this help and exit.",
    "listen": (
        "Watch whoever connects to this endpoint, for example tcp:8470. May be given several times."
    ),
    "connect": (
        "Keep one link up to the --listen at this endpoint, for example "
        "tcp:server.example:8470. May be given several times, for one link each."
    ),
    "name": (
        "What this process calls itself on all its links; the other side logs it. Default: no name."
    ),
    "within": (
        "The bound: seconds from the last byte received to the verdict that the peer is dead; "
        "0.2 or more. Default: 35."
    ),
    "keepalive": (
        "IDLE,INTERVAL,COUNT: the operating system's own probes. Seconds of idleness before "
        "the first, seconds between them, and how many may stay unanswered. Default: 5,5,3."
    ),
    "max-delay": "The longest wait before the next attempt to connect, in seconds. Default: 60.",
    "give-up-after": (
        "Give up a link when attempts have failed for so many seconds in a row. Default: never."
    ),
}
"""What the help says of each option."""


@dataclass(frozen=True)
class Place:
    """
    Where to listen, or to connect to.

    @ivar words: the endpoint as the operator wrote it; the C{link} of the log.
    @ivar endpoint: what was built from that.
    """

    words: str
    endpoint: Any


class Options(_Options):
    """
    The command line.  Each value is checked when it is parsed, so that a wrong one is a
    C{UsageError} before anything starts.
    """

    synopsis = "--listen ENDPOINT | --connect ENDPOINT [--name NAME] [options]"
    longdesc = (
        "Watches the links of whoever connects, keeps links up to others, or both. Each link is "
        "proven alive within the bound, or it is closed, its cause is logged, and it is replaced. "
        "Every change is one event of the log, which can be had in JSON."
    )

    def __init__(self, reactor: Any = None) -> None:
        """
        @param reactor: what the endpoints are built for; the global one if L{None}.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        # Twisted takes docstrings, of which python -OO has none.
        self.docs |= _HELP
        self._reactor = reactor
        self["listen"] = []
        self["connect"] = []
        self["name"] = ""
        self["heartbeat"] = Heartbeat()
        self["keepAlive"] = KeepAlive()
        self["backoff"] = Backoff()

    @property
    def reactor(self) -> Any:
        """
        What everything runs on.  When the global one is asked for here, twist and twistd have
        already installed the one that they were told to: their options stand before ours.
        """
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        return self._reactor

    def getUsage(self, width: int | None = None) -> str:
        """
        See L{twisted.python.usage.Options.getUsage}.
        """
        return super().getUsage(width) + _MORE_HELP

    def opt_listen(self, endpoint: str) -> None:
        place = self._place("listen", endpoint, serverFromString, "tcp:8470", lowestPort=0)
        self["listen"].append(place)

    def opt_connect(self, endpoint: str) -> None:
        example = "tcp:server.example:8470"
        place = self._place("connect", endpoint, clientFromString, example, lowestPort=1)
        self["connect"].append(place)

    def opt_name(self, name: str) -> None:
        try:
            wire.encode(wire.Hello(name))
        except ValueError:
            raise _wrong("name", name, f"at most {wire.MAX_NAME} bytes of UTF-8") from None
        self["name"] = name

    def opt_within(self, seconds: str) -> None:
        allowed = f"a number of seconds, at least {MIN_BOUND}"
        self["heartbeat"] = Heartbeat.within(_seconds("within", seconds, MIN_BOUND, allowed))

    def opt_keepalive(self, times: str) -> None:
        try:
            idle, interval, count = (int(number) for number in times.split(","))
            self["keepAlive"] = KeepAlive(idle=idle, interval=interval, count=count)
        except ValueError:
            allowed = "IDLE,INTERVAL,COUNT: three whole numbers, each 1 or more, such as 5,5,3"
            raise _wrong("keepalive", times, allowed) from None

    def opt_max_delay(self, seconds: str) -> None:
        maximum = _seconds("max-delay", seconds)
        backoff = self["backoff"]
        initial = min(Backoff().initial, maximum)
        self["backoff"] = replace(backoff, maximum=maximum, initial=initial)

    def opt_give_up_after(self, seconds: str) -> None:
        elapsed = _seconds("give-up-after", seconds)
        self["backoff"] = replace(self["backoff"], maxElapsed=elapsed)

    def parseArgs(self, *arguments: str) -> None:
        """
        There is nothing but options.
        """
        if arguments:
            raise UsageError(
                f"{arguments[0]!r} is no option: an endpoint must follow --listen or --connect"
            )

    def postOptions(self) -> None:
        """
        At least one thing has to be done.
        """
        if not self["listen"] and not self["connect"]:
            raise UsageError(
                "neither --listen nor --connect is given: there must be at least one of them"
            )

    def _place(
        self,
        option: str,
        words: str,
        parse: Callable[[Any, str], Any],
        example: str,
        lowestPort: int,
    ) -> Place:
        try:
            endpoint = parse(self.reactor, words)
        except Exception as error:
            # An endpoint's parser may be anybody's plugin, and raise anything.
            allowed = f"an endpoint such as {example} ({_complaint(error)})"
            raise _wrong(option, words, allowed) from None
        innermost = _innermost(endpoint)
        port = getattr(innermost, "_port", None)
        if isinstance(port, int) and not lowestPort <= port <= 65535:
            allowed = f"an endpoint with a port from {lowestPort} to 65535, such as {example}"
            raise _wrong(option, words, allowed)
        if getattr(innermost, "_host", None) == "":
            raise _wrong(option, words, f"an endpoint with a host, such as {example}")
        return Place(words, endpoint)


def _wrong(option: str, value: str, allowed: str) -> UsageError:
    return UsageError(f"--{option} is {value!r}: it must be {allowed}")


def _seconds(
    option: str, text: str, least: float = 0.0, allowed: str = "a number of seconds above 0"
) -> float:
    """
    @param least: 0 is itself too little, any other number is enough.
    @raise UsageError: if it is anything else.
    """
    try:
        number = float(text)
    except ValueError:
        raise _wrong(option, text, allowed) from None
    if not isfinite(number) or number <= 0 or number < least:
        raise _wrong(option, text, allowed)
    if number > _LONGEST:
        raise _wrong(option, text, f"{allowed}, and at most {_LONGEST:.0f}")
    return number


def _complaint(error: Exception) -> str:
    """
    What a parser of endpoints has to say, without the name of the function that says it.
    """
    said = str(error).rpartition("() ")[2]
    return said if isinstance(error, TypeError) else describeError(error)


def _innermost(endpoint: Any) -> Any:
    """
    The endpoint in Twisted's wrappers, such as that of C{tls:}.
    """
    while (inner := getattr(endpoint, "_wrappedEndpoint", None)) is not None:
        endpoint = inner
    return endpoint
