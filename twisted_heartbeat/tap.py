# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The module that C{twist} and C{twistd} load for C{heartbeat}.
"""

from .cli.options import Options
from .cli.service import makeService

__all__ = ["Options", "makeService"]
