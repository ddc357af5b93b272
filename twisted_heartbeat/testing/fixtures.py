# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
The fixtures that pytest finds here by the package's entry point.

pytest-twisted and the reactor are imported only inside the fixtures.  Every run of pytest loads
this module, and a run may choose any reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from twisted.internet.defer import Deferred, gatherResults

from .datagramproxy import DatagramFaultProxy
from .streamproxy import FaultProxy

_P = TypeVar("_P", FaultProxy, DatagramFaultProxy)


@pytest.fixture
def faultProxy() -> Iterator[Callable[..., Deferred[FaultProxy]]]:
    """
    Make listening FaultProxy objects: C{proxy = await faultProxy(("127.0.0.1", port))}.

    The arguments are those of FaultProxy after the reactor. The proxies are closed after the test.
    Needs pytest-twisted.
    """
    yield from _lend(FaultProxy)


@pytest.fixture
def datagramFaultProxy() -> Iterator[Callable[..., Deferred[DatagramFaultProxy]]]:
    """Make listening DatagramFaultProxy objects, as the fixture faultProxy does."""
    yield from _lend(DatagramFaultProxy)


def _lend(kind: type[_P]) -> Iterator[Callable[..., Deferred[_P]]]:
    from pytest_twisted import blockon
    from twisted.internet import reactor

    made: list[_P] = []

    def make(target: Any, **options: Any) -> Deferred[_P]:
        proxy = kind(reactor, target, **options)
        made.append(proxy)
        return proxy.listen().addCallback(lambda _: proxy)

    yield make
    blockon(gatherResults([proxy.close() for proxy in made]))
