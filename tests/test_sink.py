"""The contract of a sink, as far as the class itself keeps it."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from helpers import record_of
from offloop import diagnostics
from offloop.errors import ConfigError
from offloop.sink import Batch, Sink
from offloop.sinks import HandlerSink
from offloop.sinks.tcp import TCPSink


@pytest.mark.parametrize(
    ("option", "value", "match"),
    [
        ("batching", None, r"batching must be of class Batching, as in batching=Batching\(\.\.\.\), .*; got None"),
        ("retry", {"initial": 1}, r"retry must be of class Retry, as in retry=Retry\(\.\.\.\), .*; got {'initial': 1}"),
        ("buffer", 1_000, r"buffer must be of class Buffer, as in buffer=Buffer\(\.\.\.\), .*; got 1000"),
        ("send_timeout", "10", "send_timeout must be at least 0.001 seconds, got '10'"),
        ("formatter", "%(message)s", r"formatter must be a logging\.Formatter, got '%\(message\)s'"),
    ],
)
def test_option_of_another_kind_is_refused(option: str, value: Any, match: str) -> None:
    """At construction, by name and value, with the way out."""
    options: dict[str, Any] = {option: value}
    with pytest.raises(ConfigError, match=f"^Sink: {match}$"):
        Sink(**options)
    with pytest.raises(ConfigError, match=f"^TCPSink: {match}$"):
        TCPSink("logs.example", 9020, **options)


def test_option_of_a_wrapped_handler_is_checked() -> None:
    """Those of a handler's sink too."""
    with pytest.raises(ConfigError, match="^HandlerSink: buffer must be of class Buffer"):
        HandlerSink(logging.NullHandler(), buffer=None)


def test_attached_to_a_logger_is_said_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is logged, and however long; another sink says it for itself."""
    now = 1_000_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    logger = logging.Logger("shop")
    logger.addHandler(first := Sink(name="first"))
    for _ in range(3):
        logger.error("lost")
        now += 3_600
    logger.addHandler(Sink(name="second"))
    logger.error("lost")
    monkeypatch.undo()
    diagnostics.flush(1.0)
    said = capsys.readouterr().err
    assert said.count("is attached to a logger directly, and its records go nowhere") == 2
    assert f"offloop: {first!r} is attached" in said
    assert "(logger 'shop'; use Pipeline(sink)" in said


def test_batch_of_lines() -> None:
    """Each record's bytes, the lines, and parts of both are what they would be if it had been made of bytes."""
    sink = Sink(name="x")
    records = [record_of(text) for text in ("a", "b", "c")]
    lines = Batch(records, sink, lines=[b"one\ntwo\n", b"three\n"])
    encoded = Batch(records, sink, [b"one", b"two", b"three"])
    for batch in (lines, encoded):
        assert batch.lines == b"one\ntwo\nthree\n"
        assert batch.encoded == (b"one", b"two", b"three")
        assert batch.bytes == 11
        assert batch.part(1).lines == b"two\nthree\n"
        assert batch.pick([2, 0]).encoded == (b"three", b"one")
    assert Batch(records, sink, lines=[b"one\ntwo\n", b"three\n"]).pick([1]).encoded == (b"two",)


def test_lines_of_what_has_line_breaks() -> None:
    """They are escaped, and stay in what was encoded."""
    batch = Batch([record_of("x")], Sink(name="x"), [b"one\r\ntwo"])
    assert batch.lines == b"one\\r\\ntwo\n"
    assert batch.encoded == (b"one\r\ntwo",)
