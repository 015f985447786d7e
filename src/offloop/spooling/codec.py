"""A record as bytes that a later process can read, and back: what a spool keeps.

Values come back as what they were (a tuple as a tuple, a UUID as a UUID), as far as they are of the types that capture
lets wait; anything else comes back as its text. Nothing is unpickled. The first byte says the form: MessagePack, or
JSON where msgspec is missing or a text is none that UTF-8 can hold.
"""

from __future__ import annotations

import datetime as dt
import decimal
import fractions
import ipaddress
import json
import pathlib
import uuid
from collections.abc import Callable, Iterable
from logging import LogRecord
from typing import Any, cast

from offloop.capture import STANDARD, Record, fixed, message_of, restore, text_of
from offloop.formatters.encoding import from_msgpack, to_msgpack
from offloop.tracebacks import Frame, FrozenException

__all__ = ["Unreadable", "pack", "unpack"]

_MSGPACK = b"\x01"
_JSON = b"\x02"

# The order is the format: a name is added at the end, and none is ever taken away.
_FIELDS = (
    *("name", "msg", "args", "levelname", "levelno", "pathname", "filename", "module", "exc_text", "stack_info"),
    *("lineno", "funcName", "created", "msecs", "relativeCreated", "thread", "threadName", "processName", "process"),
    "taskName",
)
_LEAST = 20  # of the first version
_OURS = frozenset(LogRecord("", 0, "", 0, "", (), None).__dict__)
"""What a record has on this Python, whatever it had where it was written."""

_SMALL = 2**63  # MessagePack has no larger integers


class Unreadable(ValueError):
    """These bytes are no record, or one that this version can't read."""


def pack(record: Record) -> bytes:
    """The record as bytes; its traceback as text if that is rendered. Never raises."""
    row = _row(record)
    if to_msgpack is not None:
        try:
            return _MSGPACK + to_msgpack(row)
        except Exception:  # noqa: BLE001, S110 - a lone surrogate; JSON has an escape for it
            pass
    return _JSON + json.dumps(row, separators=(",", ":")).encode()


def unpack(data: bytes) -> Record:
    """The record in the bytes.

    Raises:
        Unreadable: There is none.
    """
    try:
        return _record(_loaded(data))
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(f"not a record: {type(error).__name__}: {text_of(error)}") from error


def _loaded(data: bytes) -> list[Any]:
    form, body = data[:1], data[1:]
    if form == _MSGPACK:
        if from_msgpack is None:
            raise Unreadable("the record was written as MessagePack: install msgspec to read it")
        return from_msgpack(body)  # type: ignore[return-value]
    if form == _JSON:
        return json.loads(body)  # type: ignore[no-any-return]
    raise Unreadable(f"the record is of an unknown form {form!r}")


def _row(record: Record) -> list[object]:
    given = record.__dict__
    values = [_plain(given.get(name)) for name in _FIELDS]
    values[1], values[2] = _message(record)
    template = record.template if record.template != values[1] else None
    # Not `capture.extras`: it takes a record no longer than a plain one for plain, and a filter may remove attributes.
    more = {text_of(name): _plain(value) for name, value in given.items() if name not in STANDARD}
    return [values, more, template, _exception(record.exception)]


def _message(record: Record) -> tuple[object, object]:
    """`msg` and `args`; merged where a later process might merge them into something else."""
    arguments = record.args
    if arguments:
        values = arguments.values() if isinstance(arguments, dict) else arguments
        if not all(map(_is_kept, cast("Iterable[object]", values))):
            return message_of(record), ["t"]
    return _plain(record.msg), _plain(arguments)


def _record(row: list[Any]) -> Record:
    values, more, template, exception = row
    if len(values) < _LEAST:
        raise Unreadable(f"the record has {len(values)} attributes")
    snapshot: dict[str, Any] = dict.fromkeys(_OURS)
    for name, value in zip(_FIELDS, values, strict=False):
        if name in _OURS or value is not None:
            snapshot[name] = _valued(value)
    for name, value in more.items():
        snapshot[name] = _valued(value)
    record = restore(snapshot)
    record._template = template  # noqa: SLF001 - as `restore` sets it
    if exception is not None:
        record.exception = _frozen(exception)
        record.exception._text = snapshot["exc_text"]  # noqa: SLF001 - its source may have changed since
    return record


# -- values: plain ones as they are, any other as a list that begins with its kind -----------------------------------


def _is_kept(value: object) -> bool:
    """Whether a value comes back as what it was."""
    cls = type(value)
    return cls in _PLAIN or cls in _WRITE or (cls is tuple and all(map(_is_kept, cast("tuple[object, ...]", value))))


