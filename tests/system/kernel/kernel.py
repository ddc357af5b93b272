# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Kernel}: one run of the suite.  All experiments of a session run at once, each in a thread, on
lanes of their own, so that the suite takes no longer than the longest of them.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import trustme

from .cells import PEER_NAME
from .network import HERE, THERE, Lane, Network
from .processes import Journal, Process


class Experiment(Protocol):
    """
    What runs in a thread.
    """

    def run(self) -> Any:
        """Do it, and say what came of it."""


def makeCertificates(folder: Path) -> None:
    """
    Make a CA, the certificates of both sides, and those of a stranger.
    """
    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    other.cert_pem.write_to_path(folder / "otherCa.pem")
    for name, issuer in (("peer", ca), ("watcher", ca), ("stranger", other)):
        issuer.issue_cert(PEER_NAME).private_key_and_cert_chain_pem.write_to_path(
            folder / f"{name}.pem"
        )


class Kernel:
    """
    One run: a pair of namespaces, a journal, and the processes.

    @ivar rowsWatcher: the process that watches all rows.
    """

    rowsWatcher: Process

    def __init__(self) -> None:
        self.journal = Journal()
        self._folder = tempfile.TemporaryDirectory(prefix="kernel")
        self.folder = Path(self._folder.name)
        makeCertificates(self.folder)
        self._network = Network()
        self._lock = threading.Lock()
        self._processes: list[Process] = []
        self._results: dict[str, Future[Any]] = {}
        self._closed = False

    def lanes(self, count: int) -> list[Lane]:
        """
        So many new lanes.
        """
        with self._lock:
            return self._network.addLanes(count)

    def watcher(
        self, *, reactor: str = "epoll", environment: Mapping[str, str] | None = None
    ) -> Process:
        """
        A new process of twisted_heartbeat's on the watcher's side.

        @param reactor: as C{twist --reactor} names it.
        """
        return self._start("watcher.py", HERE, reactor, environment=environment)

    def bare(self) -> Process:
        """
        A new process of bare Twisted on the watcher's side.
        """
        return self._start("bare.py", HERE)

    def peer(self) -> Process:
        """
        A new process on the peer's side.
        """
        return self._start("peer.py", THERE)

    def _start(
        self, script: str, end: str, *words: str, environment: Mapping[str, str] | None = None
    ) -> Process:
        namespace = self._network.names[end]
        process = Process(
            script, namespace, self.journal, self.folder, *words, environment=environment
        )
        with self._lock:
            self._processes.append(process)
        return process.started()

    def begin(self, name: str, run: Callable[[], Any]) -> None:
        """
        Run something in a thread of its own.
        """
        future: Future[Any] = Future()
        self._results[name] = future

        def work() -> None:
            try:
                future.set_result(run())
            except BaseException as error:  # To be raised by the test that wants the result.
                future.set_exception(error)

        threading.Thread(target=work, name=name, daemon=True).start()

    def result(self, name: str, within: float) -> Any:
        """
        What came of it.

        @raise TimeoutError: if it takes longer than that.
        """
        return self._results[name].result(within)

    def finished(self) -> dict[str, Any]:
        """
        What came of all that has finished.
        """
        return {
            name: result.result()
            for name, result in self._results.items()
            if result.done() and result.exception() is None
        }

    def close(self) -> None:
        """
        End all processes and remove the namespaces, whatever has happened; once.
        """
        if self._closed:
            return
        self._closed = True
        try:
            # At once: each has links to end, and an interpreter.
            with ThreadPoolExecutor(len(self._processes) or 1) as threads:
                list(threads.map(Process.end, self._processes))
        finally:
            self._network.remove()
            self._folder.cleanup()
