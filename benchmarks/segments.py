# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
How many TCP segments an idle link sends in a minute: both ends together, with the built-in protocol
and the same bound at both, with and without the default keepalive.

Each link is in a network namespace of its own, whose kernel counts: C{OutSegs} in
C{/proc/net/snmp}, proc(5).  All run side by side, because idle links do not disturb each other.

Run it as root: C{python benchmarks/segments.py [--seconds N]}.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

BOUNDS = (8.0, 35.0, 120.0)

LINK = """
import sys
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted_heartbeat import (
    Heartbeat, HeartbeatClientService, HeartbeatProtocol, HeartbeatServerFactory, KeepAlive
)

def sent():
    names, values = [line.split() for line in open("/proc/net/snmp") if line.startswith("Tcp:")]
    return int(values[names.index("OutSegs")])

def begin():
    reactor.callLater(seconds, end, sent())

def end(before):
    print(sent() - before)
    reactor.stop()

bound, seconds = float(sys.argv[1]), float(sys.argv[3])
settings = {
    "heartbeat": Heartbeat.within(bound),
    "keepAlive": KeepAlive() if sys.argv[2] == "keepalive" else None,
}
protocols = Factory.forProtocol(HeartbeatProtocol)
reactor.listenTCP(7000, HeartbeatServerFactory(protocols, **settings))
hub = clientFromString(reactor, "tcp:127.0.0.1:7000")
HeartbeatClientService(hub, protocols, **settings).startService()
reactor.callLater(bound, begin)
reactor.run()
"""


def start(*words: str) -> subprocess.Popen[str]:
    """
    Start a link in a namespace of its own.
    """
    loopback = 'ip link set lo up && exec "$@"'
    command = ["unshare", "--net", "sh", "-c", loopback, "-", sys.executable, "-c", LINK, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def main() -> None:
    """
    The command.
    """
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=210.0, help="how long to count")
    seconds = parser.parse_args().seconds
    links = {
        (bound, kept): start(str(bound), kept, str(seconds))
        for bound in BOUNDS
        for kept in ("none", "keepalive")
    }
    print("bound    keepalive    segments in a minute")
    for (bound, kept), process in links.items():
        counted = int(process.communicate()[0])
        print(f"{bound:3g} s    {kept:9}    {60 * counted / seconds:.1f}")


if __name__ == "__main__":
    main()
