# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{MethodCover}: what it covers, and what it leaves behind.
"""

from __future__ import annotations

from typing import Any

from twisted_heartbeat.protocol.overrides import MethodCover


class Greeter:
    """
    An object of an application's.
    """

    def greet(self, name: str) -> str:
        """
        Say hello.
        """
        return f"hello {name}"


class Slotted:
    """
    An object without a place for another method.
    """

    __slots__ = ()

    def greet(self, name: str) -> str:
        """
        Say hello.
        """
        return f"hello {name}"


class Stubborn(Greeter):
    """
    An object that prefers its own method, whatever is set.
    """

    def __getattribute__(self, name: str) -> Any:
        if name == "greet":
            return lambda name: f"again {name}"
        return super().__getattribute__(name)


def shout(name: str) -> str:
    """
    A replacement.
    """
    return name.upper()


def test_coverIsCalledUntilItIsLifted() -> None:
    """
    A laid cover is called in the method's place; a lifted one leaves nothing in the instance.
    """
    one = Greeter()
    cover = MethodCover(one, "greet", shout)
    assert cover.lay()
    assert one.greet("you") == "YOU"
    assert cover.covered("you") == "hello you"
    cover.lift()
    assert one.greet("you") == "hello you"
    assert vars(one) == {}


def test_coverPassesForTheMethod() -> None:
    """
    A program that asks for the method's name gets it.
    """
    one = Greeter()
    MethodCover(one, "greet", shout).lay()
    assert one.greet.__name__ == "greet"


def test_instancesOwnMethodIsPutBack() -> None:
    """
    A method of the instance, and not of its class, is there again after the cover is lifted.
    """
    one: Any = Greeter()
    one.greet = own = "{} there".format
    cover = MethodCover(one, "greet", shout)
    cover.lay()
    cover.lift()
    assert one.greet is own


def test_applicationsMethodOverTheCoverStays() -> None:
    """
    A method that the application has put over the cover stays when the cover is lifted.
    """
    one: Any = Greeter()
    cover = MethodCover(one, "greet", shout)
    cover.lay()
    one.greet = own = "{} there".format
    cover.lift()
    assert one.greet is own


def test_lowerCoverIsLiftedFromUnderTheUpper() -> None:
    """
    Of two covers on one another either may be lifted first.
    """
    for lowerFirst in (True, False):
        one = Greeter()
        lower = MethodCover(one, "greet", shout)
        lower.lay()
        upper = MethodCover(one, "greet", str.title)
        upper.lay()
        assert upper.covered("you") == "YOU"
        for cover in (lower, upper) if lowerFirst else (upper, lower):
            cover.lift()
        assert one.greet("you") == "hello you"
        assert vars(one) == {}


def test_whatCanNotBeCoveredIsLeftAlone() -> None:
    """
    An object with C{__slots__}, or one that prefers its own method, is not covered, and not
    changed.
    """
    for one in (Slotted(), Stubborn()):
        cover = MethodCover(one, "greet", shout)
        assert not cover.lay()
        cover.lift()
        assert one.greet("you") in ("hello you", "again you")
        assert getattr(one, "__dict__", {}) == {}
