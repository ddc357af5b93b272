# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The live demo: C{python -m twisted_heartbeat}.

A client in this process and a peer in a second process keep one link up through a L{FaultProxy}.
The demo does five faults to the link, loses the datagrams of a sender over UDP, lets a job miss its
check-in, and shows the result of each in a table.
"""

from __future__ import annotations

import signal
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from typing import NoReturn

from twisted.internet.task import react

from .. import Heartbeat
from ..core.settings import MIN_BOUND
from .peer import runPeer
from .settings import LONGEST_BOUND, UNAVAILABLE, USAGE

STARTING = "Starting a client here, and its peer in a second process."

DESCRIPTION = """\
Keep one link up to a peer in a second process, do five faults to it (silent cut, frozen peer,
reset, clean close, peer gone for some seconds), and show how soon each was found, which cause was
named and when the link was back. Then the datagrams of a sender over UDP are lost, and a job that
checks in over HTTP dies, if the extra "http" is installed. It takes about 20 seconds, stays on
127.0.0.1, and exits with 0 only if every promise was kept; with 75 if this machine was too busy to
tell."""


class Options(ArgumentParser):
    """
    A parser that reports a mistake in one sentence, and exits with a status of sysexits.h.
    """

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}\n")


def within(text: str) -> Heartbeat:
    """
    Parse the bound.

    @return: the heartbeat for it.

    @raise ArgumentTypeError: if the bound is not a number of seconds, or out of range.
    """
    try:
        bound = float(text)
        if bound <= LONGEST_BOUND:
            return Heartbeat.within(bound)
    except ValueError:
        pass
    allowed = f"a number of seconds from {MIN_BOUND:g} to {LONGEST_BOUND:g}"
    raise ArgumentTypeError(f"must be {allowed}, not {text!r}")


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Parse the command line, and run the demo or its peer.
    """
    options = Options("python -m twisted_heartbeat", description=DESCRIPTION, allow_abbrev=False)
    options.add_argument(
        "--within",
        type=within,
        default="2",
        metavar="SECONDS",
        help=f"the bound: a dead peer is found within it; 2 by default, {LONGEST_BOUND:g} at most",
    )
    options.add_argument("--peer", type=int, metavar="PORT", help=SUPPRESS)
    chosen = options.parse_args(arguments)
    if not hasattr(signal, "SIGSTOP"):
        options.exit(UNAVAILABLE, "This system can not freeze a process, as the demo has to.\n")
    if chosen.peer is None:
        # Until the first event it takes a second more, and some when nothing is compiled yet.
        print(STARTING, flush=True)
        from .views import show

        react(show, (chosen.within,))
    else:
        from twisted.internet import reactor

        runPeer(reactor, chosen.peer, chosen.within)
