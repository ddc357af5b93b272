# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{LinkHooks}, what the user is told of a link's life, and the running of cleanups.

User code runs after the transition that it hears of, and so that nothing that it raises, or never
finishes, gets further than the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..core.commands import Retry
    from .link import Link


class LinkHooks:
    """
    Subclass it and override what you want to hear of.

    Each may return a plain value, a Deferred or a coroutine.  Only L{disconnected} and L{refused}
    are waited for, together with the link's cleanups and within C{Limits.cleanupTimeout}.  What a
    hook raises is logged; a L{connected} that fails ends the link, since what it was to set up is
    not there.
    """

    def connecting(self, attempt: int) -> object:
        """
        An attempt begins.

        @param attempt: 1 for the first since the last link was proven.
        """

    def connected(self, link: Link) -> object:
        """
        A link is established, prepared and in use.
        """

    def suspected(self, link: Link) -> object:
        """
        The peer left a ping unanswered for half of the timeout.
        """

    def recovered(self, link: Link) -> object:
        """
        A suspected peer spoke.
        """

    def disconnected(self, link: Link, cause: Cause) -> object:
        """
        A link has ended.  Its cleanups run next.
        """

    def refused(self, link: Link, cause: Cause) -> object:
        """
        A server did not admit a peer.  It is called when the link has ended, in place of
        L{disconnected}, and is waited for as that is; C{connected} was not called.

        @param cause: says why, as the peer was told.
        """

    def retrying(self, retry: Retry) -> object:
        """
        There will be another attempt.
        """

    def gaveUp(self, cause: Cause) -> object:
        """
        There will be none.
        """
