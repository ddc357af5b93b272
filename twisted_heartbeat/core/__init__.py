# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What to decide: pure. Facts and C{now} go in, decisions come out.
"""
