# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Facts about a connection that Twisted's transports do not give: errno, send progress, evidence.
"""
