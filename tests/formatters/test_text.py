"""Lines for people: readable, and beyond forging."""

from __future__ import annotations

import datetime as dt
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.capture import capture, restore
from offloop.formatters import TextFormatter

BEGIN = "2026-11-22T16:20:01.123456Z ERROR shop.cart: "


def record_of(msg: object = "hello", *args: object, **extra: object) -> logging.LogRecord:
    """A record with the usual attributes, and these."""
    usual = {"name": "shop.cart", "levelname": "ERROR", "msg": msg, "args": args, "created": 1795364401.123456}
    return logging.makeLogRecord({**usual, **extra})


@pytest.mark.parametrize(
    ("extra", "text"),
    [
        ({}, ""),
        ({"article": 4711, "user": "Ann B."}, ' article=4711 user="Ann B."'),
        ({"a": None, "b": True, "c": 1.5, "d": "", "e": "x"}, ' a=null b=true c=1.5 d="" e=x'),
        ({"a": 'say "hi"', "b": "x=y", "c": "a\\b", "d": "a\nb\x1b"}, r' a="say \"hi\"" b="x=y" c="a\\b" d="a\nb\x1b"'),
        ({"a": [1, 2], "b": {"k": "v"}}, r' a=[1,2] b="{\"k\":\"v\"}"'),
        ({"at": dt.date(2026, 1, 1), "odd": object}, ' at="2026-01-01" odd="<class \'object\'>"'),
        ({"a b=\n": 1, "": 2}, " a_b__=1 _=2"),
    ],
)
def test_line_and_its_extra(extra, text) -> None:
    """Time, level, logger, message, then what was given as extra."""
    assert TextFormatter().format(record_of("no %s", "milk", **extra)) == f"{BEGIN}no milk{text}"


def test_traceback_and_stack_stand_below_indented() -> None:
    """Every line below the first begins with two spaces."""
    try:
        raise ValueError("bad\n2026 ERROR forged: \x1b[2J")
    except ValueError as error:
        record = record_of(exc_info=error, stack_info="Stack (most recent call last):\n  here")
    for each in (record, restore(capture(record))):
        first, *below = TextFormatter().format(each).split("\n")
        assert first == f"{BEGIN}hello"
        assert below[0] == "  Traceback (most recent call last):"
        assert below[-4:-2] == ["  ValueError: bad", r"  2026 ERROR forged: \x1b[2J"]
        assert below[-2:] == ["  Stack (most recent call last):", "    here"]
    assert record.exc_text is None


@given(st.text(), st.text(), st.text(), st.text(min_size=1), st.booleans())
def test_no_record_can_be_forged(message, name, value, key, multiline) -> None:
    """Whatever the texts: one line begins a record, and no control character is left."""
    record = record_of(message, **{f"x{key}": value})
    record.name, record.exc_text = name, message
    line = TextFormatter(multiline=multiline).encode(record).decode()
    first, *below = line.split("\n")
    assert first.startswith("2026-11-22T16:20:01.123456Z ERROR ")
    assert all(each.startswith("  ") for each in below)
    assert len(line.splitlines()) == len(below) + 1
    assert not any((character < " " and character not in "\n\t") or "\x7f" <= character <= "\x9f" for character in line)


def test_message_with_several_lines() -> None:
    """Line breaks are escaped, or kept with what follows indented."""
    record = record_of("one\r\ntwo\tthree", n=1)
    assert TextFormatter().format(record) == BEGIN + r"one\r\ntwo" + "\tthree n=1"
    assert TextFormatter(multiline=True).format(record) == BEGIN + "one\\r\n  two\tthree n=1"


def test_marks_that_turn_the_direction_and_surrogates_are_escaped() -> None:
    """What would show a text otherwise than it is, and what UTF-8 can't hold."""
    assert TextFormatter().encode(record_of("a\u202eb\u2028\udc80")) == BEGIN.encode() + rb"a\u202eb\u2028\udc80"


def test_message_that_cannot_be_rendered_says_so() -> None:
    """A wrong format is told in the line."""
    assert "not rendered: TypeError" in TextFormatter().format(record_of("%d", "x"))


@given(
    st.dictionaries(st.sampled_from(sorted(record_of().__dict__)), st.none() | st.integers() | st.text() | st.floats())
)
def test_record_with_odd_attributes_never_raises(attributes) -> None:
    """Records made elsewhere may have anything anywhere, or lack it."""
    record = record_of()
    record.__dict__.update(attributes)
    assert TextFormatter().encode(record)
    del record.__dict__["exc_text"]
    assert TextFormatter().encode(record)


def test_equal_by_configuration() -> None:
    """Formatters with one configuration are one key; a subclass only equals itself."""

    class Own(TextFormatter):
        pass

    assert len({TextFormatter(), TextFormatter(), TextFormatter(multiline=True), Own(), Own()}) == 4
    assert TextFormatter() != "text"
    assert repr(TextFormatter(multiline=True)) == "<TextFormatter multiline>"
