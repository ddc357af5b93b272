# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The options of C{twist heartbeat} for heartbeats over UDP.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import CannotListenError
from twisted.logger import LogEvent
from twisted.python.usage import UsageError

from twisted_heartbeat import UDPHeartbeatSender
from twisted_heartbeat.cli.datagrams import RunningMonitor
from twisted_heartbeat.cli.exitstatus import EX_OSERR
from twisted_heartbeat.cli.options import Options
from twisted_heartbeat.cli.reload import Reloader
from twisted_heartbeat.cli.service import HeartbeatServices, makeService

from ..support.virtualudp import Host, Internet


class Machine(Host):
    """
    A host whose reactor runs.
    """

    def callWhenRunning(self, call: Callable[..., object], *arguments: object) -> None:
        call(*arguments)

    def addSystemEventTrigger(self, *trigger: object) -> None:
        """
        Ignore what is for the end.
        """


KEYS = f"# the pumps\npump 1 {'11' * 16}\npump 2 {'22' * 32}\n\nlamp at the gate 1 {'33' * 16}\n"


@pytest.fixture
def keys(tmp_path: Path) -> str:
    """
    A file of keys.
    """
    path = tmp_path / "keys"
    path.write_text(KEYS)
    return str(path)


def parse(host: Host, *arguments: str) -> Options:
    """
    Parse a command line.
    """
    options = Options(host)
    options.parseOptions(arguments)
    return options


def test_senderAndMonitor(keys: str) -> None:
    """
    A sender reports to the monitor of another command line, with the newest of its keys.
    """
    internet = Internet()
    hub, pump = Machine(internet, "192.0.2.1"), Machine(internet, "192.0.2.2")
    watching = makeService(parse(hub, "--monitor-udp", "8471", "--udp-keys", keys))
    places = ["--udp", "192.0.2.1:8471", "--udp", "192.0.2.9:8471", "--udp-every", "2"]
    sending = makeService(
        parse(pump, *places, "--udp-keys", keys, "--name", "pump", "--within", "20")
    )
    watching.startService()
    sending.startService()
    internet.advance(5.0)
    [watcher] = watching.parts.values()
    assert isinstance(watcher, RunningMonitor)
    monitor = watcher.monitor
    [sender] = [each for each in sending if isinstance(each, UDPHeartbeatSender)]
    peer = monitor.peers["pump"]
    assert (peer.keyId, peer.bound, monitor.source) == (2, 20.0, "udp:8471")
    assert sender.period == 2.0 and len(sender.monitors) == 2
    sending.stopService()
    internet.advance(0.1)
    assert monitor.peers == {}
    watching.stopService()


def test_addresses(keys: str) -> None:
    """
    The monitor listens on an address, also of IPv6.
    """
    host = Host(Internet())
    options = parse(
        host, "--monitor-udp", "[::1]:8471", "--monitor-udp", "192.0.2.1:9", "--udp-keys", keys
    )
    assert options["monitor-udp"] == [("::1", 8471), ("192.0.2.1", 9)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--monitor-udp", "8471"], "--udp-keys is missing"),
        (["--monitor-udp", "port"], r"\[ADDRESS:\]PORT"),
        (["--monitor-udp", "70000"], r"\[ADDRESS:\]PORT"),
        (["--monitor-udp", "hub.example:8471"], r"\[ADDRESS:\]PORT"),
        (["--udp", "8471"], "HOST:PORT"),
        (["--udp", "hub:0"], "HOST:PORT"),
        (["--udp", "hub:8471", "KEYS"], "needs a --name"),
        (["--udp", "hub:8471", "KEYS", "--name", "drum"], "needs a --name"),
        (["--udp", "hub:8471", "KEYS", "--name", "pump", "--within", "2"], "raise the bound"),
        (["--udp", "hub:8471", "KEYS", "--name", "pump", "--udp-every", "x"], "a number"),
        (["--udp-keys", "/nowhere/keys"], "No such file"),
        ([], "--monitor-udp"),
    ],
)
def test_wrongOptions(arguments: list[str], words: str, keys: str) -> None:
    """
    What cannot work is one sentence that says what is allowed.
    """
    given = [
        each for one in arguments for each in (["--udp-keys", keys] if one == "KEYS" else [one])
    ]
    with pytest.raises(UsageError, match=words):
        parse(Host(Internet()), *given)


