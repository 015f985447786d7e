"""A batch of records as one mail that a person can read, without a digest: one behind the other.

Pure: the same batch gives the same bytes in every attempt. Nothing here asks the network, not even for a host name.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from offloop.capture import Record
from offloop.mailing.attachment import compressed
from offloop.mailing.headers import Mailbox, Subject, one_line
from offloop.mailing.letter import ATTACHMENT, Head, Letter, Parts, framing, quoted, written
from offloop.mailing.markup import END, MONOSPACE, START, colour_of, escaped
from offloop.mailing.report import formatted
from offloop.mailing.shown import Shown, counted, span
from offloop.mailing.subjects import fields_of_batch

__all__ = ["compose"]

_SLICE = 512  # characters worked on at a time: some microseconds
_NOTES = 2_048  # bytes kept free for saying what was left out
_LEVELS = 10  # that are named
_LEAST_FILE = 1024  # bytes: a smaller one has room for nothing
_LEVELS_BYTES = 100  # of the levels in that; each byte may take three in each part
_SHARES = 4  # one record among several takes at most such a part of a mail

_AT_MARGIN = re.compile(r"\n[^ \t\n]")

_FILE_SHARE = 0.4  # of a mail in which not all has room, for the file
_FILE_BYTES = 2 * 1024 * 1024  # and no more: it is handled in one piece
_HTML_RECORD = (
    '<pre style="margin:0 0 8px;padding:4px 8px;border-left:4px solid {colour};'
    f'white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.4 {MONOSPACE}">'
)


@dataclass(slots=True)
class _Draft:
    """The two bodies under construction, in quoted-printable, with the bytes they have."""

    html: bool
    breathe: Callable[[], object]
    cut: bool = False
    texts: list[bytes] = field(default_factory=list[bytes])
    htmls: list[bytes] = field(default_factory=list[bytes])
    size: int = 0

    def add(self, text: str, markup: str) -> None:
        """Put a piece at the end of each."""
        self.texts.append(quoted(text))
        self.size += len(self.texts[-1])
        if self.html:
            self.htmls.append(quoted(markup))
            self.size += len(self.htmls[-1])
        self.breathe()

    def note(self, text: str) -> None:
        """Put a paragraph of our own at the end."""
        self.add(f"{text}\n\n", f"<p>{escaped(text)}</p>\n")

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
    to: tuple[Mailbox, ...],
    subject: Subject,
    key: str,
    created: float,
    formatter: logging.Formatter,
    max_bytes: int,
    breathe: Callable[[], object] = bool,
) -> list[bytes]:
    """One mail with CRLF line ends, of ASCII, in lines that any server takes; in pieces that each begin with a line.

    What does not fit is left out from the end, the mail says how much that is, and a file goes with it that has more.

    Args:
        letter: What all mails of the sink have in common.
        records: 1 or more, oldest first. They are not changed: a formatter gets copies.
        to: For whom it is.
        subject: The template of the subject.
        key: Identity of the mail, for the Message-ID.
        created: Time of the batch, in seconds since the epoch.
        formatter: Gives each record's text; where it fails the mail has the message and says so.
        max_bytes: Size the mail does not exceed, as long as it is room for the headers.
        breathe: Called between pieces of work.
    """
    shown = Shown(letter.redact, breathe)
    head = Head(to, subject.render(fields_of_batch(records, letter, shown)), key, created)
    room = max_bytes - framing(letter, head, attached=False) - _NOTES
    draft = _drawn(letter, records, formatter, shown, room)
    file: bytes | None = None
    if draft.cut:
        room = max_bytes - framing(letter, head, attached=True) - _NOTES
        share = max(0, min(int(room * _FILE_SHARE), _FILE_BYTES)) // 78 * 57
        pieces = (piece for record in records for piece in shown.pieces(formatted(record, formatter)))
        file, _ = compressed(pieces, share, breathe) if share > _LEAST_FILE else (None, False)
        taken = 0 if file is None else (len(file) // 57 + 1) * 78
        draft = _drawn(letter, records, formatter, shown, room - taken, attached=file is not None)
    parts = Parts(draft.texts, draft.htmls if letter.html else None, file)
    return written(letter, head, parts, breathe)


def _drawn(
    letter: Letter,
    records: Sequence[Record],
    formatter: logging.Formatter,
    shown: Shown,
    room: int,
    *,
    attached: bool = False,
) -> _Draft:
    draft = _Draft(letter.html, shown.breathe)
    draft.add("", START)
    draft.note(_summary(records, letter, shown))
    _add_records(draft, records, formatter, shown, room)
    if attached:
        draft.note(
            f"What is held of these records goes with this mail as {ATTACHMENT}, as much of it as has room there."
        )
    draft.add("", END)
    return draft


def _add_records(
    draft: _Draft, records: Sequence[Record], formatter: logging.Formatter, shown: Shown, room: int
) -> None:
    share = (room - draft.size) // (_SHARES if len(records) > 1 else 1)
    left: list[Record] = []
    left_bytes = 0
    for record in records:
        text = formatted(record, formatter)
        if left or not _add_record(draft, record, _below(shown.text(text, max(room, 0))), share, room):
            left.append(record)
            left_bytes += len(text.encode("utf-8", "backslashreplace"))
        draft.breathe()
    if left:
        draft.cut = True
        # What fits no more is left out to the last: a gap in the middle would read as if nothing had happened there.
        levels = _levels(left, shown)
        draft.note(f"{counted(len(left), 'record')} left out here, the mail is full: {levels}; {left_bytes:,} bytes")


def _add_record(draft: _Draft, record: Record, shortened: tuple[str, int], share: int, room: int) -> bool:
    """Put a record at the end, cut where it exceeds its share. False, and nothing added, if there is no such room."""
    text, behind = shortened
    before = draft.mark()
    full = min(room, draft.size + share)
    may_cut = draft.size + share <= room
    draft.add("", _HTML_RECORD.format(colour=colour_of(record.levelno)))
    done = 0
    for piece in _slices(text):
        mark = draft.mark()
        draft.add(piece, escaped(piece))
        if draft.size > full:
            draft.back(mark)
            break
        done += len(piece)
    left = len(text) - done + behind
    if left and not (done and may_cut):
        draft.back(before)
        return False
    draft.cut = draft.cut or left > 0
    cut = f"\n[{left:,} characters of this record left out here]" if left else ""
    draft.add(f"{cut}\n", f"{cut}</pre>\n")
    return True


def _slices(text: str) -> Iterator[str]:
    for start in range(0, len(text), _SLICE):
        yield text[start : start + _SLICE]


def _below(shortened: tuple[str, int]) -> tuple[str, int]:
    """Only a record's first line begins at the margin: a line break in a message makes no second record."""
    text, left = shortened
    return (text.replace("\n", "\n  ") if _AT_MARGIN.search(text) else text), left


def _summary(records: Sequence[Record], letter: Letter, shown: Shown) -> str:
    app, release, host = (shown.line(name, 60) for name in (letter.app, letter.release, letter.host))
    name = " ".join(part for part in (app, release) if part and part != host)
    source = f"{name} on {host}" if name else host
    when = span(records[0].created, records[-1].created)
    return f"{counted(len(records), 'record')} from {source}, {when}: {_levels(records, shown)}"


def _levels(records: Sequence[Record], shown: Shown) -> str:
    counts = Counter((-record.levelno, record.levelname) for record in records)
    some = sorted(counts.items())[:_LEVELS]
    line = one_line(", ".join(f"{count:,} {shown.line(name, 30)}" for (_, name), count in some))
    data = line.encode()
    return line if len(data) <= _LEVELS_BYTES else data[: _LEVELS_BYTES - 3].decode(errors="ignore") + "..."
