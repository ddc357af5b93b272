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
from ..status.access import Access
from ..transport.compat import hostOfEndpoint, portOfEndpoint, wrappedEndpoint
from .exitstatus import EX_OSERR, EX_UNAVAILABLE
from .status import onLoopback, readToken

_LONGEST = 1e9
"""Seconds, about thirty years: the longest time that the timers of every system accept."""


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
        "Watch the peers that connect to this endpoint, for example tcp:8470. May be given several "
        "times."
    ),
    "connect": (
        "Keep one link up to the --listen at this endpoint, for example "
        "tcp:server.example:8470. May be given several times, for one link each."
    ),
    "name": (
        "The name of this process on all its links; the other side logs it. Default: no name."
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
        "Give up a link when attempts have failed for this many seconds in a row. Default: never."
    ),
    "status": (
        "Show a status page at this endpoint, for example tcp:8080 or just 8080; on loopback, "
        "unless interface= says otherwise. Default: no page."
    ),
    "status-token-file": (
        "Ask the visitors of the status page for the token in this file. Default: no token."
    ),
}
"""The help text of each option."""


@dataclass(frozen=True)
class EndpointSpec:
    """
    One endpoint to listen on or to connect to.

    @ivar description: the string from the command line; the C{link} of the log.
    @ivar endpoint: the endpoint that Twisted built from it.
    """

    description: str
    endpoint: Any


class Options(_Options):
    """
    The command line.  Each value is checked when it is parsed, so that an invalid value is a
    C{UsageError} before anything starts.
    """

    synopsis = "--listen ENDPOINT | --connect ENDPOINT [--name NAME] [options]"
    longdesc = (
        "Watches the links of the peers that connect, keeps links up to other hosts, or both. Each "
        "link is proven alive within the bound, or it is closed, its cause is logged, and it is "
        "replaced. Every change is one event in the log, which can be written as JSON."
    )

    def __init__(self, reactor: Any = None) -> None:
        """
        @param reactor: the reactor that the endpoints use; the global reactor if L{None}.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        # Twisted takes the help from docstrings, and python -OO removes those.
        self.docs |= _HELP
        self._reactor = reactor
        self["listen"] = []
        self["connect"] = []
        self["name"] = ""
        self["heartbeat"] = Heartbeat()
        self["keepAlive"] = KeepAlive()
        self["backoff"] = Backoff()
        self["status"] = None
        self["statusToken"] = None

    @property
    def reactor(self) -> Any:
        """
        The reactor that everything runs on.  The global reactor is imported only here.  By then
        twist and twistd have installed the chosen one, because their options precede these.
        """
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        return self._reactor

    def getUsage(self, width: int | None = None) -> str:
        return super().getUsage(width) + _MORE_HELP

    def opt_listen(self, endpoint: str) -> None:
        spec = self._parseEndpoint("listen", endpoint, serverFromString, "tcp:8470", lowestPort=0)
        self["listen"].append(spec)

    def opt_connect(self, endpoint: str) -> None:
        example = "tcp:server.example:8470"
        spec = self._parseEndpoint("connect", endpoint, clientFromString, example, lowestPort=1)
        self["connect"].append(spec)

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

    def opt_status(self, endpoint: str) -> None:
        description = onLoopback(endpoint)
        self["status"] = self._parseEndpoint(
            "status", description, serverFromString, "tcp:8080", lowestPort=0
        )

    def opt_status_token_file(self, path: str) -> None:
        try:
            token = readToken(path)
            Access(token)
        except (OSError, ValueError) as error:
            allowed = f"a file that holds a token ({describeError(error)})"
            raise _wrong("status-token-file", path, allowed) from None
        self["statusToken"] = token

    def parseArgs(self, *arguments: str) -> None:
        """
        Refuse positional arguments.

        @raise UsageError: if there are any.
        """
        if arguments:
            raise UsageError(
                f"{arguments[0]!r} is no option: an endpoint must follow --listen or --connect"
            )

    def postOptions(self) -> None:
        """
        Require at least one endpoint.

        @raise UsageError: if there is neither C{--listen} nor C{--connect}.
        """
        if not self["listen"] and not self["connect"]:
            raise UsageError(
                "neither --listen nor --connect is given: there must be at least one of them"
            )

    def _parseEndpoint(
        self,
        option: str,
        description: str,
        parse: Callable[[Any, str], Any],
        example: str,
        lowestPort: int,
    ) -> EndpointSpec:
        try:
            endpoint = parse(self.reactor, description)
        except Exception as error:
            # Any plugin may provide the endpoint's parser, so it may raise any exception.
            allowed = f"an endpoint such as {example} ({_errorText(error)})"
            raise _wrong(option, description, allowed) from None
        innermost = _innermost(endpoint)
        port = portOfEndpoint(innermost)
        if isinstance(port, int) and not lowestPort <= port <= 65535:
            allowed = f"an endpoint with a port from {lowestPort} to 65535, such as {example}"
            raise _wrong(option, description, allowed)
        if hostOfEndpoint(innermost) == "":
            raise _wrong(option, description, f"an endpoint with a host, such as {example}")
        return EndpointSpec(description, endpoint)


def _wrong(option: str, value: str, allowed: str) -> UsageError:
    return UsageError(f"--{option} is {value!r}: it must be {allowed}")


def _seconds(
    option: str, text: str, least: float = 0.0, allowed: str = "a number of seconds above 0"
) -> float:
    """
    Parse a number of seconds.

    @param least: the smallest allowed number; 0 itself is never allowed.
    @raise UsageError: if the text is anything else.
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


def _errorText(error: Exception) -> str:
    """
    The message of an endpoint parser's exception, without the name of the function.
    """
    message = str(error).rpartition("() ")[2]
    return message if isinstance(error, TypeError) else describeError(error)


def _innermost(endpoint: Any) -> Any:
    """
    The endpoint inside of Twisted's wrapping endpoints, such as that of C{tls:}.
    """
    while (inner := wrappedEndpoint(endpoint)) is not None:
        endpoint = inner
    return endpoint
