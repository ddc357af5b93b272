# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The fast path for thousands of quiet links: ping rounds, the talker scan and the idle poller.

I{Problem.}  Of thousands of peers almost all do one of two things: they answer pings and nothing
else, or they speak so often that they never need a ping.  To visit each link on a timer of its own,
and to read each pong through the reactor and the protocol, costs twice the calls, most of them to
find out that nothing has changed.

I{Idea.}  What such links have in common is kept once.  A link asks for it at its own visit; from
then on it is not visited, until it does anything else.

I{States of a link}, as far as this package is concerned:

  - I{individual}: the timer wheel visits it, and the reactor reads its connection.
  - I{in a ping round}: its peer only answers.  All members of a L{PingRound<pinground.PingRound>}
    are pinged in one tick.  Their connections are I{parked}: the L{IdlePoller<poller.IdlePoller>},
    an epoll inside of the reactor's, reads them, and compares what comes with the pong.
  - I{in a talker scan}: its peer speaks often.  The L{TalkerScan<talkers.TalkerScan>} looks at the
    time of the last byte of all its members four times in an interval.  The reactor reads them.

I{The contract} is L{Batcher<batcher.Batcher>}: C{offer}, C{interrupt}, C{withdraw}::

  ===========================================================  ==========  ===========  ===========
  event                                                        ping round  talker scan  call
  ===========================================================  ==========  ===========  ===========
  direct write (pong, hello, own heartbeat), reading stopped,  ends        stays        interrupt
  startTLS, other data than the pong
  buffered write, FIN, settings changed, probe, close, abort,  ends        ends         withdraw
  lost
  ===========================================================  ==========  ===========  ===========

I{Invariants.}

  - A batched link has the suspicion, the verdict and the cause that it would have individually, at
    the same times within two slots of the wheel; and its pings, as long as the peer answers within
    a quarter of the interval.  C{tests/batching/test_equivalence.py} compares it with a link of
    L{NullBatcher<batcher.NullBatcher>}.
  - A connection is read by the idle poller exactly while its C{batch} is set.  It returns to the
    reactor before anything is written through the reactor; otherwise either could meet the end of
    the connection first, and what was received before it would be lost.
  - A member of a round that has not answered by half of the timeout is handed back, and suspected
    and found dead individually.  A round never decides about a peer.
  - No member is visited twice in one tick.  The wheel visits what is left of a round first.
  - Links share a round only if their pinger and their heartbeat are the same objects.

I{Cost} of a round with one member, in an interval: one C{send}, one C{recv}, 66 calls in all where
an individual link takes 123, and only a few of these are made for each further member.  A custom
ping is the user's own code, and its answer is delivered: 86 calls, and 98 individually
(C{tests/costs/test_costs.py}).  A parked link has nothing of its own here but its entries in two
dictionaries.

L{NullBatcher<batcher.NullBatcher>} switches all of it off, see L{SWITCH<batcher.SWITCH>}.
"""
