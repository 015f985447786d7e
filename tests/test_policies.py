"""Policies are frozen, and refuse what cannot be."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.errors import ConfigError
from offloop.policies import Batching, Buffer, Retry


@pytest.mark.parametrize(
    ("policy", "keywords", "message"),
    [
        (Batching, {"max_records": 0}, "Batching.max_records must be at least 1 record, got 0"),
        (Batching, {"max_records": 2.5}, "Batching.max_records must be a whole number, got 2.5"),
        (Batching, {"max_bytes": -1}, "Batching.max_bytes must be at least 1 byte, got -1"),
        (Batching, {"max_wait": -0.1}, "Batching.max_wait must be at least 0 seconds, got -0.1"),
        (Batching, {"max_wait": math.nan}, "Batching.max_wait must be at least 0 seconds, got nan"),
        (Batching, {"max_records": True}, "Batching.max_records must be at least 1 record, got True"),
        (Batching, {"max_records": "many"}, "Batching.max_records must be at least 1 record, got 'many'"),
        (Retry, {"initial": -1}, "Retry.initial must be at least 0 seconds, got -1"),
        (Retry, {"initial": 5, "maximum": 4}, r"Retry.maximum must be at least 5 seconds \(initial\), got 4"),
        (Retry, {"give_up_after": -1}, "Retry.give_up_after must be at least 0 seconds, got -1"),
        (Buffer, {"max_records": 0}, "Buffer.max_records must be at least 1 record, got 0"),
        (Buffer, {"max_bytes": None}, "Buffer.max_bytes must be at least 1 byte, got None"),
        (Buffer, {"max_bytes": math.inf}, "Buffer.max_bytes must be a whole number, got inf"),
        (Buffer, {"shed_below": 50}, r"Buffer.shed_below must be at most ERROR \(40\), .* got 50"),
        (Buffer, {"shed_below": "WARNING"}, "Buffer.shed_below must be at least 0 .*, got 'WARNING'"),
        (Buffer, {"shed_at": 80}, "Buffer.shed_at must be a share from 0 to 1, got 80"),
        (Buffer, {"shed_at": math.nan}, "Buffer.shed_at must be a share from 0 to 1, got nan"),
        (Buffer, {"reserve": -0.1}, "Buffer.reserve must be a share from 0 to 1, got -0.1"),
        (Buffer, {"reserve": True}, "Buffer.reserve must be a share from 0 to 1, got True"),
        (Buffer, {"reserve": None}, "Buffer.reserve must be a share from 0 to 1, got None"),
        (Buffer, {"overflow": "wait"}, "Buffer.overflow must be one of 'drop_new', 'drop_old', got 'wait'"),
    ],
)
def test_impossible_value_is_refused(policy, keywords, message) -> None:
    """The error names the value and the limit."""
    with pytest.raises(ConfigError, match=message):
        policy(**keywords)


@pytest.mark.parametrize("policy", [Batching, Retry, Buffer])
def test_policies_are_frozen_and_compare_by_value(policy) -> None:
    """One policy may serve many sinks."""
    first, second = policy(), policy()
    assert first == second
    assert hash(first) == hash(second)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(first, dataclasses.fields(first)[0].name, 1)


@given(st.floats(0, 1e3), st.floats(0, 1e6), st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_delay_stays_within_bounds(initial, more, failures, drawn) -> None:
    """From zero to the bound, which doubles up to the maximum, after a million failures too."""
    retry = Retry(initial=initial, maximum=initial + more)
    delay = retry.delay(failures, lambda: drawn)
    assert 0 <= delay <= min(retry.maximum, initial * 2.0 ** min(failures - 1, 1000))


def test_delay_doubles() -> None:
    """The bound of the first delay is `initial`; without a draw given, chance decides."""
    retry = Retry(initial=1, maximum=5, give_up_after=0)
    assert [retry.delay(failures, lambda: 1.0) for failures in (1, 2, 3, 4)] == [1, 2, 4, 5]
    assert 0 <= retry.delay(1) <= 1
