"""Records and batches for tests that call a sink without a listener."""

from __future__ import annotations

import logging
from typing import Any

from offloop.capture import Record, capture, restore
from offloop.sink import Batch, Sink

__all__ = ["make_batch", "make_record"]


def make_record(
    message: object, *args: object, level: int = logging.INFO, name: str = "app", exc_info: Any = None, **extra: Any
) -> Record:
    """A record as a sink gets it: captured, and its traceback rendered.

    Args:
        message: As for `Logger.log`, and so are `args`.
        args: Merged into the message.
        level: Its number.
        name: The logger's.
        exc_info: An exception, or the triple of `sys.exc_info()`.
        extra: Attributes, as a logger's `extra`.
    """
    record = logging.LogRecord(name, level, __file__, 1, message, args, exc_info)
    record.__dict__.update(extra)
    made = restore(capture(record))
    if made.exception is not None:
        made.exc_text = made.exception.render()
    return made


def make_batch(sink: Sink, *messages: object) -> Batch:
    """A batch for the sink, one record a message; a message may be a `Record`."""
    return Batch([item if isinstance(item, Record) else make_record(item) for item in messages], sink)
