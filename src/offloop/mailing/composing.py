"""A digest as one mail: as much as can be read in its body, and the whole of what is held in a file that goes with it.

Pure but for source files: the same digest gives the same bytes in every attempt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from offloop.digest import Gathered, Group
from offloop.mailing.attachment import compressed
from offloop.mailing.headers import Mailbox, Subject, one_line
from offloop.mailing.letter import ATTACHMENT, Head, Letter, Parts, framing, quoted_all, written
from offloop.mailing.markup import markup
from offloop.mailing.plain import plain
from offloop.mailing.report import LIMITS, Known, Limits, Report, formatted, noun_of, report_of
from offloop.mailing.shown import Shown
from offloop.mailing.subjects import fields_of_digest, headline

__all__ = ["Look", "TemplateFailure", "composed", "file_of"]

_BODY_BYTES = 160 * 1024  # of text and HTML together: what is longer is cut by mail programs, and read by nobody
_FILE_SHARE = 0.4  # of a mail's size, for the file
_FILE_BYTES = 2 * 1024 * 1024  # and no more: it is handled in one piece
_LONGEST = "\U0001f4a5" * 200  # a subject, for how much room it may take


class TemplateFailure(Exception):
    """A user's template failed; the mail is made without it."""

    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(name)
        self.name = name
        self.error = error


class Look(Protocol):
    """A user's own templates. Each gives None where there is none of that kind."""

    def html(self, report: Report) -> Iterable[str] | None:
        """The HTML, piece by piece."""
        ...

    def text(self, report: Report) -> Iterable[str] | None:
        """The text, piece by piece."""
        ...

    def subject(self, report: Report) -> str | None:
        """The subject."""
        ...


@dataclass(slots=True)
class _Digest:
    """All that a mail is made of."""

    letter: Letter
    to: tuple[Mailbox, ...]
    key: str
    created: float
    gathered: Gathered
    formatter: logging.Formatter
    known: Mapping[str, Known]
    subject: Subject | None
    look: Look | None
    max_bytes: int
    breathe: Callable[[], object]
    own: set[str] = field(default_factory=set[str])
    failed: set[str] = field(default_factory=set[str])
    notes: list[str] = field(default_factory=list[str])
    troubles: list[str] = field(default_factory=list[str])
    shown: Shown = field(init=False)

    def __post_init__(self) -> None:
        self.shown = Shown(self.letter.redact, self.breathe)

    def report(self, limits: Limits, notes: Sequence[str] = ()) -> Report:
        """What the mail says within such limits, and as its subject."""
        report = report_of(
            self.gathered,
            self.letter,
            limits,
            formatter=self.formatter,
            known=self.known,
            shown=self.shown,
            notes=(*self.notes, *notes),
        )
        return replace(report, subject=self._line(report))

    def head(self, subject: str) -> Head:
        return Head(self.to, subject, self.key, self.created, _threads(self.gathered.groups))

    def parts(self, report: Report, room: int) -> tuple[Parts, int] | None:
        """Text and HTML, and their size; None if they are larger than that."""
        text = quoted_all(self._own("mail.txt", report) or plain(report), room, self.breathe)
        if text is None:
            return None
        if not self.letter.html:
            return Parts(text[0]), text[1]
        html = quoted_all(self._own("mail.html", report) or markup(report), room - text[1], self.breathe)
        return None if html is None else (Parts(text[0], html[0]), text[1] + html[1])

    def give_up(self, failure: TemplateFailure) -> None:
        """Go on without a template that failed, and say so."""
        self.failed.add(failure.name)
        said = f"the template {failure.name} failed ({type(failure.error).__name__}: {failure.error})"
        said = self.shown.line(said, 300)
        self.troubles.append(said)
        self.notes.append(f"{said[0].upper()}{said[1:]}: this is the built-in form.")

    def _line(self, report: Report) -> str:
        own = self._called("subject.txt", report)
        if own is not None:
            return one_line("".join(own), 200)
        if self.subject is not None:
            return self.subject.render(fields_of_digest(report, self.gathered, self.shown))
        groups = self.gathered.groups
        return one_line(headline(report, noun_of(groups), max(group.last for group in groups)), 200)

    def _own(self, name: str, report: Report) -> Iterator[str] | None:
        found = self._called(name, report)
        if found is None:
            return None
        self.own.add(name)
        return self._watched(name, found)

    def _called(self, name: str, report: Report) -> Iterable[str] | None:
        if self.look is None or name in self.failed:
            return None
        calls = {"mail.html": self.look.html, "mail.txt": self.look.text, "subject.txt": self.look.subject}
        try:
            return calls[name](report)
        except Exception as error:
            raise TemplateFailure(name, error) from error

    def _watched(self, name: str, pieces: Iterable[str]) -> Iterator[str]:
        try:
            for piece in pieces:
                yield self.shown.lines(piece)
        except Exception as error:
            raise TemplateFailure(name, error) from error


