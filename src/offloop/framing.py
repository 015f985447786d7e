"""Where one record ends and the next begins in a stream of bytes.

Pure: bytes in, bytes out. No record's content can look like the end of it: what would is escaped or counted.
"""

from __future__ import annotations

import logging
import pickle
import struct
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Final, Literal

from offloop.capture import message_of

__all__ = ["FRAMERS", "Framing", "PickleFormatter", "length_prefixed", "newline", "nul", "octet_count"]

_AT_ONCE = 32

Framing = Literal["newline", "octet-count", "nul", "pickle"]


def newline(messages: Sequence[bytes]) -> bytes:
    r"""Each message on a line of its own, ended by LF.

    A line feed inside a message becomes the two characters `\n`, a carriage return `\r`, since receivers differ in
    which of the two ends a line. Backslashes stay as they are. JSON has neither character, and passes unchanged.

    Framing: RFC 6587, section 3.4.2.
    """
    if not _any_has(messages, b"\n", b"\r"):
        return b"\n".join([*messages, b""])
    return b"".join(message.replace(b"\r", rb"\r").replace(b"\n", rb"\n") + b"\n" for message in messages)


def nul(messages: Sequence[bytes]) -> bytes:
    r"""Each message ended by a NUL byte; one inside a message becomes the four characters `\x00`."""
    if not _any_has(messages, b"\0"):
        return b"\0".join([*messages, b""])
    return b"".join(message.replace(b"\0", rb"\x00") + b"\0" for message in messages)


def _any_has(messages: Sequence[bytes], *ends: bytes) -> bool:
    # Looked for in several at once: nearly always there is none, and to count those of the whole takes much longer.
    pieces = (b"".join(messages[start : start + _AT_ONCE]) for start in range(0, len(messages), _AT_ONCE))
    return any(end in piece for piece in pieces for end in ends)


def octet_count(messages: Sequence[bytes]) -> bytes:
    """Each message behind its length in decimal and a space; it may hold any bytes.

    Framing: RFC 6587, section 3.4.1. A length of 0 has no place in that grammar: an empty message becomes one space.
    """
    return b"".join(b"%d %b" % (len(message) or 1, message or b" ") for message in messages)


def length_prefixed(messages: Sequence[bytes]) -> bytes:
    """Each message behind its length as four bytes, the highest first, as the standard `SocketHandler` writes it."""
    return b"".join(struct.pack(">L", len(message)) + message for message in messages)


FRAMERS: Final[Mapping[str, Callable[[Sequence[bytes]], bytes]]] = MappingProxyType(
    {"newline": newline, "octet-count": octet_count, "nul": nul, "pickle": length_prefixed}
)
"""What frames a batch, by the name users give."""


class PickleFormatter(logging.Formatter):
    """A record as the standard `SocketHandler` pickles it: for receivers that call `logging.makeLogRecord`."""

    pure: ClassVar[bool] = True
    """It changes no record that it formats: sinks may share one."""

    def encode(self, record: logging.LogRecord) -> bytes:
        """The record's attributes as a pickle of protocol 1: message merged, no arguments, the traceback as text."""
        attributes = record.__dict__.copy()
        attributes.update(msg=message_of(record), args=None, exc_info=None)
        # A formatter's leftover, the same text as `msg` once more.
        attributes.pop("message", None)
        return pickle.dumps(attributes, 1)
