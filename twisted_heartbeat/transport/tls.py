# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
TLS on a transport: its handshake, its certificates, and why it failed.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IHandshakeListener, ISSLTransport
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import alsoProvides

from ..logs import SafeLogger
from .layers import _MAX_WRAPPERS, forwardInterfaces

_log = SafeLogger()


def forwardHandshake(transport: object, protocol: object) -> None:
    """
    Have the layers between TLS and a protocol tell the protocol that the handshake is complete.

    L{twisted.protocols.policies.ProtocolWrapper} and its subclasses do not, so that a link above
    them would wait for its handshake for ever.

    @param protocol: provides C{IHandshakeListener}.
    """
    above, layer = protocol, transport
    for _ in range(_MAX_WRAPPERS):
        if layer is None or isinstance(layer, TLSMemoryBIOProtocol | tcp.Connection):
            break
        if not IHandshakeListener.providedBy(layer):
            _tellOfHandshake(layer, above)
        above, layer = layer, getattr(layer, "transport", None)
    forwardInterfaces(_tlsLayer(layer), above)


def _tellOfHandshake(layer: Any, above: Any) -> None:
    def handshakeCompleted() -> None:
        # It refers to the layer, and the layer to it.
        layer.__dict__.pop("handshakeCompleted", None)
        above.handshakeCompleted()

    try:
        layer.handshakeCompleted = handshakeCompleted
        alsoProvides(layer, IHandshakeListener)
    except (AttributeError, TypeError) as error:
        _log.warn("{one} does not tell of its TLS handshake: {error}", one=layer, error=error)


def usesTLS(transport: object) -> bool:
    """
    Whether a transport speaks TLS.
    """
    return isinstance(transport, TLSMemoryBIOProtocol) or ISSLTransport.providedBy(transport)


def handshakeDone(transport: object) -> bool:
    """
    Whether there is no TLS handshake to wait for.
    """
    return getattr(_tlsLayer(transport), "_handshakeDone", True)


def handshakeRejected(transport: object) -> bool:
    """
    Whether the peer's certificate has been refused.  Twisted before 24.7 says that the handshake
    is complete all the same.
    """
    return getattr(_tlsLayer(transport), "_aborted", False)


def flushHandshakeBuffer(transport: object) -> None:
    """
    Send what was written before the TLS handshake was complete.  Twisted does it after it has told
    the protocol, and lets what that writes there overtake it, if it is enough
    (L{twisted.protocols.tls}).
    """
    layer: Any = _tlsLayer(transport)
    if getattr(layer, "_appSendBuffer", None):
        layer._unbufferPendingWrites()


_NOT_SAID = (0, 1)
"""X509_V_OK; and X509_V_ERR_UNSPECIFIED, where it was not OpenSSL that refused it."""


def certificateRefused(transport: object) -> str:
    """
    Why OpenSSL refused the peer's certificate, in words; nothing if it did not, or is not asked.

    Source: SSL_get_verify_result(3ssl).  pyOpenSSL has no public name for it.
    """
    connection = getattr(_tlsLayer(transport), "_tlsConnection", None)
    if connection is None:
        return ""
    try:
        from OpenSSL._util import ffi, lib

        code = lib.SSL_get_verify_result(connection._ssl)
        words = lib.X509_verify_cert_error_string(code)
        return "" if code in _NOT_SAID else str(ffi.string(words).decode())
    except (ImportError, AttributeError, TypeError):
        # The transport may be a mock.
        return ""


def certificateOf(transport: object) -> Any:
    """
    The certificate that the peer has shown, as an C{OpenSSL.crypto.X509}; L{None} if it was not
    asked for one, there is no TLS, or it is over.
    """
    layer = _tlsLayer(transport)
    shown = getattr(layer, "getPeerCertificate", None)
    over = getattr(layer, "_tlsConnection", shown) is None
    return None if shown is None or over else shown()


def publicKeyOf(certificate: Any) -> bytes:
    """
    What identifies the holder of a certificate: its public key (C{SubjectPublicKeyInfo}, RFC 5280,
    DER).  That the peer has the private one, its handshake has proven.
    """
    from OpenSSL.crypto import FILETYPE_ASN1, dump_publickey

    return dump_publickey(FILETYPE_ASN1, certificate.get_pubkey())


def _tlsLayer(transport: object) -> object:
    if isinstance(transport, tcp.Connection):
        # After startTLS; until it is lost.
        return getattr(transport, "protocol", None)
    return transport
