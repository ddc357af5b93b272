# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The decisions, without I/O: facts and C{now} go in, decisions come out.

Nothing here has a reactor, a clock, a transport or a Deferred, so each decision can be tested as a
function.
"""
