# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The metrics of carriers without a connection: real datagrams and real requests, scraped over HTTP.
"""

from __future__ import annotations

import socket
from collections import Counter
from typing import Any

import pytest_twisted
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import maybeDeferred
from twisted.web.server import Site

from twisted_heartbeat import (
    Check,
    CheckIn,
    CheckInLimits,
    DatagramLimits,
    Heartbeat,
    HeartbeatMetrics,
    PresenceTable,
    StatusResource,
    UDPHeartbeatMonitor,
    UDPHeartbeatSender,
)

from ..support.datagrams import SECRET, Sensor
from ..support.loopback import wait, within
from ..support.web import ask, connect, serving


class Scraped:
    """
    Metrics that are asked for over HTTP.  Some counts are the reactor's, of which other tests
    have a share, so that only what is more than before is of interest.
    """

    def __init__(self) -> None:
        from twisted.internet import reactor

        self.metrics = HeartbeatMetrics()
        self.table = PresenceTable()
        self.table.startService()
        self._resource = StatusResource(self.table, metrics=self.metrics)
        listen = reactor.listenTCP  # type: ignore[attr-defined]
        self._port: Any = listen(0, Site(self._resource), interface="127.0.0.1")
        self._before: Counter[str] = Counter()

    async def start(self) -> Scraped:
        """
        Note what there is already.
        """
        self._before = await self._scrape()
        return self

    async def more(self) -> dict[str, float]:
        """
        By how much each sample has grown: by its name without the prefix, and its labels' values.
        """
        return dict(await self._scrape() - self._before)

    async def _scrape(self) -> Counter[str]:
        answer = await ask(f"http://127.0.0.1:{self._port.getHost().port}/metrics")
        assert answer.code == 200
        found: Counter[str] = Counter()
        for family in text_string_to_metric_families(answer.body):
            for sample in family.samples:
                name = sample.name.removeprefix("twisted_heartbeat_").removesuffix("_total")
                labels = [value for _, value in sorted(sample.labels.items())]
                found[" ".join([name, *labels])] = sample.value  # type: ignore[assignment]
        return found

    async def stop(self) -> None:
        """
        Stop.
        """
        self._resource.close()
        await maybeDeferred(self._port.stopListening)
        await within(self.table.stopService())


async def untilMore(scraped: Scraped, name: str, least: float = 1) -> dict[str, float]:
    """
    Wait until a sample has grown so much.
    """
    for _ in range(200):
        more = await scraped.more()
        if more.get(name, 0) >= least:
            return more
        await wait(0.05)
    raise AssertionError(f"{name}: {more}")


@pytest_twisted.ensureDeferred
async def test_datagrams() -> None:
    """
    Datagrams of a sender and of strangers: what is ignored is counted by its reason and its limit,
    bytes and datagrams both ways, and the sender's monitor as a peer that is connected again.
    """
    scraped = await Scraped().start()
    hooks = [scraped.table, scraped.metrics]
    monitor = UDPHeartbeatMonitor(
        {"pump": SECRET, "valve": SECRET},
        port=0,
        interface="127.0.0.1",
        hooks=hooks,
        limits=DatagramLimits(peers=1, unknownPerSecond=20),
    )
    monitor.startService()
    port = monitor.getHost().port
    sender = UDPHeartbeatSender(
        ("127.0.0.1", port),
        name="pump",
        key=SECRET,
        heartbeat=Heartbeat.within(2.0),
        every=0.2,
        hooks=hooks,
    )
    sender.startService()
    more = await untilMore(scraped, "round_trip_seconds_count udp")
    assert more["connections udp"] == 2
    assert more["peers udp up"] == 2
    assert more["datagrams_ignored challenged"] >= 1
    assert "reconnects udp" not in more

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(("127.0.0.1", port))
        stranger.setblocking(False)
        stranger.send(b"hello")
        stranger.send(Sensor("nobody").heartbeat(0.0))
        stranger.send(Sensor("pump", session=2, secret=b"x" * 16).heartbeat(0.0))
        valve = Sensor("valve", session=3)
        stranger.send(valve.heartbeat(0.0))
        await untilMore(scraped, "datagrams_ignored challenged", 2)
        challenge = stranger.recv(1000)
        stranger.send(valve.answer(challenge, 0.0))
        await untilMore(scraped, "datagrams_ignored noRoom")
        for _ in range(100):
            stranger.send(valve.heartbeat(0.0))
        more = await untilMore(scraped, "datagrams_ignored unknown")
    assert more["datagrams_ignored malformed"] == more["datagrams_ignored noKey"] == 1
    assert more["datagrams_ignored forged"] == more["datagrams_ignored noRoom"] == 1
    assert more["limits_hit peers"] == 1
    assert more["limits_hit unknownPerSecond"] == more["datagrams_ignored unknown"]

    await within(sender.stopService())
    sender.startService()
    more = await untilMore(scraped, "reconnects udp")
    assert more["reconnects udp"] == 1
    await within(sender.stopService())
    await within(monitor.stopService())
    more = await scraped.more()
    assert more["datagrams_received"] > more["datagrams_sent"] > 5
    assert more["received_bytes udp"] > more["sent_bytes udp"] > 50 * more["datagrams_sent"]
    await scraped.stop()


@pytest_twisted.ensureDeferred
async def test_checkIns() -> None:
    """
    Requests that are taken are counted by what they say, those that are refused by their reason,
    and each limit that a request or a connection has passed.
    """
    scraped = await Scraped().start()
    limits = CheckInLimits(
        body=10, created=0, perName=4, perAddress=30, requestTime=0.3, connections=3
    )
    served = serving(
        hooks=[scraped.table, scraped.metrics],
        checks={name: Check(period=60.0, grace=60.0) for name in ("job", "other")},
        tokens={"*": "a-token"},
        limits=limits,
    )
    async with served as site:
        taken = {"job": 200, "job/start": 200, "job/fail": 200, "job/log": 200, "job/0": 429}
        for path, code in taken.items():
            assert (await site.ask(f"a-token/{path}")).code == code
        body = b"12345678901"
        assert (await site.ask("a-token/other", "POST", data=body)).code == 200
        assert (await site.ask("a-token/new?create=1")).code == 404
        assert (await site.ask("a-token/unknown")).code == 404
        assert (await site.ask("wrong/job")).code == 401
        assert (await site.ask("a-token/job/256")).code == 400
        assert (await site.ask("a-token/job", "PUT")).code == 405
        slow = await connect(site.number)
        await within(slow.lost)
        crowd = [await connect(site.number) for _ in range(4)]
        await within(crowd[0].lost)
        for each in crowd[1:]:
            await each.close()
        for _ in range(30):
            answer = await site.ask("a-token/other")
        assert answer.code == 429
        more = await scraped.more()
    assert {key: value for key, value in more.items() if key.startswith("check_ins")} == {
        "check_ins_received success": 2 + 3,
        "check_ins_received start": 1,
        "check_ins_received fail": 1,
        "check_ins_received log": 1,
        "check_ins_refused perName": more["limits_hit perName"],
        "check_ins_refused noRoom": 1,
        "check_ins_refused unknownName": 1,
        "check_ins_refused token": 1,
        "check_ins_refused form": 1,
        "check_ins_refused method": 1,
        "check_ins_refused perAddress": more["limits_hit perAddress"],
    }
    assert more["limits_hit body"] == more["limits_hit created"] == 1
    assert more["limits_hit requestTime"] == more["limits_hit connections"] == 1
    assert more["disconnections http CheckInFailed"] == 1
    assert more["received_bytes http"] > 1000
    await scraped.stop()


@pytest_twisted.ensureDeferred
async def test_ownCheckIns() -> None:
    """
    What becomes of this process's own check-ins is counted: taken, refused, or not answered.
    """
    scraped = await Scraped().start()
    async with serving() as site:
        url = site.url
        for path in ("job", "unknown"):
            checkIn = CheckIn(f"{url}/{path}")
            checkIn.startService()
            await untilMore(scraped, f"check_ins_sent {'taken' if path == 'job' else 'refused'}")
            await within(checkIn.stopService())
    checkIn = CheckIn(f"{url}/job")
    checkIn.startService()
    more = await untilMore(scraped, "check_ins_sent failed")
    await within(checkIn.stopService())
    assert more["check_ins_sent taken"] == more["check_ins_sent refused"] == 1
    await scraped.stop()


@pytest_twisted.ensureDeferred
async def test_monitorThatHearsNobody() -> None:
    """
    A monitor whose senders all have a wrong key is seen, although no peer was ever connected and no
    page has told the metrics the clock.
    """
    metrics = HeartbeatMetrics()
    monitor = UDPHeartbeatMonitor({"pump": SECRET}, port=0, interface="127.0.0.1", hooks=metrics)
    monitor.startService()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        data = Sensor("pump", secret=b"x" * 16).heartbeat(0.0)
        stranger.sendto(data, ("127.0.0.1", monitor.getHost().port))
    for _ in range(200):
        if monitor.ignored:
            break
        await wait(0.01)
    assert 'ignored_total{reason="forged"} 1.0\n' in metrics.render().decode()
    await within(monitor.stopService())
