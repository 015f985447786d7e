"""The counts balance at every moment, whoever reads them."""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from offloop.ledger import Counts, Ledger, Report, Stats, steadily, tabulate

steps = st.lists(st.sampled_from(["offer", "deliver", "filter", "drop"]), max_size=60)


@given(steps)
def test_ledger_balances_after_every_step(names) -> None:
    """Whatever happens to the records, each is in one place."""
    held: deque[int] = deque()
    ledger = Ledger(lambda: len(held))
    for name in names:
        ledger.begin()
        if name == "offer":
            ledger.offered += 1
            held.append(logging.INFO)
        elif held:
            levelno = held.popleft()
            if name == "deliver":
                ledger.delivered += 1
            elif name == "filter":
                ledger.filtered += 1
            else:
                ledger.drop("overflow", levelno)
        ledger.end()
        assert ledger.counts().balanced
    assert ledger.counts().offered == names.count("offer")


def test_reader_in_another_thread_sees_no_half_change() -> None:
    """While one thread writes as fast as it can, every snapshot of another balances."""
    held: deque[int] = deque()
    ledger = Ledger(lambda: len(held))
    done = threading.Event()

    def write() -> None:
        for number in range(20_000):
            ledger.begin()
            ledger.offered += 1
            held.append(number)
            if number % 3 == 0:
                ledger.drop("shed", held.popleft() and logging.INFO)
            ledger.end()
        done.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        writer = threading.Thread(target=write)
        writer.start()
        looks = 0
        while not done.is_set():
            assert ledger.counts().balanced
            looks += 1
        writer.join()
    finally:
        sys.setswitchinterval(interval)
    assert looks
    assert ledger.counts().offered == 20_000


def test_unbalanced_counts_are_told() -> None:
    """A record that is nowhere, or in two places, shows."""
    assert Counts().balanced
    assert not Counts(offered=1).balanced
    everywhere = Counts(
        offered=8, recovered=1, delivered=1, diverted=1, filtered=1, dropped={"shed": {"INFO": 1, "DEBUG": 1}},
        dead_lettered=1, spooled=1, printed=1, pending=1,
    )  # fmt: skip
    assert everywhere.balanced
    assert everywhere.lost == 2


def test_stats_balance_when_all_do() -> None:
    """One sink that doesn't balance is enough."""
    assert Stats(Counts(), {"a": Counts()}).balanced
    assert not Stats(Counts(), {"a": Counts(), "b": Counts(pending=1)}).balanced
    assert not Stats(Counts(pending=1), {}).balanced
    assert Report(Counts(), {}, complete=False, elapsed=0.5).balanced


def test_drops_are_told_by_reason_and_level_name() -> None:
    """Levels that share a name share a count; those without one are numbered."""
    logging.addLevelName(33, "INFO")
    try:
        table = tabulate([(("shed", 20), 2), (("shed", 33), 1), (("own", 7), 1)])
    finally:
        del logging._levelToName[33]
        logging.addLevelName(20, "INFO")
    assert table == {"shed": {"INFO": 3}, "own": {"Level 7": 1}}


def test_snapshot_does_not_change() -> None:
    """What was read stays as it was."""
    ledger = Ledger(lambda: 0)
    ledger.drop("own", 20)
    counts = ledger.counts()
    ledger.drop("own", 20)
    ledger.error, ledger.state = "refused", "failing"
    assert counts.dropped == {"own": {"INFO": 1}}
    assert (counts.error, counts.state) == (None, "idle")
    assert (ledger.counts().error, ledger.counts().state) == ("refused", "failing")


def test_steadily_looks_again_until_nothing_moved() -> None:
    """An odd version, or one that changed while reading, is not believed."""
    versions = iter([1, 2, 3, 4, 4])
    reads = []
    counts = steadily(lambda: next(versions), lambda: reads.append(1) or Counts(offered=len(reads)), Counts)
    assert counts.offered == 2


def test_steadily_gives_up_on_a_writer_that_was_interrupted() -> None:
    """A reader on the writer's own thread gets what there is, and does not hang."""
    assert steadily(lambda: 1, Counts, lambda: Counts(offered=5)).offered == 5


def test_reader_that_interrupts_the_writer_sees_what_was_before() -> None:
    """A signal handler on the writer's own thread can't wait for the set of changes to be complete."""
    held: list[int] = []
    ledger = Ledger(lambda: len(held))
    ledger.offered += 1
    held.append(logging.INFO)
    ledger.begin()
    ledger.offered += 5
    counts = ledger.counts()
    assert counts.balanced
    assert counts.offered == 1
