# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Resolver} and L{Loader}: what a file names is made before anything starts, and each thing that can
not be made is a fault.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trustme
from twisted.internet.endpoints import SSL4ClientEndpoint
from twisted.internet.testing import MemoryReactorClock

from twisted_heartbeat import LinkHooks
from twisted_heartbeat.cli.config import places
from twisted_heartbeat.cli.config.faults import ConfigError
from twisted_heartbeat.cli.config.loader import Loaded, Loader
from twisted_heartbeat.cli.config.values import Reference


class Hooks(LinkHooks):
    """
    An application's hooks.
    """


class Demanding(LinkHooks):
    """
    Hooks that can not be made without an argument.
    """

    def __init__(self, needed: object) -> None:
        """
        Take it.
        """


@pytest.fixture(autouse=True)
def application(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """
    The application's module, C{application}.
    """
    module = ModuleType("application")
    monkeypatch.setitem(sys.modules, "application", module)
    module.Hooks = Hooks  # type: ignore[attr-defined]
    module.Demanding = Demanding  # type: ignore[attr-defined]
    module.hooks = Hooks()  # type: ignore[attr-defined]
    module.admit = lambda *arguments: True  # type: ignore[attr-defined]
    module.number = 7  # type: ignore[attr-defined]
    return module


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    A file to write, in the working folder, beside a file C{keys}.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys").write_text(f"x 1 {'5a' * 16}\n")
    return tmp_path / "hb.toml"


def load(file: Path, text: str, known: Loaded | None = None) -> Loaded:
    file.write_text(text)
    loader = Loader(MemoryReactorClock(), str(file))
    return loader.load(known.objects if known else None)


def faults(file: Path, text: str | bytes) -> list[str]:
    if isinstance(text, bytes):
        file.write_bytes(text)
    else:
        file.write_text(text)
    reactor = MemoryReactorClock()
    with pytest.raises(ConfigError) as caught:
        Loader(reactor, str(file)).load()
    assert not (reactor.tcpServers or reactor.tcpClients or reactor.unixServers)
    return [sentence.removeprefix(str(file)) for sentence in caught.value.sentences]


def test_objectsAreMade(file: Path, application: ModuleType) -> None:
    """
    A class of hooks is called, an object is taken as it is, and endpoints are made.
    """
    loaded = load(
        file,
        'hooks = ["application.Hooks", "application.hooks"]\n'
        'listen = "tcp:1"\n[connect]\nendpoint = ["tcp:a:1", "unix:/a"]\n',
    )
    objects = loaded.objects
    assert type(objects[Reference("hooks", "application.Hooks")]) is Hooks
    assert objects[Reference("hooks", "application.hooks")] is application.hooks
    assert hasattr(objects[Reference("listen", "tcp:1")], "listen")
    assert hasattr(objects[Reference("connect", "unix:/a")], "connect")
    assert loaded.stale == ()


def test_portsThatDiffer(file: Path) -> None:
    """
    One port on two addresses, or of two protocols, and ports that the system chooses, can all be
    listened on.
    """
    listen = ["tcp:0", "tcp:00", "tcp:1:interface=127.0.0.1", "tcp:1:interface=127.0.0.2"]
    listen += [r"tcp6:1:interface=\:\:1", "tcp:2", r"tcp:2:interface=\:\:1", "unix:/1", "unix:/2"]
    monitor = "[monitor]\nkey-file = 'keys'\naddress = ['2', '0', '00']"
    text = f"listen = {json.dumps(listen)}\n{monitor}"
    assert len(load(file, text).config.parts) == len(listen) + 3


@pytest.mark.parametrize("other", ["tcp:2", "tcp:2:interface=127.0.0.1", r"tcp6:2:interface=\:\:1"])
def test_portOfBothFamilies(file: Path, monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    """
    What listens at all addresses of IPv6 takes those of IPv4 as well, where the system lets it.
    """
    text = f"listen = {json.dumps(['tcp6:2', other])}"
    for takesBoth in (True, False):
        monkeypatch.setattr(places, "_takesBothFamilies", lambda takesBoth=takesBoth: takesBoth)
        if takesBoth or "::" in other.replace("\\", ""):
            assert faults(file, text) == [
                f":1: listen#2 listens where listen#1 does: listen {other}"
            ]
        else:
            assert len(load(file, text).config.parts) == 2


def test_whatTheSystemLets() -> None:
    """
    Whether IPv6 takes IPv4 as well is asked of the system, and is what it does.
    """
    with ExitStack() as stack:
        other = stack.enter_context(socket.socket(socket.AF_INET))
        try:
            one = stack.enter_context(socket.socket(socket.AF_INET6))
            one.bind(("::", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        one.listen()
        try:
            other.bind(("0.0.0.0", one.getsockname()[1]))
        except OSError:
            isTaken = True
        else:
            isTaken = False
    assert places._takesBothFamilies() is isTaken


def test_hostsOfAllForms(file: Path) -> None:
    """
    All names that a resolver knows may be written, and all forms of an address.
    """
    hosts = [
        "hub",
        "hub.example.",
        "my_hub",
        "hub-7.example",
        "bücher.example",
        "192.0.2.7",
        "127.1",
    ]
    hosts += [r"\:\:1", r"fe80\:\:1%eth0", "xn--bcher-kva.example", "4you.example"]
    text = f"connect = {json.dumps([f'tcp:{host}:1' for host in hosts])}\n"
    text += r"listen = ['tcp:1:interface=localhost', 'tcp:2:interface=127.1', 'tcp:3:interface=']"
    assert len(load(file, text).config.parts) == len(hosts) + 3


def test_hooksStayTheSame(file: Path) -> None:
    """
    Hooks keep what they have gathered when the file is read again.
    """
    text = 'hooks = "application.Hooks"\nlisten = "tcp:1"\n'
    reference = Reference("hooks", "application.Hooks")
    first = load(file, text)
    again = load(file, text, first)
    assert again.objects[reference] is first.objects[reference]


LONGEST_PATH = 107 if sys.platform.startswith("linux") else 103
"""Bytes that the path of a UNIX socket may have."""

WRONG = {
    "endpoint type": (
        'listen = "tcp:1"\nconnect = "there:8470"',
        ":2: connect is 'there:8470': it must be an endpoint such as tcp:server.example:8470 "
        "(ValueError: Unknown endpoint type: 'there')",
    ),
    "port": (
        "listen = ['tcp:65536', 'tcp:1']",
        ":1: listen#1 is 'tcp:65536': it must be an endpoint with a port from 0 to 65535, such as "
        "tcp:8470",
    ),
    "port of a peer": (
        "[connect]\nendpoint = ['tcp:a:1', 'tcp:a:0']",
        ":2: connect.endpoint is 'tcp:a:0': it must be an endpoint with a port from 1 to 65535, "
        "such as tcp:server.example:8470",
    ),
    "host": (
        "connect = 'tcp::1'",
        ":1: connect is 'tcp::1': it must be an endpoint with a host, such as "
        "tcp:server.example:8470",
    ),
    "host, a URL": (
        "connect = 'tcp:http\\://hub:1'",
        ":1: connect is 'tcp:http\\\\://hub:1': it must be an endpoint with a host, such as "
        "tcp:server.example:8470",
    ),
    "interface": (
        "[[listen]]\nendpoint = 'tcp:1:interface=192.0.2.256'",
        ":2: listen#1.endpoint is 'tcp:1:interface=192.0.2.256': it must be an endpoint whose "
        "interface is an IP address, such as tcp:8470",
    ),
    "key file": (
        "listen = 'ssl:1:privateKey=/no/such'",
        ":1: listen is 'ssl:1:privateKey=/no/such': it must be an endpoint whose files can be read "
        "(FileNotFoundError: [Errno 2] No such file or directory: '/no/such')",
    ),
    "hooks, no module": (
        "hooks = 'nowhere.Hooks'\nlisten = 'tcp:1'",
        ":1: hooks is 'nowhere.Hooks': it must be the dotted name of a LinkHooks, or of a class of "
        "them (ObjectNotFound: 'nowhere.Hooks' does not name an object)",
    ),
    "hooks, no name": (
        "hooks = 'application.Hoks'\nlisten = 'tcp:1'",
        ":1: hooks is 'application.Hoks': it must be the dotted name of a LinkHooks, or of a class "
        "of them (AttributeError: module 'application' has no attribute 'Hoks')",
    ),
    "hooks, no dotted name": (
        "hooks = 'application..Hooks'\nlisten = 'tcp:1'",
        ":1: hooks is 'application..Hooks': it must be the dotted name of a LinkHooks, or of a "
        "class of them (InvalidName: name must be a string giving a '.'-separated list of Python "
        "identifiers, not 'application..Hooks')",
    ),
    "hooks, arguments": (
        "hooks = 'application.Demanding'\nlisten = 'tcp:1'",
        ":1: hooks is 'application.Demanding': it must be a class that takes no arguments "
        "(TypeError: Demanding.__init__() missing 1 required positional argument: 'needed')",
    ),
    "hooks, a number": (
        "hooks = 'application.number'\nlisten = 'tcp:1'",
        ":1: hooks is 'application.number': it must be an object with the methods of LinkHooks: it "
        "has no connecting",
    ),
    "admit": (
        "[listen]\nendpoint = 'tcp:1'\nadmit = 'application.number'",
        ":3: listen.admit is 'application.number': it must be the dotted name of a function, which "
        "can be called",
    ),
    "no parts": (
        "name = 'x'",
        " has nothing to run, such as listen or connect",
    ),
    "presence hooks": (
        "listen = 'tcp:1'\npresence.hooks = 'application.Hooks'",
        ":2: presence.hooks is 'application.Hooks': it must be an object with the methods of "
        "PresenceHooks: it has no changed",
    ),
    "store, no folder": (
        "listen = 'tcp:1'\nstore.file = '/no/such/file'",
        ":2: store.file is '/no/such/file': it must be the path of a file, in a folder that is "
        "there and can be written to",
    ),
    "token, no file": (
        "listen = 'tcp:1'\n[status]\nendpoint = '8080'\ntoken-file = '/no/such'",
        ":4: status.token-file is '/no/such': it must be the path of a file that holds a token "
        "(FileNotFoundError: [Errno 2] No such file or directory: '/no/such')",
    ),
    "port, another text": (
        "listen = ['tcp:8470', 'keepalive:tcp:08470']",
        ":1: listen#2 listens where listen#1 does: listen keepalive:tcp:08470",
    ),
    "port, one address of all": (
        "listen = 'tcp:8080'\nhttp.endpoint = 'tcp:8080'",
        ":2: http.endpoint listens where listen does: http tcp:8080:interface=127.0.0.1",
    ),
    "port, all after one address": (
        "listen = 'tcp:8080:interface=127.0.0.1'\nconnect = 'tcp:a:1'\n"
        "status.endpoint = 'tcp:8080:interface=0.0.0.0'",
        ":3: status listens where listen does: status tcp:8080:interface=0.0.0.0",
    ),
    "port of UDP": (
        "monitor = {key-file = 'keys', address = ['8471', '[::1]:8471', '127.0.0.1:8471']}",
        ":1: monitor.address listens where monitor.address does: monitor 127.0.0.1:8471",
    ),
    "path": (
        "listen = ['unix:/a', 'unix:/b', 'unix:/a:mode=600']",
        ":1: listen#3 listens where listen#1 does: listen unix:/a:mode=600",
    ),
    "path, another text": (
        "listen = ['unix:/a/b', 'unix:/a/../a/b']",
        ":1: listen#2 listens where listen#1 does: listen unix:/a/../a/b",
    ),
    "address, another text": (
        r"listen = ['tcp:1:interface=\:\:1', 'tcp:1:interface=0\:\:0\:1']",
        r":1: listen#2 listens where listen#1 does: listen tcp:1:interface=0\:\:0\:1",
    ),
    "path, long": (
        f"listen = 'unix:/{'a' * 200}'",
        f":1: listen is 'unix:/{'a' * 194}...': it must be an endpoint with a path of at most "
        f"{LONGEST_PATH} bytes, such as unix:/run/heartbeat.sock",
    ),
    "path of a peer, long": (
        f"connect = 'unix:/{'a' * LONGEST_PATH}'",
        f":1: connect is 'unix:/{'a' * LONGEST_PATH}': it must be an endpoint with a path of at "
        f"most {LONGEST_PATH} bytes, such as unix:/run/heartbeat.sock",
    ),
    "path, none": (
        "listen = 'unix:'",
        ":1: listen is 'unix:': it must be an endpoint with a path, such as "
        "unix:/run/heartbeat.sock",
    ),
    "path of a peer, none": (
        "connect = 'unix:'",
        ":1: connect is 'unix:': it must be an endpoint with a path, such as "
        "unix:/run/heartbeat.sock",
    ),
    "bounds of senders": (
        "[monitor]\naddress = ['1', '2']\nkey-file = 'keys'\nmin-bound = 9\nmax-bound = 3",
        ":5: monitor.max-bound is 3.0: it must be a number of seconds, at least 9.0",
    ),
    "check-in": (
        "check-in = 'http://user:s3cret@host/'",
        ":1: check-in is ***: it must be a URL of printable ASCII characters, with http:// or "
        "https:// and a host, and without a user",
    ),
    "only a page": (
        "status.endpoint = '8080'",
        " has nothing to run, such as listen or connect",
    ),
    "unused hooks": (
        "hooks = 'nowhere.Hooks'\n[listen]\nendpoint = 'tcp:1'\nhooks = 'application.Hooks'",
        ":1: hooks is 'nowhere.Hooks': it must be the dotted name of a LinkHooks, or of a class of "
        "them (ObjectNotFound: 'nowhere.Hooks' does not name an object)",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), WRONG.values(), ids=WRONG)
def test_wrongReference(file: Path, text: str, sentence: str) -> None:
    """
    What does not exist is a fault of the line that names it, and nothing is started.
    """
    assert faults(file, text) == [sentence]


def test_moduleThatFails(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A module of the application that raises is a fault with its words.
    """
    (tmp_path / "failing_hooks.py").write_text("raise RuntimeError('no database')")
    monkeypatch.syspath_prepend(tmp_path)
    [sentence] = faults(file, "hooks = 'failing_hooks.Hooks'\nlisten = 'tcp:1'")
    assert sentence.endswith("(RuntimeError: no database)")


class Raising(LinkHooks):
    """
    Hooks with an attribute that raises.
    """

    @property
    def connecting(self) -> Any:  # type: ignore[override]
        """
        Raise what no C{except Exception} catches.
        """
        raise SystemExit("no database")


class Disguised:
    """
    An object whose every attribute raises.
    """

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"no {name}")


@pytest.mark.parametrize("isMade", [False, True], ids=["class", "object"])
@pytest.mark.parametrize("hooks", [Raising, Disguised])
def test_hooksThatRaise(file: Path, application: ModuleType, hooks: type, isMade: bool) -> None:
    """
    Hooks whose attributes raise are a fault, and not the end of the process, which has to go on
    with its old file.
    """
    application.hooks = hooks() if isMade else hooks  # type: ignore[attr-defined]
    [sentence] = faults(file, "hooks = 'application.hooks'\nlisten = 'tcp:1'")
    assert sentence.startswith(":1: hooks is 'application.hooks': it must be an object with the")
    assert sentence.endswith((" (SystemExit: no database)", " (RuntimeError: no connecting)"))


def test_severalFaultsAreTold(file: Path) -> None:
    """
    All names are tried, so that one run of C{--check-config} tells all faults.
    """
    found = faults(file, "hooks = ['a.b', 'application.no']\nlisten = ['x', 'tcp:1', 'y']")
    assert [sentence[:3] for sentence in found] == [":1:", ":1:", ":2:", ":2:"]


def test_filesThatAreNoStore(file: Path, tmp_path: Path) -> None:
    """
    What is there and no database is found before anything starts; so is a name that no file can
    have.  An empty file and a database are right.
    """
    text = "listen = 'tcp:1'\nstore.file = \"{}\""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "text").write_text("a = 1")
    for name, words in {
        "loop": "that is there and can be written to (OSError: ",
        "x" * 300: "that is there and can be written to (OSError: ",
        "/dev/null": "it must be the path of a regular file",
        "text": "it must be the path of an SQLite database, or of no file, so that it is made",
        "a\\u0000b": "it must be the path of a file, in a folder that is there",
        ".": "it must be the path of a regular file",
    }.items():
        [sentence] = faults(file, text.format(name))
        assert sentence.startswith(":2: store.file is '")
        assert words in sentence
    with closing(sqlite3.connect(tmp_path / "database")) as database:
        database.execute("CREATE TABLE a (b)")
    (tmp_path / "empty").touch()
    for name in ("database", "empty", "new"):
        load(file, text.format(name))
    assert not (tmp_path / "new").exists()


UNREADABLE = {
    "no UTF-8": (b"a = 1\n\xff = 2", ":2: this is not UTF-8"),
    "too large": (b"#" * 2_000_000, " is larger than 1048576 bytes"),
}


@pytest.mark.parametrize(("data", "sentence"), UNREADABLE.values(), ids=UNREADABLE)
def test_unreadableFile(file: Path, data: bytes, sentence: str) -> None:
    """
    A file that is no text, or endless, is one sentence.
    """
    assert faults(file, data) == [sentence]


def test_missingFile(tmp_path: Path) -> None:
    """
    So is a file that is not there, and a folder.
    """
    for path, word in ((tmp_path / "no", "FileNotFoundError"), (tmp_path, "IsADirectoryError")):
        with pytest.raises(ConfigError) as caught:
            Loader(MemoryReactorClock(), str(path)).load()
        [sentence] = caught.value.sentences
        assert sentence.startswith(f"{path} cannot be read ({word}")


NAMING = {
    "udp keys": "monitor = {{address = '1', key-file = '{}'}}",
    "tokens": "http = {{endpoint = 'tcp:1', token-file = '{}'}}",
    "token": "listen = 'tcp:1'\nstatus = {{endpoint = '8080', token-file = '{}'}}",
    "listen": "listen = 'ssl:1:privateKey={}'",
    "connect": "connect = 'tls:peer.example:1:certificate={}'",
    "roots": "connect = 'tls:peer.example:1:trustRoots={}'",
}
"""Files that name another file."""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders")
@pytest.mark.parametrize("other", ["pipe", "/dev/zero"])
@pytest.mark.parametrize("text", [*NAMING.values(), None], ids=[*NAMING, "the file itself"])
def test_pipesAndDevices(tmp_path: Path, file: Path, text: str | None, other: str) -> None:
    """
    A pipe, which would block the reactor, and a device that never ends are faults.
    """
    path = tmp_path / other
    if not path.exists():
        os.mkfifo(path)
    if text is None:
        with pytest.raises(ConfigError) as caught:
            Loader(MemoryReactorClock(), str(path)).load()
        assert caught.value.sentences == (f"{path} is no regular file",)
    else:
        [sentence] = faults(file, text.format(path))
        assert sentence.endswith(f"(ValueError: {path} is no regular file)")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders")
def test_pipeAmongTrustRoots(tmp_path: Path, file: Path) -> None:
    """
    A pipe in a folder of certificates is a fault as well.
    """
    pipe = tmp_path / "authority.pem"
    os.mkfifo(pipe)
    [sentence] = faults(file, f"connect = 'tls:peer.example:1:trustRoots={tmp_path}'")
    assert sentence.endswith(f"(ValueError: {pipe} is no regular file)")


def test_byteOrderMark(file: Path) -> None:
    """
    A file that an editor of Windows has written is read.
    """
    file.write_bytes(b'\xef\xbb\xbflisten = "tcp:1"\r\n')
    assert len(Loader(MemoryReactorClock(), str(file)).load().config.parts) == 1


def test_tokenIsReadAgain(file: Path, tmp_path: Path) -> None:
    """
    The token of a status page is read again; if that fails, the one in use stays.
    """
    path = tmp_path / "token"
    path.write_text("a" * 16 + "\n")
    text = f"listen = 'tcp:1'\n[status]\nendpoint = '8080'\ntoken-file = '{path}'"
    reference = Reference("token", str(path))
    first = load(file, text)
    path.write_text("b" * 16)
    second = load(file, text, first)
    path.write_text("short")
    third = load(file, text, second)
    found = [loaded.objects[reference] for loaded in (first, second, third)]
    assert found == ["a" * 16, "b" * 16, "b" * 16]
    [sentence] = third.stale
    assert sentence.startswith(f"{file}:4: status.token-file is '{path}': it stays as it is (")


# Certificates.


def issue(folder: Path, name: str) -> str:
    """
    Write a key with its certificate.

    @return: the path.
    """
    path = folder / f"{name}.pem"
    certificate = trustme.CA().issue_cert("peer.example")
    certificate.private_key_and_cert_chain_pem.write_to_path(path)
    return str(path)


def test_keyOfAnotherCertificate(file: Path, tmp_path: Path) -> None:
    """
    A key that does not belong to its certificate is a fault, and not the failure of the first
    handshake.
    """
    one, other = tmp_path / "key.pem", tmp_path / "other.pem"
    trustme.CA().issue_cert("peer.example").private_key_pem.write_to_path(one)
    trustme.CA().issue_cert("peer.example").cert_chain_pems[0].write_to_path(other)
    [sentence] = faults(file, f"listen = 'ssl:1:privateKey={one}:certKey={other}'")
    assert sentence.startswith(":1: listen is 'ssl:1:privateKey=")
    assert "keys do not match" in sentence


def test_nameOfTheCertificate(file: Path, tmp_path: Path) -> None:
    """
    An C{ssl:} endpoint may name whom the certificate has to be for.  Its own key is checked, too.
    """
    one, other = issue(tmp_path, "one"), issue(tmp_path, "other")
    text = "ssl:192.0.2.7:1:hostname=peer.example"
    own = f"{text}:privateKey={one}:certKey={one}"
    for right in (text, own):
        made = load(file, f"connect = '{right}'").objects[Reference("connect", right)]
        assert isinstance(made, SSL4ClientEndpoint)
    [sentence] = faults(file, f"connect = '{text}:privateKey={one}:certKey={other}'")
    assert "keys do not match" in sentence


def test_noCertificate(file: Path, tmp_path: Path) -> None:
    """
    So is a file that is no certificate.
    """
    (tmp_path / "no.pem").write_text("no certificate")
    [sentence] = faults(file, f"listen = 'ssl:1:privateKey={tmp_path}/no.pem'")
    assert "it must be an endpoint such as tcp:8470 (TLS: " in sentence


def test_unreadableKeyKeepsTheOldOne(file: Path, tmp_path: Path) -> None:
    """
    When the file is read again, an endpoint whose key can not be read is no fault: the one in use
    stays, and a sentence says so.
    """
    path = issue(tmp_path, "one")
    text = f"listen = 'ssl:1:privateKey={path}'"
    reference = Reference("listen", f"ssl:1:privateKey={path}")
    first = load(file, text)
    renewed = load(file, text, first)
    assert renewed.objects[reference] is not first.objects[reference]
    Path(path).unlink()
    again = load(file, text, renewed)
    assert again.objects[reference] is renewed.objects[reference]
    [sentence] = again.stale
    words = f"{file}:1: listen is 'ssl:1:privateKey={path}': it stays as it is (FileNotFoundError: "
    assert sentence.startswith(words)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders")
def test_pipeInPlaceOfAKeyKeepsTheOldOne(file: Path, tmp_path: Path) -> None:
    """
    When the file is read again, a pipe in the place of a key does not block the reactor: the key in
    use stays, and a sentence says so.
    """
    path = issue(tmp_path, "one")
    text = f"listen = 'ssl:1:privateKey={path}'"
    reference = Reference("listen", f"ssl:1:privateKey={path}")
    first = load(file, text)
    Path(path).unlink()
    os.mkfifo(path)
    again = load(file, text, first)
    assert again.objects[reference] is first.objects[reference]
    [sentence] = again.stale
    assert sentence.endswith(f"it stays as it is (ValueError: {path} is no regular file)")
