# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What the observers are told about has the attributes that they read, over each carrier.  mypy checks
this file and nothing runs it.
"""

from __future__ import annotations

from twisted_heartbeat.checkin.checkedname import CheckedName
from twisted_heartbeat.datagram.peer import DatagramPeer
from twisted_heartbeat.datagram.uplink import Monitor
from twisted_heartbeat.link.link import Link
from twisted_heartbeat.link.watched import Watched


def toldAbout(link: Link, peer: DatagramPeer, monitor: Monitor, name: CheckedName) -> list[Watched]:
    """
    Return what is told about, over all carriers.
    """
    return [link, peer, monitor, name]
