# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The command line of the tester.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from math import isfinite
from typing import Any, NoReturn

from twisted.internet.endpoints import clientFromString, serverFromString

from .play import CLIENT, SERVER, Settings
from .report import FORMATS
from .scenarios import SCENARIOS, Scenario

USAGE = 64
"""The exit status of a wrong option (sysexits.h)."""

_DESCRIPTION = """\
Test a peer that was written from docs/wire-protocol.md, in any language.

Without PEER the tester listens, for a device that connects: start the device, let it come
back as often as it likes, and stop it when the report is printed. With PEER the tester
connects to a server: HOST:PORT, or the string of a Twisted endpoint."""

_MORE_HELP = """\
examples:
  python -m twisted_heartbeat.conformance --listen tcp:8470
  python -m twisted_heartbeat.conformance localhost:8470
  python -m twisted_heartbeat.conformance "tls:server.example:8470" --only "violation-*"

exit status:
  0   no rule is broken
  1   a rule is broken
  2   no peer came, or a scenario was not played
  64  an option is wrong
"""


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}\n")


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not (number > 0 and isfinite(number)):
        raise ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return number


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise ArgumentTypeError(f"must be a whole number, 1 or more, not {text!r}")
    return int(text)


def _parser() -> ArgumentParser:
    parser = _Parser(
        prog="python -m twisted_heartbeat.conformance",
        description=_DESCRIPTION,
        epilog=_MORE_HELP,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("peer", nargs="?", metavar="PEER", help="the server to test")
    add(
        "--listen",
        metavar="ENDPOINT",
        default="tcp:0:interface=127.0.0.1",
        help="where devices connect (default: a free port of 127.0.0.1)",
    )
    add(
        "--bound",
        type=_positive,
        default=Settings.bound,
        metavar="SECONDS",
        help="the bound that the tester states of itself (default: %(default)g)",
    )
    add(
        "--tolerance",
        type=_positive,
        default=Settings.tolerance,
        metavar="SECONDS",
        help="how late anything may come (default: %(default)g)",
    )
    add(
        "--scale",
        type=_positive,
        default=Settings.scale,
        metavar="SECONDS",
        help="what the peer takes for a second in its own waits, if it is built for tests; "
        "a hint is always in real seconds",
    )
    add(
        "--closing",
        type=_positive,
        metavar="SECONDS",
        help="the longest that the peer waits after a GOODBYE "
        f"(default: {Settings.closing:g} times the scale)",
    )
    add(
        "--message",
        default=Settings.message.decode(),
        metavar="TEXT",
        help="the DATA that the tester sends (default: %(default)s)",
    )
    add(
        "--max-message",
        type=_count,
        default=Settings.maxMessage,
        metavar="BYTES",
        help="the longest DATA that the peer takes (default: %(default)d)",
    )
    add(
        "--only",
        action="append",
        metavar="SCENARIO",
        help="play this scenario; may hold * and be given several times (default: all)",
    )
    add("--list", action="store_true", help="list the scenarios, and do nothing")
    add("--format", choices=FORMATS, default="text", help="of the report (default: text)")
    add("--strict", action="store_true", help="fail for what should be, too")
    add(
        "--limit",
        type=_positive,
        default=Settings.limit,
        metavar="SECONDS",
        help="for the whole run (default: %(default)g)",
    )
    add(
        "--parallel",
        type=_count,
        default=Settings.parallel,
        metavar="COUNT",
        help="connections to a server at a time, about (default: %(default)d)",
    )
    return parser


class Options:
    """
    What the command line asks for.

    @ivar role: what the peer is.
    @ivar settings: of the run.
    @ivar scenarios: those to play.
    @ivar isList: whether only to list them.
    @ivar isStrict: whether a broken I{should} fails the run.
    @ivar format: makes the report.
    """

    def __init__(self, arguments: Sequence[str] | None = None) -> None:
        """
        @raise SystemExit: with C{USAGE}, for an argument that is wrong.
        """
        parser = _parser()
        self._parsed: Namespace = parser.parse_args(arguments)
        parsed = self._parsed
        self._parser = parser
        self.role = CLIENT if parsed.peer is None else SERVER
        self.settings = Settings(
            role=self.role,
            bound=parsed.bound,
            tolerance=parsed.tolerance,
            scale=parsed.scale,
            closing=parsed.closing or Settings.closing * parsed.scale,
            message=parsed.message.encode(),
            maxMessage=parsed.max_message,
            limit=parsed.limit,
            parallel=parsed.parallel,
        )
        self.scenarios = self._chosen(parsed.only)
        self.isList: bool = parsed.list
        self.isStrict: bool = parsed.strict
        self.format = FORMATS[parsed.format]

    def _chosen(self, patterns: Iterable[str] | None) -> list[Scenario]:
        if patterns is None:
            return list(SCENARIOS.values())
        names: list[str] = []
        for pattern in patterns:
            found = [name for name in SCENARIOS if fnmatchcase(name, pattern)]
            if not found:
                self._parser.error(f"--only {pattern!r}: no scenario has this name, see --list")
            names += found
        return [SCENARIOS[name] for name in SCENARIOS if name in names]

    def endpoint(self, reactor: Any) -> Any:
        """
        Return where to listen, or where to connect.

        @raise SystemExit: with C{USAGE}, if the string is none of an endpoint.
        """
        parsed = self._parsed
        if self.role == CLIENT:
            return self._build(serverFromString, reactor, parsed.listen)
        host, _, port = parsed.peer.rpartition(":")
        # HOST:PORT has one colon, and so has unix:/path.
        if port.isdecimal() and ":" not in host:
            return self._build(clientFromString, reactor, f"tcp:{host}:{port}")
        return self._build(clientFromString, reactor, parsed.peer)

    def _build(self, parse: Callable[[Any, str], Any], reactor: Any, text: str) -> Any:
        try:
            return parse(reactor, text)
        except Exception as error:
            self._parser.error(f"{text!r} is no endpoint: {error or type(error).__name__}")
