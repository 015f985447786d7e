"""What all sinks that send mails have in common: from a batch to mails, in a worker, and how far a batch has come."""

from __future__ import annotations

import asyncio
import logging
import socket
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Unpack, cast

from offloop import diagnostics
from offloop.digest import Digest, Preceding
from offloop.errors import ConfigError, PermanentFailure, TemporaryFailure
from offloop.formatters.text import TextFormatter
from offloop.mailing.headers import DEFAULT_SUBJECT, Mailbox, Subject
from offloop.mailing.listing import Letter, compose
from offloop.mailing.outcome import Interrupted, Outcome, Progress
from offloop.mailing.wire import Envelope, Mail
from offloop.policies import Batching, at_least
from offloop.sink import Batch, Sink, SinkOptions
from offloop.worker import Breather, Worker

__all__ = ["MailOptions", "MailSink"]

_MIN_BYTES = 16 * 1024
_ONE_DIGEST = Batching(max_records=10_000, max_bytes=64 * 1024 * 1024)


class MailOptions(SinkOptions, total=False):
    """The keywords of every sink that sends mails, for signatures."""

    subject: str | None
    digest: Digest | None
    preceding: Preceding | None
    max_bytes: int
    html: bool


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
        to: str | Sequence[str],
        subject: str | None = None,
        digest: Digest | None = Digest(),
        preceding: Preceding | None = Preceding(),
        max_bytes: int = 1024 * 1024,
        html: bool = True,
        building_timeout: float = 60.0,
        **sink: Unpack[SinkOptions],
    ) -> None:
        """Say who writes to whom, and what.

        Args:
            sender: `app@example.org`, or `App <app@example.org>`.
            to: One such address, or several.
            subject: As for `str.format`, with `{level}`, `{logger}` and `{message}` (its first line) of the first of
                the most severe records, `{count}`, `{more}` (" (and 41 more)", or nothing) and `{host}`.
                None: "[{host}] {level}: {message}{more}".
            digest: How often one kind of record is told of. None: one mail for each batch.
            preceding: Which records of lower levels are shown with the first of a kind. None: none. Not without a
                `digest`.
            max_bytes: Size of the largest mail; a server's own limit counts too. What does not fit is left out, and
                the mail says how much that is: those records count as delivered.
            html: Whether there is an HTML part beside the text.
            building_timeout: Seconds in which a mail is to be built.
            **sink: As for every `Sink`. `batching` bounds one mail; with a digest it is by default 10,000 records.

        Raises:
            ConfigError: A value can't be used.
        """
        owner = f"{type(self).__name__}: "
        _check_kind(owner, "digest", digest, Digest)
        _check_kind(owner, "preceding", preceding, Preceding)
        if digest is not None:
            sink.setdefault("batching", _ONE_DIGEST)
        super().__init__(**sink)
        at_least(owner, "max_bytes", max_bytes, _MIN_BYTES, "bytes")
        self.digest = digest
        self.preceding = preceding if digest is not None else None
        self._letter = Letter(
            sender=Mailbox.parse(owner, "sender", sender),
            to=tuple(Mailbox.parse(owner, "to", address) for address in _several(owner, to)),
            subject=Subject(owner, DEFAULT_SUBJECT if subject is None else subject),
            host=socket.gethostname(),
            html=html,
        )
        self._max_bytes = max_bytes
        self._building_timeout = building_timeout
        self._worker = Worker(f"offloop-{type(self).__name__}")
        self._progress = Progress()

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
        for composed in await self._composed(batch, server_max):
            envelope = progress.left(composed)
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
        return TemporaryFailure("; ".join(dict.fromkeys(outcome.owed.values())), retry_after=outcome.retry_after)

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
                return await self._worker.run(self._compose, batch, server_max)
        except TimeoutError as error:
            msg = f"{self!r}: the mail was not built in {self._building_timeout:g} s; a formatter may hang"
            raise TemporaryFailure(msg) from error

    def _compose(self, batch: Batch, server_max: int | None) -> Sequence[Envelope]:
        """Build the mails; in the worker."""
        pieces = compose(
            self._letter,
            batch.records,
            key=batch.key,
            created=batch.created,
            formatter=self.formatter or self.default_formatter(),
            max_bytes=min(self._max_bytes, server_max or self._max_bytes),
            breathe=Breather(),
        )
        recipients = tuple(mailbox.address for mailbox in self._letter.to)
        return [Envelope(batch.key, self._letter.sender.address, recipients, Mail.of(pieces))]


def _check_kind(owner: str, option: str, value: object, kind: type[Digest | Preceding]) -> None:
    if value is not None and not isinstance(value, kind):
        name = kind.__name__
        msg = f"{owner}{option} must be of class {name}, as in {option}={name}(...), or None; got {value!r}"
        raise ConfigError(msg)


def _several(owner: str, to: object) -> tuple[object, ...]:
    """What stands in `to`, one or several."""
    if isinstance(to, str):
        return (to,)
    recipients = tuple(cast("Iterable[object]", to)) if isinstance(to, Iterable) and not isinstance(to, bytes) else None
    if recipients is None:
        msg = f"{owner}to: expected an address like ops@example.org, or a list of them, got {to!r}"
        raise ConfigError(msg)
    if not recipients:
        msg = f"{owner}to must have at least 1 address"
        raise ConfigError(msg)
    return recipients
