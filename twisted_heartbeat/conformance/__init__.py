# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The conformance tester: does this peer keep the rules of C{docs/wire-protocol.md}?

L{python -m twisted_heartbeat.conformance<twisted_heartbeat.conformance.__main__>} takes the place
of one end, and plays scenarios against the other end, which may be written in any language.  It
reports each L{rule<rules.Rule>} as kept or broken.

The tester must find faults that this package has itself.  Therefore it shares no code with the
protocol, the session and the detector.  Only the encoding of frames is L{core.wire
<twisted_heartbeat.core.wire>}'s; what the peer sends is read by L{observer}, byte by byte against
the page.

 - L{rules}: each rule in one sentence, with its section of the page.
 - L{observer}: reads one direction, and reports the rules that its bytes break.
 - L{connection}: the tester's end of one connection, as raw as a socket.
 - L{waits}: the table of waits before a reconnection.
 - L{play}: what a scenario can do and check.
 - L{scenarios}: the scenarios.
 - L{runner}: gives the scenarios to connections, within a total time.
 - L{report}, L{options}, C{__main__}: the command.
"""
