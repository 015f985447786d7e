"""Which of the records on a queue are plain: a message and its arguments, as nearly all are, and what they weigh.

What is plain stays as it was captured, to be written by a formatter that needs no record; of anything else a record is
made here. What the quick way of a `QueueHandler` puts on a pipeline's own queue was looked at there, and is not looked
at again: see `vet`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from logging import NOTSET, LogRecord
from typing import Any, cast

from offloop.capture import (
    BASE_BYTES,
    IMMUTABLE,
    KEY,
    NEITHER,
    PLAIN_LENGTH,
    STANDARD,
    Held,
    Record,
    Snapshot,
    restore,
    weight_of,
)
from offloop.records import ARGS, EXC_INFO, LEVELNO, MSG, STACK_INFO, Fields, fields_of

__all__ = ["SHORT", "is_short", "plain_of", "sift", "vet"]

SHORT = 400
"""Characters of a text among the arguments that is not looked at; see `is_short`."""

_ARGUMENT_BYTES = 150  # of an argument that is not looked at: more than most have


def sift(
    snapshots: Sequence[Any], deadline: float, *, vetted: bool = False, with_levels: bool = True
) -> tuple[list[Held], list[int], list[int], int]:
    """As `restore`, for many, but plain ones stay as they are: made of most of them, a record would be seen by nobody.

    Args:
        snapshots: Any items of a queue, the oldest first.
        deadline: By `time.perf_counter`: from then on those that are not plain are left, and all that come after them.
        vetted: All that look plain are, and have no long text among their arguments: see `is_short` and `vet`.
        with_levels: Whether the levels are asked for; if not, there are none.

    Returns:
        What was taken; the size in bytes and the level number of each; and how many items between them were no records.
    """
    if vetted:
        try:
            return _sifted(snapshots, with_levels=with_levels)
        except Exception:  # noqa: BLE001, S110 - not all are plain, or all of one kind
            pass
    held: list[Held] = []
    sizes: list[int] = []
    levels: list[int] = []
    odd = 0
    for item in snapshots:
        weight = _weigh_plain(item)
        if weight is not None:
            one, (size, level) = item, weight
        else:
            try:
                one = restore(item)
                size, level = one.size_bytes, one.levelno + NOTSET  # raises if it is no number
            except Exception:  # noqa: BLE001 - what someone else put on the queue is no record: the caller counts it
                one, size, level = None, 0, NOTSET
                odd += 1
        if one is not None:
            held.append(one)
            sizes.append(size)
            if with_levels:
                levels.append(level)
        if weight is None and time.perf_counter() >= deadline:
            break
    return held, sizes, levels, odd


def _sifted(snapshots: Sequence[Any], *, with_levels: bool) -> tuple[list[Held], list[int], list[int], int]:
    """As `sift`, where all are vetted, plain, and of one kind. Raises whatever comes of one that is not."""
    (kind,) = set(map(type, snapshots))
    levels: list[int] = []
    if kind is tuple:
        sizes = [BASE_BYTES + len(one[MSG]) + _ARGUMENT_BYTES * len(one[ARGS]) for one in snapshots]
        if with_levels:
            levels = [one[LEVELNO] for one in snapshots]
    else:
        (length,) = set(map(len, snapshots))
        if kind is not dict or length != PLAIN_LENGTH:
            raise TypeError
        sizes = [BASE_BYTES + len(one["msg"]) + _ARGUMENT_BYTES * len(one["args"]) for one in snapshots]
        if with_levels:
            levels = [one["levelno"] for one in snapshots]
    if levels and set(map(type, levels)) != {int}:
        raise TypeError
    return list(snapshots), sizes, levels, 0


def vet(item: Snapshot | Fields | LogRecord) -> Snapshot | Fields | LogRecord:
    """The item, as one that looks plain only if it is, and its arguments are short: `sift` need not look again."""
    if isinstance(item, tuple):  # what was noted of a record comes another way: this is somebody's own
        return cast("Fields", list(item))
    if isinstance(item, dict) and len(item) == PLAIN_LENGTH:
        plain = _weigh_plain(item) is not None
        if not (plain and all(map(is_short, item["args"]))):
            item[KEY] = NEITHER
    return item


def is_short(argument: object) -> bool:
    """Whether it may wait, and takes so little that nobody need look how much."""
    kind = type(argument)
    if kind is str:
        return len(cast("str", argument)) <= SHORT
    return kind in IMMUTABLE


def _weigh_plain(item: Any) -> tuple[int, int] | None:
    """Size in bytes and level number of what has nothing but a message and its arguments; None of any other."""
    kind: Any = type(item)  # pyright: ignore[reportUnknownVariableType]
    try:
        if kind is dict and len(item) == PLAIN_LENGTH and KEY not in item:
            message, arguments, level = item["msg"], item["args"], item["levelno"]
            more = item["exc_info"] or item["stack_info"] or item["exc_text"]
        elif kind is tuple:
            message, arguments, level = item[MSG], item[ARGS], item[LEVELNO]
            more = item[STACK_INFO] or item[EXC_INFO]
        else:
            return None
        if more or type(message) is not str or type(arguments) is not tuple or type(level) is not int:
            return None
        return BASE_BYTES + len(message) + (weight_of(arguments) if arguments else 0), level
    except Exception:  # noqa: BLE001 - something was taken away, or it is no record
        return None


def plain_of(record: LogRecord) -> Snapshot | Fields | None:
    """What `sift` would have given for the record, if it is a plain one: not a copy."""
    kind = type(record)
    if kind is Record:
        if cast("Record", record).exception is not None:
            return None
    elif kind is not LogRecord:
        fields = fields_of(record)
        plain = fields is not None and not (fields[EXC_INFO] or fields[STACK_INFO]) and type(fields[MSG]) is str
        return fields if plain else None
    values = record.__dict__
    if len(values) != PLAIN_LENGTH or type(values.get("msg")) is not str:
        return None
    if kind is LogRecord and not STANDARD.issuperset(values):  # somebody took an attribute away, and added one
        return None
    more = values.get("exc_text") or values.get("exc_info") or values.get("stack_info")
    return None if more else values
