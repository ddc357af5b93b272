# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{parse}: a right file becomes a configuration; a wrong one becomes sentences, one for each fault.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from inspect import signature
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import twisted_heartbeat
from twisted_heartbeat import (
    Backoff,
    DatagramLimits,
    Heartbeat,
    KeepAlive,
    Limits,
    PresenceTable,
    ServerLimits,
    SQLiteStore,
    StatusResource,
    UDPHeartbeatSender,
)
from twisted_heartbeat.cli.config import kinds, model
from twisted_heartbeat.cli.config.faults import ConfigError, Fault
from twisted_heartbeat.cli.config.model import Key, Section
from twisted_heartbeat.cli.config.reader import Source, build, read
from twisted_heartbeat.cli.config.values import (
    HTTP,
    CheckIn,
    Checks,
    Config,
    Connect,
    Listen,
    Part,
    Presence,
    Status,
    Store,
    UDPMonitor,
    UDPSender,
)
from twisted_heartbeat.core.checkins import Check

from ...support.pages import mistakesIn


def parse(source: Source) -> Config:
    """
    Read a configuration that must be right.
    """
    faults: list[Fault] = []
    config = read(source, faults)
    if faults:
        raise source.error(faults)
    return config


def built(document: dict[str, Any]) -> Config:
    """
    The same, from what C{tomllib} has read.
    """
    faults: list[Fault] = []
    config = build(document, faults)
    if faults:
        raise Source().error(faults)
    return config


def parts(text: str, *options: tuple[tuple[str, ...], object]) -> tuple[Part, ...]:
    return parse(Source("hb.toml", text, options)).parts


