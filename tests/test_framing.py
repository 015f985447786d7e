from __future__ import annotations

import logging
import logging.handlers
import pickle
import struct
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import record_of, split_length_prefixed, split_newline, split_nul, split_octet_count
from offloop.capture import capture, restore
from offloop.framing import FRAMERS, PickleFormatter, length_prefixed, newline, nul, octet_count

SPLITTERS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "newline": split_newline,
    "octet-count": split_octet_count,
    "nul": split_nul,
    "pickle": split_length_prefixed,
}
ESCAPED = {"newline": b"\n\r", "octet-count": b"", "nul": b"\0", "pickle": b""}


@pytest.mark.parametrize("name", SPLITTERS)
@given(messages=st.lists(st.binary(min_size=1), min_size=1))
def test_framing_round_trips(name: str, messages: list[bytes]) -> None:
    """A receiver finds as many messages as were sent, and those without the frame's own bytes unchanged."""
    found = list(SPLITTERS[name](FRAMERS[name](messages)))
    assert len(found) == len(messages)
    for sent, received in zip(messages, found, strict=True):
        assert received == sent or any(byte in sent for byte in ESCAPED[name])


@pytest.mark.parametrize(
    ("frame", "messages", "framed"),
    [
        (newline, [b"one", b"two"], b"one\ntwo\n"),
        (newline, [b"one\r\nforged: two", b"three"], b"one\\r\\nforged: two\nthree\n"),
        (newline, [b"one\rforged"], b"one\\rforged\n"),
        (newline, [b""], b"\n"),
        (nul, [b"one", b"two"], b"one\0two\0"),
        (nul, [b"one\0forged"], b"one\\x00forged\0"),
        (octet_count, [b"one", "zwölf".encode()], b"3 one6 zw\xc3\xb6lf"),
        (octet_count, [b"a\n5 forge"], b"9 a\n5 forge"),
        (octet_count, [b""], b"1  "),
        (length_prefixed, [b"one", b""], b"\0\0\0\3one\0\0\0\0"),
    ],
)
def test_framing_on_the_wire(frame: Callable[[Sequence[bytes]], bytes], messages: list[bytes], framed: bytes) -> None:
    """What ends a message inside one is escaped or counted."""
    assert frame(messages) == framed


def test_pickle_is_what_the_standard_handler_sends() -> None:
    """A receiver gets the same attributes from us as from the standard library's `SocketHandler`."""
    record = logging.LogRecord("app.db", logging.ERROR, "/srv/app.py", 7, "took %d ms", (12,), None, func="query")
    record.__dict__.update(request="r1")
    standard = logging.handlers.SocketHandler("127.0.0.1", 1).makePickle(record)
    (length,) = struct.unpack(">L", standard[:4])
    ours = PickleFormatter().encode(restore(capture(record)))
    assert pickle.loads(ours) == pickle.loads(standard[4 : 4 + length])


def test_pickle_leaves_out_a_formatters_leftover() -> None:
    """`message`, which a formatter leaves on a record, isn't sent, and the record stays as it is."""
    record = record_of("took %d ms", 12)
    record.message = "took 12 ms"
    attributes = pickle.loads(PickleFormatter().encode(record))
    assert "message" not in attributes
    assert attributes["msg"] == "took 12 ms"
    assert record.message == "took 12 ms"
    assert record.args == (12,)
