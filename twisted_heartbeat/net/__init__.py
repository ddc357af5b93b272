# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
One link on a real reactor.
"""