def faults(text: str, *options: tuple[tuple[str, ...], object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(Source("hb.toml", text, options))
    return list(caught.value.sentences)


# What a file means.


def test_emptyFileIsNoFault() -> None:
    """
    A file without parts is right; that there is nothing to run is for the caller to say.
    """
    assert parse(Source("hb.toml", "# nothing\n")) == Config()


def test_textStandsForAnEndpoint() -> None:
    """
    One endpoint, a list of texts and an array of tables mean the same.
    """
    expected = (Listen(endpoint="tcp:1"),)
    assert parts('listen = "tcp:1"') == expected
    assert parts('listen = ["tcp:1"]') == expected
    assert parts('[listen]\nendpoint = "tcp:1"') == expected
    assert parts('[[listen]]\nendpoint = "tcp:1"') == expected


def test_fileHoldsForAllParts() -> None:
    """
    A section of the file holds for each part; what a part says itself goes before it, key by key.
    """
    text = """
    name = "gateway-7"
    hooks = "page.Hooks"
    listen = ["tcp:1"]

    [heartbeat]
    interval = 4
    timeout = 3

    [keepalive]
    idle = 7

    [limits]
    send-stall = false

    [server-limits]
    peers = 10

    [backoff]
    maximum = 20

    [[connect]]
    endpoint = ["tcp:a:1", "tcp:b:1"]
    name = "gateway-8"
    hooks = ["page.Other", "page.Third"]
    heartbeat.timeout = 2
    keepalive = false
    limits.max-buffered = 100
    backoff.factor = 3
    """
    limits = Limits(sendStall=None)
    assert parts(text) == (
        Listen(
            endpoint="tcp:1",
            name="gateway-7",
            hooks=("page.Hooks",),
            heartbeat=Heartbeat(interval=4, timeout=3),
            keepAlive=KeepAlive(idle=7),
            limits=limits,
            serverLimits=ServerLimits(peers=10),
        ),
        Connect(
            endpoint=("tcp:a:1", "tcp:b:1"),
            name="gateway-8",
            hooks=("page.Other", "page.Third"),
            heartbeat=Heartbeat(interval=4, timeout=2),
            keepAlive=None,
            limits=Limits(sendStall=None, maxBuffered=100),
            backoff=Backoff(maximum=20, factor=3),
        ),
    )


def test_withinSetsBoth() -> None:
    """
    The bound is divided as C{Heartbeat.within} divides it, also over the file's own times.
    """
    text = '[heartbeat]\ninterval = 1\n[[listen]]\nendpoint = "tcp:1"\nheartbeat.within = 8'
    [part] = parts(text)
    assert isinstance(part, Listen)
    assert part.heartbeat == Heartbeat.within(8)


def test_falseSwitchesOff() -> None:
    """
    C{false} is L{None} in the settings: no limit, a passive watch, no keepalive.
    """
    text = 'keepalive = false\nlisten = "tcp:1"\n[heartbeat]\ninterval = false\n[server-limits]\n'
    [part] = parts(text + "peers = false")
    assert isinstance(part, Listen)
    assert part.keepAlive is None
    assert part.heartbeat.interval is None
    assert part.serverLimits.peers is None


def test_maximumBelowTheUsualFirstWait() -> None:
    """
    A longest wait below the usual first one shortens that, as the option C{--max-delay} does.
    """
    [part] = parts('connect = "tcp:a:1"\nbackoff.maximum = 0.25')
    assert isinstance(part, Connect)
    assert (part.backoff.initial, part.backoff.maximum) == (0.25, 0.25)


def test_linksOfTwoNames() -> None:
    """
    Two links may lead to one endpoint if they have two names there.
    """
    text = '[[connect]]\nendpoint = "tcp:a:1"\nname = "x"\n'
    assert len(parts(text + text.replace('"x"', '"y"'))) == 2


def test_optionsReplaceTheFile() -> None:
    """
    An option goes before the file; C{--listen} and C{--connect} are added to it.
    """
    text = 'name = "x"\nlisten = "tcp:1"\n[heartbeat]\ninterval = 1\ntimeout = 1'
    options = [
        (("listen",), "tcp:2"),
        (("connect",), "tcp:a:1"),
        (("heartbeat", "within"), 8),
        (("name",), "y"),
        (("backoff", "maximum"), 5),
    ]
    heartbeat = Heartbeat.within(8)
    assert parts(text, *options) == (
        Listen(endpoint="tcp:1", name="y", heartbeat=heartbeat),
        Listen(endpoint="tcp:2", name="y", heartbeat=heartbeat),
        Connect(endpoint=("tcp:a:1",), name="y", heartbeat=heartbeat, backoff=Backoff(maximum=5)),
    )


def test_optionReplacesWhatIsOff() -> None:
    """
    An option for a section that the file switches off switches it on.
    """
    [part] = parts('keepalive = false\nlisten = "tcp:1"', (("keepalive", "idle"), 9))
    assert isinstance(part, Listen)
    assert part.keepAlive == KeepAlive(idle=9)


def test_datagrams() -> None:
    """
    The sender and the monitors of heartbeats over UDP have the name, the bound and the hooks of the
    file, unless they say otherwise.
    """
    text = """
    name = "gateway-7"
    hooks = "page.Hooks"
    heartbeat.within = 30

    [udp]
    monitors = ["hub.example:8471", "[2001:db8::1]:8471"]
    key-file = "keys"

    [monitor]
    address = ["8471", "127.0.0.1:8472"]
    key-file = "all-keys"
    heartbeat.within = 60
    hooks = "page.Other"
    """
    watching = {"keyFile": "all-keys", "heartbeat": Heartbeat.within(60), "hooks": ("page.Other",)}
    assert parts(text) == (
        UDPMonitor(address="8471", place=("", 8471), **watching),
        UDPMonitor(address="127.0.0.1:8472", place=("127.0.0.1", 8472), **watching),
        UDPSender(
            places=(("hub.example", 8471), ("2001:db8::1", 8471)),
            name="gateway-7",
            keyFile="keys",
            heartbeat=Heartbeat.within(30),
            hooks=("page.Hooks",),
        ),
    )


def test_checkIns() -> None:
    """
    Check-ins are sent to URLs and received at endpoints on loopback.
    """
    text = """
    check-in = "https://host.example/ping/gateway-7"
    hooks = "page.Hooks"

    [http]
    endpoint = ["tcp:8080", "tcp:8081:interface=0.0.0.0"]

    [[check]]
    name = "nightly-backup"

    [[check]]
    name = "sync"
    period = 60
    grace = 30
    """
    config = parse(Source("hb.toml", text))
    assert config.parts == (
        CheckIn(url="https://host.example/ping/gateway-7", every=60),
        HTTP(endpoint="tcp:8080:interface=127.0.0.1"),
        HTTP(endpoint="tcp:8081:interface=0.0.0.0"),
    )
    checks = (("nightly-backup", Check()), ("sync", Check(period=60, grace=30)))
    assert config.checks == Checks(checks=checks, hooks=("page.Hooks",))


def test_statusPage() -> None:
    """
    A status page is on loopback, unless its endpoint names an interface.
    """
    text = "[presence]\ngrace = 3\n[store]\nfile = 'a'\n[status]\ntoken-file = 'b'\nendpoint = "
    config = parse(Source("hb.toml", text + "'8080'"))
    here = "tcp:8080:interface=127.0.0.1"
    assert config.parts == (Status(endpoint=here, tokenFile="b"),)
    assert (config.presence, config.store) == (Presence(grace=3), Store(file="a"))
    assert parts(text + "'tcp:8080:interface=::'")[0].key == ("status", "tcp:8080:interface=::")


# What is wrong.

OK = 'listen = "tcp:1"\n'

WRONG = {
    "not TOML": ("listen =", ":1: this is not valid TOML: invalid value, in 'listen ='"),
    "not TOML, later": ("\n\n[a", ":3: this is not valid TOML: expected ']' ..., in '[a'"),
    "not closed": ('a = """\nb', ":2: this is not valid TOML: ..., in 'b'"),
    "not closed, with a secret": (
        "check-in = 'https://a/secret",
        ':1: this is not valid TOML: expected "\'"',
    ),
    "key twice": ("a = 1\na = 2", ":2: ...: cannot overwrite a value, in 'a = 2'"),
    "table twice": ("[a]\n[a]", ":2: this is not valid TOML: cannot declare ..."),
    "value and entry": (
        'listen = "tcp:1"\n[[listen]]\nendpoint = "tcp:2"',
        ":2: this is not valid TOML: cannot overwrite a value, in '[[listen]]': "
        "listen has a value above; write that as a [[listen]] as well",
    ),
    "endless number": (f"a = {'1' * 5000}", ": this is not valid TOML: Exceeds ..."),
    "nested": (f"a = {'[' * 100000}", ": this is nested too deeply"),
    "near miss": ("[heartbeat]\nwitin = 8", ":2: heartbeat.witin: did you mean within?"),
    "camel case": (
        "[limits]\nconnectTimeout = 8",
        ":2: limits.connectTimeout: did you mean connect-timeout?",
    ),
    "underscore": (
        "[server-limits]\npeers_per_address = 8",
        ":2: server-limits.peers_per_address: did you mean peers-per-address?",
    ),
    "capitals": ("Listen = 'tcp:1'", ":1: Listen: did you mean listen?"),
    "section, near": ("[hartbeat]\nwithin = 8", ":1: hartbeat: did you mean heartbeat?"),
    "section, near, without a header": (
        "[lisen.heartbeat]\nwithin = 8",
        ":1: lisen: did you mean listen?",
    ),
    "needed key, near": (
        "[status]\nend-point = '8080'",
        ":2: status.end-point: did you mean endpoint?",
    ),
    "needed section, near": (
        "[htp]\nendpoint = 'tcp:1'\n[[check]]\nname = 'a'",
        ":1: htp: did you mean http?",
    ),
    "needed name, near": (
        "udp.names = 'x'\nudp.key-file = 'x'\nudp.monitors = 'hub:1'",
        ":1: udp.names: did you mean name?",
    ),
    "section, unknown": (
        "[mqtt]\nx = 8",
        ":1: mqtt: there is no such key; the file has ...",
    ),
    "key of a section": ("within = 8", ":1: within: did you mean heartbeat.within?"),
    "key of a part": (
        "[listen]\nendpoint = 'tcp:1'\nbackoff.initial = 1",
        ":3: listen.backoff: there is no such key; [listen] has endpoint, ...",
    ),
    "key, unknown": ("[backoff]\nx = 8", ":2: backoff.x: ...; [backoff] has initial, ..."),
    "empty key": ('"" = 1', ":1: ...there is no such key; ..."),
    "hostile key": ('"\\u001b[2J" = 1', r":1: \x1b[2J: there is no such key; ..."),
    "text for a number": (
        '[heartbeat]\nwithin = "8"',
        ":2: heartbeat.within is '8': it must be a number of seconds, ..., without quotes",
    ),
    "words for a number": (
        '[heartbeat]\nwithin = "soon"',
        ":2: heartbeat.within is 'soon': it must be a number of seconds, at least 0.2",
    ),
    "true for a number": (
        "[heartbeat]\ntimeout = true",
        ":2: heartbeat.timeout is true: it must be a number of seconds above 0",
    ),
    "off for a number": (
        "[heartbeat]\ntimeout = false",
        ":2: heartbeat.timeout is false: it must be a number of seconds above 0",
    ),
    "date for a number": (
        "[heartbeat]\ntimeout = 2020-01-01",
        ":2: heartbeat.timeout is 2020-01-01: it must be ...",
    ),
    "list for a number": (
        "[heartbeat]\ntimeout = [1]",
        ":2: heartbeat.timeout is a list: it must be ...",
    ),
    "table for a number": (
        "[heartbeat.timeout]\nx = 1",
        ":1: heartbeat.timeout is a table: it must be ...",
    ),
    "thousands of digits": (
        f"[heartbeat]\ntimeout = 0x{'f' * 5000}",
        ":2: heartbeat.timeout is a number of thousands of digits: it must be a number ...",
    ),
    "not finite": ("[heartbeat]\ntimeout = inf", ":2: heartbeat.timeout is inf: ..."),
    "no number": (
        "[heartbeat]\ninterval = nan",
        ":2: ... is nan: ..., or false to switch ...",
    ),
    "negative": (
        "[limits]\nsend-stall = -1",
        ":2: limits.send-stall is -1: ... above 0, ...",
    ),
    "too short": ("[heartbeat]\nwithin = 0.1", ":2: heartbeat.within is 0.1: ... least 0.2"),
    "too short together": (
        "[heartbeat]\ninterval = 0.1\ntimeout = 0.05",
        ":1: heartbeat is 0.15...: it must be at least 0.2 seconds (interval + timeout)",
    ),
    "too long": ("[heartbeat]\ntimeout = 1e300", ":2: ... and at most 1000000000"),
    "fraction": (
        "[keepalive]\nidle = 1.5",
        ":2: keepalive.idle is 1.5: ... a whole number, ...",
    ),
    "zero": (
        "[server-limits]\npeers = 0",
        ":2: server-limits.peers is 0: ... 1 or more, ...",
    ),
    "factor": (
        "[backoff]\nfactor = 0.5",
        ":2: backoff.factor is 0.5: ... a number, 1 or more",
    ),
    "jitter": (
        "[backoff]\njitter = 2",
        ':2: backoff.jitter is 2: ... "full" or a fraction ...',
    ),
    "jitter, word": ('[backoff]\njitter = "half"', ":2: backoff.jitter is 'half': ..."),
    "spread": ("[backoff]\nspread = -1", ":2: backoff.spread is -1: ... seconds, 0 or more"),
    "maximum below initial": (
        "[backoff]\ninitial = 5\nmaximum = 2",
        ":3: backoff.maximum is 2.0: it must be at least initial, 5.0",
    ),
    "both bounds": (
        "[heartbeat]\nwithin = 8\ntimeout = 3",
        ":3: heartbeat.timeout stands beside within, which sets both ...",
    ),
    "name, too long": (
        f'name = "{"é" * 128}"',
        ":1: name is 'é...': ... 255 bytes in UTF-8",
    ),
    "name, number": (
        "name = 7",
        ":1: name is 7: it must be text of at most 255 bytes in UTF-8",
    ),
    "hooks, number": ("hooks = 7", ":1: hooks is 7: it must be a dotted name such as ..."),
    "hooks, empty": (
        "hooks = []",
        ":1: hooks is a list: it must be a dotted name such as ...",
    ),
    "section, no table": (
        "heartbeat = 8",
        ":1: heartbeat is 8: it must be a table, [heartbeat]",
    ),
    "section, off": (
        "heartbeat = false",
        ":1: heartbeat is false: it must be a table, [heartbeat]",
    ),
    "keepalive, on": (
        "keepalive = true",
        ":1: keepalive is true: it must be a table, [keepalive], or false",
    ),
    "section, twice": ("[[heartbeat]]\nwithin = 8", ":1: heartbeat is a list: ..."),
    "endpoint, number": (
        "listen = 8470",
        ":1: listen is 8470: it must be a text, its endpoint, or a table, [[listen]]",
    ),
    "endpoint, empty": (
        'listen = ""',
        ":1: listen is '': it must be an endpoint such as ...",
    ),
    "endpoint, missing": (
        '\n[[listen]]\nname = "x"',
        ":2: listen#1 has no endpoint: it must be an endpoint such as tcp:8470",
    ),
    "endpoints, none": (
        "[connect]\nendpoint = []",
        ":2: connect.endpoint is a list: it must be an endpoint such as ...",
    ),
    "status, no endpoint": (
        "[status]\ntitle = 'x'",
        ":1: status has no endpoint: it must be an endpoint such as tcp:8080, or only a port",
    ),
    "status, number": (
        "[status]\nendpoint = 8080",
        ":2: status.endpoint is 8080: it must be an endpoint such as tcp:8080, or only a port",
    ),
    "udp, no key": (
        "[udp]\nmonitors = 'hub:8471'\nname = 'x'",
        ":1: udp has no key-file: it must be the path of a file with a name, a key id ...",
    ),
    "udp, no name": (
        "[udp]\nmonitors = 'hub:8471'\nkey-file = 'x'",
        ":1: udp needs a name, here or for the whole file",
    ),
    "udp, no port": (
        "udp.name = 'x'\nudp.key-file = 'x'\nudp.monitors = ['hub']",
        ":3: udp.monitors is a list: it must be a HOST:PORT such as hub.example:8471, ...",
    ),
    "udp, no name of a host": (
        "udp.name = 'x'\nudp.key-file = 'x'\nudp.monitors = \"hu\\u0000b:1\"",
        ":3: udp.monitors is 'hu\\x00b:1': it must be a HOST:PORT such as hub.example:8471, ...",
    ),
    "udp, long name of a host": (
        f"udp.name = 'x'\nudp.key-file = 'x'\nudp.monitors = '{'h' * 64}:1'",
        ":3: udp.monitors is 'h...:1': it must be a HOST:PORT such as hub.example:8471, ...",
    ),
    "udp, URL": (
        "udp.name = 'x'\nudp.key-file = 'x'\nudp.monitors = 'http://hub:1'",
        ":3: udp.monitors is 'http://hub:1': it must be a HOST:PORT such as hub.example:8471, ...",
    ),
    "udp, no brackets": (
        "udp.name = 'x'\nudp.key-file = 'x'\nudp.monitors = '2001:db8::5:1'",
        ":3: udp.monitors is '2001:db8::5:1': it must be a HOST:PORT such as ...",
    ),
    "udp, half of the brackets": (
        "udp.name = 'x'\nudp.key-file = 'x'\nudp.monitors = '[::1:1'",
        ":3: udp.monitors is '[::1:1': it must be a HOST:PORT such as ...",
    ),
    "udp, no address": (
        "udp.name = 'x'\nudp.key-file = 'x'\nudp.monitors = '192.0.2.256:1'",
        ":3: udp.monitors is '192.0.2.256:1': it must be a HOST:PORT such as ...",
    ),
    "udp, loss": (
        "udp.name = 'x'\nudp.key-file = 'x'\nudp.monitors = 'hub:1'\nudp.allow-loss = 1",
        ":4: udp.allow-loss is 1: it must be a fraction from 0 to below 1",
    ),
    "monitor, number": (
        "monitor.key-file = 'x'\nmonitor.address = 8471",
        ":2: monitor.address is 8471: it must be a port such as 8471 in quotes, ...",
    ),
    "udp, wrong name": (
        "udp.name = 7\nudp.key-file = 'x'\nudp.monitors = 'hub:1'",
        ":1: udp.name is 7: it must be text of at most 255 bytes in UTF-8",
    ),
    "monitor, port": (
        "monitor.key-file = 'x'\nmonitor.address = '127.0.0.1:65536'",
        ":2: monitor.address is '127.0.0.1:65536': it must be a port such as ...",
    ),
    "monitor, host": (
        "monitor.key-file = 'x'\nmonitor.address = ['8471', 'hub.example:8471']",
        ":2: monitor.address is a list: it must be a port such as 8471 in quotes, an IP ...",
    ),
    "monitor, zeros before the port": (
        "monitor.key-file = 'x'\nmonitor.address = '000000099999'",
        ":2: monitor.address is '000000099999': it must be a port such as ...",
    ),
    "check-in, secret": (
        "check-in = ''",
        ":1: check-in is '***': it must be the URL of a check",
    ),
    "check-in, no URL, twice": (
        "check-in = ['http://[a', 'http://[a']",
        ":1: check-in#2 is the same as check-in#1: check-in at no host",
    ),
    "check-in, number": (
        "check-in = ['https://a/b', 7]",
        ":1: check-in#2 is 7: it must be a text, its url, or a table, [[check-in]]",
    ),
    "check-in twice": (
        "check-in = ['https://a/secret', 'https://a/secret']",
        ":1: check-in#2 is the same as check-in#1: check-in at a",
    ),
    "check, name": (
        "[http]\nendpoint = 'tcp:1'\n[[check]]\nname = 'a/b'",
        ":4: check#1.name is 'a/b': it must be a name of letters, digits, ...",
    ),
    "check, twice": (
        "http.endpoint = 'tcp:1'\n[[check]]\nname = 'a'\n[[check]]\nname = 'a'",
        ":4: check#2 has the name of another check: a",
    ),
    "check, text": (
        "http.endpoint = 'tcp:1'\ncheck = 'a'",
        ":2: check is 'a': it must be a table, [[check]]",
    ),
    "check, long": (
        "http.endpoint = 'tcp:1'\n[[check]]\nname = 'a'\nperiod = 40_000_000",
        ":4: check#1.period is 40000000.0: it must be at most 31622400 seconds",
    ),
    "check, alone": ("[[check]]\nname = 'a'", ":1: check#1 needs [http], which receives check-ins"),
    "http twice": (
        "http.endpoint = ['tcp:1', 'tcp:1']",
        ":1: http.endpoint is the same as http.endpoint: http tcp:1:interface=127.0.0.1",
    ),
    "flag": ("[presence]\nmerge = 1", ":2: presence.merge is 1: it must be true or false"),
    "grace": ("[presence]\ngrace = -1", ":2: presence.grace is -1: ... seconds, 0 or more"),
    "store": (
        "[store]\npath = '/x'",
        ":2: store.path: there is no such key; [store] has file, keep",
    ),
    "listener twice": (
        '[[listen]]\nendpoint = "tcp:1"\n[[listen]]\nendpoint = "tcp:1"\nname = "y"',
        ":3: listen#2 is the same as listen#1: listen tcp:1",
    ),
    "link twice": (
        'connect = ["tcp:a:1", "tcp:b:1", "tcp:a:1"]',
        ":1: connect#3 is the same as connect#1: connect tcp:a:1",
    ),
    "in a long list": (
        'listen = [\n"tcp:1",\n8470]',
        ": listen#2 is 8470: it must be a text, its endpoint, ...",
    ),
    "in the second table": (
        '[[listen]]\nendpoint = "tcp:1"\n\n[[listen]]\nendpoint = "tcp:2"\n'
        "[listen.heartbeat]\nwithin = 0",
        ":7: listen#2.heartbeat.within is 0: it must be ...",
    ),
}
"""
The texts of wrong files, and what is said of them behind the name of the file.  C{...} stands for
anything.
"""


@pytest.mark.parametrize(("text", "sentence"), WRONG.values(), ids=WRONG)
def test_wrongFile(text: str, sentence: str) -> None:
    """
    Each fault is one clear sentence: the file, the line if it is certain, the key, the value, and
    what is allowed or probably meant.
    """
    [found] = faults(text)
    pattern = re.escape(f"hb.toml{sentence}").replace(re.escape("..."), ".*")
    assert re.fullmatch(pattern, found), found
    assert found.isprintable()


def test_allFaultsAtOnce() -> None:
    """
    Every fault of a file is told, in the order of its lines.
    """
    text = "naem = 'x'\n[heartbeat]\nwithin = 0\n[backoff]\nx = 1\n[[listen]]\nname = 3"
    assert [sentence.split(" ")[:2] for sentence in faults(text)] == [
        ["hb.toml:1:", "naem:"],
        ["hb.toml:3:", "heartbeat.within"],
        ["hb.toml:5:", "backoff.x:"],
        ["hb.toml:6:", "listen#1"],
        ["hb.toml:7:", "listen#1.name"],
    ]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (
            "http.endpoint = 'tcp:1'\ncheck = [{name = 'a/b'}, {}, {}]",
            ["check#1.name", "check#2", "check#3"],
        ),
        ("connect = [{name = 'x'}, {name = 'x'}]", ["connect#1", "connect#2"]),
        ("listen = ['tcp:1', {endpoint = 7}, {endpoint = 7}]", ["listen#2", "listen#3"]),
    ],
    ids=["checks", "links", "listeners"],
)
def test_nothingFollowsFromAFault(text: str, keys: list[str]) -> None:
    """
    Entries that lack what identifies them are not the same: each is one fault.
    """
    found = [re.sub(r"\.endpoint$", "", sentence.split(" ")[1]) for sentence in faults(text)]
    assert found == keys


