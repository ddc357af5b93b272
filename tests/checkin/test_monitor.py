# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Tests for L{twisted_heartbeat.checkin.monitor}, in virtual time.
"""

from __future__ import annotations

import gc
import json
from io import StringIO
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import TimeoutError
from twisted.internet.task import Clock
from twisted.logger import LogEvent, jsonFileLogObserver

from twisted_heartbeat import (
    Check,
    CheckInFailed,
    CheckInLimits,
    CheckInMissed,
    ClosedHere,
    LinkHooks,
    PeerSilent,
)
from twisted_heartbeat.checkin.checkedname import CheckedName
from twisted_heartbeat.checkin.deadlines import DeadlineKeeper
from twisted_heartbeat.checkin.monitor import CheckInMonitor, UnknownName
from twisted_heartbeat.core.checkins import LAST_LOOKS, CheckState, SavedDeadline, Signal
from twisted_heartbeat.core.pingapi import BadCheckIn, CheckInRequest

from ..conftest import LoggedErrors
from ..support.checkins import Memory, PollingClock, Told, letPass

CHECK = Check(period=100.0, grace=20.0)
WALL = 1_000_000.0
"""The wall time at which the virtual time begins."""

ADDRESS = IPv4Address("TCP", "192.0.2.7", 4711)


class Scene:
    """
    A monitor that runs, in virtual time.
    """

    def __init__(self, checks: dict[str, Check] | None = None, **settings: Any) -> None:
        self.clock = settings.pop("clock", None) or Clock()
        self.wall = settings.pop("wall", WALL)
        self.told = Told(self.clock)
        settings.setdefault("hooks", self.told)
        self.monitor = CheckInMonitor(
            {"job": CHECK} if checks is None else checks,
            clock=self.clock,
            wallClock=lambda: self.wall + self.clock.seconds(),
            **settings,
        )
        self.monitor.startService()

    def checkIn(self, name: str = "job", signal: Signal = Signal.SUCCESS, **more: Any) -> bool:
        """
        Check in.
        """
        rest = {key: more.pop(key) for key in ("address", "body") if key in more}
        return self.monitor.checkIn(CheckInRequest(name=name, signal=signal, **more), **rest)

    def stop(self) -> None:
        """
        Stop, and expect that nothing is left.
        """
        stopping = self.monitor.stopService()
        letPass(self.clock, DeadlineKeeper.TIMEOUT + 1)
        assert stopping.called
        assert self.clock.getDelayedCalls() == []


def test_silentNameIsToldAboutOnTime() -> None:
    """
    The hooks are those of a link: connected, suspected on the period, disconnected on the bound,
    and no later than 50 ms after it.
    """
    scene = Scene()
    letPass(scene.clock, 10.0)
    scene.checkIn()
    letPass(scene.clock, 200.0)
    assert [event[1:] for event in scene.told.events] == [
        ("connected", "job", None),
        ("suspected", "job", None),
        ("disconnected", "job", "CheckInMissed"),
    ]
    times = [event[0] for event in scene.told.events]
    assert times[0] == 10.0
    assert 110.0 <= times[1] <= 110.05
    assert 130.0 <= times[2] <= 130.05
    scene.stop()


def test_punctualNameIsToldAboutOnce() -> None:
    """
    A name that checks in on time is connected, and nothing else; and its timer leaves nothing
    behind in the wheel, however often it checks in.
    """
    scene = Scene()
    for _ in range(2000):
        scene.checkIn()
        letPass(scene.clock, 0.5)
    assert scene.told.names() == [("connected", "job")]
    assert sum(len(slot.timers) for slot in scene.monitor.wheel._slots.values()) < 10
    scene.stop()


def test_generationsOfAName() -> None:
    """
    After a verdict a success begins a new generation.  The old object stays gone, and no number is
    used twice, also after a restart of the service.
    """
    scene = Scene()
    scene.checkIn()
    first = scene.monitor.names["job"]
    scene.checkIn(signal=Signal.FAIL, status=3)
    scene.checkIn()
    second = scene.monitor.names["job"]
    assert (first.state, second.state) == (CheckState.GONE, CheckState.ALIVE)
    assert second.generation > first.generation
    scene.stop()
    scene.monitor.startService()
    assert scene.monitor.names["job"].generation > second.generation
    scene.stop()


def test_changingNameLeavesNothingBehind() -> None:
    """
    A name that fails and succeeds in turns, in a period of a day, leaves none of its generations in
    memory.
    """
    gc.collect()
    before = sum(isinstance(one, CheckedName) for one in gc.get_objects())
    scene = Scene({"job": Check()}, hooks=LinkHooks())
    for _ in range(300):
        scene.checkIn(signal=Signal.FAIL)
        letPass(scene.clock, 1.0)
        scene.checkIn(body=b"x" * 5000)
    gc.collect()
    assert sum(isinstance(one, CheckedName) for one in gc.get_objects()) <= before + 1
    scene.stop()


def test_whatAnObserverSees() -> None:
    """
    A name has the attributes of a link, and what is known of its last check-in.
    """
    scene = Scene(source="jobs", isProven=lambda name: name == "job")
    scene.checkIn(signal=Signal.START, run="r")
    letPass(scene.clock, 2.0)
    assert scene.monitor.names["job"].runs == {"r": 2.0}
    scene.checkIn(address=ADDRESS, body=b"x" * 20_000, run="r", status=0)
    letPass(scene.clock, 5.0)
    name = scene.monitor.names["job"]
    assert (name.carrier, name.name, name.source, name.watch) == ("http", "job", "jobs", "check-in")
    assert (name.peer, name.state, name.bound, name.rtt) == (ADDRESS, "alive", 120.0, None)
    assert name.silence == name.seconds() - 2.0 == 5.0
    assert name.isAuthenticated
    assert name.duration == 2.0
    assert name.runs == {}
    assert name.last is not None
    assert (len(name.last.body), name.last.status, name.last.address) == (
        CheckInLimits().body,
        0,
        "192.0.2.7:4711",
    )
    assert name.wheel is scene.monitor.wheel
    scene.stop()


def test_mappedAddress() -> None:
    """
    An IPv4 client of a socket for IPv6 has its IPv4 address, as the peer of a link.
    """
    scene = Scene()
    scene.checkIn(address=IPv6Address("TCP", "::ffff:192.0.2.7", 4711))
    assert scene.monitor.names["job"].peer == ADDRESS
    scene.stop()


@pytest.mark.parametrize(
    ("signal", "status", "body", "words"),
    [
        (Signal.FAIL, None, b"", "it said fail"),
        (Signal.FAIL, 3, b"", "exit status 3"),
        (Signal.FAIL, 1, b"a\nOSError: \x1b[2J gone\n", "exit status 1: OSError: \\x1b[2J gone"),
        (Signal.FAIL, 1, b"\xff\xfe" * 4000, "exit status 1: " + "\ufffd" * 300),
    ],
)
def test_causeOfAFailure(signal: Signal, status: int | None, body: bytes, words: str) -> None:
    """
    The cause has the exit status and the last line of the output, escaped and cut.
    """
    scene = Scene()
    scene.checkIn(signal=signal, status=status, body=body, address=ADDRESS)
    [cause] = scene.told.causes
    assert isinstance(cause, CheckInFailed)
    assert (str(cause), cause.status, cause.address) == (words, status, "192.0.2.7:4711")
    scene.stop()


def test_causesOfAMiss() -> None:
    """
    The cause says what was missed: any check-in at all, the next success, or the end of a run.  It
    is a peer's silence for code that asks for that.
    """
    scene = Scene({"never": CHECK, "once": CHECK, "run": CHECK})
    scene.checkIn("once", address=ADDRESS)
    scene.checkIn("run", signal=Signal.START)
    letPass(scene.clock, 130.0)
    missed = [name for event, name in scene.told.names() if event == "disconnected"]
    words = dict(zip(missed, scene.told.causes, strict=True))
    assert all(isinstance(cause, CheckInMissed | PeerSilent) for cause in words.values())
    assert str(words["never"]) == "it has not checked in since its watch began, 120.0 s ago"
    assert str(words["once"]) == "no success within 100 s and a grace time of 20 s"
    assert str(words["run"]) == "a run that began 20.0 s ago has not ended within 20 s"
    assert words["once"].address == "192.0.2.7:4711"  # type: ignore[attr-defined]
    scene.stop()


def test_missesOfOneMomentAreCounted() -> None:
    """
    Names that are missed in one tick say how many they are, so that an operator reads one fault of
    this server's network and not many dead jobs.
    """
    scene = Scene({f"n{n}": CHECK for n in range(5)} | {"late": CHECK})
    letPass(scene.clock, 1.0)
    scene.checkIn("late")
    letPass(scene.clock, 130.0)
    evidence = [cause.evidence for cause in scene.told.causes]
    assert [one and one.simultaneousVerdicts for one in evidence] == [5, 5, 5, 5, 5, 1]
    scene.stop()


@pytest.mark.parametrize("stall", [60.0, 3600.0])
def test_stallIsNobodysSilence(stall: float) -> None:
    """
    A process that was stopped for longer than all bounds declares nobody dead for that: each name
    has the time that it had when the process stopped.  One that stays silent is still found.
    """
    scene = Scene({"job": CHECK, "dead": CHECK})
    scene.checkIn()
    scene.checkIn("dead")
    letPass(scene.clock, 90.0)
    scene.clock.advance(stall)
    letPass(scene.clock, 5.0)
    scene.checkIn()
    assert scene.told.names() == [("connected", "job"), ("connected", "dead")]
    letPass(scene.clock, 27.0)
    [missed] = [event for event in scene.told.events if event[1] == "disconnected"]
    assert missed[2] == "dead"
    assert 119.0 <= missed[0] - stall <= 121.0
    scene.stop()


def test_stallBeforeTheDeadlineCounts() -> None:
    """
    A stall counts also if no deadline passed in it, because the name could not check in then.
    """
    scene = Scene()
    scene.checkIn()
    letPass(scene.clock, 80.0)
    scene.clock.advance(39.0)
    letPass(scene.clock, 18.0)
    assert scene.told.names() == [("connected", "job")]
    letPass(scene.clock, 25.0)
    assert scene.told.names()[-1] == ("disconnected", "job")
    scene.stop()


def test_checkInAtTheLastMoment() -> None:
    """
    A check-in that the reactor reads after the deadline, in one of its next polls, saves the name.
    """
    scene = Scene(clock=PollingClock())
    scene.checkIn()
    letPass(scene.clock, 119.9)
    scene.clock.advance(0.101)
    for _ in range(LAST_LOOKS - 1):
        scene.clock.advance(0)
    scene.checkIn()
    letPass(scene.clock, 50.0)
    assert scene.told.names() == [("connected", "job"), ("suspected", "job"), ("recovered", "job")]
    scene.stop()


def test_eventsInTheLog(events: list[LogEvent]) -> None:
    """
    The log has the events of links, with the carrier, the name and the duration as fields.
    """
    scene = Scene(source="jobs")
    scene.checkIn(signal=Signal.START)
    letPass(scene.clock, 3.0)
    scene.checkIn(address=ADDRESS)
    letPass(scene.clock, 130.0)
    out = StringIO()
    observer = jsonFileLogObserver(out, recordSeparator="")
    for event in events:
        observer(event)
    logged = [json.loads(line) for line in out.getvalue().splitlines()]
    found = [one for one in logged if one.get("carrier") == "http"]
    assert [one["event"] for one in found] == ["connected", "suspected", "disconnected"]
    assert {key: found[-1][key] for key in ("link", "name", "peer", "cause", "bound")} == {
        "link": "jobs: job",
        "name": "job",
        "peer": "192.0.2.7:4711",
        "cause": "CheckInMissed",
        "bound": 120.0,
    }
    assert found[-1]["duration"] == 3.0
    scene.stop()


def test_hookThatRaises(loggedErrors: LoggedErrors) -> None:
    """
    What a hook raises is logged, and neither the check-in nor the next verdict notice it.
    """

    class Broken(LinkHooks):
        def connected(self, link: Any) -> None:
            raise SystemExit(3)

        disconnected = connected  # type: ignore[assignment]

    scene = Scene(hooks=Broken())
    assert not scene.checkIn()
    letPass(scene.clock, 130.0)
    assert scene.monitor.names["job"].state is CheckState.GONE
    assert len(loggedErrors.flush(SystemExit, TypeError)) == 2
    scene.stop()


def test_hookThatStopsTheService() -> None:
    """
    A hook may stop the service from inside of a verdict.
    """

    class Stopping(LinkHooks):
        def suspected(self, link: Any) -> None:
            scene.monitor.stopService()

    scene = Scene(hooks=Stopping())
    scene.checkIn()
    letPass(scene.clock, 200.0)
    assert scene.clock.getDelayedCalls() == []


def test_stopTellsThatNamesAreNoLongerWatched() -> None:
    """
    Names that are up end with C{ClosedHere}; those that are new or gone are not told of again.
    """
    scene = Scene({"up": CHECK, "new": CHECK, "gone": CHECK})
    scene.checkIn("up")
    scene.checkIn("gone", signal=Signal.FAIL)
    scene.stop()
    assert scene.told.names() == [
        ("connected", "up"),
        ("disconnected", "gone"),
        ("disconnected", "up"),
    ]
    assert isinstance(scene.told.causes[-1], ClosedHere)


def test_otherNames() -> None:
    """
    Names can be added, removed and changed while others are watched: those that stay keep their
    generation, one that goes says so, and one that a check-in has created becomes the operator's.
    """
    scene = Scene({"job": CHECK, "task": CHECK, "never": CHECK}, limits=CheckInLimits(created=1))
    for name in ("job", "task", "made"):
        scene.checkIn(name, create=True)
    stays = scene.monitor.names["job"]
    letPass(scene.clock, 50.0)
    shorter = Check(period=60.0, grace=20.0)
    scene.monitor.setChecks({"job": shorter, "made": CHECK, "new": CHECK})
    assert set(scene.monitor.names) == {"job", "made", "new"}
    assert scene.monitor.names["job"] is stays
    assert [event[1:] for event in scene.told.events[3:]] == [
        ("disconnected", "task", "ClosedHere")
    ]
    # The one created name is the operator's now, and leaves its room to another.
    assert scene.checkIn("other", create=True)
    with pytest.raises(UnknownName):
        scene.checkIn("task")
    del scene.told.events[:]
    letPass(scene.clock, 35.0)
    assert scene.told.names() == [("suspected", "job"), ("disconnected", "job")]
    with pytest.raises(ValueError, match="checks has the name 'a/b'"):
        scene.monitor.setChecks({"a/b": CHECK})
    assert "job" in scene.monitor.names
    scene.stop()


def test_otherNamesBeforeTheStoreIsRead() -> None:
    """
    What is changed before the saved deadlines are there holds when they are.
    """
    scene = Scene(store=(store := Memory()), checks={"job": CHECK})
    scene.stop()
    scene.monitor.setChecks({"task": CHECK})
    assert scene.monitor.names == {}
    scene.monitor.startService()
    letPass(scene.clock, 1.0)
    assert set(scene.monitor.names) == {"task"}
    scene.stop()
    assert set(store.saved) == {"task"}


# Names that check-ins create.


def test_createdName() -> None:
    """
    A check-in may create its name, with a period and a grace time of its own or the default ones.
    """
    scene = Scene(default=Check(period=50.0, grace=5.0))
    with pytest.raises(UnknownName):
        scene.checkIn("new")
    assert scene.checkIn("new", create=True)
    assert not scene.checkIn("new", create=True, period=7.0)
    assert scene.monitor.names["new"].check == Check(period=50.0, grace=5.0)
    assert scene.checkIn("own", create=True, period=7.0, grace=2.5)
    assert scene.monitor.names["own"].check == Check(period=7.0, grace=2.5)
    assert scene.monitor.names["own"].created
    scene.stop()


@pytest.mark.parametrize(
    "asked", [{"period": 0.5}, {"grace": 0.0}, {"period": 99999999.0}, {"grace": 99999999.0}]
)
def test_createdNameStaysInRange(asked: dict[str, float]) -> None:
    """
    What a check-in may ask for has limits.
    """
    scene = Scene()
    with pytest.raises(BadCheckIn, match=r"^invalid (period|grace)"):
        scene.checkIn("new", create=True, **asked)
    assert set(scene.monitor.names) == {"job"}
    scene.stop()


def test_createdNamesAreBounded() -> None:
    """
    No more names are created than allowed.  A new one takes the place of the one that has been
    gone longest; one that is up, or the operator's own, is never displaced.
    """
    scene = Scene(limits=CheckInLimits(created=3))
    scene.checkIn("job", signal=Signal.FAIL)
    for name in ("a", "b", "c"):
        scene.checkIn(name, create=True)
    with pytest.raises(UnknownName):
        scene.checkIn("d", create=True)
    letPass(scene.clock, 1.0)
    scene.checkIn("b", signal=Signal.FAIL)
    letPass(scene.clock, 1.0)
    scene.checkIn("a", signal=Signal.FAIL)
    assert scene.checkIn("d", create=True)
    assert set(scene.monitor.names) == {"job", "a", "c", "d"}
    for number in range(1000):
        name = f"n{number}"
        scene.checkIn(name, create=True)
        scene.checkIn(name, signal=Signal.FAIL)
    assert len(scene.monitor.names) == 4
    scene.stop()


@pytest.mark.parametrize("name", ["", "a b", "start", "17", "a/b", "x" * 101])
def test_unusableNameIsRefused(name: str) -> None:
    """
    A name that no request can have is refused when the monitor is built.
    """
    with pytest.raises(ValueError, match="^checks has the name"):
        CheckInMonitor({name: CHECK})


# Deadlines that outlive the process.


def saved(name: str, **values: Any) -> SavedDeadline:
    """
    What a store knows of a name.
    """
    defaults = {"period": 100.0, "grace": 20.0, "deadline": WALL + 50.0, "savedAt": WALL - 10.0}
    return SavedDeadline(name=name, created=values.pop("created", False), **defaults | values)


def test_deadlineOutlivesTheProcess() -> None:
    """
    A name that is silent across a restart is missed when it would have been without it.
    """
    store = Memory()
    scene = Scene(store=store)
    scene.checkIn()
    letPass(scene.clock, 30.0)
    scene.stop()
    stoppedFor = scene.clock.seconds() - 30.0
    after = Scene(store=store, wall=WALL + scene.clock.seconds())
    letPass(after.clock, 130.0)
    [missed] = after.told.events
    assert missed[1:] == ("disconnected", "job", "CheckInMissed")
    assert missed[0] == pytest.approx(90.0 - stoppedFor, abs=0.1)
    after.stop()


@pytest.mark.parametrize(
    ("values", "at"),
    [
        ({}, 50.0),
        ({"deadline": WALL - 9.0}, 20.0),
        ({"deadline": WALL + 1e6}, 120.0),
        ({"savedAt": WALL + 5.0}, 120.0),
        ({"period": 5.0, "grace": 5.0}, 50.0),
    ],
    ids=["usual", "passed while down", "too far", "clock set back", "setting changed"],
)
def test_restoredDeadline(values: dict[str, float], at: float) -> None:
    """
    After a restart a name is unknown until it is heard or its deadline has passed.  That is the
    saved one, with a grace time at least and one bound at most, by the operator's present setting.
    """
    scene = Scene(store=Memory(saved("job", **values)))
    assert scene.monitor.names["job"].state is CheckState.NEW
    letPass(scene.clock, at - 0.5)
    assert scene.told.events == []
    letPass(scene.clock, 0.6)
    assert scene.told.names() == [("disconnected", "job")]
    scene.stop()


def test_createdNamesOutliveTheProcess() -> None:
    """
    A name that a check-in has created is known after a restart, with its period; one that the
    operator has taken away is forgotten, and so is nonsense in the store.
    """
    store = Memory(
        saved("own", created=True, period=7.0, grace=3.0),
        saved("former"),
        saved("broken", created=True, period=-1.0),
        saved("not a name", created=True),
    )
    scene = Scene(store=store)
    assert set(scene.monitor.names) == {"job", "own"}
    assert scene.monitor.names["own"].check == Check(period=7.0, grace=3.0)
    assert not scene.checkIn("own")
    scene.stop()
    assert {"former", "broken"}.isdisjoint(store.saved)


def test_savesAreCollected() -> None:
    """
    Many check-ins are one save, a second later; and there is one save at a time.
    """
    store = Memory()
    scene = Scene({f"n{n}": CHECK for n in range(100)}, store=store)
    letPass(scene.clock, 5.0)
    store.saves = 0
    store.hold = True
    for _ in range(5):
        for n in range(100):
            scene.checkIn(f"n{n}")
        letPass(scene.clock, 3.0)
    assert store.saves == 1
    store.hold = False
    store.held.pop().callback(None)
    letPass(scene.clock, 3.0)
    assert store.saves == 2
    assert store.saved["n7"].deadline == pytest.approx(WALL + 5.0 + 12.0 + 120.0, abs=0.1)
    scene.stop()


def test_stopSavesWhatHasChanged() -> None:
    """
    The stop waits for a save that is under way, and saves what has changed since: the deadline as
    it was before the names' end.
    """
    store = Memory()
    scene = Scene(store=store)
    letPass(scene.clock, 5.0)
    store.hold = True
    scene.checkIn()
    letPass(scene.clock, 5.0)
    scene.checkIn()
    stopping = scene.monitor.stopService()
    store.hold = False
    store.held.pop().callback(None)
    assert stopping.called
    assert store.saved["job"].deadline == pytest.approx(WALL + 10.0 + 120.0)
    assert scene.clock.getDelayedCalls() == []


def test_storeThatFails(events: list[LogEvent], loggedErrors: LoggedErrors) -> None:
    """
    A store that fails is asked again, a warning is logged once, and check-ins go on meanwhile.
    """
    store = Memory()
    store.failing = OSError("disk full")
    scene = Scene(store=store)
    assert len(loggedErrors.flush(OSError)) == 1
    scene.checkIn()
    letPass(scene.clock, 30.0)
    assert len([event for event in events if "could not be saved" in event["log_format"]]) == 1
    store.failing = None
    letPass(scene.clock, 3.0)
    assert store.saved["job"].deadline == pytest.approx(WALL + 120.0)
    scene.stop()


def test_notReadyUntilTheStoreIsRead(loggedErrors: LoggedErrors) -> None:
    """
    Until the store has told what it knows, no check-in is taken; a store that never answers delays
    that by ten seconds.
    """
    store = Memory()
    store.hold = True
    scene = Scene(store=store)
    assert not scene.monitor.isReady
    store.held.pop().callback(None)
    assert scene.monitor.isReady
    store.hold = False
    scene.stop()

    store.hold = True
    hanging = Scene(store=store)
    letPass(hanging.clock, DeadlineKeeper.TIMEOUT + 0.1)
    assert hanging.monitor.isReady
    assert len(loggedErrors.flush(TimeoutError)) == 1
    store.hold = False
    hanging.stop()


def test_stopWhileTheStoreHangs(events: list[LogEvent]) -> None:
    """
    A store that hangs delays the stop by ten seconds, whether a load, a save or the last save
    hangs.  Its answer may come after that.
    """
    store = Memory()
    store.hold = True
    Scene(store=store).stop()
    store.hold = False
    scene = Scene(store=store)
    store.hold = True
    scene.checkIn()
    letPass(scene.clock, 5.0)
    scene.stop()
    assert [event for event in events if "could not be saved" in event["log_format"]]
    store.held.pop().callback(None)
