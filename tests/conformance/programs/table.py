# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The programs whose own tests are run with this package in place of parts of Twisted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Way:
    """
    What to expect when a program's tests are run in one of the ways of C{replaced.py}.

    @ivar least: class or C{keepalive} -> the least number of instances or connections replaced.
    @ivar deviations: id of a test that fails, but passes with stock Twisted -> a part of its
        complaint.
    """

    least: Mapping[str, int]
    deviations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """
    A program and its tests.

    @ivar tests: packages or modules.
    @ivar passing: the least number of tests that pass with stock Twisted.
    @ivar ways: name -> way.
    @ivar source: the requirement to download as a source archive, if the installed program has no
        tests.
    @ivar needsRedis: whether the tests need a Redis server.
    """

    tests: tuple[str, ...]
    passing: int
    ways: Mapping[str, Way]
    source: str | None = None
    needsRedis: bool = False


_VERSUS = "foolscap.test.test_negotiate.Versus"
_HTTP = "twisted.web.test.test_http"
_HTTP2 = "twisted.web.test.test_http2"
_HTTP_VERSIONS = ("HTTP0_9Tests", "HTTP1_0Tests", "HTTP1_1Tests", "HTTP1_1_close_Tests")
_WORMHOLE = "wormhole.test"

PROGRAMS = {
    # A connection pool on a subclass of ReconnectingClientFactory. Its __init__ does not call
    # super's, and its buildProtocol does not call the factory's.
    "txredisapi 1.4": Program(
        source="txredisapi==1.4.12",
        tests=("tests",),
        needsRedis=True,
        passing=150,
        ways={"classes": Way({"HeartbeatClientFactory": 120})},
    ),
    # The same pool on ClientService. A Redis server speaks no frames, so not behind heartbeat:.
    "txredisapi 1.6": Program(
        source="txredisapi==1.6.0",
        tests=("tests",),
        needsRedis=True,
        passing=165,
        ways={
            "classes": Way({"HeartbeatClientService": 220}),
            "keepalive": Way({"keepalive": 200}),
        },
    ),
    # A subclass of ReconnectingClientFactory. Its tests make no connections, only protocols.
    "twisted-mqtt": Program(
        tests=("mqtt.test", "mqtt.client.test"),
        passing=80,
        ways={"classes": Way({"HeartbeatClientFactory": 70})},
    ),
    # Perspective Broker over ClientService.
    "buildbot-worker": Program(
        source="buildbot-worker==4.3.0",
        tests=("buildbot_worker.test",),
        passing=280,
        ways={
            "classes": Way({"HeartbeatClientService": 8}),
            "keepalive": Way({"keepalive": 3}),
        },
    ),
    # WebSocket over ClientService, with TimeoutMixin behind the protocol's class in the bases. The
    # tests make both ends of each connection.
    "magic-wormhole": Program(
        tests=(_WORMHOLE,),
        passing=440,
        ways={
            "classes": Way({"HeartbeatClientService": 70, "HeartbeatMixin": 75}),
            "keepalive": Way({"keepalive": 100}),
            "heartbeat": Way(
                {"Tunnel": 100},
                {
                    # The client is another process, which has no prefix.
                    f"{_WORMHOLE}.test_cli.PregeneratedCode.test_text_subprocess": "Tuples differ",
                },
            ),
        },
    ),
    # Not behind heartbeat:, because the clients in its tests call reactor.connectTCP, so only the
    # servers would have the prefix.
    "magic-wormhole's servers": Program(
        tests=("wormhole_mailbox_server.test", "wormhole_transit_relay.test"),
        passing=205,
        ways={
            "classes": Way({"HeartbeatMixin": 30}),
            "keepalive": Way({"keepalive": 30}),
        },
    ),
    # A symmetrical RPC. Its protocols are the keys of a dict of connections.
    "foolscap": Program(
        tests=(
            "foolscap.test.test_appserver",
            "foolscap.test.test_call",
            "foolscap.test.test_copyable",
            "foolscap.test.test_gifts",
            "foolscap.test.test_keepalive",
            "foolscap.test.test_listener",
            "foolscap.test.test_logging",
            "foolscap.test.test_loopback",
            "foolscap.test.test_negotiate",
            "foolscap.test.test_pb",
            "foolscap.test.test_reconnector",
            "foolscap.test.test_reference",
            "foolscap.test.test_registration",
            "foolscap.test.test_tub",
            "foolscap.test.test_unreachable",
        ),
        passing=250,
        ways={
            "keepalive": Way({"keepalive": 350}),
            "heartbeat": Way(
                {"Tunnel": 350},
                {
                    # The server listens without an endpoint, and so without the prefix.
                    f"{_VERSUS}.testVersusHTTPServerAuthenticated": "still running",
                    # The client leaves the response unread, and so the goodbye behind it. The
                    # server's polite close waits for closeTimeout, and the test does not.
                    f"{_VERSUS}.testVersusHTTPClientAuthenticated": "negotiationTimedOut",
                    # The test ends with the client's connection. The server's end of the tunnel
                    # waits for the client's close, and so ends later.
                    "foolscap.test.test_logging.Web.test_basic": "<Tunnel",
                },
            ),
        },
    ),
    # Twisted's own protocols, with TimeoutMixin behind the protocol's class in the bases.
    "twisted": Program(
        tests=(
            "twisted.mail.test.test_imap",
            "twisted.mail.test.test_pop3",
            "twisted.mail.test.test_smtp",
            _HTTP,
            _HTTP2,
            "twisted.web.test.test_web",
        ),
        passing=900,
        ways={
            "classes": Way(
                {"HeartbeatMixin": 500},
                {
                    # Counts the logged events, and finds the link's among them.
                    f"{_HTTP}.ParsingTests.test_basicAuthException": "1 != 3",
                    **{
                        f"{_HTTP}.{version}.{test}": complaint
                        for version in _HTTP_VERSIONS
                        for test, complaint in {
                            "test_transportForciblyClosed": "1 != 2",
                            # A link is aborted closeTimeout seconds after its timeout, which is
                            # before the channel's own abortTimeout.
                            "test_transportNotAbortedAfterConnectionLost": "True is not false",
                            "test_transportNotAbortedWithZeroAbortTimeout": "True is not false",
                        }.items()
                    },
                    # The same.
                    **{
                        f"{_HTTP2}.HTTP2TimeoutTests.{test}": "True is not false"
                        for test in (
                            "test_losingConnectionCancelsTheAbort",
                            "test_losingConnectionWithNoAbortTimeOut",
                            "test_timeoutEventuallyForcesConnectionClosed",
                        )
                    },
                    # Compares the class of the cause by "is".
                    f"{_HTTP2}.HTTP2ServerTests.test_failOnStopProducing": "LinkLost'> is not",
                },
            )
        },
    ),
}
