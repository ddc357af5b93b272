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
from .compat import flushTLS, isHandshakeDone, isTLSAborted, tlsConnectionOf, verifyResultOf
from .layers import MAX_WRAPPERS, forwardInterfaces

_log = SafeLogger()


def forwardHandshake(transport: object, protocol: object) -> None:
    """
    Make the layers between TLS and a protocol report the end of the handshake to the protocol.

    L{twisted.protocols.policies.ProtocolWrapper} and its subclasses do not, so that a link above
    them would wait for its handshake for ever.

    @param protocol: provides C{IHandshakeListener}.
    """
    above, layer = protocol, transport
    for _ in range(MAX_WRAPPERS):
        if layer is None or isinstance(layer, TLSMemoryBIOProtocol | tcp.Connection):
            break
        if not IHandshakeListener.providedBy(layer):
            _forwardFrom(layer, above)
        above, layer = layer, getattr(layer, "transport", None)
    forwardInterfaces(_tlsLayer(layer))


def _forwardFrom(layer: Any, above: Any) -> None:
    def handshakeCompleted() -> None:
        # Otherwise the layer and this function refer to each other.
        layer.__dict__.pop("handshakeCompleted", None)
        above.handshakeCompleted()

    try:
        layer.handshakeCompleted = handshakeCompleted
        alsoProvides(layer, IHandshakeListener)
    except (AttributeError, TypeError) as error:
        _log.warn("{one} does not tell of its TLS handshake: {error}", one=layer, error=error)


def usesTLS(transport: object) -> bool:
    """
    Find out whether a transport uses TLS.
    """
    return isinstance(transport, TLSMemoryBIOProtocol) or ISSLTransport.providedBy(transport)


def isHandshakingTLS(transport: object) -> bool:
    """
    Find out whether a transport has a TLS handshake that is not complete yet.
    """
    return usesTLS(transport) and not isHandshakeDone(_tlsLayer(transport))


def handshakeRejected(transport: object) -> bool:
    """
    Find out whether this side has rejected the peer's certificate.  Twisted before 24.7 reports the
    handshake as complete nevertheless.
    """
    return isTLSAborted(_tlsLayer(transport))


def flushHandshakeBuffer(transport: object) -> None:
    """
    Send what was written before the TLS handshake was complete, before the protocol writes more.
    """
    flushTLS(_tlsLayer(transport))


_NO_REJECTION = (0, 1)
"""X509_V_OK; and X509_V_ERR_UNSPECIFIED, where something other than OpenSSL rejected it."""


def certificateRefused(transport: object) -> str:
    """
    Return OpenSSL's reason for rejecting the peer's certificate; C{""} if it did not reject it, or
    was not asked.
    """
    connection = tlsConnectionOf(_tlsLayer(transport))
    if connection is None:
        return ""
    code, words = verifyResultOf(connection)
    return "" if code in _NO_REJECTION else words


def certificateOf(transport: object) -> Any:
    """
    Return the peer's certificate, as an C{OpenSSL.crypto.X509}; L{None} if the peer was not asked
    for one, there is no TLS, or it has ended.
    """
    layer = _tlsLayer(transport)
    getCertificate = getattr(layer, "getPeerCertificate", None)
    hasEnded = tlsConnectionOf(layer, default=getCertificate) is None
    return None if getCertificate is None or hasEnded else getCertificate()


_COMMON_NAME = "2.5.4.3"
_SUBJECT_ALTERNATIVE_NAME = "2.5.29.17"
"""RFC 5280, appendix A.1 and section 4.2.1.6."""


def certifiedNames(transport: object) -> set[str]:
    """
    Return the names in the peer's certificate: its subject's common name, and its alternative names
    that are text (DNS names, addresses of mail, URIs).  Empty unless an authority that this side
    trusts has signed the certificate.

    The signature is verified once more, because the handshake may have had a callback that accepts
    any certificate, and OpenSSL does not tell.
    """
    from OpenSSL.crypto import X509StoreContext, X509StoreContextError

    connection, certificate = tlsConnectionOf(_tlsLayer(transport)), certificateOf(transport)
    if connection is None or certificate is None:
        return set()
    store = connection.get_context().get_cert_store()
    try:
        X509StoreContext(store, certificate, connection.get_peer_cert_chain()).verify_certificate()
    except X509StoreContextError:
        return set()
    verified = certificate.to_cryptography()
    names = [field for field in verified.subject if field.oid.dotted_string == _COMMON_NAME]
    for extension in verified.extensions:
        if extension.oid.dotted_string == _SUBJECT_ALTERNATIVE_NAME:
            names += extension.value
    return {name.value for name in names if isinstance(name.value, str)}


def publicKeyOf(certificate: Any) -> bytes:
    """
    Return the public key of a certificate, which identifies its holder: C{SubjectPublicKeyInfo},
    RFC 5280, DER.  The handshake has proven that the peer has the private key.
    """
    from OpenSSL.crypto import FILETYPE_ASN1, dump_publickey

    return dump_publickey(FILETYPE_ASN1, certificate.get_pubkey())


def _tlsLayer(transport: object) -> object:
    if isinstance(transport, tcp.Connection):
        # After startTLS the connection's protocol is the TLS layer, until the connection is lost.
        return getattr(transport, "protocol", None)
    return transport
