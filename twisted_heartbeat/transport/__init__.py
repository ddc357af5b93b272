# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What Twisted's transports drop or lack: errno, send progress, evidence.
"""
