# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
C{twist heartbeat --config}: real processes, their files, and SIGHUP under load.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
import trustme

from ..support.programs import (
    DAEMON,
    JSON,
    TWIST,
    TWISTD,
    WAIT_LIMIT,
    Program,
    Run,
    connectTo,
    freePlaces,
    portOf,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is no SIGHUP")

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

CA = trustme.CA()

READ_AGAIN = "was read again"
"""The words of the log's line about a file that was read again."""


def reload(program: Program, times: int, words: str = READ_AGAIN) -> None:
    """
    Send SIGHUP, and wait for the line that tells what came of it.

    @param times: how many of these lines there are then.
    """
    program.tell(signal.SIGHUP)
    program.awaitLog(lambda: sum(words in line for line in program.lines) >= times)


def listening(place: str) -> bool:
    """
    Whether a port is open.
    """
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(portOf(place)))) == 0


def handshake(place: str) -> ssl.SSLSocket:
    """
    A connection over TLS, to a certificate that L{CA} has signed.
    """
    context = ssl.create_default_context()
    CA.configure_trust(context)
    raw = socket.create_connection(("127.0.0.1", int(portOf(place))), WAIT_LIMIT)
    return context.wrap_socket(raw, server_hostname="127.0.0.1")


def get(place: str, path: str) -> str:
    """
    The answer to an HTTP request.
    """
    with urlopen(f"http://127.0.0.1:{portOf(place)}{path}", timeout=WAIT_LIMIT) as answer:
        return str(answer.read().decode())


# The file.


def test_exampleRuns(run: Run, tmp_path: Path) -> None:
    """
    The annotated example runs as it stands, but for the addresses and paths: its listeners accept
    peers, over TLS as well; its link, with two addresses, comes up; its hooks are told; it sends
    and receives heartbeats over UDP, here its own; it checks in, receives check-ins, and shows all
    of that on its page.
    """
    plain, secured, server, checks, own, page = freePlaces(6)
    certificate = CA.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    text = (EXAMPLES / "heartbeat.toml").read_text()
    for there, here in {
        "tcp:8470": f"tcp:{portOf(plain)}",
        "ssl:8471": f"ssl:{portOf(secured)}",
        "127.0.0.1:8471": f"127.0.0.1:{portOf(plain)}",
        '"server.example:8472"': f'"127.0.0.1:{portOf(plain)}"',
        '"standby.example:8472"': f'"127.0.0.1:{portOf(secured)}"',
        "tcp:8081": f"tcp:{portOf(own)}",
        "tcp:8082": f"tcp:{portOf(page)}",
        "tcp:server.example:8470": f"tcp:127.0.0.1:{portOf(server)}",
        "tcp:standby.example:8470": f"tcp:127.0.0.1:{portOf(server)}",
        "http://checks.example:8080": f"http://127.0.0.1:{portOf(checks)}",
        "/etc/heartbeat/": f"{tmp_path}/",
        "/var/lib/heartbeat/": f"{tmp_path}/",
    }.items():
        assert there in text
        text = text.replace(there, here)
    (tmp_path / "hb.toml").write_text(text)
    for name in ("sensor-keys", "own-key"):
        (tmp_path / name).write_text(f"gateway-7 1 {'5a' * 16}\n")
    (tmp_path / "heartbeat_hooks.py").write_text((EXAMPLES / "heartbeat_hooks.py").read_text())
    checked = run(*TWIST, "heartbeat", "--config=hb.toml", "--check-config")
    assert checked.awaitExit() == 0, checked.errors
    assert checked.lines == [f"{tmp_path}/hb.toml: no fault found"]
    up = run(
        *(*JSON, "heartbeat", "--listen", server, "--http", checks),
        "--check=gateway-7:60:60",
    )
    up.awaitLine("Starting reactor")
    program = run(*JSON, "heartbeat", "--config=hb.toml")
    assert up.awaitEvent("connected", carrier="tcp")["bound"] == 35
    up.awaitEvent("connected", carrier="http")
    device = connectTo(run, plain, "--name=device")
    assert program.awaitEvent("connected", carrier="tcp", bound=8)["link"].startswith("tcp:")
    with handshake(secured) as peer:
        assert peer.recv(1)
    assert get(own, "/ping/nightly-backup") == "OK"
    program.awaitEvent("connected", carrier="http")
    presence = json.loads(get(page, "/presence.json"))
    program.awaitEvent("connected", carrier="udp", link="udp:127.0.0.1:" + portOf(plain))
    assert {"tcp/device", "http/nightly-backup"} <= {each["name"] for each in presence["peers"]}
    assert presence["title"] == "Gateway 7"
    device.tell(signal.SIGTERM)
    program.awaitLog(lambda: any(event.get("losses") for event in program.events))
    program.tell(signal.SIGTERM)
    assert program.awaitExit() == -signal.SIGTERM
    assert "Traceback" not in "\n".join(program.lines) + program.errors
    assert (tmp_path / "presence.sqlite").exists()


