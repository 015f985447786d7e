"""What records of one kind have in common. Pure."""

from __future__ import annotations

import hashlib
import re
import sysconfig
from collections.abc import Hashable, Iterator
from functools import lru_cache
from pathlib import Path

from offloop.capture import Record
from offloop.records import file_of
from offloop.tracebacks import Frame, FrozenException

__all__ = ["fingerprint", "is_library", "kind_of", "within_library"]

_FRAMES = 3
_FIRST = 200  # characters of a message that was written without arguments
_CHAIN = 5

# What tells two messages apart that were written by one line of a program, as with an f-string.
_VALUES = re.compile(
    r"""'[^']*'|"[^"]*"|\b0x[0-9a-fA-F]+\b|\b(?=[0-9a-fA-F-]*[0-9])[0-9a-fA-F]{8,}(?:-[0-9a-fA-F]{4,}){0,4}\b|[0-9]+"""
)
_FOREIGN = re.compile(r"(?:^|[/\\])(?:site|dist)-packages[/\\]|^<frozen ")
_INSTALLED = re.compile(r".*[/\\](?:site|dist)-packages[/\\]")


def fingerprint(record: Record) -> Hashable:
    """Logger, level, message template, exception type and the innermost frames of the application.

    Of a message without arguments the template is its first 200 characters, with numbers and quoted values left out.
    Frames are told apart by file and function, not by line, so that the next release has the same kinds.
    """
    message = record.template
    if not record.args and message is record.msg:
        message = _VALUES.sub("#", message[:_FIRST])
    exception = record.exception
    if exception is None:
        return record.name, record.levelno, message
    return record.name, record.levelno, message, exception.type_name, tuple(_innermost(exception))


def kind_of(key: Hashable) -> str:
    """16 hexadecimal digits for a fingerprint; the same in each process, as far as its `repr` is."""
    return hashlib.blake2s(repr(key).encode("utf-8", "backslashreplace"), digest_size=8).hexdigest()


@lru_cache(maxsize=4096)
def is_library(filename: str) -> bool:
    """Whether a source file belongs to Python or to an installed package, rather than to the application."""
    return bool(_FOREIGN.search(filename)) or any(Path(filename).is_relative_to(home) for home in _standard())


def within_library(filename: str) -> str:
    """A library's source file without the folder that it was installed in."""
    match = _INSTALLED.search(filename)
    if match is not None:
        return filename[match.end() :]
    path = Path(filename)
    home = next((home for home in _standard() if path.is_relative_to(home)), None)
    return filename if home is None else str(path.relative_to(home))


@lru_cache(maxsize=1)
def _standard() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return tuple({Path(paths[name]) for name in ("stdlib", "platstdlib") if name in paths})


def _innermost(exception: FrozenException) -> Iterator[str]:
    frames = next((ours for linked in _chain(exception) if (ours := _ours(linked))), None)
    for frame in frames or exception.frames[-1:]:
        yield f"{file_of(frame.filename)[0]}:{frame.name}"


def _ours(exception: FrozenException) -> list[Frame]:
    return [frame for frame in exception.frames if not is_library(frame.filename)][-_FRAMES:]


def _chain(exception: FrozenException) -> Iterator[FrozenException]:
    linked: FrozenException | None = exception
    for _ in range(_CHAIN):
        if linked is None:
            return
        yield linked
        linked = linked.cause or linked.context
