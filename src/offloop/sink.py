"""The contract of a sink: where records go, awaited.

A `Sink` is a `logging.Handler`, so level, filters, formatter, name and `dictConfig` work as ever; but it is a listener
that calls it, from its own task, and never a logger.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from typing import Any, ClassVar, TypedDict

from offloop import diagnostics
from offloop.capture import Held, Record, made
from offloop.digest import Digest, Gathered, Preceding
from offloop.errors import ConfigError
from offloop.formatters.json import JSONFormatter
from offloop.framing import newline
from offloop.policies import Batching, Breaker, Buffer, Retry, at_least
from offloop.spool import Spool

__all__ = ["FAILURES", "Batch", "DeadLetters", "Destination", "Sink", "SinkOptions", "check_kind", "is_destination"]

FAILURES = (Exception, asyncio.CancelledError, SystemExit)
"""What a filter or a formatter may raise, and neither our tasks nor the application's loop may end for."""


class Batch:
    """Records on their way to one destination, oldest first; the same object for every attempt.

    Attributes:
        held: The records as the lane knows them: perhaps as snapshots, of which `records` makes records.
        filtered: Records that the destination's own filters turned away: a sink that has any adds them here before
            `send` returns, and they are counted as filtered instead of delivered.
        created: When the batch was made, in seconds since the epoch.
        gathered: What there is to tell of each kind of record, for a sink with a `digest`; None for any other.
    """

    __slots__ = (
        *("_encoded", "_key", "_lines", "_records", "_sink", "_unbroken"),
        *("created", "filtered", "gathered", "held"),
    )

    def __init__(
        self, records: Sequence[Held], sink: Sink, encoded: Sequence[bytes] | None = None, *, unbroken: bool = False
    ) -> None:
        """Hold the records; what was not encoded yet is encoded when it is asked for.

        Args:
            records: At least one.
            sink: Where they go.
            encoded: Each as bytes.
            unbroken: None of these has a line break in it.
        """
        # Tuples: what a sink takes out of a list would be sent again, or never be settled.
        self.held = tuple(records)
        self._records: tuple[Record, ...] | None = None
        self.filtered: list[Record] = []
        self.created = time.time()
        self.gathered: Gathered | None = None
        self._sink = sink
        self._encoded = None if encoded is None else tuple(encoded)
        self._lines: bytes | None = None
        self._unbroken = unbroken
        self._key: str | None = None

    def __len__(self) -> int:
        return len(self.held)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __repr__(self) -> str:
        return f"<Batch of {len(self.held)} records>"

    @property
    def records(self) -> tuple[Record, ...]:
        """1 to `Batching.max_records` records, the same ones whenever it is read."""
        if self._records is None:
            self._records = tuple(map(made, self.held))
        return self._records

    @property
    def encoded(self) -> Sequence[bytes]:
        """Each record as bytes, as the sink's `encode` gave them; as long as `records`."""
        if self._encoded is None:
            self._encoded = tuple(self._sink.encode(record) for record in self.records)
        return self._encoded

    @property
    def lines(self) -> bytes:
        """Each of `encoded` on a line of its own, ended by LF; a line break inside one is escaped: see `newline`."""
        if self._lines is None:
            self._lines = b"\n".join([*self.encoded, b""]) if self._unbroken else newline(self.encoded)
        return self._lines

    @property
    def bytes(self) -> int:
        """How many bytes `encoded` has in all."""
        return sum(map(len, self.encoded))

    @property
    def key(self) -> str:
        """32 hexadecimal digits that name this batch in every attempt: for a `Message-ID`, a deduplication header."""
        if self._key is None:
            self._key = uuid.uuid4().hex
        return self._key

    def part(self, start: int, stop: int | None = None) -> Batch:
        """Some of the records as a batch of their own."""
        return self.pick(range(*slice(start, stop).indices(len(self))))

    def pick(self, indices: Sequence[int]) -> Batch:
        """The records at these positions as a batch of their own."""
        encoded = None if self._encoded is None else [self._encoded[index] for index in indices]
        picked = Batch([self.held[index] for index in indices], self._sink, encoded, unbroken=self._unbroken)
        if self._records is not None:
            picked._records = tuple(self._records[index] for index in indices)
        if self.gathered is not None:
            picked.gathered = self.gathered.part(picked.records)
        return picked


