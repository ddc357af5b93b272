# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Heartbeats in datagrams: the packet, the session rules and the detectors.

The page about the datagram protocol specifies the bytes and the rules.  Here they are decisions
without a socket, a clock or a reactor: bytes and C{now} go in, effects and bytes to send come out.

 - C{packet}: one datagram, its fields, its message authentication code.
 - C{cookies}: challenges that need no memory.
 - C{session}: one peer in one session: only forward, suspicion, verdict.
 - C{registry}: all peers of a monitor: what each received datagram means.
 - C{estimator}, C{window}: when the next datagram is due, and what the network did to the others.
 - C{schedule}: when a sender sends, and how much loss that tolerates.
 - C{sendersession}: what a sender says, and which challenges it answers.
 - C{uplink}: one monitor, as its sender sees it.
 - C{failover}: which monitors a sender reports to.
 - C{persecond}: a limit on how often something is done.
 - C{runningtime}: time in which this process could read.
"""
