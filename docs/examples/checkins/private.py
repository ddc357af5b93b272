# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Check in at a server with a certificate of a private authority: C{python private.py URL AUTHORITY}.
"""

import sys

from twisted.internet import defer, task
from twisted.internet.ssl import Certificate
from twisted.python.filepath import FilePath
from twisted.web.client import BrowserLikePolicyForHTTPS

from twisted_heartbeat import CheckIn


def main(reactor, url, authority):
    """
    Check in until the process ends.
    """
    root = Certificate.loadPEM(FilePath(authority).getContent())
    policy = BrowserLikePolicyForHTTPS(trustRoot=root)
    checkIn = CheckIn(url, policy=policy, reactor=reactor)
    checkIn.startService()
    reactor.addSystemEventTrigger("before", "shutdown", checkIn.stopService)
    return defer.Deferred()


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
