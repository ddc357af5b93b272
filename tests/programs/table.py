# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Programs that use what this package takes the place of, with their own tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Way:
    """
    One way to run a program's tests, see C{replaced.py}.

    @ivar least: class or prefix -> how many instances or connections are replaced at least.
    @ivar deviations: id of a test that fails, and passes with stock Twisted -> a part of what it
        complains of.
    """

    least: Mapping[str, int]
    deviations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """
    A program, and its tests.

    @ivar tests: packages or modules.
    @ivar passing: how many tests pass with stock Twisted at least.
    @ivar ways: name -> way.
    @ivar source: what to get as a source archive, if the installed program has no tests.
    @ivar needsRedis: whether the tests need a Redis server.
    @ivar timeout: seconds after which a run is a failure.
    """

    tests: tuple[str, ...]
    passing: int
    ways: Mapping[str, Way]
    source: str | None = None
    needsRedis: bool = False
    timeout: float = 240.0


_VERSUS = "foolscap.test.test_negotiate.Versus"
_HTTP = "twisted.web.test.test_http"
_HTTP_VERSIONS = ("HTTP0_9Tests", "HTTP1_0Tests", "HTTP1_1Tests", "HTTP1_1_close_Tests")
_WORMHOLE = "wormhole.test"

PROGRAMS = {
    # A pool of connections: one subclass of ReconnectingClientFactory which has an __init__ of its
    # own, calls no super's, and builds its protocols itself.
    "txredisapi 1.4": Program(
        source="txredisapi==1.4.12",
        tests=("tests",),
        needsRedis=True,
        passing=150,
        ways={"classes": Way({"HeartbeatClientFactory": 120})},
    ),
    # The same pool, on ClientService. A Redis server speaks no frames.
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
    # A subclass of ReconnectingClientFactory. It has no tests of its connections, only of its
    # protocols.
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
    # WebSocket over ClientService, TimeoutMixin behind the protocol's class; both ends of each
    # connection are the tests' own.
    "magic-wormhole": Program(
        tests=("wormhole.test",),
        passing=440,
        ways={
            "classes": Way({"HeartbeatClientService": 70, "HeartbeatMixin": 75}),
            "keepalive": Way({"keepalive": 100}),
            "heartbeat": Way(
                {"Tunnel": 100},
                {
                    # Its client is another process, which has no prefix.
                    f"{_WORMHOLE}.test_cli.PregeneratedCode.test_text_subprocess": "Tuples differ",
                },
            ),
        },
    ),
    # Its tests' clients call reactor.connectTCP, without an endpoint, so that the other prefix
    # could not be at both ends.
    "magic-wormhole's servers": Program(
        tests=("wormhole_mailbox_server.test", "wormhole_transit_relay.test"),
        passing=205,
        ways={
            "classes": Way({"HeartbeatMixin": 30}),
            "keepalive": Way({"keepalive": 30}),
        },
    ),
    # A symmetrical RPC, which keeps its connections in a dict by their protocols.
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
                    # Its server listens without an endpoint, and so without the prefix.
                    f"{_VERSUS}.testVersusHTTPServerAuthenticated": "still running",
                    # A client leaves a response unread, and so the goodbye behind it. The server's
                    # polite close waits for closeTimeout, and the test does not.
                    f"{_VERSUS}.testVersusHTTPClientAuthenticated": "negotiationTimedOut",
                    # It ends with the client's connection, and the server's end waits for that.
                    "foolscap.test.test_logging.Web.test_basic": "<Tunnel",
                },
            ),
        },
        timeout=400.0,
    ),
    # Twisted's own protocols have TimeoutMixin behind their class.
    "twisted": Program(
        tests=(
            "twisted.mail.test.test_imap",
            "twisted.mail.test.test_pop3",
            "twisted.mail.test.test_smtp",
            "twisted.web.test.test_http",
            "twisted.web.test.test_web",
        ),
        passing=700,
        ways={
            "classes": Way(
                {"HeartbeatMixin": 500},
                {
                    # Counts all events that are logged, also the link's.
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
                },
            )
        },
    ),
}
