"""What all sinks that send mails have in common: from a batch to mails, in a worker, and how far a batch has come."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Unpack

from offloop import diagnostics
from offloop.capture import Record
from offloop.digest import Digest, Gathered, Preceding
from offloop.errors import ConfigError, PermanentFailure, TemporaryFailure
from offloop.formatters.text import TextFormatter
from offloop.mailing.composing import composed
from offloop.mailing.headers import DEFAULT_SUBJECT, Mailbox, Subject
from offloop.mailing.letter import Letter
from offloop.mailing.listing import compose
from offloop.mailing.outcome import Interrupted, Outcome, Progress
from offloop.mailing.redaction import DEFAULT_PATTERNS, Redactor
from offloop.mailing.report import Known, is_notice, known_of
from offloop.mailing.routes import Recipient, Recipients, Route, To, part_of
from offloop.mailing.shown import Shown
from offloop.mailing.templates import Templates
from offloop.mailing.wire import Envelope, Mail
from offloop.policies import Batching, at_least
from offloop.sink import Batch, Sink, SinkOptions
from offloop.worker import Breather, Worker

__all__ = ["DEFAULT_PATTERNS", "MailOptions", "MailSink", "Recipient", "To"]

_MIN_BYTES = 16 * 1024
_MAX_KNOWN = 10_000  # kinds that are remembered by name
_PRECEDING = Preceding()
_ONE_DIGEST = Batching(max_records=10_000, max_bytes=64 * 1024 * 1024)


Templated = str | os.PathLike[str] | Mapping[str, str]
"""What `templates` may be."""


class MailOptions(SinkOptions, total=False):
    """The keywords of every sink that sends mails, for signatures."""

    subject: str | None
    digest: Digest | None
    preceding: Preceding | None
    max_bytes: int
    html: bool
    app: str | None
    release: str | None
    templates: Templated | None
    redact: Sequence[str | re.Pattern[str]]


class MailSink(Sink):
    """Makes mails of batches. A subclass says how one is delivered.

    A batch has the same `Message-ID` in all attempts: a receiver that deduplicates shows one mail even where an answer
    was lost and the mail was sent again. Some recipients refused is a delivered mail and a line of diagnostics.
    """

    encodes = False

    def __init__(
        self,
        *,
        sender: str,
        to: To,
        subject: str | None = None,
        digest: Digest | None = Digest(),
        preceding: Preceding | None = _PRECEDING,
        max_bytes: int = 1024 * 1024,
        html: bool = True,
        app: str | None = None,
        release: str | None = None,
        templates: Templated | None = None,
        redact: Sequence[str | re.Pattern[str]] = DEFAULT_PATTERNS,
        building_timeout: float = 60.0,
        **sink: Unpack[SinkOptions],
    ) -> None:
        """Say who writes to whom, and what.

        Args:
            sender: `app@example.org`, or `App <app@example.org>`.
            to: One such address, or several; a `Recipient` in place of one gets only what is of a level and a logger.
                Those who get the same share a mail. What nobody wants is counted as filtered.
            subject: As for `str.format`, with `{level}`, `{logger}` and `{message}` (its first line) of the first of
                the most severe records, `{what}` (its exception, file and text), `{state}` ("new", "ongoing" or
                "over"), `{count}`, `{more}` (" (and 41 more)", or nothing), `{kinds}`, `{total}` (since they began),
                `{app}`, `{release}` and `{host}`. None: "[{app}] {level}: {message}{more}" without a digest, and with
                one "[shop] 3 kinds, 412 errors: KeyError in cart.py" and its like.
            digest: How often one kind of record is told of. None: one mail for each batch.
            preceding: Which records of lower levels are shown with the first of a kind. None: none. Not without a
                `digest`.
            max_bytes: Size of the largest mail; a server's own limit counts too. What does not fit is left out, and
                the mail says how much that is: those records count as delivered.
            html: Whether there is an HTML part beside the text.
            app: What the application is called. None: as the machine is.
            release: Which one of it runs. None: that is not told.
            templates: A directory with any of `mail.html`, `mail.txt` and `subject.txt`, or a mapping from these names
                to texts, for jinja2 (`pip install 'offloop[mail]'`). They are given `mail`, a `Report`. Where one
                fails, the mail has the built-in form and says so. Not without a `digest`. None: the built-in forms.
            redact: Regular expressions of what is hidden wherever it stands; of a match that has groups named
                `secret...`, those alone. They see some 4,000 characters at a time. `()`: nothing is hidden.
            building_timeout: Seconds in which a mail is to be built.
            **sink: As for every `Sink`. `batching` bounds one mail; with a digest it is by default 10,000 records.

        Raises:
            ConfigError: A value can't be used.
            MissingExtra: `templates` need jinja2.
        """
        owner = f"{type(self).__name__}: "
        _check_kind(owner, "digest", digest, Digest)
        _check_kind(owner, "preceding", preceding, Preceding)
        if digest is not None:
            sink.setdefault("batching", _ONE_DIGEST)
        super().__init__(**sink)
        if digest is not None and self.batching.max_wait:
            msg = f"{owner}batching.max_wait: a digest has a schedule of its own: leave it out, or give digest=None"
            raise ConfigError(msg)
        at_least(owner, "max_bytes", max_bytes, _MIN_BYTES, "bytes")
        if digest is None and preceding is not None and preceding is not _PRECEDING:
            msg = f"{owner}preceding goes with a digest, and digest=None makes none: leave one of them out"
            raise ConfigError(msg)
        self.digest = digest
        self.preceding = preceding if digest is not None else None
        _check_texts(owner, app, release)
        host = socket.gethostname()
        self._letter = Letter(
            sender=Mailbox.parse(owner, "sender", sender),
            host=host,
            app=host if app is None else app,
            release=release or "",
            html=html,
            redact=Redactor(owner, redact),
        )
        self._recipients = Recipients(owner, to)
        if self._recipients.choosy:
            self.addFilter(self._is_wanted)
        self._templates = None if templates is None else Templates(owner, templates)
        _check_forms(owner, digest, subject, self._templates, html=html)
        default = DEFAULT_SUBJECT if digest is None else None
        subject = default if subject is None else subject
        self._subject = None if subject is None else Subject(owner, subject)
        self._known: dict[str, Known] = {}  # what the kinds are called that mails told of
        self._max_bytes = max_bytes
        self._building_timeout = building_timeout
        self._worker = Worker(f"offloop-{type(self).__name__}")
        self._progress = Progress()

    @property
    def sender(self) -> Mailbox:
        """Who writes."""
        return self._letter.sender

    def default_formatter(self) -> logging.Formatter:
        """Lines for people, those of a message kept apart."""
        return TextFormatter(multiline=True)

    async def send(self, batch: Batch) -> None:
        """Deliver the batch as one mail, or one for each group of recipients who get the same.

        Returns when each of them was taken for each recipient, or refused while another was taken. Whoever has got
        one does not get it again in further attempts.

        Raises:
            TemporaryFailure: Not now: a reply of the 400s, no reply, or a broken connection.
            PermanentFailure: Never: a reply of the 500s to all mails or to all their recipients.
            SinkFailure: The server wants no mail from us.
        """
        if self._progress.key != batch.key:
            self._progress = Progress(batch.key)
        progress = self._progress
        server_max = await self.ready()
        later: list[TemporaryFailure] = []
        for whole in await self._composed(batch, server_max):
            envelope = progress.left(whole)
            if envelope is not None and (put_off := await self._handed(envelope, progress)) is not None:
                later.append(put_off)
        if later:
            raise max(later, key=lambda failure: failure.retry_after or 0.0)
        if progress.refused and not progress.taken:
            self._progress = Progress()  # whoever sends it all the same wants it tried
            raise progress.refused[0][1]
        for envelope, failure in progress.refused:
            self._say_refused({", ".join(envelope.recipients): str(failure)})

    async def _handed(self, envelope: Envelope, progress: Progress) -> TemporaryFailure | None:
        """Hand over one mail and note how far it has come; gives what is to be raised for it after the others."""
        try:
            outcome = await self.deliver(envelope)
        except PermanentFailure as failure:
            progress.refuse(envelope, failure)
            return None
        except Interrupted as failure:
            progress.interrupt(envelope, failure)
            self._say_refused(failure.refused)
            raise
        except TemporaryFailure as failure:
            if failure.retry_after is None:
                raise
            return failure
        progress.take(envelope, outcome)
        self._say_refused(outcome.refused)
        if not outcome.owed:
            return None
        said = "; ".join(dict.fromkeys(outcome.owed.values()))
        return TemporaryFailure(said, retry_after=outcome.retry_after, outage=False)

    @abstractmethod
    async def ready(self) -> int | None:
        """See that mails can be delivered; gives the bytes of the largest mail that is taken, None for no limit."""

    @abstractmethod
    async def deliver(self, envelope: Envelope) -> Outcome:
        """Hand over one mail; tells who does not get it, or later, while others do."""

    async def aclose(self) -> None:
        """Let the worker go. Idempotent; `open` may follow."""
        self._worker.close()

    def _say_refused(self, refused: Mapping[str, str]) -> None:
        for recipient, said in refused.items():
            diagnostics.report(f"mail:{id(self)}:{recipient}", f"{self!r}: a recipient was refused: {said}")

    async def _composed(self, batch: Batch, server_max: int | None) -> Sequence[Envelope]:
        try:
            async with asyncio.timeout(self._building_timeout):
                return await self._worker.run(self.composed, batch, server_max)
        except TimeoutError as error:
            msg = f"{self!r}: the mail was not built in {self._building_timeout:g} s; a formatter may hang"
            raise TemporaryFailure(msg) from error

    def composed(self, batch: Batch, server_max: int | None = None) -> Sequence[Envelope]:
        """The mails for a batch. Takes its time: a sink calls it in its worker."""
        max_bytes = min(self._max_bytes, server_max or self._max_bytes)
        breathe = Breather()
        gathered = batch.gathered
        if gathered is None:
            mails = self._listings(batch, max_bytes, breathe)
        else:
            self._learn(gathered, Shown(self._letter.redact, breathe))
            mails = self._digests(batch, gathered, max_bytes, breathe)
        return [
            Envelope(key, self._letter.sender.address, tuple(box.address for box in route.to), Mail.of(pieces))
            for key, route, pieces in mails
        ]

    def _digests(
        self, batch: Batch, gathered: Gathered, max_bytes: int, breathe: Breather
    ) -> Iterator[tuple[str, Route, list[bytes]]]:
        for key, route in _keyed(batch.key, self._recipients.of_groups(gathered.groups, self._known)):
            pieces, troubles = composed(
                part_of(gathered, route.indices),
                self._letter,
                to=route.to,
                key=key,
                created=batch.created,
                formatter=self.formatter or self.default_formatter(),
                max_bytes=max_bytes,
                known=self._known,
                subject=self._subject,
                look=self._templates,
                breathe=breathe,
            )
            for trouble in troubles:
                diagnostics.report(f"template:{id(self)}", f"{self!r}: {trouble}; the mail has the built-in form")
            yield key, route, pieces

    def _listings(self, batch: Batch, max_bytes: int, breathe: Breather) -> Iterator[tuple[str, Route, list[bytes]]]:
        subject = self._subject or Subject("")
        for key, route in _keyed(batch.key, self._recipients.of_records(batch.records)):
            pieces = compose(
                self._letter,
                [batch.records[index] for index in route.indices],
                to=route.to,
                subject=subject,
                key=key,
                created=batch.created,
                formatter=self.formatter or self.default_formatter(),
                max_bytes=max_bytes,
                breathe=breathe,
            )
            yield key, route, pieces

    def _learn(self, gathered: Gathered, shown: Shown) -> None:
        """Keep what the kinds are called, for when they are over and no record of them is left."""
        for group in gathered.groups:
            if not all(map(is_notice, group.records)):
                self._known.pop(group.kind, None)
                self._known[group.kind] = known_of(group, shown, {})
        while len(self._known) > _MAX_KNOWN:
            del self._known[next(iter(self._known))]

    def _is_wanted(self, record: logging.LogRecord) -> bool:
        return self._recipients.want(record) or (isinstance(record, Record) and is_notice(record))


def _keyed(key: str, routes: Sequence[Route]) -> Iterator[tuple[str, Route]]:
    """An identity for each mail: the batch's, with a number where there are several."""
    for number, route in enumerate(routes, 1):
        yield (key if len(routes) == 1 else f"{key}.{number}"), route


def _check_texts(owner: str, app: object, release: object) -> None:
    for name, value in (("app", app), ("release", release)):
        if value is not None and (not isinstance(value, str) or not value.strip()):
            msg = f"{owner}{name} must be text, or left out, got {value!r}"
            raise ConfigError(msg)


def _check_forms(
    owner: str, digest: Digest | None, subject: str | None, templates: Templates | None, *, html: bool
) -> None:
    if templates is None:
        return
    if digest is None:
        msg = f"{owner}templates are of digests, and digest=None makes none: leave one of them out"
        raise ConfigError(msg)
    if not html and "mail.html" in templates:
        msg = f"{owner}templates with a mail.html and html=False exclude each other: leave one of them out"
        raise ConfigError(msg)
    if subject is not None and "subject.txt" in templates:
        msg = f"{owner}subject and templates with a subject.txt exclude each other: leave one of them out"
        raise ConfigError(msg)


def _check_kind(owner: str, option: str, value: object, kind: type[Digest | Preceding]) -> None:
    if value is not None and not isinstance(value, kind):
        name = kind.__name__
        msg = f"{owner}{option} must be of class {name}, as in {option}={name}(...), or None; got {value!r}"
        raise ConfigError(msg)
