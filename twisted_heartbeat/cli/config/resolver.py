# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Resolver}: makes the objects that a configuration names: endpoints, with their certificates, and
the application's hooks and functions.

Everything that can fail because of a text in the file fails here, before anything starts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from stat import S_ISREG
from time import monotonic
from typing import Any

from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.python.reflect import namedAny

from ...core.diagnosis import describeError
from ...endpoints.prefix import namedArguments
from ...files import readFile
from ...link.hooks import LinkHooks
from ...presence.hooks import PresenceHooks
from ...transport.compat import (
    contextFactoryOfEndpoint,
    hostOfEndpoint,
    interfaceOfEndpoint,
    pathOfEndpoint,
    portOfEndpoint,
    wrappedEndpoint,
)
from ..status import onLoopback, readToken
from .faults import Fault
from .kinds import isHost, shown
from .values import Reference

Objects = Mapping[Reference, Any]
"""The object of each reference.  References of one kind and text are equal, wherever they stand."""


_MAX_KEYS = 64 * 1024 * 1024
"""Bytes of a file of keys."""

_MAX_CERTIFICATES = 16 * 1024 * 1024
"""Bytes of a file of certificates or a key."""

_CERTIFICATES = {
    "privateKey",
    "certKey",
    "extraCertChain",
    "dhParameters",
    "certificate",
    "trustRoots",
    "caCertsDir",
}
"""The arguments of Twisted's endpoints for TLS that name files, or folders of them."""

_MAX_PATH = 107 if sys.platform.startswith("linux") else 103
"""Bytes of the path of a UNIX socket: C{sun_path} has one more, of unix(7) or of the BSDs."""

_SQLITE = b"SQLite format 3\0"
"""What a database of SQLite begins with; see "Database File Format" of its documentation."""

_RENEWED = ("listen", "connect", "token", "udp keys")
"""The kinds of references whose objects are made from files that may be renewed."""


class Resolver:
    """
    Makes the objects of references, by their kind:

     - C{listen}, C{connect}: an endpoint;
     - C{hooks}: an object with the methods of L{LinkHooks}, named itself or by its class;
     - C{presence hooks}: the same with those of L{PresenceHooks};
     - C{callable}: a function;
     - C{token}: the token that a file holds;
     - C{udp keys}: the keys that a file holds;
     - C{check-in}: the URL itself, if check-ins can be sent there;
     - C{check-in tokens}: the path of a file with tokens that can be read;
     - C{store}: the absolute path of a file in a folder that is there.
    """

    def __init__(self, reactor: Any) -> None:
        """
        @param reactor: the endpoints'.
        """
        self._makers: dict[str, Callable[[str], Any]] = {
            "listen": lambda text: listenEndpoint(reactor, text),
            "connect": lambda text: connectEndpoint(reactor, text),
            "hooks": lambda name: _hooks(name, LinkHooks),
            "presence hooks": lambda name: _hooks(name, PresenceHooks),
            "token": tokenIn,
            "check-in": lambda url: checkInURL(reactor, url),
            "check-in tokens": checkInTokens,
            "udp keys": udpKeys,
            "store": _store,
            "callable": _callable,
        }

    def resolve(
        self, references: Iterable[Reference], known: Objects, faults: list[Fault]
    ) -> tuple[dict[Reference, Any], list[Fault]]:
        """
        Make the objects.

        @param known: those in use.  Endpoints and tokens are made again, because their files may
            have been renewed.  If that fails, what is in use stays, which is no fault: the
            configuration is right.
        @param faults: the faults are added here.
        @return: the objects, and what is wrong with those in use that could not be made again.
        """
        made: dict[Reference, Any] = {}
        stale: list[Fault] = []
        for reference in references:
            if reference in made:
                continue
            if reference in known and reference.kind not in _RENEWED:
                made[reference] = known[reference]
                continue
            try:
                made[reference] = self._makers[reference.kind](reference.text)
            except ValueError as error:
                text = "***" if reference.kind == "check-in" else shown(reference.text)
                if reference in known:
                    made[reference] = known[reference]
                    words = f"is {text}: it stays as it is ({error.__cause__})"
                    stale.append(Fault(reference.path, words))
                else:
                    faults.append(Fault(reference.path, f"is {text}: it must be {error}"))
        return made, stale


