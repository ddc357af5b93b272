# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Where the manual's examples are, and those that are imported and not run.
"""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"


def imported(folder: str, name: str) -> Any:
    """
    A module that a page shows.
    """
    spec = spec_from_file_location(name, EXAMPLES / folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
