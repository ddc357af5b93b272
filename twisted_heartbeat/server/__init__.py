# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The accepting side: admission, names, limits and drain.
"""
