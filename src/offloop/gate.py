"""Whether a sink wants a record: its level, and what its filters say, whatever they do."""

from __future__ import annotations

import logging
from collections.abc import Callable

from offloop import diagnostics
from offloop.capture import Record, capture, restore, text_of
from offloop.sink import FAILURES, Sink

__all__ = ["Accept", "acceptance", "is_below"]

Accept = Callable[[Record], Record | None]


def is_below(record: Record, level: int) -> bool:
    """Whether a record is below a level; one that has no number for a level, as a filter may leave it, is not."""
    return isinstance(record.levelno, int) and record.levelno < level


def acceptance(sink: Sink, *, alone: bool) -> Accept:
    """The filters of a sink as a function that gives the record to deliver, None for none.

    A filter may change the record it is given: where other sinks share it, it is given a copy.
    """

    def accept(record: Record) -> Record | None:
        candidate = record if alone else record.twin()
        try:
            passed: object = sink.filter(candidate)
        except FAILURES as error:  # reported; a record is rather delivered once too often
            diagnostics.report(
                f"filter:{id(sink)}", f"a filter of {sink!r} failed: {type(error).__name__}: {text_of(error)}"
            )
            return record
        if isinstance(passed, logging.LogRecord):  # 3.12 and later: a filter may replace the record
            return passed if isinstance(passed, Record) else restore(capture(passed))
        return candidate if passed else None

    return accept
