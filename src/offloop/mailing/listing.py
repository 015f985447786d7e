"""A batch of records as one mail that a person can read: text, HTML, and headers that nothing logged can forge.

Pure: the same batch gives the same bytes in every attempt. Nothing here asks the network, not even for a host name.
Whole mails are built without `email.message`: its folding and flattening keep the interpreter for milliseconds, and
some of its versions decode an encoded word in a value into a header of its own.

Formats: RFC 5322 (message), RFC 2045 to 2047 (MIME), RFC 3834 (Auto-Submitted).
"""

from __future__ import annotations

import binascii
import copy
import html
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime

from offloop.capture import Record, message_of
from offloop.mailing.headers import Mailbox, Subject, encoded, one_line, printable

__all__ = ["Letter", "compose"]

_SLICE = 512  # characters worked on at a time: some microseconds
_PIECE_BYTES = 64 * 1024
_NOTES = 2_048  # bytes kept free for saying what was left out
_LEVELS_BYTES = 100  # of the levels in that; each byte may take three in each part
_SHARES = 4  # one record among several takes at most such a part of a mail

_AT_MARGIN = re.compile(r"\n[^ \t\n]")

_COLOURS = ((logging.ERROR, "#d64545"), (logging.WARNING, "#c98a00"), (logging.INFO, "#3f7fbf"), (0, "#8a8a8a"))
# No colour of text or ground is set, so that a dark mail program stays dark.
_HTML_HEAD = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
    '<meta name="color-scheme" content="light dark"></head>\n'
    '<body style="margin:0 auto;max-width:64em;padding:8px;font:15px/1.4 system-ui,sans-serif">\n'
)
_HTML_RECORD = (
    '<pre style="margin:0 0 8px;padding:4px 8px;border-left:4px solid {colour};'
    'white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.4 ui-monospace,monospace">'
)
_HTML_TAIL = "</body></html>\n"


@dataclass(frozen=True, slots=True)
class Letter:
    """What all mails of a sink have in common.

    Attributes:
        sender: Whom they come from.
        to: Whom they go to.
        subject: The template of the subject.
        host: What the mails call this machine.
        html: Whether there is an HTML part beside the text.
    """

    sender: Mailbox
    to: tuple[Mailbox, ...]
    subject: Subject
    host: str
    html: bool


@dataclass(slots=True)
class _Draft:
    """The two bodies under construction, in quoted-printable, with the bytes they have."""

    html: bool
    breathe: Callable[[], object]
    texts: list[bytes] = field(default_factory=list[bytes])
    htmls: list[bytes] = field(default_factory=list[bytes])
    size: int = 0

    def add(self, text: str, markup: str) -> None:
        """Put a piece at the end of each."""
        self.texts.append(_quoted(text))
        self.size += len(self.texts[-1])
        if self.html:
            self.htmls.append(_quoted(markup))
            self.size += len(self.htmls[-1])
        self.breathe()

    def note(self, text: str) -> None:
        """Put a paragraph of our own at the end."""
        self.add(f"{text}\n\n", f"<p>{html.escape(text)}</p>\n")

    def mark(self) -> tuple[int, int, int]:
        """Where to go back to."""
        return len(self.texts), len(self.htmls), self.size

    def back(self, mark: tuple[int, int, int]) -> None:
        """Undo what was added since."""
        texts, htmls, self.size = mark
        del self.texts[texts:], self.htmls[htmls:]


def compose(
    letter: Letter,
    records: Sequence[Record],
    *,
    key: str,
    created: float,
    formatter: logging.Formatter,
    max_bytes: int,
    breathe: Callable[[], object] = bool,
) -> list[bytes]:
    """One mail with CRLF line ends, of ASCII, in lines that any server takes; in pieces that each begin with a line.

    What does not fit is left out from the end, and the mail says how much that is.

    Args:
        letter: Sender, recipients, subject.
        records: 1 or more, oldest first. They are not changed: a formatter gets copies.
        key: Identity of the batch, for the Message-ID.
        created: Time of the batch, in seconds since the epoch.
        formatter: Gives each record's text; where it fails the mail has the message and says so.
        max_bytes: Size the mail does not exceed, as long as it is room for the headers.
        breathe: Called between pieces of work.
    """
    boundary = f"=_{key}"  # quoted-printable has no "=_", so that no record can end a part
    headers = _headers(letter, records, key, created)
    frame = sum(map(len, _assembled(headers, _Draft(letter.html, breathe), boundary)))
    room = max_bytes - frame - _NOTES
    draft = _Draft(letter.html, breathe)
    draft.add("", _HTML_HEAD)
    draft.note(_summary(records, letter.host))
    _add_records(draft, records, formatter, room)
    draft.add("", _HTML_TAIL)
    return list(_gathered(_assembled(headers, draft, boundary), breathe))


