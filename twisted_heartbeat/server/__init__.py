# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The side that accepts: admission, names, limits and drain.
"""
