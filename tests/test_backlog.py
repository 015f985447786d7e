"""What one sink holds."""

from __future__ import annotations

import logging

from hypothesis import given
from hypothesis import strategies as st

from offloop.backlog import Backlog
from offloop.capture import Record, capture, restore
from offloop.policies import Buffer


def record(levelno: int = logging.INFO) -> Record:
    """Any record."""
    return restore(capture(logging.makeLogRecord({"msg": "x", "levelno": levelno})))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from([logging.INFO, logging.ERROR])),
        st.tuples(st.sampled_from(["fly", "settle", "settle youngest", "barrier"]), st.integers(1, 4)),
        st.tuples(st.sampled_from(["land", "clear"]), st.just(0)),
    ),
    max_size=60,
)


@given(steps=STEPS, overflow=st.sampled_from(["drop_old", "drop_new"]))
def test_bounds_and_barriers_hold(steps: list[tuple[str, int]], overflow: str) -> None:
    """Whatever is done: the bound holds, bytes are those of what is held, and a barrier counts what is ahead."""
    backlog = Backlog(Buffer(max_records=6, overflow=overflow))  # type: ignore[arg-type]
    held: list[Record] = []
    barriers = []
    for step, number in steps:
        if step == "add":
            new = record(number)
            gone = backlog.add(new)
            while gone is not None and gone is not new:
                held.remove(gone)
                gone = backlog.add(new)
            held += [new] if gone is None else []
        elif step == "fly":
            backlog.fly(min(number, len(backlog.waiting)))
        elif step.startswith("settle"):
            flying = list(backlog.flying.values())
            done = flying[:number] if step == "settle" else flying[-number:]
            backlog.settle(done)
            held = [r for r in held if r not in done]
        elif step == "barrier":
            barriers.append((backlog.barrier(), list(held)))
        elif step == "land":
            backlog.land()
        else:
            assert list(backlog.clear()) == held
            held = []
        assert [*backlog.flying.values(), *backlog.waiting] == held
        assert len(backlog) <= 6
        assert backlog.size_bytes == sum(r.size_bytes for r in held)
        for barrier, before in barriers:
            assert barrier.ahead == sum(r in held for r in before)


def test_barrier_stands_while_a_younger_record_goes_first() -> None:
    """Of a batch that was taken in part, what is to be sent again may be older than what went."""
    backlog = Backlog(Buffer())
    old, young = record(), record()
    backlog.add(old)
    barrier = backlog.barrier()
    backlog.add(young)
    backlog.fly(2)
    backlog.settle([young])
    assert barrier.ahead == 1
    backlog.settle([old])
    assert not barrier.ahead


def test_forgotten_barrier_is_no_longer_waited_for() -> None:
    """`flushing` tells whether somebody waits."""
    backlog = Backlog(Buffer())
    backlog.add(record())
    barrier = backlog.barrier()
    assert backlog.flushing
    backlog.forget(barrier)
    backlog.forget(barrier)
    assert not backlog.flushing
