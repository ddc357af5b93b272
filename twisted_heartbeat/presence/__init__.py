# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
One table of all peers over all carriers, its stores and its subscribers.
"""