class SinkOptions(TypedDict, total=False):
    """The keywords of every sink, for signatures: `def __init__(self, host: str, **sink: Unpack[SinkOptions])`."""

    level: int | str
    formatter: logging.Formatter | None
    name: str | None
    batching: Batching
    retry: Retry
    send_timeout: float
    buffer: Buffer
    breaker: Breaker
    spool: Spool | None
    fallback: Destination | None
    dead_letters: DeadLetters | None


class Sink(logging.Handler):
    """One destination of records. Subclass it and write `send`.

    A listener (or `Pipeline`) calls `open`, `send` and `aclose` from one task at a time: `send` has one batch in
    flight, in order. After an attempt that failed or ran into `send_timeout` comes `open` again; an attempt that was
    given up may still be running then, and must not touch what the new `open` made.
    """

    encodes: ClassVar[bool] = True
    """Whether the lane encodes the records before `send`. False for a sink that works on the records themselves."""
    digest: Digest | None = None
    """How often one kind of record is told of: batches are held back until then. None: they are not."""
    preceding: Preceding | None = None
    """Which records of lower levels go with the first of a kind, if there is a `digest`. None: none."""

    def __init__(
        self,
        *,
        level: int | str = logging.NOTSET,
        formatter: logging.Formatter | None = None,
        name: str | None = None,
        batching: Batching = Batching(),
        retry: Retry = Retry(),
        send_timeout: float = 10.0,
        buffer: Buffer = Buffer(),
        breaker: Breaker = Breaker(),
        spool: Spool | None = None,
        fallback: Destination | None = None,
        dead_letters: DeadLetters | None = None,
    ) -> None:
        """Set what every sink has.

        Args:
            level: Records below it are not for this sink.
            formatter: Any `logging.Formatter`. None: JSON, one object a record.
            name: What statistics call this sink. None: its class's name.
            batching: When a batch is full.
            retry: When a failed batch is sent again.
            send_timeout: Seconds one `open` or one `send` may take before it is abandoned and tried again.
            buffer: How much is held while the destination is slow or away.
            breaker: When the destination is left alone for a while.
            spool: Where records are kept on disk while it is. None: in memory alone.
            fallback: Another sink (or a plain handler, or a callable), which gets what would otherwise wait behind the
                open breaker or be lost: what has no room, has waited too long, or is left when a shutdown ends. With a
                spool, what waits is on disk, and the fallback gets what the disk can't take. None: no other.
            dead_letters: Another sink, or the path of a file (made with mode 0600, one JSON object a line), which gets
                what the destination rejects for good, with `dead_letter_sink` and `dead_letter_reason` as further
                attributes of each record. None: that is dropped (`rejected`).

        Raises:
            ConfigError: A value is out of its limits, or of another kind.
        """
        super().__init__(level)
        for option, value, kind in (
            ("batching", batching, Batching),
            ("retry", retry, Retry),
            ("buffer", buffer, Buffer),
            ("breaker", breaker, Breaker),
        ):
            check_kind(type(self).__name__, option, value, kind)
        at_least(f"{type(self).__name__}: ", "send_timeout", send_timeout, 0.001, "seconds")
        if formatter is not None and not isinstance(formatter, logging.Formatter):
            msg = f"{type(self).__name__}: formatter must be a logging.Formatter, got {formatter!r}"
            raise ConfigError(msg)
        self.formatter = formatter if formatter is not None else self.default_formatter()
        if name is not None:
            self.name = name
        self.batching = batching
        self.retry = retry
        self.send_timeout = send_timeout
        self.buffer = buffer
        self.breaker = breaker
        self._said_attached = False
        if spool is not None:
            check_kind(type(self).__name__, "spool", spool, Spool)
        self.spool = spool
        for option, other in (("fallback", fallback), ("dead_letters", dead_letters)):
            _check_other(type(self).__name__, option, other)
        self.fallback = fallback
        self.dead_letters = dead_letters

    def default_formatter(self) -> logging.Formatter:
        """What formats records where the user gave no formatter."""
        return JSONFormatter()

    def default_name(self) -> str:
        """What statistics call a sink that was given no name; a number follows where it is taken."""
        return type(self).__name__

    def encode(self, record: logging.LogRecord) -> bytes:
        """The record as bytes, without a frame or a line end.

        Called by the lane on the loop's thread, inside the slice it shares with others, once per record and formatter:
        keep it quick and pure.
        """
        # A formatter that gives bytes at once, as offloop's own do, saves a round by `str`.
        encode: Callable[[logging.LogRecord], bytes] | None = getattr(self.formatter, "encode", None)
        if encode is not None:
            return encode(record)
        return self.format(record).encode("utf-8", "backslashreplace")

    def encoding_key(self) -> Hashable | None:
        """What decides how `encode` makes bytes of a record: sinks with equal keys share one encoding of it.

        None: not shared. The default is the formatter, unless `encode` is overridden; ours are equal when they are
        configured alike.
        """
        return self.formatter if type(self).encode is Sink.encode and isinstance(self.formatter, Hashable) else None

    def encodes_purely(self) -> bool:
        """Whether `encode` leaves the record as it is; where it may not, and other sinks share it, it is given a copy.

        A formatter says so by an attribute `pure` of its own class, as offloop's do; a subclass says it anew.
        """
        return type(self).encode is Sink.encode and vars(type(self.formatter)).get("pure", False) is True

    async def open(self) -> None:
        """Connect. Called before the first send, after a failure, and in a new event loop without `aclose` before it.

        Raises:
            TemporaryFailure: Tried again after a backoff; so are `OSError`, `TimeoutError` and `EOFError`.
            SinkFailure: The configuration is wrong; the breaker opens, and the records are kept or diverted.
        """

    async def send(self, batch: Batch) -> None:
        """Hand the batch over. Returns only when the destination has taken the whole of it.

        On cancellation the attempt is over: some of the batch may have been taken, and the lane sends it again.

        Args:
            batch: 1 to `batching.max_records` records, oldest first.

        Raises:
            TemporaryFailure: Sent again after a backoff; so are `OSError`, `TimeoutError` and `EOFError`.
            PermanentFailure: These records will never be taken: rejected, or handed to the dead letters.
            PartialFailure: Some were taken; says which to send again and which never.
            SinkFailure: The sink itself cannot work; the breaker opens, and the records are kept or diverted.
            Exception: Anything else is taken for a record that poisons the batch: the lane looks for it and rejects it.
        """
        raise NotImplementedError

    async def aclose(self) -> None:
        """Let go of the connection. Idempotent; `open` may follow."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Say once that a sink can't be a logger's handler: it would have nobody to await it. Blocks nobody."""
        if not self._said_attached:
            self._said_attached = True
            diagnostics.report(
                # A kind of its own: an `id` may be that of a sink which is gone, and then nothing would be said.
                f"attached:{uuid.uuid4().hex}",
                f"{self!r} is attached to a logger directly, and its records go nowhere: it needs a QueueHandler in "
                f"front (logger {record.name!r}; use Pipeline(sink), or QueueHandler and QueueListener)",
            )
        return False

    def emit(self, record: logging.LogRecord) -> None:
        """As `handle`."""
        self.handle(record)

    def flush(self) -> None:
        """Do nothing: the standard library calls this under its lock; `Pipeline.flush` is the one that waits."""

    def close(self) -> None:
        """Do nothing: `dictConfig` calls this on sinks that stay in use; `aclose` is the one that closes."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name or 'unnamed'} ({logging.getLevelName(self.level)})>"


def check_kind(owner: str, option: str, value: object, kind: type[Batching | Retry | Buffer | Breaker | Spool]) -> None:
    """Refuse a policy of another kind.

    Raises:
        ConfigError: It is one.
    """
    if not isinstance(value, kind):
        name = kind.__name__
        msg = f"{owner}: {option} must be of class {name}, as in {option}={name}(...), or left out; got {value!r}"
        raise ConfigError(msg)


def _check_other(owner: str, option: str, other: object) -> None:
    allows_path = option == "dead_letters"
    if other is None or is_destination(other) or (allows_path and isinstance(other, (str, os.PathLike))):
        return
    more = ", or the path of a file" if allows_path else ""
    msg = f"{owner}: {option} must be a Sink, a logging.Handler, a callable that takes a list of records{more}, or None"
    raise ConfigError(f"{msg}; got {other!r}")


# list[Any]: a list of Record is not a list of LogRecord, and users write either.
Destination = Sink | logging.Handler | Callable[[list[Any]], Awaitable[object]] | Callable[[list[Any]], object]
DeadLetters = Destination | str | os.PathLike[str]


def is_destination(value: object) -> bool:
    """Whether records can go there."""
    return isinstance(value, logging.Handler) or (callable(value) and not inspect.isclass(value))
