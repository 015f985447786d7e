"""A record as bytes, and back."""

from __future__ import annotations

import datetime as dt
import decimal
import fractions
import ipaddress
import logging
import pathlib
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import record_of
from offloop.capture import Record, extras, message_of, restore
from offloop.formatters import JSONFormatter
from offloop.spooling.codec import Unreadable, pack, unpack
from offloop.testing.records import make_record

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters())
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.datetimes(timezones=st.none() | st.just(dt.UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.uuids()
    | st.ip_addresses()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(), inner, max_size=3)
        | st.frozensets(st.integers())
        | st.sets(st.text())
    ),
    max_leaves=5,
)


@given(argument=SCALARS, extra=VALUES)
def test_values_come_back_as_they_were(argument: object, extra: object) -> None:
    """Arguments and extras of immutable types are equal after a round trip, and of the same type."""
    record = record_of("got %s", argument, thing=extra)
    back = unpack(pack(record))
    assert (back.args, extras(back), message_of(back)) == (record.args, extras(record), message_of(record))
    assert [type(value) for value in back.args or ()] == [type(value) for value in record.args or ()]


def test_a_record_comes_back_whole() -> None:
    """Times, thread, task, place: every attribute is as it was, and a sink's JSON is the same."""
    record = record_of("n %d", 7, level=logging.ERROR, name="a.b", taskName="Task-1", path=pathlib.PurePosixPath("/x"))
    back = unpack(pack(record))
    assert back.__dict__ == record.__dict__
    assert JSONFormatter().format(back) == JSONFormatter().format(record)
    assert back.size_bytes == record.size_bytes


def test_extra_is_seen_where_attributes_were_missing() -> None:
    """A record that another Python wrote, without some attribute, still tells its `extra` from the rest."""
    record = record_of("x", user="ada")
    del record.__dict__["processName"]
    assert extras(unpack(pack(record))) == {"user": "ada"}


def raised() -> BaseException | None:
    """A group with a cause that has a note."""
    try:
        try:
            compile("1 +", "some.py", "exec")
        except SyntaxError as error:
            error.add_note("a note")
            raise ExceptionGroup("several", [ValueError("one")]) from error
    except ExceptionGroup as error:
        return error
    return None


def test_an_exception_comes_back_frozen_and_as_text() -> None:
    """Text, chain, notes, frames, group and syntax details outlive the process."""
    record = make_record("failed", exc_info=raised())
    back = unpack(pack(record))
    assert record.exception is not None
    assert back.exception is not None
    assert back.exc_text == record.exc_text == back.exception.render()
    assert back.exception.cause is not None
    assert back.exception.cause.syntax == record.exception.cause.syntax  # type: ignore[union-attr]
    assert back.exception.cause.notes == ("a note",)
    assert [(f.filename, f.lineno, f.name) for f in back.exception.frames] == [
        (f.filename, f.lineno, f.name) for f in record.exception.frames
    ]


def test_what_can_not_be_kept_is_rendered_now() -> None:
    """A message with an argument of a type that would come back as text is merged; the template stays."""
    record = restore({**record_of("x").__dict__, "msg": "at %r", "args": (dt.UTC,)})
    back = unpack(pack(record))
    assert (back.msg, back.args, back.template) == ("at datetime.timezone.utc", (), "at %r")


def test_template_of_what_was_rendered_in_the_caller_is_kept() -> None:
    """A list among the arguments was merged at capture: message and template are both there."""
    back = unpack(pack(record_of("got %s", [1])))
    assert (message_of(back), back.template) == ("got [1]", "got %s")


class Odd:
    """Something a filter left on a record."""

    def __str__(self) -> str:
        return "odd"


def test_an_object_a_filter_left_comes_back_as_text() -> None:
    """What is no plain value becomes what it says."""
    record = record_of("x")
    record.__dict__["thing"] = Odd()
    assert extras(unpack(pack(record))) == {"thing": "odd"}


@pytest.mark.parametrize("data", [b"", b"\x09abc", b"\x01", b"\x01\x93", b"\x02{}", b"\x02[[1],{},null,null]"])
def test_what_is_no_record_says_so(data: bytes) -> None:
    """Bytes that are no record, or of a form that is not known, raise one error."""
    with pytest.raises(Unreadable):
        unpack(data)


def test_without_msgspec_json_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same record comes back from JSON; one in MessagePack says what is missing."""
    record: Record = record_of("n %s %s", b"\xff", uuid.UUID(int=1), ip=ipaddress.ip_address("::1"))
    quick = pack(record)
    monkeypatch.setattr("offloop.spooling.codec.to_msgpack", None)
    monkeypatch.setattr("offloop.spooling.codec.from_msgpack", None)
    assert pack(record)[:1] == b"\x02"
    assert unpack(pack(record)).__dict__ == record.__dict__
    with pytest.raises(Unreadable, match="msgspec"):
        unpack(quick)


def test_numbers_of_any_kind_are_kept() -> None:
    """Decimals, fractions and integers of any length are no floats when they come back."""
    arguments = (decimal.Decimal("1.10"), fractions.Fraction(1, 3), 10**40, -(2**63), 2**63)
    assert unpack(pack(record_of("%s %s %s %s %s", *arguments))).args == arguments
