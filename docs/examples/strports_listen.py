# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""Let programs that call strports.listen take any endpoint's string: import this first."""

from twisted.application import strports
from twisted.internet.endpoints import serverFromString


def listen(description, factory):
    """Listen at once, as strports.listen does, and return the port."""
    from twisted.internet import reactor

    ports, failures = [], []
    listening = serverFromString(reactor, description).listen(factory)
    listening.addCallbacks(ports.append, failures.append)
    for failure in failures:
        failure.raiseException()
    return ports[0]


strports.listen = listen
