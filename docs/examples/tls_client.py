# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
A link over TLS, kept up until it is interrupted:

    python tls_client.py HOST PORT                      the system's authorities are trusted
    python tls_client.py HOST PORT ca.pem               that one authority is trusted, and no other
    python tls_client.py HOST PORT ca.pem client.pem    and we have a certificate of our own
"""

import sys
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS
from twisted.internet.task import react

from twisted_heartbeat import Heartbeat, HeartbeatClientService, HeartbeatProtocol, LinkHooks


def checked(name):
    """The server proves its name to an authority that the system trusts."""
    return optionsForClientTLS(name)


def pinned(name, authority):
    """It proves it to this authority: no other is trusted, the public ones included."""
    root = Certificate.loadPEM(Path(authority).read_bytes())
    return optionsForClientTLS(name, trustRoot=root)


def mutual(name, authority, identity):
    """And we prove ours: the file holds our private key and our certificate."""
    root = Certificate.loadPEM(Path(authority).read_bytes())
    own = PrivateCertificate.loadPEM(Path(identity).read_bytes())
    return optionsForClientTLS(name, trustRoot=root, clientCertificate=own)


class Told(LinkHooks):
    """Prints what happens."""

    def connected(self, link):
        print(f"connected to {link.peer.host}", flush=True)

    def retrying(self, retry):
        print(f"{retry.cause}; again in {retry.delay:.1f} s", flush=True)


def main(reactor, host, port, *files):
    """Keep the link up."""
    options = (checked, pinned, mutual)[len(files)](host, *files)
    endpoint = wrapClientTLS(options, HostnameEndpoint(reactor, host, int(port)))
    factory = Factory.forProtocol(HeartbeatProtocol)
    bound = Heartbeat.within(8)
    HeartbeatClientService(endpoint, factory, heartbeat=bound, hooks=Told()).startService()
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
