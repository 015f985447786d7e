"""JSON: three vocabularies, every value, no exception."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections import UserDict
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.capture import Record, capture, made, restore
from offloop.errors import ConfigError
from offloop.formatters import JSONFormatter
from offloop.records import fields_of as noted_of
from offloop.records import make
from offloop.sifting import sift

FIELDS: list[Any] = ["plain", "otel", "ecs"]
CREATED = 1795364401.123456


def record_of(**attributes: Any) -> logging.LogRecord:
    """A record with the usual attributes, and these."""
    usual = {
        "name": "shop.cart", "levelno": 40, "levelname": "ERROR", "msg": "no %s", "args": ("milk",), "created": CREATED,
        "pathname": "/srv/shop/cart.py", "filename": "cart.py", "lineno": 7, "funcName": "buy", "process": 11,
        "thread": 12, "threadName": "MainThread", "taskName": "Task-1",
    }  # fmt: skip
    return logging.makeLogRecord({**usual, **attributes})


def failed() -> Any:
    """What `sys.exc_info` gives of an exception with a note and a cause."""
    try:
        try:
            raise KeyError("k")
        except KeyError as cause:
            error = ValueError("bad")
            error.add_note("a note")
            raise error from cause
    except ValueError:
        return sys.exc_info()


def fields_of(record: logging.LogRecord, formatter: JSONFormatter | None = None) -> dict[str, Any]:
    """The record's object, read back."""
    return json.loads((formatter or JSONFormatter()).encode(record))


def test_plain_names() -> None:
    """The project's own names."""
    assert fields_of(record_of(user="ann")) == {
        "time": "2026-11-22T16:20:01.123456Z", "level": "ERROR", "logger": "shop.cart", "message": "no milk",
        "file": "/srv/shop/cart.py", "line": 7, "function": "buy", "process": 11, "thread": "MainThread",
        "task": "Task-1", "user": "ann",
    }  # fmt: skip


def test_otel_names() -> None:
    """OpenTelemetry's log data model and semantic conventions."""
    formatter = JSONFormatter(fields="otel", static={"service.name": "shop"})
    record = record_of(user="ann", trace_id="abc", span_id="de", stack_info="Stack", exc_info=failed())
    fields = fields_of(record, formatter)
    assert fields["attributes"].pop("exception.stacktrace").startswith("Traceback")
    assert fields == {
        "timestamp": "2026-11-22T16:20:01.123456Z", "severity_text": "ERROR", "severity_number": 17, "body": "no milk",
        "instrumentation_scope": {"name": "shop.cart"}, "resource": {"service.name": "shop"},
        "trace_id": "abc", "span_id": "de",
        "attributes": {
            "code.file.path": "/srv/shop/cart.py", "code.line.number": 7, "code.function.name": "buy",
            "process.pid": 11, "thread.id": 12, "thread.name": "MainThread", "asyncio.task.name": "Task-1",
            "exception.type": "ValueError", "exception.message": "bad", "code.stacktrace": "Stack", "user": "ann",
        },
    }  # fmt: skip


def test_ecs_names() -> None:
    """The Elastic Common Schema, the first three in the order its logging specification gives."""
    formatter = JSONFormatter(fields="ecs", static={"service.name": "shop"})
    record = record_of(trace_id="abc", exc_info=failed(), stack_info="Stack")
    fields = fields_of(record, formatter)
    assert list(fields)[:4] == ["@timestamp", "log.level", "message", "ecs.version"]
    stack = fields.pop("error.stack_trace")
    assert stack.startswith("Traceback")
    assert stack.endswith("bad\na note\nStack")
    assert fields == {
        "@timestamp": "2026-11-22T16:20:01.123456Z", "log.level": "error", "message": "no milk",
        "ecs.version": "8.11.0", "log.logger": "shop.cart", "log.origin.file.name": "cart.py",
        "log.origin.file.line": 7, "log.origin.function": "buy", "process.pid": 11, "process.thread.id": 12,
        "process.thread.name": "MainThread", "asyncio.task.name": "Task-1", "error.type": "ValueError",
        "error.message": "bad", "service.name": "shop", "trace.id": "abc",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("levelno", "number"),
    [(0, 0), (None, 0), (-1, 0), (5, 1), (10, 5), (11, 6), (19, 8), (20, 9), (30, 13), (40, 17), (50, 21), (99, 24)],
)
def test_severity_numbers(levelno, number) -> None:
    """Levels between the standard ones have the numbers between."""
    assert fields_of(record_of(levelno=levelno), JSONFormatter(fields="otel"))["severity_number"] == number


