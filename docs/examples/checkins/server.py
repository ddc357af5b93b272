# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A server that watches jobs: C{python server.py PORT TOKENS}, where TOKENS is the file of tokens.
"""

import sys

from twisted.internet import defer, task

from twisted_heartbeat import Check, CheckInResource, LinkHooks


class Alarm(LinkHooks):
    """
    Prints what an operator has to know.
    """

    def disconnected(self, link, cause):
        print(f"DOWN {link.name}: {type(cause).__name__}: {cause}", flush=True)

    def connected(self, link):
        print(f"UP {link.name}", flush=True)


def main(reactor, port, tokens):
    """
    Serve until the process ends.
    """
    resource = CheckInResource(
        checks={
            "nightly-backup": Check(period=24 * 3600, grace=3600),
            "mail-queue": Check(period=300, grace=60),
        },
        tokens=tokens,
        hooks=Alarm(),
    )
    resource.startService()
    reactor.listenTCP(int(port), resource.site(), interface="127.0.0.1")
    print("ready", flush=True)
    return defer.Deferred()


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
