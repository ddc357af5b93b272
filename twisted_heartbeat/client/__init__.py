# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Clients that reconnect: the service, the factory, and what they share.
"""
