# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
Run other projects' tests with trial, in a process of their own.

A script calls L{runTrial} and prints a JSON object; L{runScript} starts such a script.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.trial import reporter, runner


def runTrial(name: str, folder: str) -> dict[str, Any]:
    """
    Run the tests of one name in this process.

    @param name: of a package, a module, a case or a test.
    @param folder: where trial may write.
    @return: C{run}, the number of tests run, without those skipped; C{failed}, the id of each test
        that failed -> its complaint.
    """
    # Trial collects garbage again and again: without the freeze it visits all loaded modules, too.
    gc.collect()
    gc.freeze()
    with open(os.devnull, "w") as nowhere:
        trial = runner.TrialRunner(
            reporter.Reporter, stream=nowhere, workingDirectory=os.path.join(folder, "trial")
        )
        result = trial.run(runner.TestLoader().loadByName(name, recurse=True))
    failed: dict[str, str] = {}
    for test, failure in [*result.failures, *result.errors]:
        failed.setdefault(test.id(), str(failure.value).strip())
    return {"run": result.testsRun - len(result.skips), "failed": failed}


def runScript(
    script: Path, *arguments: str, timeout: float, environment: Mapping[str, str] | None = None
) -> Any:
    """
    Run a script in a process of its own, because the tests need a reactor of their own.

    @param timeout: seconds after which the process is killed and C{TimeoutExpired} raised.
    @param environment: variables that replace or extend those of this process.
    @return: the JSON object that the script printed last.
    """
    answer = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(environment or {})},
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])
