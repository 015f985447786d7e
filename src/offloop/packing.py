"""From waiting records to a batch: tracebacks rendered off the loop, records encoded in the slices that all share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice

from offloop import diagnostics
from offloop.backlog import Backlog
from offloop.capture import Record, message_of, text_of
from offloop.delivery import Hold
from offloop.formatters.json import JSONFormatter
from offloop.ledger import Ledger
from offloop.run import Run
from offloop.sink import FAILURES, Batch, Sink
from offloop.worker import Breather, Worker

__all__ = ["encode_safely", "pack", "render"]

_LOOK_BYTES = 12 * 1_280  # of records between two looks at the clock: a dozen short ones; one where others encode
_RENDER_TIMEOUT = 5.0  # seconds; source files may lie on a disk that hangs


async def render(records: Iterable[Record], renderer: Worker, hold: Hold) -> None:
    """Have the tracebacks of these rendered, off the loop; rendered ones are shared with other lanes.

    Args:
        records: What the next batch may have.
        renderer: The thread.
        hold: Waits for it: five seconds at most, then a traceback is brief.
    """
    unrendered = [record for record in records if record.exception is not None and record.exc_text is None]
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
    encode = _encoder(sink, others) if sink.encodes else None
    encoded = [_safely(encode, sink, notice) for notice in notices] if encode is not None else []
    size_bytes = sum(map(len, encoded))
    stride = _LOOK_BYTES if encode is None or sink.encodes_purely() else 0

    def step(deadline: float) -> bool:
        nonlocal size_bytes
        count, unlooked, done = 0, 0, True
        for record in islice(backlog.waiting, max(0, max_records - len(backlog.flying))):
            unlooked += record.size_bytes
            if unlooked > stride:
                if count and time.perf_counter() >= deadline:
                    done = False
                    break
                unlooked = record.size_bytes
            if record.exception is not None and record.exc_text is None:
                break
            if encode is not None:
                try:
                    data = encode(record)
                    if type(data) is not bytes:
                        data = _bytes(data)
                except FAILURES as error:
                    data = _repaired(sink, record, error)
                size = len(data)
                if encoded and size_bytes + size > limits.max_bytes:
                    break
                encoded.append(data)
                size_bytes += size
            count += 1
        ledger.begin()
        backlog.fly(count)
        ledger.end()
        return done

    await run.work(step)
    records = [*notices, *backlog.flying.values()]
    return Batch(records, sink, encoded if sink.encodes else None) if records else None


def _encoder(sink: Sink, others: Sequence[Sink]) -> Callable[[Record], object]:
    """How to encode a record for this sink: once, where several sinks would make the same bytes of it. It may raise."""
    key = sink.encoding_key()
    if key is None or not any(other.encoding_key() == key for other in others):
        if others and not sink.encodes_purely():
            return lambda record: sink.encode(record.twin())
        plainly = getattr(sink.encode, "__func__", None) is Sink.encode
        return getattr(sink.formatter, "encode", sink.encode) if plainly else sink.encode

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
    return _safely(sink.encode, sink, record)


def _safely(encode: Callable[[Record], object], sink: Sink, record: Record) -> bytes:
    try:
        return _bytes(encode(record))
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
