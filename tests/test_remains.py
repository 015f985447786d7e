"""Records are printed as the last resort, within a budget, and counted exactly."""

from __future__ import annotations

import pytest

from helpers import record_of
from offloop.remains import Printing
from offloop.stderr import Budget


def test_oldest_are_printed_within_the_budget(capsys: pytest.CaptureFixture[str]) -> None:
    """What goes beyond its bytes is not begun."""
    records = [record_of(f"{number}" + "x" * 100) for number in range(10)]
    budget = Budget(max_bytes=500)
    printing = Printing("mail", records, budget)
    printing.run()
    printed = printing.stop()
    lines = capsys.readouterr().err.splitlines()
    assert printed == records[: len(lines)]
    assert 1 < len(lines) < 5
    assert all(line.startswith("offloop: mail: 20") for line in lines)
    assert (budget.asked, budget.printed) == (10, len(lines))
    assert str(printing) == f"10 record(s) for mail were not delivered, of which {len(lines)} are printed here,"


def test_nothing_is_printed_after_a_stop(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever asked for the number may rely on it."""
    printing = Printing("mail", [record_of("late")], Budget())
    assert printing.stop() == []
    printing.run()
    assert not capsys.readouterr().err


def test_time_that_is_spent(capsys: pytest.CaptureFixture[str]) -> None:
    """One budget is for all: once its time is spent the next one prints nothing."""
    printing = Printing("mail", [record_of("late")], Budget(seconds=0))
    printing.run()
    assert printing.stop() == []
    assert not capsys.readouterr().err