def composed(
    gathered: Gathered,
    letter: Letter,
    *,
    to: tuple[Mailbox, ...],
    key: str,
    created: float,
    formatter: logging.Formatter,
    max_bytes: int,
    known: Mapping[str, Known],
    subject: Subject | None = None,
    look: Look | None = None,
    breathe: Callable[[], object] = bool,
) -> tuple[list[bytes], list[str]]:
    """One mail with CRLF line ends, of ASCII, in pieces that each begin with a line; and what went wrong meanwhile.

    Args:
        gathered: What there is to tell; its records are not changed.
        letter: What all mails of the sink have in common.
        to: For whom it is.
        key: Names it in all attempts.
        created: Time of the batch, in seconds since the epoch.
        formatter: Gives each record's text; where it fails the mail has the message and says so.
        max_bytes: Size the mail does not exceed, as long as it is room for the headers.
        known: What earlier mails said, by kind.
        subject: The user's own template. None: a subject of our own.
        look: The user's own templates. None: ours.
        breathe: Called between pieces of work.
    """
    digest = _Digest(letter, to, key, created, gathered, formatter, known, subject, look, max_bytes, breathe)
    while True:
        try:
            return _written(digest), digest.troubles
        except TemplateFailure as failure:
            digest.give_up(failure)


def _written(digest: _Digest) -> list[bytes]:
    room = digest.max_bytes - framing(digest.letter, digest.head(_LONGEST), attached=True)
    report = digest.report(LIMITS[0])
    if report.complete:
        parts = digest.parts(report, min(room, _BODY_BYTES))
        if parts is not None:
            return written(digest.letter, digest.head(report.subject), parts[0], digest.breathe)
    lines = max(0, min(int(room * _FILE_SHARE) - 200, _FILE_BYTES)) // 78
    file, whole = compressed(
        file_of(digest.gathered.groups, digest.formatter, digest.shown), lines * 57, digest.breathe
    )
    note = f"All that is held of these records goes with this mail as {ATTACHMENT}."
    if not whole:
        note = f"What is held of these records goes with this mail as {ATTACHMENT}, as much of it as has room there."
    left = min(room - len(file) // 57 * 78 - 200, _BODY_BYTES)
    for limits in LIMITS:
        report = digest.report(limits, [note])
        parts = digest.parts(report, left)
        if parts is not None:
            break
    else:
        # Not even a heading has room: what the user's templates add is too much, or the limit is no mail's.
        parts = _least(digest, report, left)
    return written(digest.letter, digest.head(report.subject), replace(parts[0], attachment=file), digest.breathe)


def _least(digest: _Digest, report: Report, room: int) -> tuple[Parts, int]:
    for name in sorted(digest.own - digest.failed):
        raise TemplateFailure(name, ValueError(f"what it gives does not fit into {digest.max_bytes:,} bytes"))
    bare = replace(report, notes=(), more="")
    return digest.parts(bare, room) or (Parts((), () if digest.letter.html else None), 0)


def _threads(groups: Sequence[Group]) -> tuple[str, ...]:
    """A name for each kind since it last was over: its mails form a thread."""
    kinds = ("".join(c for c in group.kind if c.isascii() and c.isalnum())[:16] for group in groups[:10])
    return tuple(f"{kind}.{int(group.since * 1000):x}" for kind, group in zip(kinds, groups, strict=False) if kind)


def file_of(groups: Iterable[Group], formatter: logging.Formatter, shown: Shown) -> Iterator[str]:
    """All that is held: each kind's records with their tracebacks, and those that led there."""
    for group in groups:
        yield f"== {group.kind}, {group.count:,} since the last mail, {len(group.records):,} of them here\n\n"
        if group.preceding:
            yield "-- what led there\n\n"
        for record in group.preceding:
            yield from shown.pieces(formatted(record, formatter))
        if group.preceding:
            yield "\n-- records\n\n"
        for record in group.records:
            yield from shown.pieces(formatted(record, formatter))
        yield "\n"
