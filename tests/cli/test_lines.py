"""Lines of JSON as records."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from helpers import record_of
from offloop.capture import capture, restore
from offloop.cli._lines import NoRecords, parsed
from offloop.fingerprint import fingerprint
from offloop.formatters.json import JSONFormatter


def raised() -> Any:
    """A record with an exception, as a sink gets it."""
    record = logging.LogRecord("shop.cart", 40, __file__, 7, "no stock of %s", ("sku-17",), failure(), "sell")
    record.order = 4711
    frozen = restore(capture(record))
    assert frozen.exception is not None
    frozen.exc_text = frozen.exception.render()
    return frozen


def failure() -> Any:
    try:
        try:
            {}["sku-17"]
        except KeyError as error:
            raise LookupError("no stock") from error
    except LookupError as error:
        return type(error), error, error.__traceback__


@pytest.mark.parametrize("fields", ["plain", "otel", "ecs"])
def test_what_the_formatter_wrote_is_read(fields: Any) -> None:
    """Level, logger, message, time, place, exception and extra come back, in each vocabulary."""
    record = raised()
    (read,) = parsed([JSONFormatter(fields=fields).encode(record), b"\n"], "file")
    assert (read.name, read.levelno, read.getMessage()) == ("shop.cart", 40, "no stock of sku-17")
    assert read.created == pytest.approx(record.created, abs=1e-6)
    assert (read.lineno, read.funcName, read.process) == (7, "sell", record.process)
    assert read.exc_text == record.exc_text
    assert read.exception is not None
    assert (read.exception.type_name, read.exception.message) == ("LookupError", "no stock")
    assert [frame.name for frame in read.exception.frames] == ["failure"]
    assert read.__dict__["order"] == 4711


def test_read_exceptions_have_kinds() -> None:
    """Two of one place are of one kind, though their messages differ."""
    lines = [JSONFormatter().encode(raised()).replace(b"sku-17", sku) for sku in (b"'a'", b"'bcd'")]
    first, second = parsed(lines, "file")
    assert fingerprint(first) == fingerprint(second)


@pytest.mark.parametrize("epoch", [True, False])
def test_either_time_is_read(epoch: bool) -> None:
    """Seconds, or ISO 8601."""
    record = record_of("hello")
    line = JSONFormatter(timestamp="epoch" if epoch else "iso").encode(record)
    (read,) = parsed([line], "file")
    assert read.created == pytest.approx(record.created, abs=1e-6)


@pytest.mark.parametrize("line", [b"hello", b"[1]", b'{"level": "INFO"}', b"\xff"])
def test_what_is_no_record_is_named(line: bytes) -> None:
    """File, line and reason."""
    with pytest.raises(NoRecords, match=r"^app\.jsonl, line 2: not a record as JSON: ."):
        list(parsed([b'{"message": "fine", "time": "when?"}', line], "app.jsonl"))