@pytest.mark.parametrize(
    ("runner", "checks"), [(TWIST, []), (TWISTD, ["--check-config"])], ids=["twist", "twistd"]
)
def test_wrongFile(
    run: Run, place: str, tmp_path: Path, runner: list[str], checks: list[str]
) -> None:
    """
    A wrong file is status 64 from either runner, with one sentence for each fault and no help
    behind them.  Nothing starts, and nothing is logged.
    """
    file = tmp_path / "hb.toml"
    file.write_text(f'listen = "{place}"\n[heartbeat]\nwitin = 8\n[backoff]\ninitial = 0\n')
    program = run(*runner, "heartbeat", "--config=hb.toml", *checks)
    assert program.awaitExit() == 64
    assert program.errors.splitlines() == [
        f"{file}:3: heartbeat.witin: did you mean within?",
        f"{file}:5: backoff.initial is 0: it must be a number of seconds above 0",
    ]
    assert program.lines == []


# SIGHUP.

PEERS = 60
"""Links that the new files keep."""

WITHIN = 2
"""Seconds: the bound of all links, so that each is pinged several times during a test."""


def serverFile(*places: str, within: float = WITHIN) -> str:
    return f"listen = {list(places)}\n[heartbeat]\nwithin = {within}\n".replace("'", '"')


def clientFile(place: str, number: int, begin: int = 0) -> str:
    """
    A file with so many links to one place, each under a name of its own.
    """
    links = [
        f'[[connect]]\nendpoint = "tcp:127.0.0.1:{portOf(place)}"\nname = "peer-{index}"\n'
        for index in range(begin, begin + number)
    ]
    return f"heartbeat.within = {WITHIN}\nbackoff.maximum = 0.2\n\n{''.join(links)}"


def test_reloadUnderLoad(run: Run, tmp_path: Path) -> None:
    """
    While peers ping and are pinged, a listener is added, one is removed, and one is changed, again
    and again.  No link of a listener that stays is dropped; the peers of the one that goes are told
    goodbye; the new one takes peers.
    """
    kept, going, coming = freePlaces(3)
    file = tmp_path / "hb.toml"
    file.write_text(serverFile(kept, going))
    server = run(*JSON, "heartbeat", "--config=hb.toml")
    server.awaitLog(lambda: sum("starting on" in line for line in server.lines) == 2)
    links = clientFile(kept, PEERS) + clientFile(going, 5).partition("\n\n")[2]
    (tmp_path / "links.toml").write_text(links)
    peers = run(*JSON, "heartbeat", "--config=links.toml")
    peers.awaitLog(lambda: len(peers.named("connected")) == PEERS + 5)

    for times in range(1, 9):
        file.write_text(serverFile(kept, coming if times % 2 else going, within=WITHIN + times))
        reload(server, times)
        time.sleep(0.1)
    assert listening(going) and not listening(coming)
    file.write_text(serverFile(coming, kept))
    reload(server, 9)
    assert listening(coming)
    there, elsewhere = (f"tcp:127.0.0.1:{portOf(place)}" for place in (kept, going))
    peers.awaitEvent("disconnected", 5, link=elsewhere)
    gone = {event["reason"] for event in peers.named("disconnected")}
    assert "the peer said goodbye: closing" in gone
    assert not listening(going)

    # Longer than the bound: whatever was lost would have been noticed.
    time.sleep(WITHIN + 0.5)
    assert peers.named("disconnected", link=there) == peers.named("suspected", link=there) == []
    server.tell(signal.SIGTERM)
    peers.awaitEvent("disconnected", PEERS, link=there)
    assert {event["cause"] for event in peers.named("disconnected", link=there)} == {"PeerClosed"}
    assert "Traceback" not in "\n".join(server.lines) + server.errors


