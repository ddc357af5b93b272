# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
What C{python -m twisted_heartbeat} shows: five faults, and what a link makes of them;
a sender over UDP whose datagrams are lost; and a job that misses its check-in.
"""