@pytest.mark.parametrize("frozen", [True, False])
def test_exception_is_structured(frozen) -> None:
    """Type, message, notes, chain and text, for a captured record and for one from elsewhere."""
    failure = failed()
    record = record_of(exc_info=failure)
    text = logging.Formatter().formatException(failure)
    assert fields_of(restore(capture(record)) if frozen else record)["exception"] == {
        "type": "ValueError",
        "message": "bad",
        "notes": ["a note"],
        "causes": [{"type": "KeyError", "message": "'k'"}],
        "stacktrace": text,
    }
    assert record.exc_text is None


def test_text_that_was_rendered_before_is_used() -> None:
    """The lane's text is taken; without an exception it stands alone."""
    record = restore(capture(record_of(exc_info=failed())))
    record.exc_text = "rendered elsewhere"
    assert fields_of(record)["exception"]["stacktrace"] == "rendered elsewhere"
    bare = record_of(exc_text="only text")
    assert fields_of(bare)["exception"] == {"stacktrace": "only text"}
    assert fields_of(bare, JSONFormatter(fields="ecs"))["error.stack_trace"] == "only text"


def test_members_of_a_group() -> None:
    """A group has its members, each with a chain of its own."""
    member = KeyError("k")
    member.__cause__ = OSError("o")
    fields = fields_of(restore(capture(record_of(exc_info=ExceptionGroup("g", [member])))))
    causes = [{"type": "OSError", "message": "o"}]
    assert fields["exception"]["exceptions"] == [{"type": "KeyError", "message": "'k'", "causes": causes}]


@pytest.mark.parametrize("fields", FIELDS)
def test_extra_never_replaces_a_field(fields) -> None:
    """What is called like a field of the record, or a static one, is written under another name."""
    formatter = JSONFormatter(fields=fields, static={"service": "shop"})
    usual = fields_of(record_of(), formatter)
    names = {*usual, *usual.get("attributes", ()), "service"} - {"message", *record_of().__dict__}
    record = record_of(**dict.fromkeys(names, "forged"), **{"extra.level": "own"})
    fields_now = fields_of(record, formatter)
    assert all(fields_now[name] == usual[name] for name in usual if name != "attributes")
    assert fields_now.get("attributes", {}).items() >= usual.get("attributes", {}).items()
    text = json.dumps(fields_now)
    assert text.count('"forged"') == len(names)
    assert text.count('"own"') == 1


def test_names_that_are_taken_twice() -> None:
    """An extra called like a field gives way to another that has its new name already."""
    fields = fields_of(record_of(**{"level": 1, "extra.level": 2}))
    assert (fields["level"], fields["extra.level"], fields["extra.extra.level"]) == ("ERROR", 2, 1)
    assert fields_of(record_of(error="boom"), JSONFormatter(fields="ecs"))["extra.error"] == "boom"


def test_official_trace_name_wins() -> None:
    """With both spellings given, neither is lost."""
    fields = fields_of(record_of(**{"trace_id": "a", "trace.id": "b"}), JSONFormatter(fields="ecs"))
    assert (fields["trace_id"], fields["trace.id"]) == ("a", "b")


