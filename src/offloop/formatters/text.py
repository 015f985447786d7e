"""Records as lines for people."""

from __future__ import annotations

import logging
import re
from typing import Any, ClassVar

from offloop.capture import extras, message_of, text_of
from offloop.formatters.encoding import to_json
from offloop.formatters.fields import failure_of
from offloop.formatters.times import iso_time

__all__ = ["TextFormatter"]

# C0 without tab, DEL, C1 (an 8-bit terminal takes U+009B for ESC [), line and paragraph separators, the marks that turn
# the direction of what is shown, and surrogates, which UTF-8 can't hold.
_CONTROLS = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_unsafe_inline = re.compile(f"[\n{_CONTROLS}]")
_unsafe_in_lines = re.compile(f"[{_CONTROLS}]")
_needs_quotes = re.compile(f'[\\s"=\\\\{_CONTROLS}]|^$')
_not_in_key = re.compile(f'[\\s"={_CONTROLS}]')


class TextFormatter(logging.Formatter):
    r"""One line a record, its traceback and stack below it, each line of those indented by two spaces.

    `2026-11-22T16:20:01.123456Z ERROR shop.cart: no such article article=4711 user="Ann B."`: the time in UTC, level,
    logger, message, and what was given as `extra` in logfmt's form (values other than text as JSON). Control characters
    are escaped (`\n`, `\x1b`), so that no record can be forged and no terminal driven: a line that does not begin with
    two spaces begins a record. Never raises.

    Formatters with the same configuration are equal; a subclass is equal only to itself unless it says otherwise.
    """

    pure: ClassVar[bool] = True
    """It changes no record that it formats: sinks may share one."""

    def __init__(self, *, multiline: bool = False) -> None:
        r"""Choose what becomes of a message with several lines.

        Args:
            multiline: Keep its line breaks, and indent what follows them as a traceback is. Otherwise they are written
                as `\n`.
        """
        super().__init__()
        self._multiline = multiline

    def format(self, record: logging.LogRecord) -> str:
        """The record as text, without a line end at its end."""
        try:
            return self._formatted(record)
        except AttributeError:  # someone took attributes away: with their defaults it goes
            return self._formatted(logging.makeLogRecord(record.__dict__))

    def encode(self, record: logging.LogRecord) -> bytes:
        """The same as UTF-8."""
        return self.format(record).encode()

    def _formatted(self, record: logging.LogRecord) -> str:
        message = text_of(message_of(record))
        extra = extras(record)
        pairs = "".join(f" {_key(name)}={_value(value)}" for name, value in extra.items()) if extra else ""
        head = f"{text_of(record.levelname)} {text_of(record.name)}: "
        line = f"{iso_time(record.created)} {_inline(head)}{self._lines(message)}{pairs}"
        failure = failure_of(record)
        if failure is not None:
            line += _below(failure[1])
        if record.stack_info:
            line += _below(text_of(record.stack_info))
        return line

    def _lines(self, message: str) -> str:
        return _indented(message) if self._multiline else _inline(message)

    def __eq__(self, other: object) -> bool:
        if type(self) is TextFormatter and type(other) is TextFormatter:
            return self._multiline == other._multiline
        return self is other

    def __hash__(self) -> int:
        return hash((TextFormatter, self._multiline))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{' multiline' if self._multiline else ''}>"


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode()


def _inline(text: str) -> str:
    return _unsafe_inline.sub(_escape, text)


def _indented(text: str) -> str:
    return _unsafe_in_lines.sub(_escape, text).replace("\n", "\n  ")


def _below(text: str) -> str:
    return _indented("\n" + text.rstrip("\n"))


def _key(name: object) -> str:
    return _not_in_key.sub("_", text_of(name)) or "_"


def _value(value: Any) -> str:
    if not isinstance(value, str):
        text = to_json(value).decode()
        if text.startswith('"'):
            return _inline(text)  # JSON's quotes and escapes are logfmt's
    else:
        text = text_of(value)
    if not _needs_quotes.search(text):
        return text
    return '"' + _inline(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'
