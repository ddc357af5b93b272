# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Hooks for heartbeat.toml. The file names them by their dotted name, so this module has to be where
Python finds it, for example in a folder of PYTHONPATH.
"""

from twisted.logger import Logger

from twisted_heartbeat import ClosedHere, LinkHooks


class LossCounter(LinkHooks):
    """
    Counts the links that were lost, and not those that this process has closed itself.
    """

    log = Logger()

    def __init__(self):
        self.losses = 0

    def disconnected(self, link, cause):
        if isinstance(cause, ClosedHere):
            return
        self.losses += 1
        self.log.info("lost so far: {losses}", losses=self.losses)