def test_optionThatContradictsTheFile() -> None:
    """
    What is wrong only together with the command line is told without a line.
    """
    [fault] = faults("[backoff]\ninitial = 5\n", (("backoff", "maximum"), 2))
    assert fault == "hb.toml: backoff.maximum is 2.0: it must be at least initial, 5.0"


@pytest.mark.parametrize(
    ("text", "option", "fault"),
    [
        ("status = 3", ("status", "endpoint"), ":1: status is 3: it must be a table, [status]"),
        ("[[backoff]]", ("backoff", "maximum"), ":1: backoff is a list: it must be a table, [b"),
        ("backoff = false", ("backoff", "maximum"), ":1: backoff is false: it must be a table, ["),
        ("heartbeat.witin = 3", ("heartbeat", "within"), ":1: heartbeat.witin: did you mean wi"),
    ],
)
def test_optionHidesNoFaultOfTheFile(text: str, option: tuple[str, ...], fault: str) -> None:
    """
    An option replaces one value of the file, and not what is wrong beside that.
    """
    value = "8080" if option[-1] == "endpoint" else 8
    [found] = faults(f"{text}\n", (option, value))
    assert found.startswith(f"hb.toml{fault}")


# The model.


def leaves() -> list[tuple[Section, Key]]:
    return [(section, key) for _, section in model.FILE.walk() for key in section.keys]


