from __future__ import annotations

import asyncio
import logging
import logging.handlers
import os
from collections.abc import Callable
from typing import Any

import pytest

from offloop.cli._collector import Collector, take
from offloop.cli._servers import Tally

Frame = Callable[[Any], bytes]


class _Transport(asyncio.BaseTransport):
    closed = False

    def close(self) -> None:
        self.closed = True


def test_lines_and_pickles_come_out_whole(line: Frame, pickled: Frame) -> None:
    """However the bytes are cut, each record comes out once, in order."""
    for data in (line({"n": 1}) + line({"n": 2}), pickled({"n": 1}) + pickled({"n": 2})):
        buffer = bytearray()
        records: list[Any] = []
        for byte in data:
            buffer.append(byte)
            records += take(buffer)
        assert records == [{"n": 1}, {"n": 2}]
        assert not buffer


def test_what_the_standard_handler_pickles_is_read() -> None:
    """A record as SocketHandler frames it is read, its message merged."""
    record = logging.LogRecord("demo", logging.INFO, __file__, 1, "standard#%d", (7,), None)
    data = logging.handlers.SocketHandler("127.0.0.1", 9).makePickle(record)

    assert take(bytearray(data))[0]["msg"] == "standard#7"


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.getpid, ()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(_Evil(), id="a pickle that calls"),
        pytest.param([1], id="a pickle of no record"),
        pytest.param(b"GET / HTTP/1.1\r\n", id="another protocol"),
        pytest.param(b"{no json}\n", id="broken JSON"),
        pytest.param(b"{" + b" " * 1024 * 1024 + b"}\n", id="a long line"),
        pytest.param(b"{" + b" " * 1024 * 1024, id="a line without end"),
        pytest.param(b"\x00\x7f\xff\xff", id="a long pickle"),
    ],
)
def test_anything_else_closes_the_connection(data: Any, pickled: Frame) -> None:
    """What is no record is counted as damaged, runs nothing and ends the connection."""
    tally, transport = Tally(), _Transport()
    connection = Collector(tally)
    connection.connection_made(transport)

    connection.data_received(data if isinstance(data, bytes) else pickled(data))

    assert tally.counts() == {"open": 1, "damaged": 1, "rounds": {}}
    assert transport.closed
    connection.connection_lost(None)
    assert tally.open == 0


def test_records_are_counted_by_round(line: Frame) -> None:
    """Each record counts for the round that its message names first."""
    tally = Tally()
    Collector(tally).data_received(line({"message": "offloop#1 after queue#1"}) + line({"message": "offloop#1"}))

    assert tally.counts()["rounds"] == {"offloop": {"messages": 2, "records": 1, "duplicates": 1}}
