"""Texts, times and rates as a mail shows them."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.mailing.attachment import compressed
from offloop.mailing.redaction import Redactor
from offloop.mailing.shown import Shown, counted, span
from offloop.mailing.sparkline import sparkline

SHOWN = Shown(Redactor(""))
NOON = 1_763_812_800.0


def test_line_is_one_line() -> None:
    """White space is one space, what could deceive is written out, and what is too long is cut."""
    assert SHOWN.line(" a\r\n\tb\x1b\u202e ") == "a b"
    assert SHOWN.line("x\ud800y") == "x\\ud800y"
    assert SHOWN.line("y" * 200, 10) == "yyyyyyy..."
    assert SHOWN.first_line("\n \nsecond\nthird") == "second"
    assert SHOWN.line(None) == "None"


def test_text_is_cut_after_its_secrets_are_hidden() -> None:
    """A secret that is cut in two by the limit shows no half of it."""
    text, left = SHOWN.text("a password=" + "s" * 500 + " end", 20)
    assert text == "a password=[redacted]"[:20]
    assert left == 495


def test_pieces_of_a_very_long_text_end_with_a_note() -> None:
    """What is looked at of one text is bounded, and what is missing is said."""
    text = "".join(SHOWN.pieces("z" * (4 * 1024 * 1024 + 5)))
    assert text.endswith("z\n[5 characters of this record left out here]\n")


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (NOON, NOON + 0.9, "2025-11-22 12:00:00 UTC"),
        (NOON, NOON + 60, "2025-11-22 12:00:00 to 12:01:00 UTC"),
        (NOON, NOON + 86_400, "2025-11-22 12:00:00 to 2025-11-23 12:00:00 UTC"),
        (1e30, 1e30, "1e+30 UTC"),
        (1e30, 2e30, "1e+30 to 2e+30 UTC"),
    ],
)
def test_span_names_the_day_once(first: float, last: float, expected: str) -> None:
    """A time of the day is enough where the day is the same; what is no time is shown as it is."""
    assert span(first, last) == expected


def test_numbers_are_counted_in_words() -> None:
    """One is one, more are many."""
    assert (counted(1, "record"), counted(1_200, "record")) == ("1 record", "1,200 records")


def test_rate_is_a_line_of_blocks() -> None:
    """The highest part is a full block, none is a space, and many parts share a character."""
    assert sparkline([1, 0, 4, 8]) == "\u2581 \u2584\u2588"
    assert sparkline([5]) == sparkline([]) == sparkline([0, 0]) == ""
    assert sparkline([1] * 50 + [3] * 50, width=10) == "\u2583" * 5 + "\u2588" * 5


@given(st.lists(st.integers(0, 10_000), max_size=200), st.integers(2, 60))
def test_rate_has_its_width(rate: list[int], width: int) -> None:
    """A line is as long as the rate has parts, or as wide as it may be."""
    assert len(sparkline(rate, width)) in {0, min(len(rate), width)}


@given(st.lists(st.text(max_size=3_000), max_size=6), st.integers(700, 9_000))
def test_file_stays_within_its_room(texts: list[str], room: int) -> None:
    """A file has no more bytes than it may, and says whether it has all."""
    data, whole = compressed(texts, room, bool)
    assert len(data) <= room
    text = gzip.decompress(data).decode()
    assert text == "".join(texts).encode("utf-8", "backslashreplace").decode() or not whole
    assert whole or text.endswith("did not fit into this file]\n")
