"""The contract of a sink, as far as the class itself keeps it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from offloop.errors import ConfigError
from offloop.sink import Sink
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
