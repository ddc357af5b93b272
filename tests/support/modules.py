# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Files outside of the package, as modules.
"""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any


def imported(path: Path) -> Any:
    """
    Run a file, and return its module.
    """
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
