# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The fast path for thousands of quiet links: ping rounds, the talker scan and the idle poller.
"""
