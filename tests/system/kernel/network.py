# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Network}: two network namespaces, the watcher's and the peer's, and any number of L{Lane}s between
them.  What is broken on one lane is broken on that lane alone.

Sources: ip-netns(8), veth(4), nft(8).
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass

PREFIX = "thb"

HERE, THERE = "here", "there"
"""The watcher's end, and the peer's."""


def whyNot() -> str | None:
    """
    Why this machine can not run the suite, in one sentence; L{None} if it can.
    """
    if not sys.platform.startswith("linux"):
        return f"Network namespaces are Linux's, and this is {sys.platform}."
    missing = [tool for tool in ("ip", "nft") if shutil.which(tool) is None]
    if missing:
        return f"The kernel suite needs {' and '.join(missing)}, which this machine does not have."
    if os.geteuid() != 0:
        return "The kernel suite makes network namespaces, and only root may."
    probe = f"{PREFIX}{os.getpid()}-probe"
    added = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if added.returncode != 0:
        return f"This root may not make network namespaces: {added.stderr.strip()}."
    subprocess.run(["ip", "netns", "del", probe], capture_output=True)
    return None


def run(*command: str, given: str | None = None) -> str:
    """
    Run a command to its end.

    @param given: what it reads.
    @raise RuntimeError: if it fails.
    """
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()} ({given})")
    return done.stdout


@dataclass(frozen=True)
class Lane:
    """
    One cable between the two namespaces, with an address at each end.

    @ivar number: tells it from the others.
    """

    network: Network
    number: int

    @property
    def here(self) -> str:
        """
        The watcher's address.
        """
        return f"10.77.{self.number}.1"

    @property
    def there(self) -> str:
        """
        The peer's address.
        """
        return f"10.77.{self.number}.2"

    @property
    def elsewhere(self) -> str:
        """
        The peer's address after it has moved.
        """
        return f"10.77.{self.number}.3"

    @property
    def device(self) -> str:
        """
        The name of the interface, at either end.
        """
        return f"lane{self.number}"

    def linkLocal(self, end: str) -> str:
        """
        The IPv6 address at an end, which is good on this lane alone.
        """
        return f"fe80::{self.number:x}:{1 if end == HERE else 2}%{self.device}"

    def setUp(self, end: str) -> list[str]:
        """
        What C{ip} has to do at an end before the lane can be used.
        """
        address = self.here if end == HERE else self.there
        linkLocal = self.linkLocal(end).split("%")[0]
        return [
            f"addr add {address}/24 dev {self.device}",
            f"addr add {linkLocal}/64 dev {self.device} nodad",
            f"link set {self.device} up",
        ]

    def ip(self, end: str, *words: str) -> None:
        """
        Run C{ip} in the namespace at an end.
        """
        run("ip", "-n", self.network.names[end], *words)

    def nft(self, end: str, *statements: str) -> None:
        """
        Run C{nft} in the namespace at an end, all statements in one transaction.
        """
        given = "\n".join(statements) + "\n"
        run("ip", "netns", "exec", self.network.names[end], "nft", "-f", "-", given=given)

    def filter(self, end: str, hook: str, *rules: str) -> None:
        """
        Have packets that come in at an end of this lane pass these rules.

        @param hook: C{prerouting} or C{input}.
        """
        table = f"table inet lane{self.number}"
        chain = f"{{ type filter hook {hook} priority -300; policy accept; }}"
        chosen = f"add rule inet lane{self.number} faults iifname {self.device}"
        rules = tuple(f"{chosen} {rule}" for rule in rules)
        self.nft(end, f"add {table}", f"add chain inet lane{self.number} faults {chain}", *rules)

    def unfilter(self, end: str) -> None:
        """
        Let all packets pass again.
        """
        self.nft(end, f"delete table inet lane{self.number}")


class Network:
    """
    The two namespaces.

    @ivar names: of the namespaces, by end.
    """

    _made = itertools.count()

    def __init__(self) -> None:
        removeStale()
        stem = f"{PREFIX}{os.getpid()}-{next(self._made)}"
        self.names = {HERE: f"{stem}w", THERE: f"{stem}p"}
        self.lanes: list[Lane] = []
        for name in self.names.values():
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
            # No limit on what an end says of unreachable packets: every connection is to hear it.
            run(
                "ip", "netns", "exec", name, "sh", "-c", "echo 0 >/proc/sys/net/ipv4/icmp_ratelimit"
            )

    def addLanes(self, count: int) -> list[Lane]:
        """
        Make so many more lanes.
        """
        first = len(self.lanes) + 1
        added = [Lane(self, number) for number in range(first, first + count)]
        self.lanes += added
        here, there = self.names[HERE], self.names[THERE]
        cables = [
            f"link add {lane.device} type veth peer name {lane.device} netns {there}"
            for lane in added
        ]
        run("ip", "-n", here, "-batch", "-", given="\n".join(cables) + "\n")
        for end, name in self.names.items():
            lines = [line for lane in added for line in lane.setUp(end)]
            run("ip", "-n", name, "-batch", "-", given="\n".join(lines) + "\n")
        return added

    def remove(self) -> None:
        """
        Remove the namespaces, and with them all that is in them.
        """
        for name in self.names.values():
            run("ip", "netns", "del", name)


def removeStale() -> None:
    """
    Remove what a session that was killed left behind: namespaces whose name holds the number of a
    process that is no more, and the processes in them.
    """
    for line in run("ip", "netns", "list").splitlines():
        name = line.split()[0]
        owner = name.removeprefix(PREFIX).split("-")[0]
        if not name.startswith(PREFIX) or not owner.isdigit() or os.path.exists(f"/proc/{owner}"):
            continue
        for pid in run("ip", "netns", "pids", name).split():
            os.kill(int(pid), signal.SIGKILL)
        run("ip", "netns", "del", name)
