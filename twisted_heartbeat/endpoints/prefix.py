# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Prefix}: a word before an endpoint's string, and its arguments.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from twisted.internet.endpoints import clientFromString, serverFromString

from ..transport.compat import argumentsOf

Parse = Callable[[Any, str], Any]
"""A reactor and a description -> an endpoint: C{clientFromString}, or C{serverFromString}."""


class UnknownArgument(ValueError):
    """
    An argument that no part of a description takes.

    @ivar argument: its name.
    @ivar takers: which arguments each part takes, from the outermost in.
    """

    def __init__(self, argument: str, takers: Iterable[str]) -> None:
        self.argument = argument
        self.takers = tuple(takers)
        super().__init__(f"there is no argument {argument!r} here: {'; '.join(self.takers)}")


@dataclass(frozen=True)
class Prefix:
    """
    A prefix of endpoint strings.

    @ivar word: its word, without the colon.
    @ivar arguments: the names of its arguments.
    @ivar example: a whole string, for the message of an error.
    """

    word: str
    arguments: tuple[str, ...]
    example: str

    @property
    def takes(self) -> str:
        """
        The names of its arguments, as a sentence.
        """
        return f"{self.word}: takes {', '.join(self.arguments)}"

    def split(
        self, arguments: Iterable[Any], keywords: Mapping[str, Any]
    ) -> tuple[str, dict[str, str]]:
        """
        Split the arguments that Twisted's parser has found between prefix and endpoint.

        In the flat form, C{keepalive:tcp:host:7000:idle=5}, the prefix takes the keywords that it
        knows, and the endpoint all else.  In the quoted form,
        C{keepalive:tcp\\:host\\:7000:idle=5}, all that is not quoted is the prefix's.

        @return: the description of the endpoint behind the prefix, and the prefix's own arguments.
        @raise ValueError: if there is no endpoint, or an argument follows a quoted endpoint and the
            prefix does not know it.
        """
        positional = [_text(argument) for argument in arguments]
        named = {_text(name): _text(value) for name, value in keywords.items()}
        quoted = self._quoted(positional, named)
        own = {name: value for name, value in named.items() if name in self.arguments}
        others = {name: value for name, value in named.items() if name not in self.arguments}
        if quoted is None:
            if not positional or not positional[0]:
                raise ValueError(
                    f"{self.word}: stands before no endpoint: there must be one, "
                    f"as in {self.example}"
                )
            return _joined(positional, others), own
        for name in others:
            raise UnknownArgument(name, [f"{self.takes}, and the endpoint is within its quotes"])
        for argument in positional:
            raise ValueError(
                f"{self.word}: stands before {quoted!r}, and {argument!r} follows that: "
                f"there may only be {', '.join(self.arguments)}"
            )
        return quoted, own

    @staticmethod
    def _quoted(positional: list[str], named: dict[str, str]) -> str | None:
        """
        Take out the endpoint, if it is quoted.  No name of an endpoint has a colon, so a first
        argument with one is a quoted endpoint.
        """
        if positional:
            return positional.pop(0) if ":" in positional[0] else None
        for name in named:
            if ":" in name:
                # Twisted's quoteStringArgument leaves the first of the endpoint's own "=" bare.
                return f"{name}={named.pop(name)}"
        return None

    def inner(self, parse: Parse, reactor: Any, description: str) -> Any:
        """
        Parse the endpoint behind the prefix.

        @raise ValueError: in place of the C{TypeError} that Twisted's own endpoints raise for an
            unknown or missing argument.  All other exceptions pass.
        """
        try:
            return parse(reactor, description)
        except UnknownArgument as error:
            raise UnknownArgument(error.argument, [self.takes, *error.takers]) from error
        except TypeError as error:
            said = " ".join(str(error).split())
            for name in argumentsOf(description):
                if repr(name) in said:
                    behind = f"and of {description!r} it is said: {said}"
                    raise UnknownArgument(name, [self.takes, behind]) from error
            raise ValueError(
                f"{self.word}: can not stand before {description!r}, of which it is said: {said}"
            ) from error


def _text(word: str | bytes) -> str:
    return word if isinstance(word, str) else word.decode("utf-8", "surrogateescape")


def _escaped(text: str) -> str:
    # Twisted's quoteStringArgument leaves "=" bare, and a value would end there.
    for special in "\\:=":
        text = text.replace(special, "\\" + special)
    return text


def _joined(arguments: Iterable[str], keywords: Mapping[str, str]) -> str:
    """
    Return the string from which Twisted's parser makes these arguments.
    """
    pairs = [f"{_escaped(name)}={_escaped(value)}" for name, value in keywords.items()]
    return ":".join([*map(_escaped, arguments), *pairs])


_PARSERS = (clientFromString.__code__, serverFromString.__code__)


def wholeDescription() -> str | bytes:
    """
    Return the whole string that Twisted is parsing; C{""} where Python does not tell.  Arguments
    alone do not show repetition, because Twisted's parser hands on only the last of one name.
    """
    frame = sys._getframe() if hasattr(sys, "_getframe") else None
    while frame is not None:
        if frame.f_code in _PARSERS:
            return cast("str | bytes", frame.f_locals.get("description", ""))
        frame = frame.f_back
    return ""


def namedArguments(description: str | bytes) -> Iterator[tuple[str, str]]:
    """
    The names and values of the C{name=value} arguments in the whole string of an endpoint, without
    their backslashes.
    """
    for argument in re.findall(r"(?:\\.|[^\\:])+", _text(description), re.DOTALL):
        named = re.fullmatch(r"((?:\\.|[^\\=])*)=(.*)", argument, re.DOTALL)
        if named is not None:
            name, value = (
                re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in named.groups()
            )
            yield name, value


def refuseRepeated(word: str, description: str | bytes) -> None:
    """
    Raise, if an argument is given twice.

    @param description: the whole string of an endpoint.
    @raise ValueError: names the argument, and both values.
    """
    found: dict[str, str] = {}
    for name, value in namedArguments(description):
        if name in found:
            raise ValueError(
                f"{word}: {name} is given twice, as {found[name]!r} and as {value!r}: "
                "it may be given once"
            )
        found[name] = value


def _number(text: str) -> Any:
    """
    Return the number that a text is.  Return any other text unchanged: the settings class then
    raises an error that names the field.
    """
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def numbersOf(own: Mapping[str, str]) -> dict[str, Any]:
    """
    Return the arguments of a prefix as numbers.  Text that is no number stays text, so that the
    setting refuses it with its own words.
    """
    return {name: _number(text) for name, text in own.items()}
