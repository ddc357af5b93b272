# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{diff}: what is kept, changed, started and stopped.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from twisted_heartbeat import Heartbeat, ServerLimits
from twisted_heartbeat.cli.config.plan import Plan, diff
from twisted_heartbeat.cli.config.values import (
    HTTP,
    Checks,
    Config,
    Connect,
    Listen,
    Part,
    Presence,
    Store,
)
from twisted_heartbeat.core.checkins import Check

HERE = Listen(endpoint="tcp:1", path=("listen", 0))
THERE = Connect(endpoint=("tcp:a:1",), path=("connect", 0))


def plan(old: tuple[Part, ...], new: tuple[Part, ...]) -> Plan:
    return diff(Config(parts=old), Config(parts=new))


def test_sameIsKept() -> None:
    """
    A part is kept if only its place in the file differs.
    """
    moved = replace(HERE, path=("listen", 7))
    found = plan((HERE, THERE), (THERE, moved))
    assert found == Plan(keep=(THERE, HERE))
    assert [part.path for part in found.keep] == [("connect", 0), ("listen", 7)]
    assert found.summary == "2 kept"


def test_otherSettingsAreAChange() -> None:
    """
    A part of the same endpoint is changed, and the plan names the settings that differ.
    """
    other = replace(HERE, heartbeat=Heartbeat.within(8), serverLimits=ServerLimits(peers=1))
    [change] = plan((HERE,), (other,)).change
    assert (change.old, change.new) == (HERE, other)
    assert set(change.fields) == {"heartbeat", "serverLimits"}


def test_otherEndpointIsAnotherPart() -> None:
    """
    A part with another endpoint, or a link under another name, is stopped and started.
    """
    other, renamed = replace(HERE, endpoint="tcp:2"), replace(THERE, name="x")
    found = plan((HERE, THERE), (other, renamed))
    assert found == Plan(start=(other, renamed), stop=(HERE, THERE))
    assert found.summary == "2 started, 2 stopped"


def test_whatNeedsARestart() -> None:
    """
    Settings that can not be changed are named by their keys, and nothing is done about them.
    """
    old = Config(parts=(HERE,), store=Store(file="a"), presence=Presence(grace=1))
    new = Config(parts=(HERE,), store=Store(file="b", keep=5), presence=Presence(grace=1))
    assert diff(old, new) == Plan(keep=(HERE,), restart=("store.file", "store.keep"))
    assert diff(old, old) == Plan(keep=(HERE,))


def test_presenceAndChecks() -> None:
    """
    What holds for no part alone is in the plan if it differs.
    """
    one, other = (("a", Check()),), (("b", Check()),)
    http = HTTP(endpoint="tcp:1")
    old = Config(parts=(http,), presence=Presence(grace=1), checks=Checks(checks=one))
    new = Config(parts=(http,), presence=Presence(merge=True), checks=Checks(checks=other))
    assert diff(old, new) == Plan(
        keep=(http,), presence=new.presence, presenceFields=("grace", "merge"), checks=other
    )
    assert diff(replace(old, checks=None), new) == Plan(
        keep=(http,), presence=new.presence, presenceFields=("grace", "merge")
    )
    assert diff(old, new).summary == "1 kept, 2 changed"
    hooked = replace(old, checks=Checks(checks=one, hooks=("a.b",), tokenFile="c"))
    assert diff(old, hooked) == Plan(keep=(http,), restart=("http.token-file", "http.hooks"))
    assert diff(hooked, Config()) == Plan(
        stop=(http,), presence=Presence(), presenceFields=("grace",)
    )


PARTS = st.builds(
    Listen,
    endpoint=st.sampled_from(["tcp:1", "tcp:2", "tcp:3"]),
    name=st.sampled_from(["", "x"]),
) | st.builds(
    Connect,
    endpoint=st.sampled_from([("tcp:a:1",), ("tcp:a:1", "tcp:b:1")]),
    name=st.sampled_from(["", "x"]),
    heartbeat=st.sampled_from([Heartbeat(), Heartbeat.within(8)]),
)
CONFIGS = st.lists(PARTS, unique_by=lambda part: part.key).map(
    lambda parts: Config(parts=tuple(parts))
)


@given(CONFIGS, CONFIGS)
def test_planLeadsToTheNewConfiguration(old: Config, new: Config) -> None:
    """
    What runs after the plan is the new configuration, each part of either is in one list of the
    plan, and no part is stopped that the new configuration has.
    """
    found = diff(old, new)
    after = {*found.keep, *found.start, *(change.new for change in found.change)}
    assert after == set(new.parts)
    before = [*found.keep, *found.stop, *(change.old for change in found.change)]
    assert sorted(part.key for part in before) == sorted(part.key for part in old.parts)
    assert not {part.key for part in found.stop} & {part.key for part in new.parts}
    assert diff(new, new) == Plan(keep=new.parts)
