# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Heartbeats over UDP: the senders and the monitors that L{twisted_heartbeat.core.datagram} decides
for.
"""