@pytest.mark.parametrize("text", ["pump 1", "pump one 11", "pump 1 1x", "", "# pump 1 11"])
def test_wrongKeys(text: str, tmp_path: Path) -> None:
    """
    A file without keys, or with a line that is none, is refused without telling what is in it.
    """
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(UsageError, match="line 1 must be NAME ID KEY|no key"):
        parse(Host(Internet()), "--udp-keys", str(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            f"pump 1 {'11' * 32}\npump 01 {'22' * 32}",
            "line 2 has the name and the key id of a line",
        ),
        (f"{'n' * 129} 1 {'11' * 32}", "must have 1 to 128 bytes in UTF-8"),
    ],
    ids=["key twice", "long name"],
)
def test_keysThatNoSenderCouldUse(text: str, words: str, tmp_path: Path) -> None:
    """
    So is a file of which a key would not count.
    """
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        parse(Host(Internet()), "--udp-keys", str(path))


def reload(services: HeartbeatServices) -> None:
    """
    Read the file again.
    """
    [reloader] = [each for each in services if isinstance(each, Reloader)]
    assert reloader.reload().called


def test_fileIsReadAgain(keys: str, tmp_path: Path, events: list[LogEvent]) -> None:
    """
    A new file of keys holds at once, for the monitor and for the sender, which begins a session
    with the new key; a sender gets other monitors and times, a monitor other bounds; and the hooks
    of a monitor need a restart.
    """
    internet = Internet()
    hub, pump = Machine(internet, "192.0.2.1"), Machine(internet, "192.0.2.2")
    there, here = tmp_path / "hub.toml", tmp_path / "pump.toml"
    there.write_text(f"monitor.address = '8471'\nmonitor.key-file = '{keys}'")
    sender = f"name = 'pump'\n[udp]\nmonitors = '192.0.2.1:8471'\nkey-file = '{keys}'\n"
    here.write_text(sender)
    watching = makeService(parse(hub, f"--config={there}"), {})
    sending = makeService(parse(pump, f"--config={here}"), {})
    watching.startService()
    sending.startService()
    internet.advance(10.0)
    [watcher] = watching.parts.values()
    assert isinstance(watcher, RunningMonitor)
    assert watcher.monitor.peers["pump"].keyId == 2
    assert watching.status == "1 sender heard"
    Path(keys).write_text(f"pump 2 {'22' * 32}\npump 3 {'44' * 32}\n")
    reload(watching)
    reload(sending)
    internet.advance(10.0)
    assert watcher.monitor.peers["pump"].keyId == 3
    here.write_text(sender + "every = 4\nheartbeat.within = 60")
    reload(sending)
    internet.advance(10.0)
    assert watcher.monitor.peers["pump"].bound == 60
    there.write_text(there.read_text() + "\nmonitor.max-bound = 30")
    reload(watching)
    internet.advance(10.0)
    assert watcher.monitor.peers["pump"].bound == 30
    hooks = "\nmonitor.hooks = 'twisted_heartbeat.LinkHooks'"
    there.write_text(there.read_text() + hooks)
    reload(watching)
    assert [event["key"] for event in events if "key" in event] == ["monitor.hooks"]
    Path(keys).write_text("pump 3 44")
    reload(watching)
    assert any("stays as it is" in str(event.get("sentence")) for event in events)
    sending.stopService()
    internet.advance(0.1)
    watching.stopService()


def test_senderIsRemovedWhileItIsReplaced(
    keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[LogEvent]
) -> None:
    """
    A sender that is taken out of the file while an earlier change of it is under way does not come
    back.
    """
    pump, file = Machine(Internet(), "192.0.2.2"), tmp_path / "pump.toml"
    listen = f"monitor.address = '8471'\nmonitor.key-file = '{keys}'\n"
    sender = f"[udp]\nmonitors = '192.0.2.1:8471'\nkey-file = '{keys}'\n"
    file.write_text(f"name = 'pump'\n{listen}{sender}")
    sending = makeService(parse(pump, f"--config={file}"), {})
    sending.startService()
    [old] = [each for each in sending if isinstance(each, UDPHeartbeatSender)]
    closed: Deferred[None] = Deferred()
    stop = old.stopService
    monkeypatch.setattr(old, "stopService", lambda: gatherResults([stop(), closed]))
    file.write_text(f"name = 'pump'\n{listen}{sender}every = 4\nheartbeat.within = 60")
    reload(sending)
    file.write_text(listen)
    reload(sending)
    closed.callback(None)
    assert not [each for each in sending if isinstance(each, UDPHeartbeatSender)]
    assert not [event for event in events if "failed to stop" in (event.get("log_format") or "")]
    sending.stopService()


