# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Who may look: L{Access} decides about a request, and L{SECURITY_HEADERS} hold for each answer.

A token comes in the header C{Authorization: Bearer TOKEN}.  A browser is given it once, as the
query C{?token=TOKEN} of the page.  The page answers with a cookie and a redirection to its address
without the token, so that the token stays in no address bar, history or access log.  The cookie is
derived from the token: it does not contain it, and a new token makes it invalid.

Without a token the page is meant for this machine.  Then a request that reached a loopback address
has to ask for this machine by an IP address or by C{localhost}.  Otherwise any web page that the
user opens could read this one: its author lets a name of theirs lead to 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from hashlib import sha256
from ipaddress import ip_address
from typing import TYPE_CHECKING

from ..link.addresses import plainAddress

if TYPE_CHECKING:
    from twisted.web.http import Request

SECURITY_HEADERS = {
    # 'self' and no inline code: what a peer says could not run even if it became part of the page.
    b"Content-Security-Policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        b"img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    b"X-Content-Type-Options": b"nosniff",
    b"X-Frame-Options": b"DENY",
    b"Referrer-Policy": b"no-referrer",
    b"Cross-Origin-Resource-Policy": b"same-origin",
    b"Cross-Origin-Opener-Policy": b"same-origin",
}

_MIN_TOKEN = 16
_MAX_AGE = 30 * 24 * 3600
"""Seconds that a browser keeps the cookie."""


class Access:
    """
    Decides whether a request may be answered.
    """

    def __init__(self, token: str | None, hosts: Collection[str] = ()) -> None:
        """
        @param token: what has to be shown; L{None} for nothing.
        @param hosts: names by which this machine may be asked for without a token, besides
            C{localhost} and its IP addresses.
        @raise ValueError: if the token is too short, or not of visible ASCII.
        """
        if token is not None and not _isToken(token):
            # Without its value: it is a secret.
            allowed = f"at least {_MIN_TOKEN} visible ASCII characters without spaces, or None"
            raise ValueError(f"StatusResource.token must be {allowed}")
        self._token = None if token is None else token.encode("ascii")
        # A browser keeps one cookie of a name for all ports of a host: two pages with two tokens
        # would take it from each other.
        self._cookieName = b"heartbeat_status_" + self._derived(b"name of the cookie")[:8]
        self._cookie = self._derived(b"twisted_heartbeat status page")
        self._hosts = {host.lower() for host in hosts}

    def isForeignHost(self, request: Request) -> bool:
        """
        Whether a request to this machine asks for it by the name of another.
        """
        here = plainAddress(request.getHost())
        if self._token is not None or not _isLoopback(getattr(here, "host", "")):
            return False
        host = request.getRequestHostname().decode("ascii", "replace").lower()
        if host in ("", "localhost") or host.endswith(".localhost") or host in self._hosts:
            return False
        return not _isAddress(host.strip("[]"))

    def isGranted(self, request: Request) -> bool:
        """
        Whether a request shows the token, if one is asked for.
        """
        if self._token is None:
            return True
        scheme, _, given = (request.getHeader(b"authorization") or b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token):
            return True
        cookie = request.getCookie(self._cookieName)
        return cookie is not None and hmac.compare_digest(cookie, self._cookie)

    def login(self, request: Request) -> bool:
        """
        Take the token from the query of a request for the page, and give a cookie in exchange.

        @return: whether the request had the right token.
        """
        given = (request.args or {}).get(b"token", [b""])[0]
        if self._token is None or not hmac.compare_digest(given, self._token):
            return False
        request.addCookie(
            self._cookieName,
            self._cookie,
            max_age=str(_MAX_AGE),
            secure=request.isSecure(),
            httpOnly=True,
            # Not "strict": a browser that follows a link in a message would not send it.
            sameSite=b"lax",
        )
        return True

    def _derived(self, purpose: bytes) -> bytes:
        return hmac.new(self._token or b"", purpose, sha256).hexdigest().encode("ascii")


def hideQuery(request: Request) -> None:
    """
    Remove the query from what an access log will write of a request: it may hold the token.
    """
    request.uri = request.uri.partition(b"?")[0]


def _isToken(token: object) -> bool:
    if not isinstance(token, str) or len(token) < _MIN_TOKEN:
        return False
    return all("!" <= character <= "~" for character in token)


def _isAddress(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _isLoopback(host: str) -> bool:
    return _isAddress(host) and ip_address(host).is_loopback
