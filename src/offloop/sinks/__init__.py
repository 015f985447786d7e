"""One destination a module; and what turns a plain handler or a callable into a sink."""

from __future__ import annotations

import logging

from offloop.errors import ConfigError
from offloop.sink import Destination, Sink, is_destination
from offloop.sinks.function import FunctionSink
from offloop.sinks.handler import HandlerSink

__all__ = ["Destination", "FunctionSink", "HandlerSink", "as_sink"]


def as_sink(destination: Destination) -> Sink:
    """The destination as a sink: itself, or what calls it.

    Raises:
        ConfigError: It is none of the three.
    """
    if isinstance(destination, Sink):
        return destination
    if isinstance(destination, logging.Handler):
        return HandlerSink(destination)
    if is_destination(destination):
        return FunctionSink(destination)
    msg = f"a sink must be a Sink, a logging.Handler or a callable that takes a list of records, got {destination!r}"
    raise ConfigError(msg)
