# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The rules of C{docs/wire-protocol.md}, each in one sentence.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """
    One rule.

    @ivar id: the name that the command takes and prints.
    @ivar section: the heading on the page under which the rule stands.
    @ivar sentence: the rule.
    @ivar level: C{"must"}, or C{"should"} if a peer that breaks the rule still conforms.
    """

    id: str
    section: str
    sentence: str
    level: str = "must"


RULES: dict[str, Rule] = {}
"""All rules by their C{id}, in the order of the report."""


def _rule(id: str, section: str, sentence: str, level: str = "must") -> Rule:
    rule = RULES[id] = Rule(id, section, sentence, level)
    return rule


# What the peer sends.
HELLO_FIRST = _rule("hello-first", "Order", "The first frame of an end is its HELLO.")
HELLO_AT_ONCE = _rule(
    "hello-at-once", "Order", "An end sends its HELLO without waiting for the other end's."
)
HELLO_ONCE = _rule("hello-once", "Order", "An end sends one HELLO.")
FRAME_KNOWN = _rule(
    "frame-known",
    "The frame",
    "Each frame has version 1, a type that is in use, and a length that its type allows.",
)
UNUSED_ZERO = _rule(
    "unused-zero", "The frame", "A field that has no meaning in a frame is sent as 0."
)
TEXT_UTF8 = _rule("text-utf8", "The stream", "Names and reasons are UTF-8.")
DATA_ORDER = _rule("data-order", "Order", "DATA and END come after HELLO, and not after END.")
GOODBYE_LAST = _rule("goodbye-last", "Order", "An end sends nothing after its GOODBYE.")

# What the peer reads.
PONG_TOKEN = _rule("pong-token", "PING", "A PING is answered by a PONG with the same token.")
PONG_ONCE = _rule("pong-once", "PING", "A PING is answered once.")
PONG_SOON = _rule("pong-soon", "PING", "A PING is answered at once.", "should")
EARLY_PING = _rule(
    "early-ping", "Order", "A PING is answered also if it comes before the HELLO of its sender."
)
PING_AFTER_END = _rule("ping-after-end", "END", "A PING is answered also after an END.")
ANY_CUT = _rule("any-cut", "The stream", "A frame is read wherever the network has cut it.")
JOINED = _rule("joined", "The stream", "All frames that come in one segment are read.")
FIELDS_IGNORED = _rule(
    "fields-ignored", "The frame", "A field that has no meaning in a frame is ignored."
)
OPTIONAL_SKIPPED = _rule(
    "optional-skipped", "Optional types", "A frame of type 128 or above is skipped with its body."
)
FOREIGN_PONG = _rule(
    "foreign-pong", "PONG", "A PONG that answers nothing, with any token, changes nothing."
)
HELLO_RANGE = _rule(
    "hello-range", "HELLO", "Any needs, any offers and a name of 0 to 255 bytes are accepted."
)
DATA_LENGTHS = _rule(
    "data-lengths", "DATA", "A DATA of any length from 0 to the reader's limit is read."
)
PINGS_ALLOWED = _rule(
    "pings-allowed", "Life and silence", "Twenty PINGs in a second end no link.", "should"
)

# Life and silence.
OFFERS_KEPT = _rule(
    "offers-kept",
    "Life and silence",
    "An end that has offers above 0 is never silent for longer, however much it hears.",
)
HOLD_KEPT = _rule(
    "hold-kept",
    "hold: watching back",
    "An end that sends a PING with a hold is never silent for longer, until its next PING.",
)
NEEDS_SERVED = _rule(
    "needs-served",
    "Life and silence",
    "An end that offers to speak, and has read shorter needs, speaks within these, without a PING.",
    "should",
)
PINGS_NEEDED = _rule(
    "pings-needed",
    "What two HELLOs come to",
    "An end that needs something, and is offered nothing, pings.",
)
PING_TOKEN = _rule(
    "ping-token", "PING", "The token of a PING is not 0, and another each time.", "should"
)
PING_INTO_SILENCE = _rule(
    "ping-into-silence", "Life and silence", "An end pings into silence only.", "should"
)
VERDICT_IN_TIME = _rule(
    "verdict-in-time",
    "Life and silence",
    "An end that has received no byte for its whole bound ends the connection.",
)
VERDICT_NOT_EARLY = _rule(
    "verdict-not-early",
    "Life and silence",
    "An end ends no connection for silence before 0.95 of its bound.",
)
VERDICT_SILENT = _rule(
    "verdict-silent", "Life and silence", "An end that ends a silent connection says no GOODBYE."
)
HOLD_READ = _rule(
    "hold-read",
    "hold: watching back",
    "An end that takes its bound from the other one goes by the hold of the last PING, "
    "and else by the offers.",
)
OFFERS_READ = _rule(
    "offers-read",
    "hold: watching back",
    "An end that takes its bound from the other one does not wait for a PING.",
    "should",
)
SHORT_TIMES = _rule(
    "short-times",
    "Rounding and ranges",
    "Needs and offers of less than 0.2 s are read as 0.2 s.",
    "should",
)
SLOW_FRAME = _rule(
    "slow-frame", "Life and silence", "Bytes of a frame that is not complete are life."
)
PAUSED_READER = _rule(
    "paused-reader",
    "Life and silence",
    "A peer that speaks, and does not read for a while, is alive.",
)
GIVES_UP = _rule(
    "gives-up",
    "Order",
    "An end that connects gives up a connection on which no HELLO comes.",
    "should",
)

# The end.
GOODBYE_STOPS_WRITING = _rule(
    "goodbye-stops-writing", "Order", "An end that has read a GOODBYE begins no further frame."
)
GOODBYE_STOPS_READING = _rule(
    "goodbye-stops-reading", "Order", "What follows a GOODBYE is taken for no frame."
)
GOODBYE_READS_ON = _rule(
    "goodbye-reads-on",
    "Order",
    "An end that has read a GOODBYE reads to the end, and sends no reset before.",
)
GOODBYE_FIN = _rule(
    "goodbye-fin", "Order", "An end that has read a GOODBYE sends FIN, and then reads on.", "should"
)
GOODBYE_CLOSES = _rule("goodbye-closes", "Order", "An end that has read a GOODBYE closes.")
EARLY_GOODBYE = _rule("early-goodbye", "Order", "A GOODBYE is read also in place of a HELLO.")
GOODBYE_RANGE = _rule(
    "goodbye-range", "GOODBYE", "Any code, and a reason of 0 to 1024 bytes, are accepted."
)
GOODBYE_HEARD = _rule(
    "goodbye-heard",
    "Order",
    "A write that fails discards nothing that has come before, which may end with a GOODBYE.",
)
OWN_GOODBYE_READS_ON = _rule(
    "own-goodbye-reads-on",
    "Order",
    "An end that has sent a GOODBYE reads on, and sends no reset while it waits.",
)
OWN_GOODBYE_FIN = _rule("own-goodbye-fin", "Order", "An end that has sent a GOODBYE sends FIN.")
OWN_GOODBYE_ENDS = _rule(
    "own-goodbye-ends",
    "Order",
    "An end that has sent a GOODBYE closes by itself if the other end does not.",
)
FIN_CLOSES = _rule("fin-closes", "Order", "A FIN without a GOODBYE closes the connection.")

# Violations.
VIOLATION_VERSION = _rule(
    "violation-version", "Limits, and what breaks them", "Another version ends the connection."
)
VIOLATION_TYPE = _rule(
    "violation-type", "Limits, and what breaks them", "A type that is not in use ends it."
)
VIOLATION_LENGTH = _rule(
    "violation-length",
    "Limits, and what breaks them",
    "A length that the type does not allow ends it, as soon as the header is there.",
)
VIOLATION_LIMIT = _rule(
    "violation-limit",
    "Limits, and what breaks them",
    "A body above the reader's limit ends it, as soon as the header is there.",
)
VIOLATION_ORDER = _rule(
    "violation-order", "Limits, and what breaks them", "A frame without a place ends it."
)
VIOLATION_SILENT = _rule(
    "violation-silent",
    "Limits, and what breaks them",
    "After a violation nothing is read, and nothing is said.",
)
VIOLATION_ABORTS = _rule(
    "violation-aborts",
    "Limits, and what breaks them",
    "A violation aborts the connection, with a reset over TCP.",
    "should",
)
OTHERS_GO_ON = _rule(
    "others-go-on",
    "Limits, and what breaks them",
    "A connection that ends, however it ends, ends no other one.",
)

# Names.
NAME_TAKEN = _rule(
    "name-taken",
    "Names",
    "A server that keeps names apart tells the newcomer NAME_IN_USE, and the holder stays.",
)
NAME_GHOST = _rule(
    "name-ghost",
    "Names",
    "A server that keeps names apart lets the newcomer in when the holder is silent.",
)
NAME_WAITS = _rule(
    "name-waits", "Names", "The PINGs of a newcomer are answered while its name is claimed."
)
NAME_SOON = _rule(
    "name-soon",
    "Names",
    "A server lets the newcomer in within 3/7 of its bound when the holder is silent.",
    "should",
)
NAME_LEFT = _rule(
    "name-left", "Names", "A newcomer gets its name if the holder is closing already."
)
NAME_BYTES = _rule(
    "name-bytes",
    "Names",
    "Two names are equal if their bytes are, and any number of peers may have none.",
)

# Coming back.
COMES_BACK = _rule("comes-back", "Coming back", "The end that connects comes back by itself.")
WAIT_USUAL = _rule("wait-usual", "Coming back", "After a silence the wait is from 0 to the width.")
WAIT_SPREAD = _rule(
    "wait-spread",
    "Coming back",
    "After a close, a reset or a GOODBYE without a hint the wait is spread.",
)
WAIT_SLOW = _rule(
    "wait-slow", "Coming back", "After a violation, or GOODBYE with 1 or 2, the wait is slow."
)
WAIT_HINT = _rule(
    "wait-hint", "Coming back", "A hint is waited for: retryAfter, and a part of the spread."
)
PINGS_HALVED = _rule(
    "pings-halved",
    "GOODBYE",
    "After TOO_MANY_PINGS the interval of the pings is doubled on later links.",
)
