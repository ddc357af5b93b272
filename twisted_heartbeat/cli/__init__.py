# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The C{heartbeat} command of C{twist} and C{twistd}.
"""
