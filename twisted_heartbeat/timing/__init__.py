# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Monotonic time, and the one timer that serves all links of a reactor.
"""
