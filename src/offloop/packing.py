"""From waiting records to a batch: tracebacks rendered off the loop, records encoded in the slices that all share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import cast

from offloop import diagnostics
from offloop.backlog import Backlog
from offloop.capture import SNAPSHOTS, Held, Record, made, message_of, text_of
from offloop.delivery import Hold
from offloop.formatters.json import JSONFormatter
from offloop.ledger import Ledger
from offloop.run import Run
from offloop.sink import FAILURES, Batch, Sink
from offloop.worker import Breather, Worker

__all__ = ["encode_safely", "pack", "render", "takes_snapshots"]

_TOGETHER, _SEVERAL = 128, 32  # small records between two looks at the clock: as plain ones, and one by one
_LOOK_BYTES = _TOGETHER * 2_048
_RENDER_TIMEOUT = 5.0  # seconds; source files may lie on a disk that hangs


async def render(waiting: Iterable[Held], renderer: Worker, hold: Hold) -> None:
    """Have the tracebacks of these rendered, off the loop; rendered ones are shared with other lanes.

    Args:
        waiting: What the next batch may have.
        renderer: The thread.
        hold: Waits for it: five seconds at most, then a traceback is brief.
    """
    unrendered = [
        held for held in waiting if isinstance(held, Record) and held.exception is not None and held.exc_text is None
    ]
    if not unrendered:
        return
    task = asyncio.get_running_loop().create_task(renderer.run(_render_all, unrendered))
    await hold(task, _RENDER_TIMEOUT)
    for record in unrendered:
        if record.exc_text is None and record.exception is not None:
            record.exc_text = record.exception.brief()
    task.cancel()


async def pack(sink: Sink, backlog: Backlog, ledger: Ledger, others: Sequence[Sink], run: Run) -> Batch | None:
    """The next batch: notices first, then as many records as it may have, which fly from now on; None if there is none.

    Args:
        sink: Whose it is.
        backlog: What it holds.
        ledger: Its counts.
        others: The sinks that get the same records.
        run: In whose slices they are encoded, where the sink wants them so.
    """
    limits = sink.batching
    notices = list(backlog.notices.values())
    # At most half of the buffer flies, so that an outage always leaves something old to evict.
    max_records = min(limits.max_records - len(notices), max(1, sink.buffer.max_records // 2))
    encoding = _Encoding(sink, others)
    encoded = [encoding.one(notice) for notice in notices] if sink.encodes else []
    size_bytes = sum(map(len, encoded))

    def step(deadline: float) -> bool:
        nonlocal size_bytes
        room = max(0, max_records - len(backlog.flying))
        waiting, sizes = list(islice(backlog.waiting, room)), list(islice(backlog.sizes, room))
        start, ends = 0, len(waiting)
        while start < ends:
            # Several at a time where they are small, and quick to encode.
            stop = min(start + encoding.several, ends)
            heavy = sum(sizes[start:stop])
            if heavy > _LOOK_BYTES:
                stop = start + max(1, (stop - start) * _LOOK_BYTES // heavy)
            taken, data, may_follow = encoding.take(waiting[start:stop], backlog, start)
            if sink.encodes:
                size = sum(map(len, data))
                if size_bytes + size > limits.max_bytes:
                    first = not (notices or backlog.flying or start)
                    taken, may_follow = _fitting(data, limits.max_bytes - size_bytes, alone=first), False
                    del data[taken:]
                    size = sum(map(len, data))
                encoded.extend(data)
                size_bytes += size
            start += taken
            if not may_follow:
                ends = start
            elif time.perf_counter() >= deadline:
                break
        ledger.begin()
        backlog.fly(start)
        ledger.end()
        return start >= ends

    await run.work(step)
    held = [*notices, *backlog.flying]
    if not held:
        return None
    return Batch(held, sink, encoded if sink.encodes else None, unbroken=encoding.gives_lines and not notices)


def _fitting(data: Sequence[bytes], room: int, *, alone: bool) -> int:
    """How many of these fit; the first goes alone where it is larger than any batch may be."""
    taken = 0
    for one in data:
        room -= len(one)
        if room < 0 and not (alone and taken == 0):
            break
        taken += 1
    return taken


def takes_snapshots(sink: Sink, others: Sequence[Sink]) -> bool:
    """Whether nobody needs records, but for their bytes: the formatter makes these of snapshots too."""
    return sink.encodes and not others and _has_own_encode(sink) and type(sink.formatter) is JSONFormatter


def _has_own_encode(sink: Sink) -> bool:
    return getattr(sink.encode, "__func__", None) is Sink.encode


class _Encoding:
    """How to encode for a sink: once, where several sinks would make the same bytes of a record. Never raises."""

    def __init__(self, sink: Sink, others: Sequence[Sink]) -> None:
        self._sink = sink
        formatter = sink.formatter if takes_snapshots(sink, others) else None
        self._formatter = formatter if isinstance(formatter, JSONFormatter) else None
        self._encode = _encoder(sink, others)
        self.gives_lines = self._formatter is not None
        """What it gives of records has no line feeds."""
        self.several = _TOGETHER if self.gives_lines else _SEVERAL if sink.encodes_purely() else 1
        """How many to encode between two looks at the clock."""

    def take(self, piece: list[Held], backlog: Backlog, start: int) -> tuple[int, list[bytes], bool]:
        """Some of these, which wait from `start` on, for the next batch: records now, unless nobody needs them as such.

        Returns:
            How many; each as bytes, if the sink wants them; and whether more may follow. None may before what comes
            next has its traceback rendered.
        """
        formatter = self._formatter
        plain = None if formatter is None else formatter.encode_plain(piece)
        if plain is not None:
            return len(piece), plain, True
        del piece[_SEVERAL:]
        several = len(piece)
        for index, held in enumerate(piece):
            if type(held) in SNAPSHOTS:
                if formatter is None:
                    piece[index] = backlog.record(start + index)
            elif cast("Record", held).exception is not None and cast("Record", held).exc_text is None:
                del piece[index:]
                break
        data: list[bytes] = []
        if formatter is not None:
            data = formatter.encode_all(piece)
        elif self._sink.encodes:
            data = [self.one(made(held)) for held in piece]
        return len(piece), data, len(piece) == several

    def one(self, record: Record) -> bytes:
        """A record as bytes; failing that, as the sink's default formatter makes them, or as JSON."""
        try:
            return _bytes(self._encode(record))
        except FAILURES as error:  # reported, and the record goes out in another form
            return _repaired(self._sink, record, error)


