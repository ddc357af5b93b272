# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What C{twist} and C{twistd} find of this package.

Everybody's C{twist} imports this file, before it installs a reactor: nothing here may import the
reactor, nor anything that can fail to import. L{ServiceMaker} imports the module it names when
C{heartbeat} is asked for, not before.
"""

from __future__ import annotations

from twisted.application.service import ServiceMaker

heartbeat = ServiceMaker(
    "twisted_heartbeat: links proven alive within a bound, or replaced",
    "twisted_heartbeat.tap",
    "Watch links, or keep them up: each is proven alive within the bound, or replaced.",
    "heartbeat",
)