def _headers(letter: Letter, records: Sequence[Record], key: str, created: float) -> bytes:
    moment = datetime.fromtimestamp(int(created), UTC)
    lines = [
        f"From: {letter.sender.header}",
        "To: " + ",\r\n ".join(mailbox.header for mailbox in letter.to),
        f"Subject: {encoded(letter.subject.render(records, letter.host))}",
        f"Date: {format_datetime(moment)}",
        f"Message-ID: <{key}@{letter.sender.domain}>",
        # RFC 3834, section 5: nobody's out-of-office program is to answer. Exchange wants a word of its own.
        "Auto-Submitted: auto-generated",
        "X-Auto-Response-Suppress: OOF, AutoReply",
        "MIME-Version: 1.0",
    ]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _assembled(headers: bytes, draft: _Draft, boundary: str) -> Iterator[bytes]:
    yield headers
    if not draft.html:
        yield from _part("plain", draft.texts)
        return
    start = f"--{boundary}\r\n".encode()
    yield f'Content-Type: multipart/alternative;\r\n boundary="{boundary}"\r\n\r\n'.encode()
    yield start
    yield from _part("plain", draft.texts)
    yield start
    yield from _part("html", draft.htmls)
    yield f"--{boundary}--\r\n".encode()


def _part(subtype: str, pieces: list[bytes]) -> Iterator[bytes]:
    head = f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    yield head.encode()
    yield from pieces
    yield b"\r\n"


def _gathered(pieces: Iterable[bytes], breathe: Callable[[], object]) -> Iterator[bytes]:
    """The pieces, many joined to one. Not all to one: a join of megabytes holds the interpreter for milliseconds."""
    some: list[bytes] = []
    size = 0
    for piece in pieces:
        some.append(piece)
        size += len(piece)
        if size >= _PIECE_BYTES:
            yield b"".join(some)
            some, size = [], 0
            breathe()
    yield b"".join(some)


def _add_records(draft: _Draft, records: Sequence[Record], formatter: logging.Formatter, room: int) -> None:
    share = (room - draft.size) // (_SHARES if len(records) > 1 else 1)
    left: list[Record] = []
    left_bytes = 0
    for record in records:
        text = _formatted(record, formatter)
        if left or not _add_record(draft, record, text, share, room):
            left.append(record)
            left_bytes += len(text.encode("utf-8", "backslashreplace"))
        draft.breathe()
    if left:
        # What fits no more is left out to the last: a gap in the middle would read as if nothing had happened there.
        draft.note(f"{_count(len(left))} left out here, the mail is full: {_levels(left)}; {left_bytes:,} bytes")


def _add_record(draft: _Draft, record: Record, text: str, share: int, room: int) -> bool:
    """Put a record at the end, cut where it exceeds its share. False, and nothing added, if there is no such room."""
    before = draft.mark()
    full = min(room, draft.size + share)
    may_cut = draft.size + share <= room
    colour = next(colour for level, colour in _COLOURS if record.levelno >= level or level == 0)
    draft.add("", _HTML_RECORD.format(colour=colour))
    done = 0
    for piece, characters in _slices(text):
        mark = draft.mark()
        draft.add(piece, html.escape(piece, quote=False))
        if draft.size > full:
            draft.back(mark)
            break
        done += characters
    left = len(text) - done
    if left and not (done and may_cut):
        draft.back(before)
        return False
    cut = f"\n[{left:,} characters of this record left out here]" if left else ""
    draft.add(f"{cut}\n", f"{cut}</pre>\n")
    return True


def _slices(text: str) -> Iterator[tuple[str, int]]:
    for start in range(0, len(text), _SLICE):
        piece = text[start : start + _SLICE]
        yield printable(piece), len(piece)


def _formatted(record: Record, formatter: logging.Formatter) -> str:
    # A copy: formatters write into records (asctime in their own format), and other sinks' threads have this one too.
    try:
        text = formatter.format(copy.copy(record))
    except Exception as error:  # noqa: BLE001 - the mail says so
        text = f"{record.levelname} {record.name}: {message_of(record)} [not formatted: {type(error).__name__}]"
    text = text.replace("\r\n", "\n").rstrip("\n")
    # Only a record's first line begins at the margin: a line break in a message makes no second record.
    return text.replace("\n", "\n  ") if _AT_MARGIN.search(text) else text


def _summary(records: Sequence[Record], host: str) -> str:
    first, last = (
        datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d %H:%M:%S")
        for record in (records[0], records[-1])
    )
    return f"{_count(len(records))} from {host}, {first} to {last} UTC: {_levels(records)}"


def _count(number: int) -> str:
    return "1 record" if number == 1 else f"{number:,} records"


def _levels(records: Sequence[Record]) -> str:
    counts = Counter((-record.levelno, one_line(record.levelname)) for record in records)
    line = one_line(", ".join(f"{count:,} {name}" for (_, name), count in sorted(counts.items())))
    data = line.encode()
    return line if len(data) <= _LEVELS_BYTES else data[: _LEVELS_BYTES - 3].decode(errors="ignore") + "..."


def _quoted(text: str) -> bytes:
    """Text as quoted-printable that the next piece can be put behind."""
    encoded = binascii.b2a_qp(text.encode("utf-8", "backslashreplace"), istext=True)
    if encoded and not encoded.endswith(b"\n"):
        encoded += b"=\n"
    return encoded.replace(b"\n", b"\r\n")
