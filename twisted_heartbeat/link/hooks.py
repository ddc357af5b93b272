# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{LinkHooks}: what the application is told of a link's life.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.causes import Cause
    from ..core.commands import Retry
    from .link import Link


class LinkHooks:
    """
    The hooks of an application.  Subclass it and override the methods that you need.

    Several of these objects may be given at once.  A method is called after the transition that it
    is about.  It may return a plain value, a Deferred or a coroutine.

    Only L{disconnected} and L{refused} are waited for: those of all objects side by side, then the
    link's cleanups, and all of that within C{Limits.cleanupTimeout}.  What a hook raises is logged.
    A L{connected} that fails ends the link, because what it was to set up is not there.
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
        A link has ended, perhaps before L{connected} was called for it.  Its cleanups run next.
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


Hooks = LinkHooks | Sequence[LinkHooks]
"""What a setting C{hooks} takes: one object, or a list or tuple of several."""