ODD: dict[Any, Any] = {
    "nan": math.nan, "inf": -math.inf, "huge": 10**40, "endless": 10**10_000, "bytes": b"\x00\xff", "none": None,
    "surrogate": "a\udc80\x00\n", "key": {(1, 2): {None: 1, b"x": 2, "\ud800": 3}}, "set": {1}, "odd": UserDict(a=1),
    "complex": 1j, "type": type, 7: "number",
}  # fmt: skip


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("captured", [True, False])
def test_odd_values_become_safe_ones(fields: Any, captured: bool) -> None:
    """What JSON has no form for is written in one that it has."""
    for name, value in ODD.items():
        record = record_of(x=value) if name != 7 else logging.makeLogRecord(cast("dict[str, Any]", {7: value}))
        line = JSONFormatter(fields=fields).encode(restore(capture(record)) if captured else record)
        json.loads(line, parse_constant=pytest.fail)
        assert not {0, 10} & set(line)
    loop: dict[str, object] = {}
    loop["loop"] = loop
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    assert fields_of(record_of(loop=loop, deep=deep))["message"] == "no milk"


def test_forms_of_odd_values() -> None:
    """Each has the form that is promised."""
    fields = fields_of(record_of(**{f"x_{name}": value for name, value in ODD.items()}))
    assert (fields["x_nan"], fields["x_inf"], fields["x_bytes"]) == (None, None, "AP8=")
    assert (fields["x_huge"], fields["x_endless"]) == (10**40, hex(10**10_000))
    assert fields["x_surrogate"] == "a\\udc80\x00\n"
    assert fields["x_set"] == [1]
    assert fields["x_complex"] == "1j"


@given(
    st.dictionaries(st.sampled_from(sorted(record_of().__dict__)), st.none() | st.integers() | st.text() | st.floats())
)
def test_record_with_odd_attributes_never_raises(attributes) -> None:
    """Records made elsewhere may have anything anywhere."""
    record = record_of()
    record.__dict__.update(attributes)
    before = dict(record.__dict__)
    for fields in FIELDS:
        assert isinstance(fields_of(record, JSONFormatter(fields=fields)), dict)
        assert isinstance(fields_of(restore(capture(record)), JSONFormatter(fields=fields)), dict)
    assert all(record.__dict__[name] is value for name, value in before.items())


@pytest.mark.parametrize("fields", FIELDS)
@pytest.mark.parametrize("name", ["exc_text", "stack_info", "msg", "created", "levelname"])
def test_record_without_an_attribute(fields, name) -> None:
    """An attribute that someone took away harms nobody."""
    record = record_of(user="ann")
    del record.__dict__[name]
    assert "ann" in JSONFormatter(fields=fields).format(record)


def test_time_as_a_number() -> None:
    """`epoch` gives seconds since 1970."""
    assert fields_of(record_of(), JSONFormatter(timestamp="epoch"))["time"] == CREATED


def test_format_gives_what_encode_gives() -> None:
    """The same text, for handlers that take text."""
    formatter = JSONFormatter()
    assert formatter.format(record_of()).encode() == formatter.encode(record_of())


def test_equal_by_configuration() -> None:
    """Formatters with one configuration are one key; a subclass only equals itself."""

    class Own(JSONFormatter):
        pass

    own = Own()
    assert JSONFormatter(static={"a": [1]}) == JSONFormatter(static={"a": [1]})
    assert hash(JSONFormatter(fields="ecs")) == hash(JSONFormatter(fields="ecs"))
    distinct = {JSONFormatter(), JSONFormatter(fields="otel"), JSONFormatter(timestamp="epoch"), own, Own()}
    assert len(distinct | {JSONFormatter(static={"a": 1})}) == 6
    assert own in {own, Own()}
    assert JSONFormatter() != "plain"


def test_static_is_read_once() -> None:
    """A mapping changed later changes nothing, and a `repr` shows no values."""
    static: dict[str, Any] = {"service": "shop", "nested": {"a": 1}}
    formatter = JSONFormatter(static=static)
    static["service"] = "other"
    static["nested"]["a"] = 2
    fields = fields_of(record_of(), formatter)
    assert (fields["service"], fields["nested"]) == ("shop", {"a": 1})
    assert repr(formatter) == "<JSONFormatter plain, iso time, 2 static fields>"


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"fields": "gelf"}, "fields must be one of 'plain', 'otel', 'ecs', got 'gelf'"),
        ({"timestamp": "local"}, "timestamp must be one of"),
        ({"static": {"level": 1, "time": 2}}, "must not replace the record's own fields, got level, time"),
    ],
)
def test_wrong_configuration_is_refused(keywords, message) -> None:
    """The message names the value and the choices."""
    with pytest.raises(ConfigError, match=message):
        JSONFormatter(**keywords)


