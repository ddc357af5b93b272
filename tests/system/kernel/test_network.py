# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Where the kernel suite can not run, it says why.
"""

from __future__ import annotations

import os
import shutil
import sys

import pytest

from .network import whyNot


@pytest.fixture(autouse=True)
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A Linux where nothing is missing.
    """
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    monkeypatch.setattr(shutil, "which", lambda tool: f"/usr/sbin/{tool}")


def test_otherSystem(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    On another system the reason is the system.
    """
    monkeypatch.setattr(sys, "platform", "darwin")
    assert whyNot() == "Network namespaces are Linux's, and this is darwin."


@pytest.mark.parametrize(
    ("there", "missing"), [({"ip"}, "nft"), ({"nft"}, "ip"), (set(), "ip and nft")]
)
def test_toolMissing(there: set[str], missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A missing tool is named.
    """
    monkeypatch.setattr(shutil, "which", lambda tool: tool if tool in there else None)
    reason = f"The kernel suite needs {missing}, which this machine does not have."
    assert whyNot() == reason


def test_notRoot(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Who is not root is told that root is needed.
    """
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    assert whyNot() == "The kernel suite makes network namespaces, and only root may."