def _plain(value: object) -> object:
    cls = type(value)
    if cls is int:
        number = cast("int", value)
        return number if -_SMALL <= number < _SMALL else ["i", hex(number)]
    if cls in _PLAIN:
        return value
    if cls is dict:
        pairs = cast("dict[object, object]", value).items()
        return ["d", *([_plain(key), _plain(item)] for key, item in pairs)]
    kind = _CONTAINERS.get(cls)
    if kind is not None:
        return [kind, *map(_plain, cast("Iterable[object]", value))]
    write = _WRITE.get(cls)
    if write is not None:
        return [write[0], *write[1](value)]
    tame = fixed(value)  # what came by a filter, not by capture
    return text_of(tame) if type(tame) is cls else _plain(tame)


def _valued(value: object) -> Any:
    if type(value) is not list:
        return value
    kind, *parts = cast("Any", value)
    if kind == "d":
        return {_valued(key): _valued(item) for key, item in parts}
    if kind in _GATHER:
        return _GATHER[kind](map(_valued, parts))
    return _READ[kind](*parts)


_PLAIN: frozenset[type] = frozenset({str, int, float, bool, type(None)})
_CONTAINERS: dict[type, str] = {tuple: "t", list: "l", set: "s", frozenset: "z"}
_GATHER: dict[str, Callable[[Iterable[Any]], object]] = {"t": tuple, "l": list, "s": set, "z": frozenset}


def _as_text(value: object) -> list[object]:
    return [str(value)]


def _as_iso(value: Any) -> list[object]:
    return [value.isoformat()]


_WRITE: dict[type, tuple[str, Callable[[Any], list[object]]]] = {
    bytes: ("b", lambda value: [value.decode("latin-1")]),
    complex: ("c", lambda value: [value.real, value.imag]),
    dt.datetime: ("T", _as_iso),
    dt.date: ("D", _as_iso),
    dt.time: ("H", _as_iso),
    dt.timedelta: ("e", lambda value: [value.days, value.seconds, value.microseconds]),
    decimal.Decimal: ("n", _as_text),
    fractions.Fraction: ("q", _as_text),
    uuid.UUID: ("u", _as_text),
    pathlib.PurePosixPath: ("p", _as_text),
    pathlib.PosixPath: ("p", _as_text),
    ipaddress.IPv4Address: ("a", _as_text),
    ipaddress.IPv6Address: ("a", _as_text),
}


def _from_hex(text: str) -> int:
    return int(text, 16)


def _from_latin(text: str) -> bytes:
    return text.encode("latin-1")


_READ: dict[str, Callable[..., object]] = {
    "i": _from_hex,
    "b": _from_latin,
    "c": complex,
    "T": dt.datetime.fromisoformat,
    "D": dt.date.fromisoformat,
    "H": dt.time.fromisoformat,
    "e": dt.timedelta,
    "n": decimal.Decimal,
    "q": fractions.Fraction,
    "u": uuid.UUID,
    "p": pathlib.PurePosixPath,
    "a": ipaddress.ip_address,
}


# -- exceptions ------------------------------------------------------------------------------------------------------


def _exception(frozen: FrozenException | None) -> list[object] | None:
    if frozen is None:
        return None
    return [
        *(frozen.module, frozen.qualname, frozen.message, list(frozen.notes)),
        [[frame.filename, frame.lineno, frame.name] for frame in frozen.frames],
        *(frozen.omitted, _exception(frozen.cause), _exception(frozen.context), frozen.suppress_context),
        None if frozen.exceptions is None else [_exception(member) for member in frozen.exceptions],
        None if frozen.syntax is None else list(frozen.syntax),
    ]


def _frozen(row: list[Any]) -> FrozenException:
    module, qualname, message, notes, frames, omitted, cause, context, suppress_context, exceptions, syntax = row
    return FrozenException(
        module,
        qualname,
        message,
        tuple(notes),
        tuple(_frame(*frame) for frame in frames),
        omitted,
        None if cause is None else _frozen(cause),
        None if context is None else _frozen(context),
        suppress_context,
        None if exceptions is None else tuple(map(_frozen, exceptions)),
        None if syntax is None else cast("Any", tuple(syntax)),
    )


_CODE = compile("", "", "exec")


def _frame(filename: str, lineno: int, name: str) -> Frame:
    # The code that ran is gone: one that says where it was stands for it. `lasti` -1: no columns.
    return Frame(_CODE.replace(co_filename=filename, co_name=name), -1, lineno)
