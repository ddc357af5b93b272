# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The wheel, as a user gets it: installed without extras, and looked at from a folder that is not the
checkout, which would mask what the wheel lacks.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import twisted_heartbeat

SITE = Path(sysconfig.get_path("purelib"))
PLUGINS = SITE / "twisted" / "plugins"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """
    Run a command of this environment.
    """
    program = Path(sys.executable).with_name(arguments[0])
    return subprocess.run(
        [str(program), *arguments[1:]],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def coldCache() -> None:
    """
    Twisted has not seen its plugins yet, as after an installation.
    """
    (PLUGINS / "dropin.cache").unlink(missing_ok=True)


def test_itIsTheWheel() -> None:
    """
    What is tested here is what was installed.
    """
    assert Path(twisted_heartbeat.__file__) == SITE / "twisted_heartbeat" / "__init__.py"


def test_content() -> None:
    """
    The wheel holds the package, its subpackages, its types and the plugin, and no file that would
    take over a folder of Twisted's or anybody's name.
    """
    files = {str(f) for f in importlib.metadata.files("twisted_heartbeat") or ()}
    assert {
        "twisted_heartbeat/__init__.py",
        "twisted_heartbeat/core/__init__.py",
        "twisted_heartbeat/link/link.py",
        "twisted_heartbeat/testing/__init__.py",
        "twisted_heartbeat/py.typed",
        "twisted_heartbeat/status/static/index.html",
        "twisted_heartbeat/status/static/main.js",
        "twisted_heartbeat/status/static/status.css",
        "twisted/plugins/twisted_heartbeat_plugin.py",
    } <= files
    assert not {"twisted/__init__.py", "twisted/plugins/__init__.py"} & files
    own = {f for f in files if not f.startswith(("twisted_heartbeat", "../"))}
    assert {f for f in own if "__pycache__" not in f} == {
        "twisted/plugins/twisted_heartbeat_plugin.py"
    }


NEED_EXTRAS = {
    "checkin.client": "treq",
    "checkin.connections": "treq",
    "checkin.sender": "treq",
    "demo.checkin": "treq",
    "status.metrics": "prometheus_client",
}


def test_everyModuleImports() -> None:
    """
    The run-time dependencies are enough for all but a few modules, which ask for their extras.
    """
    found = pkgutil.walk_packages(twisted_heartbeat.__path__, "twisted_heartbeat.")
    names = [module.name for module in found if not module.name.endswith(".__main__")]
    assert "twisted_heartbeat.client" in names
    for module, needed in NEED_EXTRAS.items():
        names.remove(f"twisted_heartbeat.{module}")
        with pytest.raises(ImportError, match=needed):
            importlib.import_module(f"twisted_heartbeat.{module}")
    for name in names:
        assert importlib.import_module(name).__name__ == name


def test_publicNames() -> None:
    """
    Each name the package says it has is there, or says which extra it needs.
    """
    names = set(twisted_heartbeat.__all__)
    for name, extra in {"CheckIn": "http", "HeartbeatMetrics": "metrics"}.items():
        with pytest.raises(ImportError, match=rf"install twisted_heartbeat\[{extra}\]"):
            getattr(twisted_heartbeat, name)
        names.remove(name)
    assert [n for n in names if not hasattr(twisted_heartbeat, n)] == []


def test_pluginIsInstalled() -> None:
    """
    The plugin lies where Twisted looks, in site-packages.
    """
    plugin = importlib.import_module("twisted.plugins.twisted_heartbeat_plugin")
    assert Path(plugin.__file__ or "").parent == PLUGINS


def test_pytestFindsTheFixtures(tmp_path: Path) -> None:
    """
    pytest loads the fixtures by their entry point, wherever it runs, and needs nothing else.
    """
    result = run(tmp_path, "python", "-m", "pytest", "--trace-config", "--collect-only")
    assert str(SITE / "twisted_heartbeat" / "testing" / "fixtures.py") in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("command", ["twist", "twistd"])
@pytest.mark.usefixtures("coldCache")
def test_isListed(tmp_path: Path, command: str) -> None:
    """
    C{twist} and C{twistd} offer C{heartbeat}, and importing the plugin says nothing to anybody.
    """
    result = run(tmp_path, command, "--help")
    assert result.returncode == 0
    assert " heartbeat " in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("reactor", ["default", "asyncio", "select"])
@pytest.mark.usefixtures("coldCache")
def test_anyReactorOnFirstRun(tmp_path: Path, reactor: str) -> None:
    """
    On the first run after an installation Twisted imports every plugin: a reactor can still be
    chosen.
    """
    result = run(tmp_path, "twist", f"--reactor={reactor}", "heartbeat", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert "--within" in result.stdout


@pytest.mark.parametrize("reactor", ["default", "asyncio"])
@pytest.mark.usefixtures("coldCache")
def test_prefixesOnFirstRun(tmp_path: Path, reactor: str) -> None:
    """
    On the first run after an installation Twisted finds what stands before an endpoint's string, on
    any reactor; what is wrong with it is one sentence.
    """
    place = "--listen=heartbeat:keepalive:tcp:0:idel=5"
    result = run(tmp_path, "twist", f"--reactor={reactor}", "heartbeat", place)
    assert result.returncode == 64
    assert "there is no argument 'idel' here: heartbeat: takes within, " in result.stderr
    assert "keepalive: takes idle, " in result.stderr


def test_otherPluginsDoNotLoadUs(tmp_path: Path) -> None:
    """
    Somebody who runs another plugin loads nothing of this package but the plugin's own lines.
    """
    program = (
        "import sys\n"
        "from twisted.plugin import getPlugins\n"
        "from twisted.application.service import IServiceMaker\n"
        "assert 'heartbeat' in [maker.tapname for maker in getPlugins(IServiceMaker)]\n"
        "print([name for name in sys.modules if name.startswith('twisted_heartbeat')])\n"
    )
    result = run(tmp_path, "python", "-c", program)
    assert (result.stdout, result.stderr) == ("[]\n", "")
