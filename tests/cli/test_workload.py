from __future__ import annotations

import logging
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.cli._workload import errors_expected, percentile, run


@pytest.mark.parametrize(("part", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
def test_percentile_is_a_value_that_occurred(part: float, expected: int) -> None:
    """The nearest rank of 1 to 100, in any order."""
    assert percentile(list(range(100, 0, -1)), part) == expected


def test_percentile_of_nothing() -> None:
    """There is none, and no error."""
    assert percentile([], 0.5) == 0.0


@given(st.floats(1, 60), st.floats(10, 5000))
def test_every_round_has_an_error(seconds: float, rate: float) -> None:
    """Whatever is asked for, some request fails, and mails stay few."""
    assert 1 <= errors_expected(seconds, rate) <= 3 * seconds + 1


class _Count(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.levels: Counter[str] = Counter()
        self.messages: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.levels[record.levelname] += 1
        self.messages.add(record.getMessage().split(" ", 1)[0])


async def test_workload_logs_what_it_says() -> None:
    """Records, errors, beats and requests are as many as the plan has; each record has its own tag."""
    logger, handler = logging.Logger("demo", logging.DEBUG), _Count()
    logger.addHandler(handler)

    measured = await run(logger, "queue", 0.5, 60)

    assert measured.logged == handler.levels.total() == 30
    assert measured.errors == handler.levels["ERROR"] == errors_expected(0.5, 60)
    assert handler.messages == {f"queue#{number}" for number in range(30)}
    assert len(measured.beats) == 100
    assert len(measured.requests) == 10


async def test_disabled_logger_logs_nothing() -> None:
    """The idle round's workload counts no record."""
    measured = await run(logging.Logger("demo", logging.CRITICAL + 1), "idle", 0.1, 60)

    assert (measured.logged, measured.errors) == (0, 0)
