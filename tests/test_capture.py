"""Snapshots of records: nothing of the caller's is held, changed, or raised."""

from __future__ import annotations

import copy
import datetime as dt
import decimal
import enum
import json
import logging
import pathlib
import pickle
import sys
import types
import uuid
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.capture import (
    Record,
    capture,
    extras,
    fixed,
    is_immutable,
    message_of,
    restore,
    scalar_of,
    text_of,
)
from offloop.formatters import JSONFormatter

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
values = st.recursive(
    plain | st.datetimes() | st.uuids() | st.decimals(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        | st.sets(st.integers(), max_size=3)
    ),
    max_leaves=8,
)


def record_of(msg: object = "hello", args: Any = (), **attributes: Any) -> logging.LogRecord:
    """A record as a logger makes it."""
    record = logging.LogRecord("shop", logging.INFO, "shop.py", 7, msg, args, None, "buy")
    record.__dict__.update(attributes)
    return record


def delivered(record: logging.LogRecord) -> Record:
    """The record as a sink gets it."""
    return restore(capture(record))


class Grumpy:
    def __repr__(self) -> str:
        raise OSError("never")


class Proxy:
    """Stands for a text, as long as there is one."""

    @property
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return str

    def __str__(self) -> str:
        return "as it was"


@given(st.text(), st.lists(values, max_size=3), st.dictionaries(st.text(), values, max_size=3), st.none() | st.text())
def test_any_record_is_delivered_as_json_with_the_message_of_the_call(text, args, extra, failure) -> None:
    """Whatever arguments, extra and exception: JSON parses, the message is the call's, the record untouched."""
    record = record_of("%s " * len(args) + text.replace("%", "%%") if args else text, tuple(args))
    record.__dict__.update({f"x_{name}": value for name, value in extra.items()})
    if failure is not None:
        error = ValueError(failure)
        record.exc_info = (ValueError, error, None)
    before, meant = dict(record.__dict__), record.getMessage()
    snapshot = capture(record)
    assert record.__dict__.keys() == before.keys()
    assert all(record.__dict__[name] is value for name, value in before.items())
    line = JSONFormatter().encode(restore(snapshot))
    fields = json.loads(line)
    assert fields["message"] == meant.encode("utf-8", "backslashreplace").decode()
    assert not {b"\n"[0], 0} & set(line)
    assert (fields["exception"]["type"] == "ValueError") if failure is not None else "exception" not in fields


def test_list_changed_after_the_call_is_delivered_as_it_was() -> None:
    """Lists in the arguments, in a dictionary of arguments, in extra, and as the message."""
    items, named = [1, 2], {"items": [1, 2]}
    records = [record_of("%s", (items,)), record_of("%(items)s", (named,)), record_of(items), record_of("m", x=items)]
    snapshots = [capture(record) for record in records]
    items.append(3)
    named["items"].append(3)
    first, second, third, fourth = map(restore, snapshots)
    assert [first.getMessage(), second.getMessage(), third.getMessage()] == ["[1, 2]"] * 3
    assert extras(fourth) == {"x": [1, 2]}
    assert (first.template, second.template, third.template) == ("%s", "%(items)s", "[1, 2]")


def test_immutable_arguments_wait() -> None:
    """Values that can't change are merged later, by the sink."""
    day = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
    args = ("a", 1, 2.5, None, b"b", (1, ("x",)), day, uuid.UUID(int=1), decimal.Decimal(1), pathlib.Path("/x"))
    record = record_of("%s" * len(args), args)
    assert capture(record)["args"] is args
    assert delivered(record).getMessage() == record.getMessage()
    assert delivered(record).template == "%s" * len(args)


def test_dictionary_of_immutable_arguments_is_copied() -> None:
    """A mapping given as the only argument waits as a copy; one with an odd key is rendered."""
    named = {"user": "ann"}
    snapshot = capture(record_of("hello %(user)s", (named,)))
    named["user"] = "bob"
    assert restore(snapshot).getMessage() == "hello ann"
    assert capture(record_of("%s", ({Proxy(): 1, "a": 2},)))["args"] == ()


def test_proxy_is_rendered_in_the_caller() -> None:
    """What claims to be a text while the request lasts is not kept until later."""
    assert capture(record_of("%s", (Proxy(),)))["msg"] == "as it was"
    assert capture(record_of("m", x=Proxy()))["x"] == "as it was"


