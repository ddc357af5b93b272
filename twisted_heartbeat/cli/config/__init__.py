# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The settings of C{twist heartbeat}, and the file that they are read from.
"""
