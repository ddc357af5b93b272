# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Check-ins over HTTP: saying "I am here" to a web server, and the web server that is told so.
"""