def listenEndpoint(reactor: Any, description: str, example: str = "tcp:8470") -> Any:
    """
    Return the endpoint to listen on.

    @param example: a right one, for the error.
    @raise ValueError: if the text describes none, or its certificate cannot be used; says what is
        allowed.
    """
    return _endpoint(reactor, description, serverFromString, example, 0)


def loopbackEndpoint(reactor: Any, description: str) -> Any:
    """
    Return the endpoint to listen on, on loopback unless the text says otherwise.

    @raise ValueError: as for L{listenEndpoint}.
    """
    return listenEndpoint(reactor, onLoopback(description), "tcp:8080")


def connectEndpoint(reactor: Any, description: str) -> Any:
    """
    Return the endpoint to connect.

    @raise ValueError: as for L{listenEndpoint}.
    """
    return _endpoint(reactor, description, clientFromString, "tcp:server.example:8470", 1)


def _endpoint(
    reactor: Any,
    description: str,
    parse: Callable[[Any, str], Any],
    example: str,
    lowestPort: int,
) -> Any:
    try:
        _requireRegularFiles(description)
        endpoint = parse(reactor, description)
        contextFactory = contextFactoryOfEndpoint(innermost(endpoint))
        if contextFactory is not None:
            # Only here OpenSSL finds a key that does not belong to its certificate.
            contextFactory.getContext()
    except BaseException as error:
        # Any plugin may provide the endpoint's parser, so it may raise any exception.
        words = _errorText(error)
        kind = "whose files can be read" if isinstance(error, OSError) else f"such as {example}"
        raise ValueError(f"an endpoint {kind} ({words})") from ValueError(words)
    inner = innermost(endpoint)
    port = portOfEndpoint(inner)
    if isinstance(port, int) and not lowestPort <= port <= 65535:
        allowed = f"an endpoint with a port from {lowestPort} to 65535, such as {example}"
        raise ValueError(allowed)
    _requirePath(pathOfEndpoint(inner))
    for host in (hostOfEndpoint(inner), interfaceOfEndpoint(inner) or None):
        if isinstance(host, str) and not isHost(host):
            text = "with a host" if lowestPort else "whose interface is an IP address"
            raise ValueError(f"an endpoint {text}, such as {example}")
    return endpoint


def _requirePath(path: object) -> None:
    """
    @param path: of the UNIX socket of an endpoint; anything else for an endpoint without one.
    @raise ValueError: if no socket can have it; says what is allowed.
    """
    if path == "":
        # The system would choose one, which nobody knows.
        raise ValueError("an endpoint with a path, such as unix:/run/heartbeat.sock")
    if isinstance(path, str) and len(os.fsencode(path)) > _MAX_PATH:
        allowed = f"an endpoint with a path of at most {_MAX_PATH} bytes"
        raise ValueError(f"{allowed}, such as unix:/run/heartbeat.sock")


def _requireRegularFiles(description: str) -> None:
    """
    Read what an endpoint will read, because Twisted would wait for a pipe, and read a device
    without end.  On SIGHUP that would block the reactor.

    @raise ValueError: if a file is of such a kind, or too large.  A file that cannot be read at all
        is left to the endpoint.
    """
    for name, path in namedArguments(description):
        if name not in _CERTIFICATES:
            continue
        paths = [path]
        with suppress(OSError):
            paths = [
                entry.path for entry in os.scandir(path) if entry.name.lower().endswith(".pem")
            ]
        for each in paths:
            with suppress(OSError):
                readFile(each, _MAX_CERTIFICATES)


def innermost(endpoint: Any) -> Any:
    """
    Return the endpoint inside of wrapping ones, such as that of C{tls:} or C{keepalive:}.
    """
    while (inner := wrappedEndpoint(endpoint)) is not None:
        endpoint = inner
    return endpoint


def _errorText(error: BaseException) -> str:
    """
    Return the message of an endpoint parser's exception, without the name of the function.
    """
    message = str(error).rpartition("() ")[2]
    return message if isinstance(error, TypeError) else describeError(error)


def _hooks(name: str, kind: type) -> Any:
    found = _named(name, f"the dotted name of a {kind.__name__}, or of a class of them")
    allowed = f"an object with the methods of {kind.__name__}"
    if issubclass(type(found), type):
        try:
            found = found()
        except BaseException as error:
            text = f"a class that takes no arguments ({describeError(error)})"
            raise ValueError(text) from None
    methods = [method for method in vars(kind) if not method.startswith("_")]
    try:
        missing = [method for method in methods if not callable(getattr(found, method, None))]
    except BaseException as error:
        # An attribute may be a property of the application's, which may raise anything.
        raise ValueError(f"{allowed} ({describeError(error)})") from None
    if missing:
        raise ValueError(f"{allowed}: it has no {missing[0]}")
    return found