def test_reloadOfClients(run: Run, place: str, tmp_path: Path) -> None:
    """
    A client's file is read again: links that it keeps stay, one that it drops says goodbye, and new
    ones come up.
    """
    server = run(*JSON, "heartbeat", "--listen", place, f"--within={WITHIN}")
    server.awaitLine("starting on")
    file = tmp_path / "hb.toml"
    file.write_text(clientFile(place, 10))
    client = run(*JSON, "heartbeat", "--config=hb.toml")
    server.awaitLog(lambda: len(server.named("connected")) == 10)
    file.write_text(clientFile(place, 10, 2))
    reload(client, 1)
    server.awaitLog(lambda: len(server.named("connected")) == 12)
    server.awaitLog(lambda: len(server.named("disconnected")) == 2)
    time.sleep(WITHIN)
    assert {event["cause"] for event in server.named("disconnected")} == {"PeerClosed"}
    assert len(server.named("disconnected")) == 2


def test_wrongNewFile(run: Run, tmp_path: Path) -> None:
    """
    A new file with faults changes nothing, and the log tells them; when it is put right, it holds.
    """
    old, new = freePlaces(2)
    file = tmp_path / "hb.toml"
    file.write_text(serverFile(old))
    server = run(*TWISTD, "heartbeat", "--config=hb.toml")
    server.awaitLine("starting on")
    client = connectTo(run, old)
    client.awaitEvent("connected")
    file.write_text(serverFile(new, "tcp:99999") + "witin = 3\n")
    reload(server, 1, "nothing is changed")
    server.awaitLine(f"{file}:4: heartbeat.witin: did you mean within?")
    assert listening(old) and not listening(new)
    file.write_text(serverFile(new, "tcp:99999"))
    reload(server, 2, "nothing is changed")
    server.awaitLine("listen#2 is 'tcp:99999'")
    file.write_text(serverFile(new, old))
    reload(server, 1)
    assert listening(old) and listening(new)
    assert client.named("disconnected") == []


def issue(folder: Path, authority: trustme.CA = CA) -> bytes:
    """
    Write a new key with its certificate.

    @return: the certificate.
    """
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


def test_certificateIsRenewed(run: Run, place: str, tmp_path: Path) -> None:
    """
    After SIGHUP new handshakes get the new certificate, on the same port; old links stay.  A key
    that can not be read leaves the one in use, and the log says so.
    """
    first = issue(tmp_path)
    secured = f"keepalive:ssl:{place.removeprefix('tcp:')}:privateKey=key.pem:certKey=cert.pem"
    (tmp_path / "hb.toml").write_text(f"listen = '{secured}'")
    server = run(*JSON, "heartbeat", "--config=hb.toml")
    server.awaitLine("starting on")
    with handshake(place) as old:
        assert old.getpeercert(binary_form=True) == first
        second = issue(tmp_path)
        reload(server, 1, "the certificate was read again")
        with handshake(place) as new:
            assert new.getpeercert(binary_form=True) == second
        (tmp_path / "key.pem").unlink()
        reload(server, 1, "The old certificate stays in use")
        with handshake(place) as new:
            assert new.getpeercert(binary_form=True) == second
        third = issue(tmp_path)
        reload(server, 2, "the certificate was read again")
        with handshake(place) as new:
            assert new.getpeercert(binary_form=True) == third
        assert old.recv(1)
        old.settimeout(0.2)
        # No end of the stream: the link that began with the first certificate is still up.
        assert b"" != _received(old)
    assert sum("starting on" in line for line in server.lines) == 1