def test_record_may_have_an_extra_called_exception() -> None:
    """The frozen exception is not mistaken for it."""
    record = restore(capture(record_of(exception="mine", exc_info=failed())))
    assert isinstance(record, Record)
    fields = fields_of(record)
    assert fields["exception"]["type"] == "ValueError"
    assert fields["extra.exception"] == "mine"


TEXTS = st.one_of(
    st.text(max_size=20), st.sampled_from(["INFO", "app", "%s", "100%", "\x7f\u2028", "\ud800", '"\\', ""])
)
NUMBERS = st.one_of(st.integers(), st.none(), st.sampled_from([7, 20, 2**70]))


@given(
    lines=st.lists(
        st.fixed_dictionaries(
            {
                "name": TEXTS, "msg": TEXTS, "levelno": st.integers(0, 60), "levelname": TEXTS, "pathname": TEXTS,
                "filename": TEXTS, "lineno": NUMBERS, "funcName": st.one_of(TEXTS, st.none()), "process": NUMBERS,
                "thread": NUMBERS, "threadName": TEXTS, "taskName": st.one_of(st.none(), TEXTS),
                "args": st.sampled_from([(), ("a",), (1, 2), ("\u202e",), None]),
                "created": st.one_of(
                    st.floats(allow_nan=True),
                    st.floats(1.7e9, 1.8e9),
                    st.integers(0, 1_024).map(lambda part: 1.7e9 + part / 128),  # halves of a microsecond
                    st.sampled_from([0.0, 0.9999999, 1e300, -1.0]),
                ),
            }
        ),
        min_size=1,
        max_size=6,
    ),
    fields=st.sampled_from(FIELDS),
    timestamp=st.sampled_from(["iso", "epoch"]),
    static=st.sampled_from([{}, {"service": "shop", "n": 1}]),
)  # fmt: skip
def test_lines_made_together_are_those_made_one_by_one(
    lines: list[dict[str, Any]], fields: Any, timestamp: Any, static: dict[str, Any]
) -> None:
    """What is kept from call to call changes nothing of what is written of a record, whatever is in it."""
    together, alone = (JSONFormatter(fields=fields, timestamp=timestamp, static=static) for _ in range(2))
    standard = logging.LogRecord("", 0, "", 0, "", (), None).__dict__.keys()
    records = [logging.makeLogRecord({name: line[name] for name in line.keys() & standard}) for line in lines]
    held, *_ = sift([capture(record) for record in records], math.inf)
    # Not byte by byte: where something needs the standard encoder, that one writes 1e16 as 1e+16.
    whole = [read(alone._whole(record)) for record in records]
    assert list(map(read, together.encode_all(held))) == whole
    assert [read(together.encode(record)) for record in records] == whole


def test_lines_of_records_of_all_kinds_together() -> None:
    """Standard ones, fast ones and those that are more than plain, in any order, with several places and tasks."""
    held: list[Any] = []
    for number in range(40):
        place = f"/x/{number // 7}.py"
        record = make("app", 20, place, number // 5, "%d of %s", (number, "many"), None)
        if number % 3:
            record = logging.LogRecord("app", 20, place, number // 5, "%d of %s", (number, "many"), None)
            if hasattr(record, "taskName"):
                record.taskName = f"Task-{number // 8}" if number % 4 else None
        if number % 11 == 0:
            record.more = number
        (one,), *_ = sift([noted_of(record) or capture(record)], math.inf)
        held.append(one)
    assert len(set(map(type, held))) == 3
    alone = [JSONFormatter().encode(made(one)) for one in held]
    assert JSONFormatter().encode_all(held) == alone
    assert [json.loads(line)["message"] for line in alone] == [f"{number} of many" for number in range(40)]


def read(line: bytes) -> Any:
    """An object as its pairs, in their order."""
    return json.loads(line, object_pairs_hook=list)
