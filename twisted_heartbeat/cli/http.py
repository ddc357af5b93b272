# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The options of C{twist heartbeat} for check-ins over HTTP.
"""

from __future__ import annotations

from functools import partial

from twisted.python.usage import UsageError

from ..core.checkins import Check
from ..core.pingapi import isName
from .config.resolver import checkInTokens, checkInURL, loopbackEndpoint
from .settingoptions import SettingOptions, wrongOption
from .status import onLoopback

HTTP_HELP = {
    "check-in": (
        "Tell the web server at this URL that this process is alive; with --connect, only while "
        "all its links are up. May be given several times."
    ),
    "check-in-every": "Seconds from one check-in to the next. Default: 60.",
    "http": (
        "Receive check-ins at this endpoint, for example tcp:8080, under the path /ping/NAME. "
        "Without interface= only this machine may check in. May be given several times."
    ),
    "check": (
        "NAME:PERIOD:GRACE: a name that has to check in at --http once in PERIOD seconds; GRACE "
        "seconds later it is missed. May be given several times."
    ),
    "http-tokens": (
        "The file with a NAME and its TOKEN in each line, which check-ins at --http have to show; "
        "* for all other names. With a token, ?create=1 may create names. Default: no token."
    ),
}
"""The help text of each option."""


class HTTPOptions(SettingOptions):
    """
    The options, for the class of all options to inherit.
    """

    def __init__(self) -> None:
        super().__init__()
        self["check-in"] = []
        self["check-in-every"] = 60.0
        self["http"] = []
        self["checks"] = {}
        self["http-tokens"] = None

    def opt_check_in(self, url: str) -> None:
        try:
            checkInURL(self.reactor, url)
        except ValueError as error:
            # The URL may hold a token.
            raise UsageError(f"--check-in: it must be {error}") from None
        self["check-in"].append(url)

    def opt_check_in_every(self, seconds: str) -> None:
        self["check-in-every"] = self.read("check-in-every", seconds, "check-in", "every")

    def opt_http(self, endpoint: str) -> None:
        self.check("http", endpoint, partial(loopbackEndpoint, self.reactor))
        self["http"].append(onLoopback(endpoint))

    def opt_check(self, check: str) -> None:
        name, *times = check.split(":")
        try:
            period, grace = (float(time) for time in times)
            if not isName(name):
                raise ValueError
            self["checks"][name] = Check(period=period, grace=grace)
        except ValueError:
            allowed = "NAME:PERIOD:GRACE, such as nightly-backup:86400:3600, in seconds"
            raise wrongOption("check", check, allowed) from None

    def opt_http_tokens(self, path: str) -> None:
        self["http-tokens"] = self.check("http-tokens", path, checkInTokens)

    def postOptions(self) -> None:
        """
        Require C{--http} for what belongs to it.

        @raise UsageError: if it is missing.
        """
        if not self["http"] and (self["checks"] or self["http-tokens"]):
            given = "--check" if self["checks"] else "--http-tokens"
            raise UsageError(f"{given} is given and --http is not: nothing receives check-ins")