def test_message_that_is_no_text_is_rendered_now() -> None:
    """An object as the message gives its text; a dictionary stays one, as structlog needs it."""
    assert delivered(record_of(ValueError("odd"))).getMessage() == "odd"
    event: dict[str, Any] = {"event": "login", "tags": ["a"]}
    record = delivered(record_of(event))
    event["tags"].append("b")
    assert record.msg == {"event": "login", "tags": ["a"]}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (record_of("%d", ("x",)), "not rendered: TypeError"),
        (record_of("%s", (Grumpy(),)), "not rendered: OSError"),
        (record_of(Grumpy()), "failed: OSError"),
        (record_of("%s %s", ("one",)), "args=('one',)"),
    ],
)
def test_message_that_cannot_be_rendered_says_so(record, expected) -> None:
    """A wrong format, or a `__str__` that raises, becomes part of the text."""
    assert expected in message_of(delivered(record))
    assert expected in message_of(record)


def test_extra_keeps_plain_values_and_names_the_others() -> None:
    """Numbers stay numbers, subclasses become their plain value, objects their text."""

    class Colour(enum.IntEnum):
        RED = 1

    class Markup(str):
        __slots__ = ()

    class Weight(float):
        pass

    record = record_of(n=1, e=Colour.RED, s=Markup("x"), f=Weight(2), o=Grumpy(), d={Proxy(): {1, (2,)}}, q=(1, [2]))
    assert extras(delivered(record)) == {
        "n": 1, "e": 1, "s": "x", "f": 2.0, "o": "<str() of Grumpy failed: OSError>",
        "d": {"as it was": {1, (2,)}}, "q": (1, [2]),
    }  # fmt: skip
    assert type(scalar_of(Colour.RED)) is int
    assert type(scalar_of(Markup("x"))) is str


def test_containers_that_hold_each_other_are_cut() -> None:
    """A graph of nodes is neither followed for ever nor along each of its paths."""
    nodes: list[dict[str, object]] = [{"number": number} for number in range(10)]
    for node in nodes:
        node["neighbours"] = [other for other in nodes if other is not node]
    assert len(str(fixed(nodes))) < 2_000_000
    loop: list[object] = []
    loop.append(loop)
    assert fixed(loop) == ["[[[...]]]"]


def test_deep_values_are_cut_and_raise_nothing() -> None:
    """Tuples, lists and dictionaries nested by the thousand pass as arguments and as extra."""
    deep: object = ()
    wide: object = []
    for _ in range(100_000):
        deep, wide = (deep,), [wide]
    assert "not rendered: RecursionError" in delivered(record_of("%s", (deep,))).getMessage()
    assert delivered(record_of("m", x=deep, y=wide)).getMessage() == "m"


def test_type_that_claims_another_module_is_mutable() -> None:
    """A class that only says it is a `UUID` is not believed."""
    fake = type("UUID", (), {"__module__": "uuid"})
    lost = type("ZoneInfo", (), {"__module__": "zoneinfo"})
    odd = type("X", (), {"__module__": ["no", "text"]})
    sys.modules.pop("zoneinfo", None)
    assert not any(map(is_immutable, (fake(), lost(), odd())))


def test_context_variables_are_taken_at_the_call() -> None:
    """A variable that is set is stored as extra; one that isn't, or is called like an attribute, is not."""
    user, unset = ContextVar[str]("user"), ContextVar[str]("unset")
    user.set("ann")
    snapshot = capture(record_of(), {"user": user, "unset": unset, "name": user})
    user.set("bob")
    record = restore(snapshot)
    assert extras(record) == {"user": "ann"}
    assert record.name == "shop"


def test_exception_is_frozen_and_text_of_others_forgotten() -> None:
    """The sink's record has the frozen exception; the text another handler left on the caller's stays there."""
    error = ValueError("x")
    record = record_of(exc_info=(ValueError, error, None), exc_text="in colours")
    restored = delivered(record)
    assert restored.exception is not None
    assert (restored.exception.qualname, restored.exc_info, restored.exc_text) == ("ValueError", None, None)
    assert record.exc_text == "in colours"


