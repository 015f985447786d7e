"""What is one kind of record."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from helpers import record_of
from offloop.capture import Record, capture, restore
from offloop.fingerprint import fingerprint, is_library, kind_of


def failed(work: Any, *, name: str = "shop") -> Record:
    """The record of an exception that `work` raises."""
    try:
        work()
    except Exception as error:
        info = (type(error), error, error.__traceback__)
        return restore(capture(logging.LogRecord(name, 40, __file__, 1, "failed", (), info)))
    raise AssertionError


def empty() -> None:
    json.loads("")


def wrong() -> None:
    json.loads("{'a'}")


def wrapped() -> None:
    try:
        empty()
    except ValueError as error:
        raise LookupError("no price") from error


def test_arguments_make_no_difference() -> None:
    """The template counts, not what was merged into it."""
    assert fingerprint(record_of("no stock of %s", "a")) == fingerprint(record_of("no stock of %s", ["b"]))
    assert fingerprint(record_of("no stock of %s", "a")) != fingerprint(record_of("no price of %s", "a"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("order 4711 failed", "order 12 failed"),
        ("no stock of 'tea'", 'no stock of "cups"'),
        ("job 0x7f3a is late", "job 0x11 is late"),
        ("request 0b54ed53-d9a4-4f1e-9a53-5f4f2ed0b5a1", "request 41a1f2d4-0000-4f1e-9a53-5f4f2ed0b5a2"),
    ],
)
def test_values_in_a_text_make_no_difference(one: str, other: str) -> None:
    """As an f-string merges them."""
    assert fingerprint(record_of(one)) == fingerprint(record_of(other))


@pytest.mark.parametrize("other", [{"name": "other"}, {"level": 40}])
def test_logger_and_level_count(other: dict[str, Any]) -> None:
    """The same text of another logger or level is another kind."""
    assert fingerprint(record_of("broken")) != fingerprint(record_of("broken", **other))


def test_the_applications_frames_count() -> None:
    """Where in a library it broke makes no difference; where in the application does."""
    assert fingerprint(failed(empty)) == fingerprint(failed(empty))
    assert fingerprint(failed(empty)) != fingerprint(failed(wrong))
    assert fingerprint(failed(empty)) != fingerprint(failed(wrapped))


def test_exception_without_frames_of_the_application_has_a_kind() -> None:
    """The innermost of all frames stands for them."""
    key: Any = fingerprint(failed(lambda: (_ for _ in ()).throw(ValueError)))
    assert key[3] == "ValueError"


def test_library_is_told_from_application() -> None:
    """By where the file lies."""
    assert is_library(json.__file__)
    assert is_library("<frozen runpy>")
    assert is_library("/srv/app/.venv/lib/python3.13/site-packages/flask/app.py")
    assert not is_library("/srv/app/shop/cart.py")
    assert not is_library(__file__)


def test_kinds_are_the_same_in_each_process() -> None:
    """They are made of the text of the fingerprint."""
    assert kind_of(("shop", 40, "broken")) == "eafd0b339af2f008"
