# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{SettingOptions}: options that are the settings of a file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.python.usage import Options, UsageError

from .config import model
from .config.kinds import numberOf
from .config.values import Path

_T = TypeVar("_T")


class SettingOptions(Options):
    """
    Options that are checked as the settings of a file are, for the class of all options to inherit.

    @ivar settings: what has been said, each with its place in a file.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.settings: list[tuple[Path, object]] = []

    @property
    def reactor(self) -> Any:
        """
        The reactor that everything runs on.
        """
        raise NotImplementedError

    def check(self, option: str, text: str, make: Callable[[str], _T]) -> _T:
        """
        Return what a function makes of an option's value.

        @param make: takes the text; its C{ValueError} says what is allowed.
        @raise UsageError: if it raises that.
        """
        try:
            return make(text)
        except ValueError as error:
            raise wrongOption(option, text, str(error)) from None

    def read(self, option: str, text: str, *path: str) -> object:
        """
        Return an option's value, as a file would have it.

        @param path: where the file would have it.
        @raise UsageError: if it is not allowed.
        """
        section = model.FILE
        for name in path[:-1]:
            section = section.section(name) or section
        key = section.key(path[-1])
        assert key is not None
        value = numberOf(text) if key.kind.isNumber else text
        self.check(option, text, lambda _: key.kind.read(value))
        return value

    def set(self, option: str, text: str, *path: str) -> None:
        """
        Note a setting.

        @param path: where the file would have it.
        @raise UsageError: if its value is not allowed.
        """
        self.settings.append((path, self.read(option, text, *path)))


def wrongOption(option: str, value: str, allowed: str) -> UsageError:
    """
    Return the error of a value that is not allowed.
    """
    return UsageError(f"--{option} is {value!r}: it must be {allowed}")
