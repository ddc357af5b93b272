# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
How a protocol gets a link: mixed in, wrapped, or as the built-in protocol.
"""
