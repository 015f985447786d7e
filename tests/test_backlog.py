"""What one sink holds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from offloop.backlog import Backlog
from offloop.capture import Held, Record, capture, made, restore
from offloop.overflow import Room
from offloop.policies import Buffer
from offloop.sifting import sift


def record(levelno: int = logging.INFO, message: str = "x") -> Record:
    """Any record."""
    return restore(capture(logging.makeLogRecord({"msg": message, "levelno": levelno})))


def plain(levelno: int = logging.INFO) -> Held:
    """Any record, as the snapshot of a plain one."""
    ((snapshot,), *_) = sift([capture(logging.LogRecord("app", levelno, "x.py", 1, "x %s", ("y",), None))], 0.0)
    return snapshot


def same(some: Sequence[object], others: Sequence[object]) -> bool:
    """Whether these are the very same: two snapshots may be equal."""
    return list(map(id, some)) == list(map(id, others))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from([logging.INFO, logging.WARNING, logging.ERROR])),
        st.tuples(st.sampled_from(["fly", "settle", "settle youngest", "barrier"]), st.integers(1, 4)),
        st.tuples(st.sampled_from(["land", "clear"]), st.just(0)),
    ),
    max_size=60,
)


BUFFERS = st.builds(
    Buffer,
    max_records=st.just(6),
    overflow=st.sampled_from(["drop_old", "drop_new"]),
    shed_at=st.sampled_from([0.3, 0.8, 1.0]),
    reserve=st.sampled_from([0.0, 0.1, 0.4]),
)


@given(steps=STEPS, buffer=BUFFERS)
def test_bounds_and_barriers_hold(steps: list[tuple[str, int]], buffer: Buffer) -> None:
    """Whatever is done: the bound holds, bytes are those of what is held, and a barrier counts what is ahead."""
    backlog = Backlog(buffer)
    held: list[Held] = []
    barriers = []
    for step, number in steps:
        if step == "add":
            new = plain(number) if len(held) % 2 else record(number)
            held.append(new)
            for lost, _ in backlog.add(new):
                held = [one for one in held if one is not lost]
        elif step == "fly":
            backlog.fly(min(number, len(backlog.waiting)))
        elif step.startswith("settle"):
            flying = list(backlog.flying)
            done = flying[:number] if step == "settle" else flying[-number:]
            backlog.settle(done)
            held = [one for one in held if id(one) not in set(map(id, done))]
        elif step == "barrier":
            barriers.append((backlog.barrier(), list(held)))
        elif step == "land":
            backlog.land()
        else:
            assert same(list(backlog.clear()), held)
            held = []
        assert same([*backlog.flying, *backlog.waiting], held)
        assert len(backlog) <= 6
        assert backlog.size_bytes == sum(made(one).size_bytes for one in held)
        assert len(backlog.sizes) == len(backlog.waiting)
        for barrier, before in barriers:
            assert barrier.ahead == sum(id(one) in map(id, held) for one in before)


FILL = st.lists(
    st.tuples(st.sampled_from([logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR]), st.integers(0, 3_000)),
    max_size=80,
)


@given(
    fill=FILL,
    max_records=st.integers(1, 30),
    max_bytes=st.integers(1_000, 30_000),
    shed_at=st.floats(0, 1),
    reserve=st.floats(0, 1),
    overflow=st.sampled_from(["drop_old", "drop_new"]),
)
def test_each_level_keeps_to_its_share(fill: list[tuple[int, int]], **limits: Any) -> None:
    """What is lost and why: shed only below WARNING, an ERROR only for another, and never out of the reserve."""
    buffer = Buffer(**limits)
    backlog, room = Backlog(buffer), Room(buffer)
    for levelno, length in fill:
        new, before, bytes_before = record(levelno, "x" * length), len(backlog), backlog.size_bytes
        lost = backlog.add(new)
        assert len(backlog) == before + 1 - len(lost)
        assert len(backlog) <= buffer.max_records
        assert backlog.size_bytes <= buffer.max_bytes
        max_records, max_bytes = room.bounds(levelno)
        if not any(gone is new for gone, _ in lost):
            assert len(backlog) <= max(max_records, before)
            assert backlog.size_bytes <= max(max_bytes, bytes_before)
        for gone, reason in lost:
            assert reason != "shed" or (gone is new and levelno < logging.WARNING)
            assert gone is new or made(gone).levelno < logging.ERROR or levelno >= logging.ERROR
        if levelno >= logging.ERROR and before < max_records and bytes_before + new.size_bytes <= max_bytes:
            assert not lost


def test_record_below_error_takes_no_more_of_the_reserve() -> None:
    """Where errors fill the reserve, a WARNING takes the place of one record, and an INFO that of none."""
    backlog = Backlog(Buffer(max_records=10))
    for levelno in [logging.INFO] * 8 + [logging.ERROR] * 2:
        assert not backlog.add(record(levelno))
    oldest = backlog.waiting[0]
    assert backlog.add(record(logging.WARNING)) == [(oldest, "overflow")]
    info = record()
    assert backlog.add(info) == ((info, "shed"),)
    assert made(backlog.add(record(logging.ERROR))[0][0]).levelno == logging.INFO
    assert len(backlog) == 10


def test_nothing_goes_for_a_record_that_does_not_fit_alone() -> None:
    """One larger than the buffer evicts nobody; nor one below ERROR that would need the reserve."""
    backlog = Backlog(Buffer(max_bytes=10_000))
    backlog.add(record())
    for levelno, length in ((logging.ERROR, 10_000), (logging.WARNING, 9_000)):
        large = record(levelno, "x" * length)
        assert backlog.add(large) == [(large, "overflow")]
    assert len(backlog) == 1


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


def test_eviction_moves_a_barrier() -> None:
    """What was ahead of it and is evicted is no longer waited for; what comes behind it is not either."""
    backlog = Backlog(Buffer(max_records=2))
    backlog.add(record())
    barrier = backlog.barrier()
    backlog.add(record())
    backlog.add(record())
    assert not barrier.ahead
    assert not backlog.flushing


def test_forgotten_barrier_is_no_longer_waited_for() -> None:
    """`flushing` tells whether somebody waits."""
    backlog = Backlog(Buffer())
    backlog.add(record())
    barrier = backlog.barrier()
    assert backlog.flushing
    backlog.forget(barrier)
    backlog.forget(barrier)
    assert not backlog.flushing


LEVELS = st.lists(st.sampled_from([logging.INFO, logging.WARNING, logging.ERROR]), max_size=7)


@given(before=LEVELS, levels=LEVELS, buffer=BUFFERS, tight=st.booleans())
def test_many_at_once_are_taken_as_one_by_one(
    before: list[int], levels: list[int], buffer: Buffer, tight: bool
) -> None:
    """All of them, and only where none of them would be refused or cost another one; otherwise nothing changes."""
    if tight:
        buffer = replace(buffer, max_bytes=4_000)
    one, many = Backlog(buffer), Backlog(buffer)
    for levelno in before:
        one.add(old := record(levelno))
        many.add(old)
    held, size_bytes, new = list(many), many.size_bytes, [plain(levelno) for levelno in levels]
    lost = [loss for each in new for loss in one.add(each)]
    if many.extend(new, [made(each).size_bytes for each in new]):
        assert not lost
        assert (list(many), many.size_bytes) == (list(one), one.size_bytes)
    else:
        assert (list(many), many.size_bytes) == (held, size_bytes)
