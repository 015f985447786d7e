"""Who gets in when space runs short."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.overflow import Room, evictable
from offloop.policies import Buffer

INFO, WARNING, ERROR = logging.INFO, logging.WARNING, logging.ERROR
SHARES = st.floats(0, 1)


def level(item: int) -> int:
    """Items here are levels."""
    return item


@pytest.mark.parametrize(
    ("max_records", "info", "warning"),
    [(1, 1, 1), (4, 4, 4), (5, 4, 5), (9, 8, 9), (10, 8, 9), (100, 80, 90), (10_000, 8_000, 9_000)],
)
def test_default_steps(max_records: int, info: int, warning: int) -> None:
    """What is below WARNING fills 80%, what is below ERROR 90%; small bounds are rounded in favour of who comes."""
    room = Room(Buffer(max_records=max_records))
    for levelno, step in ((INFO, info), (WARNING, warning), (ERROR, max_records)):
        assert room.refusal(levelno, step - 1) is None
        assert room.refusal(levelno, step) is not None
    assert room.easy_records == info


def test_steps_in_bytes() -> None:
    """The bytes have the same steps: how full it is sheds, what it would hold then overflows."""
    room = Room(Buffer(max_bytes=1_000))
    assert room.refusal(INFO, 1, 799, 1) is None
    assert room.refusal(INFO, 1, 800, 1) == "shed"
    assert room.refusal(WARNING, 1, 800, 100) is None
    assert room.refusal(WARNING, 1, 800, 101) == "overflow"
    assert room.refusal(ERROR, 1, 800, 200) is None
    assert room.refusal(ERROR, 1, 800, 201) == "overflow"


def test_share_is_not_lost_to_floating_point() -> None:
    """0.29 of a hundred is 29, though the product is a little less."""
    assert Room(Buffer(max_records=100, reserve=0.29)).bounds(INFO)[0] == 71


def test_nothing_is_shed_where_it_is_turned_off() -> None:
    """`shed_below=0`, or `shed_at=1`: what does not fit overflows."""
    for buffer in (Buffer(max_records=10, shed_below=0), Buffer(max_records=10, shed_at=1)):
        room = Room(buffer)
        assert room.refusal(INFO, 8) is None
        assert room.refusal(INFO, 9) == "overflow"


@given(
    bound=st.integers(1, 300),
    shed_at=SHARES,
    reserve=SHARES,
    shed_below=st.sampled_from([0, INFO, WARNING, ERROR]),
    levelno=st.sampled_from([logging.DEBUG, INFO, WARNING, ERROR, logging.CRITICAL]),
)
def test_fuller_is_never_more_open(bound: int, shed_at: float, reserve: float, shed_below: int, levelno: int) -> None:
    """Once refused, always refused while it fills; ERROR has all of it; nobody is refused while it is easy."""
    room = Room(Buffer(bound, shed_at=shed_at, reserve=reserve, shed_below=shed_below))
    taken = [room.refusal(levelno, held) is None for held in range(bound + 1)]
    assert taken == sorted(taken, reverse=True)
    assert not taken[bound]
    if levelno >= ERROR:
        assert all(taken[:bound])
    assert all(taken[held] for held in range(bound) if held < room.easy_records)
    assert levelno < shed_below or not any(room.refusal(levelno, held) == "shed" for held in range(bound + 1))


def test_evictable_looks_behind_errors() -> None:
    """The oldest record below ERROR goes, though an ERROR is older."""
    items = [ERROR, INFO, INFO]
    assert evictable(items, level, INFO) == 1
    assert evictable(items[:1], level, INFO) is None
    assert evictable(items[:1], level, ERROR) == 0
    assert evictable([], level, ERROR) is None
