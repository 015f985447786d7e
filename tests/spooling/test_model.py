"""A spool's store against a list: whatever is stored, read, removed and taken over, in whatever order."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import record_of
from offloop.capture import message_of
from offloop.spool import Spool
from offloop.spooling.store import SpoolStore
from offloop.spooling.turn import Turn
from spool_files import leave_as_killed

STEP = st.tuples(st.sampled_from(["store", "keep", "front", "read", "settle", "close", "kill"]), st.integers(1, 30))


class Lives:
    """A sink's records over the lives of several processes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.named = 0
        self.begin([])

    def begin(self, left: list[int]) -> None:
        """A new process, which finds these."""
        self.store = SpoolStore(Spool(self.directory), "sink")
        self.next = 200  # numbers below it are for the front
        out = self.store.open(0)
        assert (out.error, out.lost) == (None, [])
        assert out.found == out.unread == len(left)
        self.unread = [(None, name) for name in left]
        self.handed: dict[int, int] = {}
        self.lowest = self.next

    def take(self, step: str, count: int) -> None:
        """One turn of the lane, or the end of the process."""
        if step in {"close", "kill"}:
            left = [*self.in_order, *(name for _, name in self.unread)]
            self.store.close() if step == "close" else leave_as_killed(self.store)
            self.begin(left)
            return
        rows: list[int] = []
        if step in {"store", "keep"}:
            rows = list(range(self.next, self.next + count))
            self.next += count
        elif step == "front" and not self.unread and self.lowest >= count:
            rows = list(range(self.lowest - count, self.lowest))
            self.lowest = rows[0]
        keep = step == "front" or (step == "keep" and not self.unread)
        settled = sorted(self.handed)[:count] if step == "settle" else []
        for number in settled:
            del self.handed[number]
        names = {number: self.name() for number in rows}
        numbered = [(number, record_of(str(names[number]))) for number in rows]
        handed = rows[-1] if rows and keep else -1  # as the lane says it: none
        out = self.store.exchange(
            Turn(settled=settled, rows=numbered, handed=handed, want=count if step == "read" else 0, want_bytes=10**6)
        )
        assert (out.error, out.lost, out.kept) == (None, [], [])
        if keep:
            self.handed |= names
        else:
            self.unread += [(number, names[number]) for number in rows]
        expected = [name for _, name in self.unread[: len(out.read)]]
        assert [int(message_of(record)) for _, record in out.read] == expected
        assert step != "read" or len(expected) == min(count, len(self.unread))
        self.handed |= {number: int(message_of(record)) for number, record in out.read}
        del self.unread[: len(out.read)]
        assert out.unread == len(self.unread)

    def name(self) -> int:
        self.named += 1
        return self.named

    @property
    def in_order(self) -> list[int]:
        return [self.handed[number] for number in sorted(self.handed)]


@pytest.mark.timeout(120)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, min_size=2, max_size=20))
def test_nothing_is_lost_doubled_or_out_of_order(tmp_path: Path, steps: list[tuple[str, int]]) -> None:
    """What a list would hold is what is read, also by the next process after a close or a kill."""
    lives = Lives(tmp_path / random.randbytes(6).hex())
    for step, count in steps:
        lives.take(step, count)
    lives.take("close", 1)
    lives.take("read", 10_000)
    lives.take("settle", 10_000)
    lives.store.close()
    assert list(lives.directory.iterdir()) == []
