# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Endpoint strings that begin with C{keepalive:} or C{heartbeat:}.
"""
