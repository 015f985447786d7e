"""Times of records as text."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.formatters.times import iso_time


@given(st.floats(min_value=-2e9, max_value=2e11))
def test_time_is_what_datetime_says(created) -> None:
    """To the microsecond, on both sides of 1970."""
    moment = dt.datetime.fromtimestamp(created, dt.UTC)
    assert iso_time(created) == moment.strftime("%Y-%m-%dT%H:%M:%S.%f").zfill(26) + "Z"


@pytest.mark.parametrize("created", [1.9999999, 2.0, 1.5, -0.0000001, 5, True])
def test_time_is_rounded_into_the_next_second(created) -> None:
    """A time a hair before a second is that second; the order of calls does not matter."""
    moment = dt.datetime.fromtimestamp(created, dt.UTC)
    assert iso_time(created) == moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


@pytest.mark.parametrize("created", [None, "now", float("nan"), float("inf"), 1e30])
def test_what_is_no_time_is_given_as_text(created) -> None:
    """A record made elsewhere may have anything as its time."""
    assert iso_time(created) == str(created)