def test_eachFieldHasAKey() -> None:
    """
    The sections name every field of their settings classes, and no other, but for C{within}.
    """
    for _, section in model.FILE.walk():
        if section.make is not None:
            names = {key.field for key in section.keys} - {"within"}
            names -= {"name"} if section is model.CHECK else set()
            found = {each.name for each in fields(section.make) if each.compare}
            place = f"cli/config/model.py, [{section.name}],"
            assert mistakesIn(place, names, found - {"place", "heartbeat"}) == []


def test_defaultsAreThoseOfTheClasses() -> None:
    """
    What a file leaves out is what the class behind it has by default.  The parts of a configuration
    repeat these values, because most runs need none of those classes, whose import takes long.
    """

    def default(made: Any, name: str) -> object:
        return signature(made).parameters[name].default

    assert CheckIn().every == default(twisted_heartbeat.CheckIn, "interval")
    assert Status().title == default(StatusResource, "title")
    assert Store().keep == default(SQLiteStore, "keep")
    assert Presence().grace == default(PresenceTable, "grace")
    assert Presence().merge == default(PresenceTable, "merge")
    assert UDPSender(places=(), name="", keyFile="").all == default(UDPHeartbeatSender, "all")
    monitor = UDPMonitor(address="", place=("", 0), keyFile="")
    limits = DatagramLimits(
        peers=monitor.peers, minBound=monitor.minBound, maxBound=monitor.maxBound
    )
    assert limits == DatagramLimits()


