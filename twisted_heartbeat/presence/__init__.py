# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Who is alive: one table over all carriers, its stores, and those who are told of its changes.
"""
