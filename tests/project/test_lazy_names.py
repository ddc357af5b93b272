# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The public names that are loaded on first use.
"""

from __future__ import annotations

import pytest

import twisted_heartbeat


def test_unknownNameIsAnAttributeError() -> None:
    """
    A name that the package does not have is an C{AttributeError} that names both.
    """
    with pytest.raises(AttributeError, match=r"'twisted_heartbeat' has no attribute 'Heartbaet'"):
        twisted_heartbeat.Heartbaet  # noqa: B018


def test_lazyNameIsLoadedAndKept(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A lazy name is loaded from its module on first use, and is found without that from then on.
    """
    monkeypatch.setitem(twisted_heartbeat._LAZY, "printable", ".core.text")
    found = twisted_heartbeat.printable
    try:
        assert found("\x1b") == "\\x1b"
        assert vars(twisted_heartbeat)["printable"] is found
    finally:
        del twisted_heartbeat.printable


def test_missingExtraIsNamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A package that only an extra installs, and that is missing, is one sentence that says which
    extra to install.
    """
    monkeypatch.setitem(twisted_heartbeat._LAZY, "Absent", "nosuchpackage")
    monkeypatch.setitem(twisted_heartbeat._EXTRAS, "nosuchpackage", "absent")
    words = r"Absent needs nosuchpackage: install twisted_heartbeat\[absent\]"
    with pytest.raises(ImportError, match=words):
        twisted_heartbeat.Absent  # noqa: B018


def test_failingImportOfAnotherPackageIsNotHidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A missing package that no extra stands for keeps its own error.
    """
    monkeypatch.setitem(twisted_heartbeat._LAZY, "Absent", "nosuchpackage")
    with pytest.raises(ModuleNotFoundError, match="No module named 'nosuchpackage'"):
        twisted_heartbeat.Absent  # noqa: B018


def test_everyPublicNameIsThere() -> None:
    """
    Each name of C{__all__} can be had, and C{dir} lists it.
    """
    for name in twisted_heartbeat.__all__:
        assert getattr(twisted_heartbeat, name) is not None
        assert name in dir(twisted_heartbeat)
