# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The options of C{twist heartbeat} for heartbeats over UDP, and the services behind them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.python.usage import Options, UsageError

if TYPE_CHECKING:
    from ..datagram.monitor import UDPHeartbeatMonitor
    from ..datagram.sender import UDPHeartbeatSender

UDP_HELP = {
    "monitor-udp": (
        "Watch the senders of heartbeats over UDP at this [ADDRESS:]PORT, for example 8471, "
        "whose keys are in --udp-keys. May be given several times."
    ),
    "udp": (
        "Send heartbeats over UDP to the --monitor-udp at this HOST:PORT, as --name, with that "
        "name's key in --udp-keys. Given several times: to the first that is well."
    ),
    "udp-keys": (
        "The file of the keys: in each line a NAME, a key id from 1 to 255, and a key of 16 bytes "
        "or more in hexadecimal digits."
    ),
    "udp-every": "Seconds between two heartbeats over UDP. Default: 3, or more with a long bound.",
}
"""The help text of each option."""


class UDPOptions(Options):
    """
    The options, for the class of all options to inherit.
    """

    reactor: Any

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["monitor-udp"] = []
        self["udp"] = []
        self["udp-keys"] = {}
        self["udp-every"] = None

    @property
    def usesUDP(self) -> bool:
        """
        Whether there is anything to do.
        """
        return bool(self["monitor-udp"] or self["udp"])

    def opt_monitor_udp(self, place: str) -> None:
        host, port = _place("monitor-udp", place, "[ADDRESS:]PORT, such as 8471")
        self["monitor-udp"].append((host, port))

    def opt_udp(self, place: str) -> None:
        host, port = _place("udp", place, "HOST:PORT, such as hub.example:8471")
        if not host or not port:
            raise UsageError(f"--udp is {place!r}: it must be HOST:PORT")
        self["udp"].append((host, port))

    def opt_udp_keys(self, path: str) -> None:
        try:
            self["udp-keys"] = readKeys(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"--udp-keys is {path!r}: {error}") from None

    def opt_udp_every(self, seconds: str) -> None:
        try:
            self["udp-every"] = float(seconds)
        except ValueError:
            raise UsageError(f"--udp-every is {seconds!r}: it must be a number") from None

    def postOptions(self) -> None:
        """
        Require what belongs together, and check the values.

        @raise UsageError: if something is missing or wrong.
        """
        super().postOptions()  # type: ignore[no-untyped-call]
        if self.usesUDP and not self["udp-keys"]:
            raise UsageError("--udp-keys is missing: --udp and --monitor-udp need it")
        if self["udp"] and self["name"] not in self["udp-keys"]:
            raise UsageError("--udp needs a --name whose key is in --udp-keys")
        try:
            self.makeMonitors()
            self.makeSender()
        except ValueError as error:
            raise UsageError(f"--udp: {error}") from None

    def makeMonitors(self) -> list[UDPHeartbeatMonitor]:
        """
        Return the services of C{--monitor-udp}.
        """
        if not self["monitor-udp"]:
            return []
        # Not at the top, because most command lines do without it.
        from ..datagram.monitor import UDPHeartbeatMonitor

        keys, heartbeat = self["udp-keys"], self["heartbeat"]
        return [
            UDPHeartbeatMonitor(
                keys,
                heartbeat=heartbeat,
                port=port,
                interface=host,
                name=f"udp:{host + ':' if host else ''}{port}",
                reactor=self.reactor,
            )
            for host, port in self["monitor-udp"]
        ]

    def makeSender(self) -> UDPHeartbeatSender | None:
        """
        Return the service of C{--udp}; L{None} without any.
        """
        if not self["udp"]:
            return None
        from ..datagram.sender import UDPHeartbeatSender

        name = self["name"]
        # The newest key of a rotation.
        keyId, key = max(self["udp-keys"][name].items())
        return UDPHeartbeatSender(
            self["udp"],
            name=name,
            key=key,
            keyId=keyId,
            heartbeat=self["heartbeat"],
            every=self["udp-every"],
            reactor=self.reactor,
        )


def readKeys(text: str) -> dict[str, dict[int, bytes]]:
    """
    Return the keys of a file, by name and key id.

    @raise ValueError: if a line is wrong; the message does not repeat the line, which may have a
        key.
    """
    keys: dict[str, dict[int, bytes]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, keyId, key = line.rsplit(maxsplit=2)
            keys.setdefault(name, {})[int(keyId)] = bytes.fromhex(key)
        except ValueError:
            raise ValueError(f"line {number} must be NAME ID KEY") from None
    if not keys:
        raise ValueError("there is no key in it")
    return keys


def _place(option: str, place: str, allowed: str) -> tuple[str, int]:
    """
    Parse a host and a port; the host may be in brackets, or missing.
    """
    host, _, port = place.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--{option} is {place!r}: it must be {allowed}")
    return host.removeprefix("[").removesuffix("]"), int(port)
