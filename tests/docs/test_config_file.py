# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The pages about the configuration file: the tables of the reference are those of the model, and the
how-to shows what is printed.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactor

from twisted_heartbeat.cli.config import model
from twisted_heartbeat.cli.config.faults import ConfigError
from twisted_heartbeat.cli.config.kinds import shown
from twisted_heartbeat.cli.config.loader import Loader
from twisted_heartbeat.cli.config.model import Key, Section
from twisted_heartbeat.cli.options import Options

DOCS = Path(__file__).parents[2] / "docs"

HEAD = ["| key | value | default | meaning | option |", "|---|---|---|---|---|"]


def defaultOf(section: Section, key: Key) -> str:
    """
    The default of a key, as the page has it.
    """
    default = section.default(key)
    if default is None:
        return "`false`"
    if isinstance(default, str):
        return f'`"{default}"`' if default else ""
    if isinstance(default, bool):
        return f"`{shown(default)}`"
    if isinstance(default, float | int):
        return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
    return ""


def rowsOf(section: Section) -> list[str]:
    """
    The table of a section.
    """
    rows = []
    for key in section.keys:
        value = key.kind.allowed + (", or `false`" if key.off else "")
        option = f"`--{key.option}`" if key.option else ""
        meaning = key.words + (" (needed)" if key.needed else "")
        cells = [f"`{key.name}`", value, defaultOf(section, key), meaning, option]
        rows.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return [*HEAD, *rows]


def sections() -> list[Section]:
    """
    The sections, each once.
    """
    found = {section.name: section for _, section in model.FILE.walk()}
    return list(found.values())


def page() -> str:
    """
    The tables of all sections, each under its heading.
    """
    blocks = []
    for section in sections():
        heading = f"## `[{section.name}]`" if section.name else "## Before the first section"
        if section.several:
            heading = f"## `[[{section.name}]]`"
        inner = ", ".join(f"`{each.name}`" for each in section.sections if not each.several)
        lines = [heading, "", section.words, "", *rowsOf(section)]
        if section.several and inner:
            lines += ["", f"Sections inside of it: {inner}."]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def test_referenceNamesEachKey() -> None:
    """
    Each section and each key of the model is on the page, with its values, default and option; and
    the page names no other.
    """
    text = (DOCS / "reference" / "config-file.md").read_text()
    missing = [line for line in page().splitlines() if line not in text.splitlines()]
    assert not missing, "config-file.md lacks:\n" + "\n".join(missing)
    assert page() in text
    tables, _, _ = text.partition("## What SIGHUP changes")
    assert tables.count("\n| `") == page().count("\n| `")


WRONG = """\
name = "hub"

[presence]
grace = 60

[heartbeat]
witin = 20
timeout = 5

[backoff]
initial = 5.0
maximum = 2.0

[[listen]]
endpoint = "tcp:8470"

[[listen]]
server-limits.peers = 100
endpoint = "tcp:65536"
"""


def test_wrongFileThatThePageShows(tmp_path: Path) -> None:
    """
    The faults of a file are told as the page shows them: misspelt keys, values that do not fit
    together, and what cannot be looked up, all at once and in the order of their lines.
    """
    page = (DOCS / "howto" / "config-file.md").read_text()
    printed = re.findall(r"^/etc/heartbeat/heartbeat\.toml(:\d+: .*)$", page, re.MULTILINE)
    path = tmp_path / "heartbeat.toml"
    path.write_text(WRONG)
    with pytest.raises(ConfigError) as caught:
        Loader(MemoryReactor(), str(path)).load()
    assert list(caught.value.sentences) == [f"{path}{line}" for line in printed]
    assert len(printed) == 3


def test_optionsExist() -> None:
    """
    Each option that the model names is one of the command line, and each option that sets something
    is in the model.
    """
    named = {key.option for section in sections() for key in section.keys if key.option}
    options = set(Options().longOpt)
    assert {f"{name}=" for name in named} <= options
    others = {"help", "version", "config=", "check-config"}
    assert options - others == {f"{name}=" for name in named}


def test_valuesAreShownAsTOML() -> None:
    """
    A message shows a value as the file has it.
    """
    assert [shown(value) for value in (True, 1.5, "a", [], {})] == [
        "true",
        "1.5",
        "'a'",
        "a list",
        "a table",
    ]
