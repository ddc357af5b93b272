# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The workflows of CI, and the pages that name an environment of tox, name one that exists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
CI = CHECKOUT / ".github" / "workflows" / "ci.yml"
NAMING = [CI, CI.with_name("release.yml"), CHECKOUT / "CONTRIBUTING.md", CHECKOUT / "SECURITY.md"]
NAMING += [CHECKOUT / "docs" / "project" / "releasing.md"]


def environments() -> set[str]:
    """
    The environments of tox.
    """
    tox = ConfigParser(interpolation=None)
    tox.read(CHECKOUT / "tox.ini", encoding="utf-8")
    found = {name.strip() for name in tox["tox"]["env_list"].split(",")}
    for section in tox.sections():
        name, braces, suffixes = section.removeprefix("testenv:").partition("{")
        if section.startswith("testenv:"):
            found |= {name + one for one in suffixes.rstrip("}").split(",")} if braces else {name}
    return found


def namedIn(text: str) -> Iterator[str]:
    """
    Yield the environments that a file names: after C{tox -e}, and in the matrix of a job.
    """
    yield from re.findall(r"\btox -e ([\w-]+)", text)
    for several in re.findall(r"^ +environment: \[(.*)\]$", text, re.MULTILINE):
        yield from several.split(", ")
    yield from re.findall(r"^ +- environment: ([\w-]+)$", text, re.MULTILINE)


@pytest.mark.parametrize("path", NAMING, ids=lambda path: path.name)
def test_environmentsExist(path: Path) -> None:
    """
    Each environment that is named can be run.
    """
    named = set(namedIn(path.read_text(encoding="utf-8")))
    assert named
    assert named - environments() == set()


def test_missingEnvironmentIsFound() -> None:
    """
    The check above can fail.
    """
    text = "run: tox -e gone\n        environment: [lint, lost]\n          - environment: left\n"
    assert set(namedIn(text)) - environments() == {"gone", "lost", "left"}


def test_testedOnEachSupportedPython() -> None:
    """
    The tests run on each Python that the package says that it supports, and on each system.
    """
    setup = ConfigParser(interpolation=None)
    setup.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    supported = re.findall(
        r":: Python :: (3\.\d+)$", setup["metadata"]["classifiers"], re.MULTILINE
    )
    ci = CI.read_text(encoding="utf-8")
    [tested] = re.findall(r"^ +python: \[(.*)\]$", ci, re.MULTILINE)
    assert re.findall(r"[\d.]+", tested) == supported
    assert all(re.search(rf"\b{system}-", ci) for system in ("ubuntu", "macos", "windows"))


def test_oldestIsTheLowestThatIsRequired() -> None:
    """
    The Twisted and the Automat of the environment C{oldest} are the lowest that setup.cfg allows.
    """
    tox, setup = ConfigParser(interpolation=None), ConfigParser(interpolation=None)
    tox.read(CHECKOUT / "tox.ini", encoding="utf-8")
    setup.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    lowest = re.findall(
        r"^(twisted|automat)\S*>=([\d.]+)$", setup["options"]["install_requires"], re.MULTILINE
    )
    assert {name for name, _ in lowest} == {"twisted", "automat"}
    for name, version in lowest:
        assert tox["lowest"][name].startswith(version)