def tokenIn(path: str) -> str:
    """
    Return the token that a file holds.

    @raise ValueError: if it holds none; says what is allowed.
    """
    # Not at the top: most runs have no page.
    from ...status.access import Access

    try:
        token = readToken(path)
        Access(token)
    except (OSError, ValueError) as error:
        words = describeError(error)
        text = f"the path of a file that holds a token ({words})"
        raise ValueError(text) from ValueError(words)
    return token


def udpKeys(path: str) -> dict[str, dict[int, bytes]]:
    """
    Return the keys that a file holds, by name and key id.

    @raise ValueError: if it holds none, or a line is wrong; says what is allowed, and repeats no
        line, which may have a key.
    """
    # Not at the top: most runs have no datagrams.
    from ...core.datagram.registry import keyring

    try:
        keys = _keysIn(readFile(path, _MAX_KEYS).decode("utf-8-sig"))
        keyring(keys)
    except (OSError, ValueError) as error:
        words = describeError(error)
        text = f"the path of a file with a name, a key id and a key in each line ({words})"
        raise ValueError(text) from ValueError(words)
    return keys


def _keysIn(text: str) -> dict[str, dict[int, bytes]]:
    keys: dict[str, dict[int, bytes]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, keyId, key = line.rsplit(maxsplit=2)
            own, keyNumber, secret = keys.setdefault(name, {}), int(keyId), bytes.fromhex(key)
        except ValueError:
            raise ValueError(f"line {number} must be NAME ID KEY") from None
        if keyNumber in own:
            raise ValueError(f"line {number} has the name and the key id of a line above")
        own[keyNumber] = secret
    if not keys:
        raise ValueError("there is no key in it")
    return keys


def checkInURL(reactor: Any, url: str) -> str:
    """
    Return the URL.

    @raise ValueError: if check-ins cannot be sent there; says what is allowed, and not the URL.
    """
    try:
        # Not at the top: most runs send none, and need no HTTP client.
        from ... import CheckIn

        CheckIn(url, reactor=reactor)
    except ValueError as error:
        allowed = str(error).partition(": it must be ")[2].removesuffix(" (use token=)")
        raise ValueError(allowed) from None
    except ImportError as error:
        raise ValueError(f"left out, or its extra installed ({error})") from None
    return url


def checkInTokens(path: str) -> str:
    """
    Return the absolute path of a file with tokens.

    @raise ValueError: if they cannot be read; says what is allowed.
    """
    from ...checkin.tokens import Tokens

    try:
        Tokens(path, monotonic)
    except (OSError, ValueError) as error:
        text = f"the path of a file with a name and a token in each line ({describeError(error)})"
        raise ValueError(text) from None
    return os.path.abspath(path)


def _store(path: str) -> str:
    whole = os.path.abspath(path)
    allowed = "the path of a file, in a folder that is there and can be written to"
    try:
        if "\0" in whole or not os.access(os.path.dirname(whole), os.W_OK | os.X_OK):
            raise ValueError(allowed)
        with suppress(FileNotFoundError):
            _requireDatabase(whole)
    except OSError as error:
        raise ValueError(f"{allowed} ({describeError(error)})") from None
    return whole


def _requireDatabase(path: str) -> None:
    """
    @raise OSError: if the file is there, and cannot be opened to be read and written.
    @raise ValueError: if SQLite could not open it, or would wait for a pipe; says what is allowed.
    """
    if not S_ISREG(os.stat(path).st_mode):
        raise ValueError("the path of a regular file")
    with open(path, "r+b") as file:
        if file.read(len(_SQLITE)) not in (b"", _SQLITE):
            raise ValueError("the path of an SQLite database, or of no file, so that it is made")


def _callable(name: str) -> Any:
    found = _named(name, "the dotted name of a function")
    if not callable(found):
        raise ValueError("the dotted name of a function, which can be called")
    return found


def _named(name: str, allowed: str) -> Any:
    try:
        return namedAny(name)
    except BaseException as error:
        # The import runs the module, which may raise anything.
        raise ValueError(f"{allowed} ({describeError(error)})") from None
