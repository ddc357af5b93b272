# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The tutorial's steps do what its pages say: each is run as its reader runs it, and the fault is made
of which the page speaks.  So are the two programs of the README.

Ports and times are replaced in a copy, so that tests do not meet and do not wait.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import pytest_twisted

from ..support.loopback import wait
from .conftest import Start
from .recipes.program import Program
from .recipes.recipe import freePort

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
BOUND = 1.2
STRETCHES = 3
"""How often a busy machine may fail to give a link one stretch of idleness that it survives."""

VERDICT = r"disconnected, PeerHung: nothing received for"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """
    The programs of the tutorial and of the README, with free ports and shorter times.
    """
    changes = {"7000": freePort(), "7001": freePort(), "6.0": BOUND, "15.0": 0.3, "within(8)": ""}
    changes["within(8)"] = f"within({BOUND})"
    # The service's hub takes the place of the classic client's: no test starts both.
    changes["8470"] = changes["7000"]
    for source in [*(EXAMPLES / "tutorial").glob("*.py"), *(EXAMPLES / "readme").glob("*.py")]:
        text = source.read_text(encoding="utf-8")
        for old, new in changes.items():
            text = text.replace(old, str(new))
        (tmp_path / source.name).write_text(text, encoding="utf-8")
    (tmp_path / "ports").write_text(f"{changes['7000']} {changes['7001']}")
    shutil.copy(EXAMPLES / "recipes" / "line_hub.py", tmp_path)
    return tmp_path


@pytest.fixture
def start(start: Start, folder: Path) -> Start:
    """
    Start a program of the folder; it ends with the test.
    """
    return lambda name, *words: start(sys.executable, folder / f"{name}.py", *words)


async def whenKept(*sensors: Program) -> None:
    """
    Until no link has been given up for longer than the bound. A busy machine may give a hub too
    little time, now and then.
    """
    for _ in range(STRETCHES):
        since = [len(sensor.lines) for sensor in sensors]
        await wait(1.5 * BOUND)
        news = [line for sensor, n in zip(sensors, since, strict=True) for line in sensor.lines[n:]]
        if not any("disconnected" in line for _, line in news):
            return
    raise AssertionError("\n".join(sensor.said for sensor in sensors))


async def hubFor(start: Start, folder: Path, which: int = 0) -> Program:
    """
    Start the first hub, or the second.
    """
    hub = start("hub", (folder / "ports").read_text().split()[which])
    await hub.says("the hub is process")
    return hub


@pytest_twisted.ensureDeferred
async def test_frozenHubIsNotNoticed(start: Start, folder: Path) -> None:
    """
    Neither Twisted's own clients nor a link that cannot ping notice that the hub hangs.
    """
    hub = await hubFor(start, folder)
    sensors = [start(step) for step in ("factory1", "service1", "service2")]
    for sensor in sensors:
        await sensor.says("the hub says: welcome")
    hub.freeze()
    await wait(2.5 * BOUND)
    assert [sensor.said for sensor in sensors if "lost" in sensor.said] == []


@pytest_twisted.ensureDeferred
async def test_quietHubIsGivenUpByTimeoutMixin(start: Start, folder: Path) -> None:
    """
    Step 2 of the first track loses a hub that lives and has nothing to say, again and again.
    """
    await hubFor(start, folder)
    sensor = start("factory2")
    await sensor.says("the hub says: welcome")
    await sensor.says("lost: Connection was closed cleanly")
    await sensor.says("the hub says: welcome", since=len(sensor.lines))


AT_THE_END = {
    "factory3": "lost: nothing received",
    "factory4": r"forgotten: \['pump-3'\]",
    "factory5": VERDICT,
    "service3": "lost: nothing received",
    "service4": r"red: PeerHung with \['pump-3'\]",
    "service5": VERDICT,
}
"""What each step says when it has found its hub hung."""


@pytest_twisted.ensureDeferred
async def test_frozenHubIsFound(start: Start, folder: Path) -> None:
    """
    From step 3 on a quiet hub is kept and a hub that hangs is found. Each step does what its page
    says, and its link is back when the hub is.
    """
    hub = await hubFor(start, folder)
    sensors = {step: start(step) for step in AT_THE_END}
    returns = {step: f"the hub says: {'welcome' if '3' in step else 'reading'}" for step in sensors}
    for step, sensor in sensors.items():
        await sensor.says("connected .*generation")
        await sensor.says(returns[step])
    await whenKept(*sensors.values())
    began = {step: len(sensor.lines) for step, sensor in sensors.items()}
    hub.freeze()
    for step, sensor in sensors.items():
        await sensor.says(VERDICT, began[step])
        await sensor.says(AT_THE_END[step], began[step])
    # A kernel accepts for a hub that hangs. Only step 5 is not connected again by that.
    await sensors["service3"].says("connected .*generation", began["service3"])
    for step in ("factory5", "service5"):
        await wait(BOUND / 2)
        since = [line for _, line in sensors[step].lines[began[step] :]]
        assert not any(": connected" in line for line in since), sensors[step].said
    ended = {step: len(sensor.lines) for step, sensor in sensors.items()}
    hub.thaw()
    for step, sensor in sensors.items():
        await sensor.says("connected .*generation", began[step])
        await sensor.says(returns[step], ended[step])


@pytest_twisted.ensureDeferred
async def test_hubFindsFrozenSensor(start: Start) -> None:
    """
    In step 6 of the first track the hub finds a sensor that hangs, and cleans up after it.
    """
    hub = start("factory6")
    await hub.says("the hub is ready")
    sensor = start("factory5")
    await hub.says("sensor-17 subscribes to pumps")
    await hub.says("connected")
    await whenKept(hub)
    began = len(hub.lines)
    sensor.freeze()
    await hub.says("disconnected, PeerHung", began)
    await hub.says("sensor-17 is gone", began)


@pytest_twisted.ensureDeferred
async def test_secondHubServesWhileTheFirstHangs(start: Start, folder: Path) -> None:
    """
    In step 6 of the second track the second hub serves while the first one hangs.
    """
    first = await hubFor(start, folder)
    second = await hubFor(start, folder, 1)
    sensor = start("service6")
    await sensor.says("connected .*generation 1")
    await first.says("sensor-17 subscribes")
    first.freeze()
    await sensor.says(VERDICT)
    await second.says("sensor-17 subscribes")


@pytest_twisted.ensureDeferred
async def test_readmesClassicClient(start: Start, folder: Path) -> None:
    """
    The README's client in the classic shape takes the hub's answers to its pings, finds the hub
    hung, and comes back.
    """
    hub = start("line_hub", "serve", f"tcp:{(folder / 'ports').read_text().split()[0]}")
    await hub.says("Factory starting on")
    client = start("classic")
    await client.says("HeartbeatClientFactory: connected")
    await client.says("the hub says")
    hub.freeze()
    await client.says(VERDICT)
    hub.thaw()
    await client.says("connected .*generation 2")
    assert not [line for line in client.lines if "Error" in line]


@pytest_twisted.ensureDeferred
async def test_readmesService(start: Start, folder: Path) -> None:
    """
    The README's client with the service is connected to the hub that the README starts.
    """
    port = (folder / "ports").read_text().split()[0]
    (folder / "twist.py").write_text(
        "import sys\nfrom twisted.application.twist._twist import Twist\nTwist.main(sys.argv)\n"
    )
    hub = start("twist", "heartbeat", "--listen", f"tcp:{port}")
    await hub.says("starting on")
    client = start("service")
    await client.says("connected .*generation 1")
    await hub.says("connected")
