# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What a person and a monitoring system see of the fleet: the status page, its stream, and metrics.
"""
