# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
How the programs of the manual are run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from .recipes.program import Program

Start = Callable[..., Program]


@pytest.fixture
def start() -> Iterator[Start]:
    """
    Start a program, which ends with the test.
    """
    programs: list[Program] = []

    def started(*command: object, **options: Any) -> Program:
        programs.append(Program(*command, **options))
        return programs[-1]

    yield started
    pytest_twisted.blockon(gatherResults([program.end() for program in programs]))