WRONG_FILES = {
    "no key of the name": (
        "name = 'drum'\nudp.monitors = 'hub:1'\nudp.key-file = 'KEYS'",
        ":2: udp: its name is 'drum', of which the file has no key",
    ),
    "bound": (
        "name = 'pump'\nudp.monitors = 'hub:1'\nudp.key-file = 'KEYS'\nheartbeat.within = 2",
        ":2: udp: ",
    ),
    "no file": (
        "monitor.address = '8471'\nmonitor.key-file = '/nowhere'",
        ":2: monitor.key-file is '/nowhere': it must be the path of a file with a name, a key id "
        "and a key in each line (FileNotFoundError",
    ),
}


@pytest.mark.parametrize(("text", "words"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_wrongFile(
    text: str, words: str, keys: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    What cannot work is one sentence with its line.
    """
    file = tmp_path / "hb.toml"
    file.write_text(text.replace("KEYS", keys))
    with pytest.raises(SystemExit):
        parse(Machine(Internet()), f"--config={file}")
    assert capsys.readouterr().err.startswith(f"{file}{words}")


def test_keysInTheFile(keys: str, tmp_path: Path) -> None:
    """
    A file may have the keys for an option.
    """
    file = tmp_path / "hb.toml"
    file.write_text(f"monitor.key-file = '{keys}'")
    options = parse(Machine(Internet()), f"--config={file}", "--monitor-udp=[::1]:8471")
    assert [part.label for part in options.loaded.config.parts] == ["monitor [::1]:8471"]


def test_portInUse(keys: str, tmp_path: Path, events: list[LogEvent]) -> None:
    """
    A port that is taken is one sentence in the log, and no traceback.
    """
    host = Machine(Internet())
    ended: list[int] = []
    parsed = parse(host, "--monitor-udp", "8471", "--udp-keys", keys)

    def refuse(port: int, *arguments: object, **keywords: object) -> None:
        raise CannotListenError("any", port, OSError(98, "in use"))

    host.listenUDP = refuse  # type: ignore[method-assign]
    services = makeService(parsed, {})
    services.end = ended.append  # type: ignore[method-assign]
    services.privilegedStartService()
    services.startService()
    assert ended == [EX_OSERR]
    assert [event["reason"][:18] for event in events if "reason" in event] == ["CannotListenError:"]
    services.stopService()


def test_newPortIsInUse(keys: str, tmp_path: Path, events: list[LogEvent]) -> None:
    """
    A daemon whose new port is taken runs on without it, and tries it again with the next reload.
    """
    host, file = Machine(Internet()), tmp_path / "hub.toml"
    text = f"monitor.key-file = '{keys}'\nmonitor.address = "
    file.write_text(f"{text}['8471']")
    parsed = parse(host, f"--config={file}")
    parsed.parent = {"nodaemon": 0}
    services = makeService(parsed, {})
    services.privilegedStartService()
    services.startService()
    listen = host.listenUDP

    def refuse(port: int, *arguments: object, **keywords: object) -> None:
        raise CannotListenError("any", port, OSError(98, "in use"))

    host.listenUDP = refuse  # type: ignore[method-assign]
    file.write_text(f"{text}['8471', '8472']")
    reload(services)
    assert [event["link"] for event in events if "reason" in event] == ["monitor 8472"]
    assert list(services.parts) == [("monitor", "8471")]
    host.listenUDP = listen  # type: ignore[method-assign]
    reload(services)
    assert list(services.parts) == [("monitor", "8471"), ("monitor", "8472")]
    services.stopService()
