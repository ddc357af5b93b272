# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Bare Twisted in the watcher's place: C{ClientService} and a listening endpoint, on the same cells.
It reports what it notices.
"""

from __future__ import annotations

import sys
from typing import Any

from cells import Cell
from chatter import Certificates, Chatter
from reports import obey, report
from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import DeferredList, maybeDeferred, succeed
from twisted.internet.protocol import Factory
from twisted.logger import globalLogBeginner


class Bare:
    """
    All cells of this process.
    """

    def __init__(self, reactor: Any, folder: str) -> None:
        self._reactor = reactor
        self._certificates = Certificates(folder)

    def obey(self, order: dict[str, Any]) -> None:
        """
        Do what the test orders.
        """
        cells = [Cell.fromJson(fields) for fields in order.get("cells", ())]
        done = DeferredList([maybeDeferred(self._meet, cell) for cell in cells])
        done.addBoth(lambda _: report("obeyed", number=order["number"]))

    def _meet(self, cell: Cell) -> Any:
        class Talking(Chatter):
            def connectionMade(self) -> None:
                report("connected", cell=cell.name)
                super().connectionMade()

        Talking.cell = cell
        factory = Factory.forProtocol(Talking)
        if cell.side == "server":
            return self._certificates.listen(self._reactor, cell, factory)
        [endpoint] = self._certificates.clientEndpoints(self._reactor, cell)[:1]

        usual = backoffPolicy()

        def failed(failures: int) -> float:
            report("attemptFailed", cell=cell.name)
            return usual(failures)

        service = ClientService(endpoint, factory, retryPolicy=failed)
        service.startService()
        return succeed(None)


def main() -> None:
    """
    Obey until the test has gone.
    """
    from twisted.internet import reactor

    globalLogBeginner.beginLoggingTo(
        [lambda event: None], redirectStandardIO=False, discardBuffer=True
    )
    turn: Any = reactor
    bare = Bare(turn, sys.argv[1])
    obey(
        lambda order: turn.callFromThread(bare.obey, order), lambda: turn.callFromThread(turn.stop)
    )
    turn.callWhenRunning(report, "started")
    turn.run()


if __name__ == "__main__":
    main()
