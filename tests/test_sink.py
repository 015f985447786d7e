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


@pytest.mark.parametrize("unbroken", [True, False])
def test_batch_as_lines(unbroken: bool) -> None:
    """All, and parts of it, whether it is known that none has a line break or not."""
    batch = Batch([record_of(text) for text in ("a", "b", "c")], Sink(name="x"), [b"1", b"22", b"3"], unbroken=unbroken)
    assert batch.lines == b"1\n22\n3\n"
    assert batch.bytes == 4
    assert batch.part(1).lines == b"22\n3\n"
    assert batch.pick([2, 0]).encoded == (b"3", b"1")


def test_lines_of_what_has_line_breaks() -> None:
    """They are escaped, and stay in what was encoded."""
    batch = Batch([record_of("x")], Sink(name="x"), [b"one\r\ntwo"])
    assert batch.lines == b"one\\r\\ntwo\n"
    assert batch.encoded == (b"one\r\ntwo",)
