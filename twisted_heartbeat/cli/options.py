# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The options of C{twist heartbeat}.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from twisted.python.usage import UsageError

from .config.faults import ConfigError
from .config.loader import Loaded, Loader
from .config.resolver import connectEndpoint, listenEndpoint, loopbackEndpoint, tokenIn
from .config.values import Config, Path
from .exitstatus import EX_OSERR, EX_UNAVAILABLE, EX_USAGE
from .http import HTTP_HELP, HTTPOptions
from .settingoptions import wrongOption
from .systemd import tellFault
from .udp import UDP_HELP, UDPOptions

_MORE_HELP = f"""
Examples:
  twist heartbeat --listen tcp:8470 --within 8
  twist heartbeat --connect tcp:server.example:8470 --name gateway-7 --within 8
  twist --log-format=json heartbeat --connect tcp:server.example:8470
  twist heartbeat --http tcp:8080 --check nightly-backup:86400:3600
  twist heartbeat --config /etc/heartbeat/heartbeat.toml --check-config

Exit status:
  {EX_USAGE}  an option is wrong (twistd: 1), or the file is
  {EX_UNAVAILABLE}  every --connect has given up, and nothing else works either
  {EX_OSERR}  a --listen, --http, --status or --monitor-udp failed at the start
      (twistd as a daemon: 1)
"""

_HELP = {
    "version": "Display Twisted version and exit.",
    "help": "Display this help and exit.",
    "config": (
        "Read the settings from this TOML file, and again on SIGHUP. Other options replace what "
        "it says, and those that may be given several times are added."
    ),
    "check-config": "Check the settings and all that they name, start nothing, and exit.",
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


class Options(HTTPOptions, UDPOptions):
    """
    The command line.  Each value is checked when it is parsed, so that an invalid value is a
    C{UsageError} before anything starts.
    """

    synopsis = "--listen ENDPOINT | --connect ENDPOINT | --config FILE [options]"
    optFlags = [["check-config", None, None]]
    longdesc = (
        "Watches the links of the peers that connect, keeps links up to other hosts, or both. Each "
        "link is proven alive within the bound, or it is closed, its cause is logged, and it is "
        "replaced. Every change is one event in the log, which can be written as JSON."
    )

    def __init__(self, reactor: Any = None) -> None:
        """
        @param reactor: the reactor that the endpoints use; the global reactor if L{None}.
        """
        super().__init__()
        # Twisted takes the help from docstrings, and python -OO removes those.
        self.docs |= _HELP | HTTP_HELP | UDP_HELP
        self._reactor = reactor
        self.loader = Loader(reactor)
        self.loaded = Loaded(Config())
        self["config"] = ""

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

    def opt_config(self, file: str) -> None:
        # A daemon changes its folder, and has to find the file again on SIGHUP.
        self["config"] = os.path.abspath(file)

    def opt_listen(self, endpoint: str) -> None:
        self.check("listen", endpoint, partial(listenEndpoint, self.reactor))
        self.settings.append((("listen",), endpoint))

    def opt_connect(self, endpoint: str) -> None:
        self.check("connect", endpoint, partial(connectEndpoint, self.reactor))
        self.settings.append((("connect",), endpoint))

    def opt_name(self, name: str) -> None:
        self.set("name", name, "name")

    def opt_within(self, seconds: str) -> None:
        self.set("within", seconds, "heartbeat", "within")

    def opt_keepalive(self, times: str) -> None:
        numbers = times.split(",")
        names = ("idle", "interval", "count")
        try:
            for name, number in zip(names, numbers, strict=True):
                self.set("keepalive", number, "keepalive", name)
        except (UsageError, ValueError):
            allowed = "IDLE,INTERVAL,COUNT: three whole numbers, each 1 or more, such as 5,5,3"
            raise wrongOption("keepalive", times, allowed) from None

    def opt_max_delay(self, seconds: str) -> None:
        self.set("max-delay", seconds, "backoff", "maximum")

    def opt_give_up_after(self, seconds: str) -> None:
        self.set("give-up-after", seconds, "backoff", "max-elapsed")

    def opt_status(self, endpoint: str) -> None:
        self.check("status", endpoint, partial(loopbackEndpoint, self.reactor))
        self.set("status", endpoint, "status", "endpoint")

    def opt_status_token_file(self, path: str) -> None:
        self.check("status-token-file", path, tokenIn)
        self.set("status-token-file", path, "status", "token-file")

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
        Read the file, if there is one, and check everything.

        @raise UsageError: if the options are wrong.
        @raise SystemExit: if the file is wrong, or is only to be checked.  The help, which would
            follow a C{UsageError}, does not help with a file.
        """
        if not self["config"]:
            # What they need may otherwise stand in the file.
            HTTPOptions.postOptions(self)
            UDPOptions.postOptions(self)
        given = (*self.settings, *self._checkInSettings(), *self._datagramSettings())
        self.loader = Loader(self.reactor, self["config"], given)
        try:
            self.loaded = self.loader.load()
        except ConfigError as error:
            if not self["config"]:
                raise UsageError(str(error)) from None
            print(error, file=sys.stderr)
            if not self["check-config"]:
                tellFault(error.sentences[0], os.environ)
            raise SystemExit(EX_USAGE) from None
        if self["check-config"]:
            print(f"{self['config'] or 'options'}: no fault found")
            raise SystemExit(0)

    def _datagramSettings(self) -> Iterator[tuple[Path, object]]:
        """
        Yield the options of L{UDPOptions} as settings.
        """
        sections = {"monitor": ("monitor-udp", "address"), "udp": ("udp", "monitors")}
        for section, (option, key) in sections.items():
            for host, port in self[option]:
                address = f"[{host}]" if ":" in host else host
                yield (section, key), f"{address}:{port}" if host else f"{port}"
            if self[option] and self["udp-keys"]:
                yield (section, "key-file"), self["udp-keys"]
        if self["udp-every"] is not None:
            yield ("udp", "every"), self["udp-every"]

    def _checkInSettings(self) -> Iterator[tuple[Path, object]]:
        """
        Yield the options of L{HTTPOptions} as settings.
        """
        for url in self["check-in"]:
            yield ("check-in",), {"url": url, "every": self["check-in-every"]}
        for description in self["http"]:
            yield ("http", "endpoint"), description
        for name, check in self["checks"].items():
            yield ("check",), {"name": name, "period": check.period, "grace": check.grace}
        if self["http-tokens"]:
            yield ("http", "token-file"), self["http-tokens"]