VALUES: dict[Any, st.SearchStrategy[Any]] = {
    kinds.SECONDS: st.floats(min_value=1e-3, max_value=1e9),
    kinds.SECONDS_OR_0: st.floats(min_value=0, max_value=1e9) | st.integers(0, 10),
    kinds.BOUND: st.floats(min_value=0.2, max_value=1e9),
    kinds.COUNT: st.integers(1, 10**9),
    kinds.FACTOR: st.floats(min_value=1, max_value=100),
    kinds.JITTER: st.just("full") | st.floats(min_value=0, max_value=1),
    kinds.NAME: st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
    kinds.CALLABLE: st.sampled_from(["a.b", "a.b.c"]),
    kinds.HOOKS: st.sampled_from(["a.B", ["a.B", "a.C"]]),
    kinds.PRESENCE_HOOKS: st.just(["a.B"]),
    kinds.FLAG: st.booleans(),
    kinds.TEXT: st.sampled_from(["x", "\x7f"]),
    kinds.STATUS: st.sampled_from(["8080", "tcp:8080:interface=::1"]),
    kinds.TOKEN_FILE: st.just("/etc/token"),
    kinds.STORE: st.just("/var/lib/presence"),
    kinds.UDP_KEYS: st.just("/etc/keys"),
    kinds.UDP_PLACES: st.sampled_from(["hub:8471", ["hub:8471", "[::1]:8471"]]),
    kinds.UDP_ADDRESSES: st.sampled_from(["8471", ["8471", "[::1]:8472"]]),
    kinds.LOSS: st.sampled_from([0, 0.1]),
    kinds.CHECK_IN: st.integers().map(lambda number: f"https://host.example/ping/{number}"),
    kinds.CHECK_NAME: st.from_regex("[a-z]{8}", fullmatch=True),
    kinds.HTTP: st.sampled_from(["tcp:8080", ["tcp:8080", "tcp:8081:interface=0.0.0.0"]]),
    kinds.CHECK_IN_TOKENS: st.just("/etc/tokens"),
    kinds.LISTEN: st.integers(1, 10**9).map(lambda number: f"tcp:{number}"),
    kinds.CONNECT: st.integers(1, 10**9).map(lambda number: [f"tcp:a:{number}", "tcp:b:1"]),
}
"""What each kind accepts."""


