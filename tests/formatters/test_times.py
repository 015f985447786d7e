"""Times of records as text."""

from __future__ import annotations

import datetime as dt
import json
import logging
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from offloop.capture import capture
from offloop.formatters import JSONFormatter
from offloop.formatters.times import iso_time
from offloop.sifting import sift


@given(st.floats(min_value=-2e9, max_value=2e11))
@example(1.5703125)
def test_time_is_what_datetime_says(created) -> None:
    """To the microsecond, on both sides of 1970."""
    moment = dt.datetime.fromtimestamp(created, dt.UTC)
    assert iso_time(created) == moment.strftime("%Y-%m-%dT%H:%M:%S.%f").zfill(26) + "Z"


@pytest.mark.parametrize("created", [1.9999999, 2.0, 1.5, -0.0000001, 5, True])
def test_time_is_rounded_into_the_next_second(created) -> None:
    """A time a hair before a second is that second; the order of calls does not matter."""
    moment = dt.datetime.fromtimestamp(created, dt.UTC)
    assert iso_time(created) == moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


@pytest.mark.parametrize("created", [4.9999987, 4.9999994, 4.9999996, 5.0000004])
def test_time_just_before_the_second_that_is_kept(created) -> None:
    """What is kept of the last second is not taken for the one before; in JSON neither, alone or with others."""
    iso_time(5.0)
    moment = dt.datetime.fromtimestamp(created, dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    assert iso_time(created) == moment
    formatter = JSONFormatter()
    records = [logging.makeLogRecord({"levelno": 20, "created": time}) for time in (5.0, created)]
    lines = [formatter.encode(record) for record in records]
    held, *_ = sift([capture(record) for record in records], math.inf)
    assert formatter.encode_all(held) == lines
    assert json.loads(lines[1])["time"] == moment


@given(
    st.lists(
        st.one_of(st.floats(1.7e9 - 2, 1.7e9 + 2), st.floats(1.7e9 - 100, 1.7e9 + 100), st.sampled_from([1.7e9, -1.0])),
        min_size=2,
        max_size=8,
    ),
    st.sampled_from(["iso", "epoch"]),
)
def test_times_together_are_those_alone(times: list[float], timestamp: Any) -> None:
    """Whichever second they are of, whichever was formatted last."""
    formatter = JSONFormatter(timestamp=timestamp)
    formatter.encode_all([capture(logging.makeLogRecord({"levelno": 20, "created": 1.7e9}))])
    records = [logging.makeLogRecord({"levelno": 20, "created": time}) for time in times]
    lines = formatter.encode_all([capture(record) for record in records])
    assert lines == [JSONFormatter(timestamp=timestamp).encode(record) for record in records]


@pytest.mark.parametrize("created", [None, "now", float("nan"), float("inf"), 1e30])
def test_what_is_no_time_is_given_as_text(created) -> None:
    """A record made elsewhere may have anything as its time."""
    assert iso_time(created) == str(created)
