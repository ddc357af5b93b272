# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A server that only clients of one authority get into, and that prints who they are:

    python tls_server.py PORT server.pem ca.pem
"""

import sys
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate, PrivateCertificate
from twisted.internet.task import react

from twisted_heartbeat import HeartbeatServerFactory, LinkHooks


class Who(LinkHooks):
    """Prints whose certificate it is."""

    def connected(self, link):
        name = Certificate(link.certificate).getSubject().commonName.decode()
        print(f"{name} is connected", flush=True)


def main(reactor, port, identity, authority):
    """Listen with our own key and certificate, for clients whom the authority has signed."""
    own = PrivateCertificate.loadPEM(Path(identity).read_bytes())
    clients = Certificate.loadPEM(Path(authority).read_bytes())
    reactor.listenSSL(int(port), HeartbeatServerFactory(hooks=Who()), own.options(clients))
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
