# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
C{python -m twisted_heartbeat.conformance}: the tester as a command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.task import react

from .options import Options
from .play import CLIENT, Findings
from .runner import ClientRun, examineServer
from .scenarios import Scenario

BROKEN, UNPLAYED = 1, 2
"""Exit statuses."""


def exitStatus(findings: Findings, isStrict: bool) -> int:
    """
    Return the exit status of a run.
    """
    if findings.broken("must", "should") if isStrict else findings.broken("must"):
        return BROKEN
    return UNPLAYED if findings.unplayed or not findings.checks else 0


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _listening(port: Any) -> None:
    host = port.getHost()
    where = f"{host.host}:{host.port}" if hasattr(host, "port") else str(host)
    _say(f"listening on {where}: start the device")


def _played(scenario: Scenario) -> None:
    _say(f"played: {scenario.name}")


async def run(reactor: Any, options: Options) -> None:
    """
    Play the scenarios, print the report, and exit.
    """
    endpoint = options.endpoint(reactor)
    try:
        if options.role == CLIENT:
            clients = ClientRun(reactor, options.settings, options.scenarios, _played)
            findings = await clients.run(endpoint, _listening)
        else:
            settings, scenarios = options.settings, options.scenarios
            findings = await examineServer(reactor, endpoint, settings, scenarios, _played)
    except (CannotListenError, ConnectError) as error:
        _say(str(error))
        raise SystemExit(UNPLAYED) from error
    print(options.format(findings), end="", flush=True)
    raise SystemExit(exitStatus(findings, options.isStrict))


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the command.
    """
    options = Options(arguments)
    if options.isList:
        for each in options.scenarios:
            role = "" if each.role is None else f" (a {each.role} only)"
            print(f"{each.name:50} {each.title}{role}")
        return

    def start(reactor: Any) -> Deferred[None]:
        return ensureDeferred(run(reactor, options))

    react(start)


if __name__ == "__main__":
    main()