def _encoder(sink: Sink, others: Sequence[Sink]) -> Callable[[Record], object]:
    """How to encode a record for this sink: once, where several sinks would make the same bytes of it. It may raise."""
    key = sink.encoding_key()
    if key is None or not any(other.encoding_key() == key for other in others):
        if others and not sink.encodes_purely():
            return lambda record: sink.encode(record.twin())
        return getattr(sink.formatter, "encode", sink.encode) if _has_own_encode(sink) else sink.encode

    def shared(record: Record) -> object:
        if record.encodings is None:
            record.encodings = {}
        data = record.encodings.get(key)
        if data is None:
            own = record if sink.encodes_purely() else record.twin()
            data = record.encodings[key] = encode_safely(sink, own)
        return data

    return shared


def encode_safely(sink: Sink, record: Record) -> bytes:
    """The record as the sink encodes it; failing that, as its default formatter does, or as JSON. Never raises."""
    try:
        return _bytes(sink.encode(record))
    except FAILURES as error:  # reported, and the record goes out in another form
        return _repaired(sink, record, error)


def _repaired(sink: Sink, record: Record, error: BaseException) -> bytes:
    """What a sink failed to encode, in another form; it is reported."""
    diagnostics.report(
        f"encode:{id(sink)}",
        f"{sink!r} could not format a record of {record.name!r}: {type(error).__name__}: {text_of(error)}",
    )
    repaired = record.twin()
    repaired.msg, repaired.args = message_of(record), ()
    with suppress(*FAILURES):  # reported above
        return _bytes(sink.encode(repaired))
    with suppress(*FAILURES):
        return sink.default_formatter().format(repaired).encode("utf-8", "backslashreplace")
    return JSONFormatter().format(repaired).encode("utf-8", "backslashreplace")


def _bytes(data: object) -> bytes:
    if isinstance(data, bytes):
        return data
    msg = f"encode must give bytes, got {type(data).__name__}"
    raise TypeError(msg)


def _render_all(records: Sequence[Record]) -> None:
    """Fill in `exc_text`, in the renderer's thread. Idempotent: two lanes may ask for the same."""
    breather = Breather()
    for record in records:
        if record.exception is not None and record.exc_text is None:
            record.exc_text = record.exception.text()
        breather()
