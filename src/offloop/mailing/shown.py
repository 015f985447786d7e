"""What a mail shows of a text that was logged: without secrets, printable, and no more than fits.

Pure. Everything that stands in a mail and is not our own has been through here, so that what renders it need not ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from offloop.capture import text_of
from offloop.mailing.headers import one_line, printable
from offloop.mailing.redaction import Redactor

__all__ = ["Shown", "counted", "day_of", "moment", "span"]

_AHEAD = 1024  # characters looked at behind those that are shown: a secret that is cut in two is none to a pattern
_SLICE = 2048
_PIECE = 16 * 1024
_LONGEST = 4 * 1024 * 1024  # characters of one text: to look through more takes seconds


@dataclass(frozen=True, slots=True)
class Shown:
    """How texts are shown.

    Attributes:
        redact: Hides their secrets.
        breathe: Called between pieces of work.
    """

    redact: Redactor
    breathe: Callable[[], object] = bool

    def line(self, value: object, limit: int = 100) -> str:
        """One line of at most so many characters."""
        self.breathe()
        return one_line(self.redact(text_of(value)[: limit * 4 + _AHEAD], self.breathe), limit)

    def first_line(self, value: object, limit: int = 100) -> str:
        """The first line that is not empty, of at most so many characters."""
        text = self.redact(text_of(value)[: limit * 4 + _AHEAD], self.breathe)
        return one_line(next((line for line in text.splitlines() if line.strip()), ""), limit)

    def text(self, value: object, limit: int) -> tuple[str, int]:
        """Its lines, as many characters as are asked for, and how many characters are left out."""
        text = text_of(value)
        length = len(text)
        left = max(0, length - limit)
        text = self.redact(text[: limit + _AHEAD] if left else text, self.breathe)
        if left:
            # What is hidden is shorter or longer than it was: about as much is shown as was asked for.
            text = text[:limit]
        return self.clean(text), left

    def clean(self, text: str) -> str:
        """Text whose secrets are hidden already, printable, without line ends around it."""
        return self.lines(text).strip("\n")

    def lines(self, text: str) -> str:
        """Text whose secrets are hidden already, printable, with plain line ends."""
        text = text.replace("\r\n", "\n")
        pieces: list[str] = []
        for start in range(0, len(text), _SLICE):
            pieces.append(printable(text[start : start + _SLICE]))
            self.breathe()
        return "".join(pieces)

    def pieces(self, text: str) -> Iterator[str]:
        """The whole of a text, and a line's end, piece by piece; of one that is very long, the beginning."""
        hidden = self.redact(text[:_LONGEST], self.breathe)
        for start in range(0, len(hidden), _PIECE):
            yield self.lines(hidden[start : start + _PIECE])
        if len(text) > _LONGEST:
            yield f"\n[{len(text) - _LONGEST:,} characters of this record left out here]"
        yield "\n"

    def pair(self, name: object, value: object, limit: int = 200) -> tuple[str, str]:
        """A name and its value, each as a line."""
        key, text = text_of(name), text_of(value)[: limit * 4 + _AHEAD]
        return self.line(key, 60), one_line(self.redact.pair(key[:200], text, self.breathe), limit)


def moment(seconds: float) -> str:
    """Seconds since the epoch to the second, in UTC."""
    try:
        return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (TypeError, ValueError, OverflowError, OSError):
        return one_line(text_of(seconds), 30)


def day_of(seconds: float) -> str:
    """The day of that."""
    return moment(seconds).partition(" ")[0]


def span(first: float, last: float) -> str:
    """From then to then, in UTC; the day once where it is the same."""
    begin, end = moment(first), moment(last)
    if begin == end:
        return f"{begin} UTC"
    if day_of(first) == day_of(last):
        end = end.partition(" ")[2] or end
    return f"{begin} to {end} UTC"


def counted(number: int, noun: str) -> str:
    """As in "1 record" and "1,200 records"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