def _received(connection: ssl.SSLSocket) -> bytes:
    """
    What has come, or C{b"nothing"}; C{b""} if the other side has closed.
    """
    try:
        while data := connection.recv(4096):
            pass
        return data
    except TimeoutError:
        return b"nothing"


def test_clientTrustsAnotherAuthority(run: Run, place: str, tmp_path: Path) -> None:
    """
    A client's certificates are read again, too: an authority that is added to its folder is trusted
    by the next attempt.
    """
    issue(tmp_path)
    roots = tmp_path / "roots"
    roots.mkdir()
    trustme.CA().cert_pem.write_to_path(roots / "other.pem")
    port = portOf(place)
    secured = f"ssl:{place.removeprefix('tcp:')}:privateKey=key.pem:certKey=cert.pem"
    run(*JSON, "heartbeat", "--listen", secured).awaitLine("starting on")
    (tmp_path / "hb.toml").write_text(
        f"connect = 'tls:127.0.0.1:{port}:trustRoots=roots'\n"
        "backoff.maximum = 0.2\nbackoff.jitter = false\n"
    )
    client = run(*JSON, "heartbeat", "--config=hb.toml")
    assert client.awaitEvent("retrying")["cause"] == "HandshakeFailed"
    assert client.named("connected") == []
    CA.cert_pem.write_to_path(roots / "ours.pem")
    reload(client, 1)
    client.awaitEvent("connected")


@pytest.mark.parametrize("reactor", ["asyncio", "select"])
def test_anyReactor(run: Run, tmp_path: Path, reactor: str) -> None:
    """
    The signal wakes a reactor of any kind that waits for nothing else.
    """
    old, new = freePlaces(2)
    file = tmp_path / "hb.toml"
    file.write_text(serverFile(old))
    server = run(*JSON, f"--reactor={reactor}", "heartbeat", "--config=hb.toml")
    server.awaitLine("Starting reactor")
    time.sleep(0.2)
    file.write_text(serverFile(new))
    reload(server, 1)
    assert listening(new) and not listening(old)


def test_ignoredSignal(run: Run, place: str, tmp_path: Path) -> None:
    """
    A process that nohup has started lives on after SIGHUP, and reads nothing.
    """
    (tmp_path / "hb.toml").write_text(f'listen = "{place}"')
    ignoring = "import signal, runpy; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    program = run(
        "-c",
        f"{ignoring}runpy.run_module('twisted', run_name='__main__')",
        "--log-format=json",
        "heartbeat",
        "--config=hb.toml",
    )
    program.awaitLine("SIGHUP is ignored")
    program.tell(signal.SIGHUP)
    time.sleep(0.3)
    assert program.process.poll() is None
    assert not any(READ_AGAIN in line for line in program.lines)


def test_daemonReads(run: Run, tmp_path: Path) -> None:
    """
    A daemon of C{twistd}, which has another working folder, finds its file again.
    """
    old, new = freePlaces(2)
    file = tmp_path / "hb.toml"
    file.write_text(serverFile(old))
    (tmp_path / "elsewhere").mkdir()
    starter = run(*DAEMON, "--rundir=elsewhere", "heartbeat", "--config=hb.toml")
    assert starter.awaitExit() == 0, starter.errors
    daemon = int((tmp_path / "twistd.pid").read_text())
    try:
        file.write_text(serverFile(old, new))
        os.kill(daemon, signal.SIGHUP)
        deadline = time.monotonic() + 10
        while not listening(new) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert listening(old) and listening(new)
    finally:
        os.kill(daemon, signal.SIGTERM)
