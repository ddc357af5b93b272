# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""A server's certificate that is read anew when its file has changed."""

from pathlib import Path

from OpenSSL.SSL import Connection
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions
from twisted.logger import Logger
from zope.interface import implementer


@implementer(IOpenSSLServerConnectionCreator)
class Renewing:
    """
    TLS options for a server, from a file that holds the key and the chain of certificates.
    """

    log = Logger()

    def __init__(self, path):
        self._path = Path(path)
        self._changed = None
        self._context = CertificateOptions().getContext()
        self._read()

    def serverConnectionForTLS(self, tlsProtocol):
        """Begin a handshake. Twisted calls this."""
        try:
            if self._path.stat().st_mtime_ns != self._changed:
                self._read()
        except Exception:
            self.log.failure("{path} is not read, and the old certificate stays", path=self._path)
        return Connection(self._context, None)

    def _read(self):
        changed = self._path.stat().st_mtime_ns
        context = CertificateOptions().getContext()
        context.use_privatekey_file(str(self._path))
        context.use_certificate_chain_file(str(self._path))
        context.check_privatekey()
        self._context, self._changed = context, changed
