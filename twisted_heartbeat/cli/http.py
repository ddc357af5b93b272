# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The options of C{twist heartbeat} for check-ins over HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.endpoints import serverFromString
from twisted.python.usage import Options, UsageError

from ..core.checkins import Check
from ..core.pingapi import isName
from .status import onLoopback

if TYPE_CHECKING:
    from ..checkin.client import CheckIn
    from ..checkin.resource import CheckInResource

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


class HTTPOptions(Options):
    """
    The options, for the class of all options to inherit.
    """

    reactor: Any

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["check-in"] = []
        self["check-in-every"] = 60.0
        self["http"] = []
        self["checks"] = {}
        self["http-tokens"] = None

    def opt_check_in(self, url: str) -> None:
        self._makeCheckIn(url, 60.0)
        self["check-in"].append(url)

    def opt_check_in_every(self, seconds: str) -> None:
        try:
            self._makeCheckIn("http://localhost/", float(seconds))
        except ValueError:
            allowed = "a number of seconds above 0"
            raise UsageError(f"--check-in-every is {seconds!r}: it must be {allowed}") from None
        self["check-in-every"] = float(seconds)

    def opt_http(self, endpoint: str) -> None:
        described = onLoopback(endpoint)
        try:
            parsed = serverFromString(self.reactor, described)
        except Exception:
            # Any plugin may provide the endpoint's parser, so it may raise any exception.
            allowed = "an endpoint such as tcp:8080"
            raise UsageError(f"--http is {endpoint!r}: it must be {allowed}") from None
        self["http"].append((described, parsed))

    def opt_check(self, check: str) -> None:
        name, *times = check.split(":")
        try:
            period, grace = (float(time) for time in times)
            if not isName(name):
                raise ValueError
            self["checks"][name] = Check(period=period, grace=grace)
        except ValueError:
            allowed = "NAME:PERIOD:GRACE, such as nightly-backup:86400:3600, in seconds"
            raise UsageError(f"--check is {check!r}: it must be {allowed}") from None

    def opt_http_tokens(self, path: str) -> None:
        self["http-tokens"] = path
        try:
            self._makeResource()
        except (OSError, ValueError) as error:
            raise UsageError(f"--http-tokens is {path!r}: {error}") from None

    def postOptions(self) -> None:
        """
        Require C{--http} for what belongs to it.

        @raise UsageError: if it is missing.
        """
        if not self["http"] and (self["checks"] or self["http-tokens"]):
            given = "--check" if self["checks"] else "--http-tokens"
            raise UsageError(f"{given} is given and --http is not: nothing receives check-ins")

    def _makeResource(self) -> CheckInResource:
        # Not at the top, because it loads twisted.web.
        from ..checkin.resource import CheckInResource

        tokens = self["http-tokens"]
        return CheckInResource(checks=self["checks"], tokens=tokens, clock=self.reactor)

    def _makeCheckIn(self, url: str, interval: float) -> CheckIn:
        # The package's own import says which extra is missing.
        try:
            from .. import CheckIn
        except ImportError as error:
            raise UsageError(f"--check-in: {error}") from None
        try:
            return CheckIn(url, interval=interval, reactor=self.reactor)
        except ValueError as error:
            if "url" not in str(error):
                raise
            # The URL may hold a token.
            reason = str(error).partition(": ")[2]
            raise UsageError(f"--check-in: {reason.removesuffix(' (use token=)')}") from None
