"""What several rooms' tests need: batches without a lane, and a collector on loopback."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from offloop.capture import Record, capture, restore
from offloop.losses import LOSS_LOGGER, QUEUE
from offloop.sink import Batch, Sink


def record_of(message: object, *args: object, level: int = logging.INFO, name: str = "app", **extra: Any) -> Record:
    """A record as a sink gets it."""
    record = logging.LogRecord(name, level, __file__, 1, message, args, None)
    record.__dict__.update(extra)
    return restore(capture(record))


def batch_of(sink: Sink, *messages: object) -> Batch:
    """A batch for the sink, one record a message; a message may be a record."""
    records = [message if isinstance(message, Record) else record_of(message) for message in messages]
    return Batch(records, sink)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that nothing signals; the test's own timeout is the limit."""
    while not condition():
        await asyncio.sleep(0.001)


def split_newline(data: bytes) -> Iterator[bytes]:
    """Read newline framing: complete lines only."""
    return iter(data.split(b"\n")[:-1])


def split_nul(data: bytes) -> Iterator[bytes]:
    """Read NUL framing: complete messages only."""
    return iter(data.split(b"\0")[:-1])


def split_octet_count(data: bytes) -> Iterator[bytes]:
    """Read octet counting: complete messages only."""
    while b" " in data:
        count, _, rest = data.partition(b" ")
        if len(rest) < int(count):
            return
        yield rest[: int(count)]
        data = rest[int(count) :]


def split_length_prefixed(data: bytes) -> Iterator[bytes]:
    """Read lengths of four bytes: complete messages only."""
    while len(data) >= 4:
        (count,) = struct.unpack(">L", data[:4])
        if len(data) < 4 + count:
            return
        yield data[4 : 4 + count]
        data = data[4 + count :]


class Collector:
    """Takes connections and keeps what each sends."""

    def __init__(self) -> None:
        self.port = 0
        self.streams: list[bytearray] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.changed = asyncio.Condition()

    @property
    def lines(self) -> list[str]:
        """All complete lines, of all connections."""
        return [line.decode() for stream in self.streams for line in split_newline(bytes(stream))]

    async def wait_for(self, condition: Callable[[], object]) -> None:
        """Wait until something that was received makes the condition true."""
        async with self.changed:
            await self.changed.wait_for(lambda: bool(condition()))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = bytearray()
        self.streams.append(stream)
        self.writers.append(writer)
        try:
            while data := await reader.read(65_536):
                stream += data
                await self._tell()
        except OSError:
            pass  # a test resets connections
        finally:
            writer.close()
            await self._tell()

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()


@asynccontextmanager
async def collecting(*, tls: ssl.SSLContext | None = None) -> AsyncIterator[Collector]:
    """A collector on a free port of 127.0.0.1."""
    collector = Collector()
    handlers: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(collector.serve(reader, writer))
        handlers.add(task)
        task.add_done_callback(handlers.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    collector.port = server.sockets[0].getsockname()[1]
    try:
        yield collector
    finally:
        server.close()
        for writer in collector.writers:
            writer.transport.abort()
        await asyncio.gather(*handlers, return_exceptions=True)


def messages_of(lines: Iterable[str]) -> list[str]:
    """The messages in lines of JSON."""
    return [json.loads(line)["message"] for line in lines]


def logged(records: Iterable[logging.LogRecord]) -> list[str]:
    """The messages that somebody logged: without offloop's own notices of what was lost."""
    return [record.getMessage() for record in records if record.name != LOSS_LOGGER]


def told(records: Iterable[Any], *, queue: bool = False) -> dict[str, dict[str, int]]:
    """What the notices of losses among the records tell in all, by reason and level: of a sink, or of the queue."""
    table: dict[str, dict[str, int]] = {}
    for record in records:
        if record.name == LOSS_LOGGER and (record.sink == QUEUE) is queue:
            for reason, levels in record.lost.items():
                for level, count in levels.items():
                    row = table.setdefault(reason, {})
                    row[level] = row.get(level, 0) + count
    return table
