# Copyright (c) twisted_heartbeat contributors.
# See LICENSE for details.

"""
L{Fault}: what is wrong in a file, as one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from ...core.text import printable
from .model import Section
from .values import Path


@dataclass(frozen=True)
class Fault:
    """
    A fault of a file.

    @ivar path: the key; empty if the fault is the file's as a whole.
    @ivar words: what is wrong, as the rest of a sentence that the key begins.
    @ivar line: where, if that is known already; otherwise the key's line is looked up.
    @ivar meant: the key that was probably meant, if this one does not exist.
    """

    path: Path
    words: str
    line: int | None = None
    meant: Path | None = None

    def sentence(self, file: str, lines: Mapping[Path, int]) -> str:
        """
        Return the fault with its file, its line where that is certain, and its key.
        """
        line = lines.get(self.path) if self.line is None else self.line
        where = file if line is None else f"{file}:{line}"
        key = keyText(self.path)
        separator = "" if self.words.startswith(":") or not key else " "
        return printable(f"{where}: {key}{separator}{self.words}")


class ConfigError(Exception):
    """
    A configuration that cannot be used.

    @ivar sentences: all its faults.
    """

    def __init__(self, sentences: Iterable[str]) -> None:
        self.sentences = tuple(sentences)
        super().__init__("\n".join(self.sentences))


def keyText(path: Path) -> str:
    """
    Return a key as a message names it: C{listen#2.endpoint} is in the second C{listen}.
    """
    text = ""
    for part in path:
        text += f"#{part + 1}" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def relationFault(message: str, path: Path, fields: Container[str]) -> Fault:
    """
    Return the fault of values that are wrong together, such as a maximum below the initial value.

    @param message: of the settings class: it begins with the class and the field.
    @param path: the table.
    @param fields: those that the table says.
    """
    subject, _, words = message.partition(" ")
    field = subject.rpartition(".")[2]
    return Fault((*path, keyName(field)) if field in fields else path, words)


def keyName(field: str) -> str:
    """
    Return the key that sets a field, such as C{close-timeout} of C{closeTimeout}.
    """
    return re.sub("[A-Z]", lambda found: f"-{found[0].lower()}", field)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def unknownKey(path: Path, section: Section, whole: Section) -> Fault:
    """
    Return the fault of a key that its section does not have: it tells the name that was probably
    meant, or all names.

    @param whole: the whole file, in which the name may stand elsewhere.
    """
    names, name = section.names, str(path[-1])
    alike = [known for known in names if _plain(known) == _plain(name)]
    near = alike or get_close_matches(name.lower(), names, n=1, cutoff=0.7)
    if near:
        return Fault(path, f": did you mean {near[0]}?", meant=(*path[:-1], near[0]))
    for above, other in whole.walk():
        if above and other.key(name) is not None:
            return Fault(path, f": did you mean {'.'.join([*above, name])}?")
    place = f"[{section.name}]" if section.name else "the file"
    return Fault(path, f": there is no such key; {place} has {', '.join(names)}")