def test_exception_of_a_record_that_lacks_an_attribute_is_kept() -> None:
    """However many attributes a record has, what was frozen is found again."""
    try:
        raise ValueError("broken")
    except ValueError as error:
        record = logging.LogRecord("app", logging.ERROR, "", 1, "failed", (), (ValueError, error, error.__traceback__))
    del record.processName
    restored = restore(capture(record))
    assert restored.exception is not None
    assert restored.exception.text().endswith("ValueError: broken")


def test_exc_info_in_odd_forms() -> None:
    """An exception itself, a false one, three times None, and nonsense."""

    class Falsy(Exception):
        def __bool__(self) -> bool:
            raise OSError

    assert delivered(record_of(exc_info=Falsy())).exception is not None
    assert delivered(record_of(exc_info=(None, None, None))).exc_text == "NoneType: None"
    assert delivered(record_of(exc_info="nonsense")).exc_text == "NoneType: None"
    assert delivered(record_of(exc_info=False)).exception is None


def test_record_of_elsewhere_is_captured_when_it_is_restored() -> None:
    """A `LogRecord` on the queue becomes a `Record` of its own."""
    record = record_of("hello %s", ("ann",))
    restored = restore(record)
    assert isinstance(restored, Record)
    assert restored.getMessage() == "hello ann"
    assert restored.__dict__ is not record.__dict__
    assert extras(restore(logging.makeLogRecord({"msg": None, "args": None, "x": 1}))) == {"x": 1}


def test_template_is_what_records_of_a_kind_share() -> None:
    """The unmerged message, whether the arguments waited or not."""
    assert delivered(record_of("n %s", (1,))).template == delivered(record_of("n %s", ([1],))).template == "n %s"


def test_size_grows_with_what_is_held() -> None:
    """Texts, arguments, extra, stack and frames weigh."""
    empty = delivered(record_of("")).size_bytes
    assert delivered(record_of("x" * 500)).size_bytes == empty + 500
    assert delivered(record_of("%s", (b"x" * 500,))).size_bytes > empty + 500
    assert delivered(record_of("", data={"a": ["x" * 500], "b": {1}})).size_bytes > empty + 500
    assert delivered(record_of("", stack_info="x" * 500)).size_bytes == empty + 500
    assert delivered(record_of({"event": 1})).size_bytes == empty
    try:
        raise ValueError("x" * 300)
    except ValueError:
        assert delivered(record_of("", exc_info=sys.exc_info())).size_bytes >= empty + 500


def test_text_of_never_raises() -> None:
    """A `str`, or a `repr`, that fails is named."""
    assert text_of(Grumpy(), repr) == "<repr() of Grumpy failed: OSError>"
    assert text_of(types.SimpleNamespace(a=1)) == "namespace(a=1)"


def test_dictionary_that_changes_while_it_is_copied() -> None:
    """A container that another thread changes at this moment is given as what can be said of it."""

    class Key:
        def __str__(self) -> str:
            data[object()] = 1
            raise RuntimeError("changed")

        __repr__ = __str__

    data: dict[object, object] = {Key(): 1}
    assert "failed: RuntimeError" in str(fixed(data))


def test_delivered_record_can_be_pickled_and_copied() -> None:
    """Pickled it is a plain record with the traceback's text, for receivers that know nothing of offloop."""
    try:
        raise KeyError("k")
    except KeyError:
        record = restore(capture(logging.makeLogRecord({"msg": "%s", "args": ([1],), "exc_info": sys.exc_info()})))
    there = pickle.loads(pickle.dumps(record))
    assert type(there) is logging.LogRecord
    assert there.exc_text is not None
    assert (there.getMessage(), there.exc_text.splitlines()[-1]) == ("[1]", "KeyError: 'k'")
    for twin in (copy.copy(record), copy.deepcopy(record)):
        assert (twin.template, twin.exception) == ("%s", record.exception)


def test_exception_weighs_what_it_holds() -> None:
    """Notes, chain and members count for the bound in bytes; what is endless is cut and says so."""
    error = ValueError("x" * 1_000_000)
    error.add_note("y" * 50_000)
    error.__cause__ = KeyError("z" * 50_000)
    group = ExceptionGroup("group", [error])
    record = restore(capture(logging.makeLogRecord({"msg": "m", "exc_info": (type(group), group, None)})))
    assert record.exception is not None
    assert 165_000 < record.size_bytes / 2 < 200_000
    assert "934464 characters left out" in record.exception.render()
