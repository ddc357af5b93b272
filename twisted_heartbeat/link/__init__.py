# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
One connection to one peer, from established to gone.
"""
