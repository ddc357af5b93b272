# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The options of C{twist heartbeat} for heartbeats over UDP.
"""

from __future__ import annotations

from twisted.python.usage import UsageError

from .config.kinds import isAddress, isMonitor, placeOf
from .config.resolver import udpKeys
from .settingoptions import SettingOptions, wrongOption

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


class UDPOptions(SettingOptions):
    """
    The options, for the class of all options to inherit.
    """

    def __init__(self) -> None:
        super().__init__()
        self["monitor-udp"] = []
        self["udp"] = []
        self["udp-keys"] = ""
        self["udp-every"] = None
        self._keys: dict[str, dict[int, bytes]] = {}

    def opt_monitor_udp(self, text: str) -> None:
        if not isAddress(text):
            raise wrongOption("monitor-udp", text, "[ADDRESS:]PORT, such as 8471")
        self["monitor-udp"].append(placeOf(text))

    def opt_udp(self, text: str) -> None:
        if not isMonitor(text):
            raise wrongOption("udp", text, "HOST:PORT, such as hub.example:8471")
        self["udp"].append(placeOf(text))

    def opt_udp_keys(self, path: str) -> None:
        self._keys = self.check("udp-keys", path, udpKeys)
        self["udp-keys"] = path

    def opt_udp_every(self, seconds: str) -> None:
        self["udp-every"] = self.read("udp-every", seconds, "udp", "every")

    def postOptions(self) -> None:
        """
        Require what belongs together.

        @raise UsageError: if something is missing.
        """
        if (self["monitor-udp"] or self["udp"]) and not self["udp-keys"]:
            raise UsageError("--udp-keys is missing: --udp and --monitor-udp need it")
        if self["udp"] and dict(self.settings).get(("name",)) not in self._keys:
            raise UsageError("--udp needs a --name whose key is in --udp-keys")
