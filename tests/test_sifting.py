"""What is plain, what is not, and what each weighs."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest

from offloop.capture import made, message_of
from offloop.records import fields_of, make
from offloop.sifting import SHORT, sift, vet

LONG = "x" * (SHORT + 1)


@pytest.mark.parametrize(
    ("changed", "plain"),
    [
        ({}, True),
        ({"args": ("a", 1, None, 2.5)}, True),
        ({"args": (LONG[1:],)}, True),
        ({"args": (LONG,)}, False),
        ({"args": (b"bytes",)}, False),
        ({"args": ((1, 2),)}, False),
        ({"args": {"a": 1}}, False),
        ({"args": None}, False),
        ({"msg": ["no", "text"]}, False),
        ({"levelno": 20.5}, False),
        ({"stack_info": "Stack (most recent call last):"}, False),
        ({"exc_text": "Traceback (most recent call last):"}, False),
        ({"exc_info": True}, False),
        ({"more": 1}, False),
    ],
)
def test_what_was_vetted_need_not_be_looked_at(changed: dict[str, Any], *, plain: bool) -> None:
    """What looks plain then is; the others are taken too, each as the record it is, and weighed as such."""
    snapshot = logging.makeLogRecord({"levelno": 20, "msg": "hello"}).__dict__ | changed
    expected, (exact,), levels, _ = sift([snapshot.copy()], math.inf)
    held, (size,), found, odd = sift([vet(snapshot.copy())], math.inf, vetted=True)
    assert (type(held[0]) is dict) is plain
    assert message_of(made(held[0])) == message_of(made(expected[0]))
    assert vars(made(held[0])) == vars(made(expected[0]))
    assert (found, odd) == (levels, 0)
    assert size == exact if not plain else exact / 3 < size < 2 * exact


def test_vetted_ones_beside_others() -> None:
    """They come in their order, with their levels, whatever they are made of."""
    noted = fields_of(make("app", 30, "x.py", 1, "noted", (), None))
    others = [logging.makeLogRecord({"levelno": level, "msg": str(level)}).__dict__ for level in (10, 20)]
    strange = logging.makeLogRecord({"levelno": 40, "msg": "odd", "stack_info": "Stack"}).__dict__
    items = [noted, others[0], vet(strange), ("no", "record"), others[1], noted]
    held, sizes, levels, odd = sift(items, math.inf, vetted=True)
    assert [message_of(made(one)) for one in held] == ["noted", "10", "odd", "20", "noted"]
    assert (levels, odd, len(sizes)) == ([30, 10, 40, 20, 30], 1, 5)
    held, sizes, levels, odd = sift(items, math.inf, vetted=True, with_levels=False)
    assert (len(held), len(sizes), levels, odd) == (5, 5, [], 1)


def test_tuple_of_somebody_is_no_record() -> None:
    """Where all is vetted too: it does not pass for what was noted of a record."""
    held, _, _, odd = sift([vet(("text", ())), vet(("text", (), *(None,) * 14))], math.inf, vetted=True)
    assert (held, odd) == ([], 2)


class Refuses:
    """An object that does not say whether it is true."""

    def __bool__(self) -> bool:
        raise ValueError


@pytest.mark.parametrize("vetted", [True, False])
def test_what_refuses_to_be_looked_at(vetted: bool) -> None:
    """Whatever somebody put on the queue is counted, and what is behind it is taken."""
    noted = fields_of(make("app", 30, "x.py", 1, "noted", (), None))
    assert noted is not None
    odd: Any = ("text", (), Refuses(), Refuses(), *noted[4:])
    items = [vet(odd) if vetted else odd, noted]
    held, _, levels, count = sift(items, math.inf, vetted=vetted)
    assert (held[-1:], levels[-1:]) == ([noted], [30])
    assert count + len(held) == 2