def tables(section: Section) -> st.SearchStrategy[dict[str, Any]]:
    """
    Any right table of a section.
    """
    optional = {}
    needed = {}
    for key in section.keys:
        values = VALUES[key.kind] | (st.just(False) if key.off else st.nothing())
        if key.name != "within":
            (needed if key.needed else optional)[key.name] = values
    for inner in section.sections:
        table = tables(inner)
        if inner.several:
            table = st.lists(table, max_size=3, unique_by=_firstKeyOf(inner))
        optional[inner.name] = table | (st.just(False) if inner.off else st.nothing())
    return st.fixed_dictionaries(needed, optional=optional)


def _firstKeyOf(section: Section) -> Callable[[dict[str, Any]], str]:
    """
    A function that takes a table, and returns what tells it from the others of its section.
    """
    return lambda table: str(table[section.keys[0].name])


def toml(value: Any) -> str:
    """
    Write a value as TOML, tables inline.
    """
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {toml(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value).lower()


def file(document: dict[str, Any]) -> str:
    return "".join(f"{name} = {toml(value)}\n" for name, value in document.items())


SECTIONS = {"monitor": model.MONITOR, "udp": model.UDP}


def places(part: UDPSender) -> list[str]:
    """
    The monitors of a sender, as the file has them.
    """
    return [f"[{host}]:{port}" for host, port in part.places]


def written(config: Config) -> str:
    """
    Write a configuration as a file in which each part says all of its settings itself.
    """
    document: dict[str, Any] = {"listen": [], "connect": [], "check-in": []}
    http = [part.endpoint for part in config.parts if isinstance(part, HTTP)]
    if http:
        table = {"endpoint": http, "token-file": config.checks.tokenFile or None}
        table["hooks"] = list(config.checks.hooks) or None
        document["http"] = {name: value for name, value in table.items() if value}
        document["check"] = [
            {"name": name, **tableOf(model.CHECK, check)} for name, check in config.checks.checks
        ]
    for part in config.parts:
        if isinstance(part, HTTP):
            continue
        if isinstance(part, UDPMonitor | UDPSender):
            section = SECTIONS[part.key[0]]
            before = document.get(section.name, {}).get("address", [])
            table = tableOf(section, part)
            if isinstance(part, UDPMonitor):
                table["address"] = [*before, part.address]
            else:
                table["monitors"] = places(part)
            table["heartbeat"] = tableOf(section.sections[0], part.heartbeat)
            document[section.name] = table
            continue
        section = model.FILE.section(part.key[0])
        assert section is not None
        table = tableOf(section, part)
        for inner in section.sections:
            name = {"keepalive": "keepAlive", "server-limits": "serverLimits"}
            settings = getattr(part, name.get(inner.name, inner.name))
            table[inner.name] = settings is not None and tableOf(inner, settings)
        if section.several:
            document[section.name].append(table)
        else:
            document[section.name] = table
    document["presence"] = tableOf(model.PRESENCE, config.presence)
    document["store"] = tableOf(model.STORE, config.store)
    return file(document)


def tableOf(section: Section, settings: Any) -> dict[str, Any]:
    """
    Write settings, all that the keys of a section name.
    """
    table: dict[str, Any] = {}
    for key in section.keys:
        value = "" if key.name == "within" else getattr(settings, key.field, "")
        if isinstance(value, tuple):
            value = list(value)
        if value is None:
            value = False if key.off else ""
        if value not in ("", []) or key is model.FILE.keys[0]:
            table[key.name] = value
    return table


@settings(max_examples=30)
@given(tables(model.FILE))
def test_roundTrip(document: dict[str, Any]) -> None:
    """
    Any right file is read, but for values that are wrong together; and what was read, written in
    full, is read as the same.
    """
    try:
        config = parse(Source("hb.toml", file(document)))
    except ConfigError as error:
        allowed = ("it must be at", "needs [http]", "is the same as", "needs a name")
        for sentence in error.sentences:
            assert any(words in sentence for words in allowed), sentence
        return
    assert parse(Source("hb.toml", written(config))) == config


NAMES = st.sampled_from([name for _, section in model.FILE.walk() for name in section.names])

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["tcp:1", "within", "a.b", 0.1, 8]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(NAMES, JUNK, max_size=5))
def test_anyDocument(document: dict[str, Any]) -> None:
    """
    Whatever a file says, it is either read or becomes sentences: no other exception.
    """
    try:
        config = built(document)
    except ConfigError as error:
        assert error.sentences
        assert all(sentence.isprintable() for sentence in error.sentences)
    else:
        assert all(isinstance(part, Part) for part in config.parts)
