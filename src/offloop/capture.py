"""From the caller's `LogRecord` to a snapshot that is safe to hold, and back to a record for the sinks.

The caller's record is never held and never changed: other handlers go on with it. What could change later (a list among
the arguments, an object in `extra`, a live exception) is fixed now, in the caller, where it still is what was meant.
Nothing here raises, whatever a `__str__` does.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from logging import NOTSET, LogRecord, makeLogRecord
from typing import Any, ClassVar, SupportsIndex, cast

from offloop.records import (
    ARGS,
    MSG,
    STACK_INFO,
    Fields,
    Lazy,
    Noted,
    attributes_of,
    fields_of,
    ordinary_of,
)
from offloop.tracebacks import FrozenException, freeze

__all__ = [
    "BASE_BYTES",
    "IMMUTABLE",
    "KEY",
    "NEITHER",
    "PLAIN_LENGTH",
    "SNAPSHOTS",
    "STANDARD",
    "Held",
    "Record",
    "Snapshot",
    "capture",
    "extras",
    "fixed",
    "made",
    "message_of",
    "restore",
    "scalar_of",
    "text_of",
    "weight_of",
]

Snapshot = dict[str, Any]
"""What waits in the queue: a copy of a record's `__dict__`; under `KEY` what a plain record has no place for."""

KEY = "\0offloop"
"""Under which a snapshot that is more than plain has its template and its exception, if it has them."""
NEITHER: tuple[str | None, FrozenException | None] = (None, None)
_MAX_DEPTH = 8
_MAX_CONTAINERS = 10_000
_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})

SNAPSHOTS = frozenset({dict, tuple})
"""Exact types of what is held and no record yet."""

_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother = 2, 200, 200

_plain = LogRecord("", 0, "", 0, "", (), None)
PLAIN_LENGTH = len(_plain.__dict__)
"""Attributes of a record without `extra`; one that has more is looked at closely."""

STANDARD = frozenset(_plain.__dict__) | {"message", "asctime", "taskName"}
"""The attributes that are no `extra`."""

IMMUTABLE: set[type] = {str, int, float, bool, type(None), complex}
"""Exact types whose values may wait, and take little but for a text. Grows as values of those below are met."""

# By name, so that nobody pays for an import: a value of the type exists only where its module was imported.
_LEARNED = {
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "uuid": {"UUID"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "ipaddress": {"IPv4Address", "IPv6Address", "IPv4Network", "IPv6Network"},
    "pathlib": {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
    "pathlib._local": {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
    "zoneinfo": {"ZoneInfo"},
}

BASE_BYTES = 1_200
"""What a record weighs beside its own texts, for bounds in bytes: measured with tracemalloc."""
_TUPLE_BYTES = 56


class Record(Noted):
    """A record on the sinks' side: all the caller's had, plus what was frozen. Shared by reference: don't change it.

    Attributes:
        template: The message before its arguments were merged, where that was done in the caller; otherwise `msg`.
        exception: The frozen exception, None if there was none. `exc_info` is always None; `exc_text` has the text by
            the time a sink sees the record.
        size_bytes: About what it takes in memory.
    """

    __slots__ = ("_template", "encodings", "exception", "size_bytes")

    _template: str | None
    exception: FrozenException | None
    size_bytes: int
    encodings: dict[object, bytes] | None

    def getMessage(self) -> str:  # noqa: N802 - the standard library's name
        """The message with its arguments; where they do not fit, what can be said instead. Never raises."""
        try:
            # As the standard class does, without a call to it.
            message, arguments = self.msg, self.args
            if type(message) is not str:
                message = str(message)
            return message % arguments if arguments else message
        except Exception as error:  # noqa: BLE001 - the text says so
            return _unrendered(self, error)

    @property
    def template(self) -> str:
        """The message before its arguments were merged: what records of one kind have in common."""
        return self._template if self._template is not None else str(self.msg)

    def twin(self) -> Record:
        """A copy whose attributes can be changed without a change to this one."""
        record = Record.__new__(Record)
        record.__dict__ = self.__dict__.copy()
        record._fields = None
        record._template = self._template  # noqa: SLF001 - ours
        record.exception = self.exception
        record.size_bytes = self.size_bytes
        record.encodings = None
        return record

    def __copy__(self) -> Record:
        return self.twin()

    def __deepcopy__(self, memo: object) -> Record:
        return self.twin()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, it is a plain record with the traceback's text: code objects can't be pickled, nor need they be."""
        attributes = self.__dict__
        if self.exception is not None and self.exc_text is None:
            attributes = {**attributes, "exc_text": self.exception.render()}
        return makeLogRecord, (attributes,)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return self.__reduce__()


class _LazyRecord(Lazy, Record):
    """What came as the fields of a `FastRecord`, shared with whoever has them too: a `Record` once it is looked at."""

    __slots__ = ()
    places: ClassVar[frozenset[str]] = frozenset(Record.__slots__)

    def getMessage(self) -> str:  # noqa: N802 - the standard library's name
        fields = self._fields
        if fields is None:
            return Record.getMessage(self)
        try:
            message: str = fields[MSG]
            return message % fields[ARGS] if fields[ARGS] else message
        except Exception as error:  # noqa: BLE001 - the text says so
            return _unrendered(self, error)

    def twin(self) -> Record:
        fields = self._fields
        return Record.twin(self) if fields is None else _of_fields(fields, self.size_bytes)


ordinary_of[_LazyRecord] = Record

Held = Record | Snapshot | Fields
"""What waits for a sink: a record, or the snapshot of a plain one, of which a record is made when somebody asks."""


def capture(record: LogRecord, context: Mapping[str, ContextVar[Any]] | None = None) -> Snapshot:
    """A snapshot of the record that no later change reaches.

    Args:
        record: Any `LogRecord`; it is left as it is.
        context: Attribute name to context variable; each that is set is stored as if it had been given as `extra`.
    """
    snapshot = attributes_of(record)
    template = _fix_message(record, snapshot)
    exception = _fix_exception(snapshot)
    if snapshot.get("exc_text") is not None or snapshot.get("stack_info") is not None:
        for name in ("exc_text", "stack_info"):
            snapshot[name] = _text_or_none(snapshot.get(name))
    if len(snapshot) > PLAIN_LENGTH:
        for name in snapshot.keys() - STANDARD:
            snapshot[name] = fixed(snapshot[name])
    if context:
        _add_context(snapshot, context)
    if template is not None or exception is not None:
        snapshot[KEY] = (template, exception)
    return snapshot


def restore(snapshot: Snapshot | Fields | LogRecord) -> Record:
    """The record a snapshot stands for. A `LogRecord` that someone else put on the queue is captured now.

    Args:
        snapshot: What `capture` gave, or the fields of a `FastRecord` whose message and arguments may wait.

    Raises:
        Exception: It is none of these.
    """
    if isinstance(snapshot, tuple):
        return _of_fields(snapshot, _size_of_fields(snapshot))
    if isinstance(snapshot, LogRecord):
        snapshot = capture(snapshot)
        if not isinstance(snapshot.get("levelno"), int):
            snapshot["levelno"] = NOTSET
    template, exception = snapshot.pop(KEY, NEITHER)
    record = Record.__new__(Record)
    record.__dict__ = snapshot
    record._fields = None
    record._template = template  # noqa: SLF001 - ours
    record.exception = exception
    record.encodings = None
    record.size_bytes = _size(snapshot, exception)
    return record


def made(held: Held, size_bytes: int | None = None) -> Record:
    """The record that is held; made of its snapshot if it was not made yet.

    Args:
        held: What `sift` gave.
        size_bytes: And what it said of its size. None: not at hand.
    """
    if isinstance(held, Record):
        return held
    if size_bytes is None:
        return restore(held)
    if isinstance(held, tuple):
        return _of_fields(held, size_bytes)
    record = Record.__new__(Record)
    record.__dict__ = held
    record._fields = record._template = record.exception = record.encodings = None  # noqa: SLF001 - ours
    record.size_bytes = size_bytes
    return record


def _of_fields(fields: Fields, size_bytes: int) -> Record:
    record = Record.__new__(Record)
    record._fields = fields
    record._template = record.exception = record.encodings = None  # noqa: SLF001 - ours
    record.size_bytes = size_bytes
    record.__class__ = _LazyRecord
    return record


def extras(record: LogRecord) -> dict[str, Any]:
    """What the caller gave as `extra` (and the captured context), without the standard attributes."""
    if fields_of(record) is not None:
        return {}
    attributes = record.__dict__
    if len(attributes) <= PLAIN_LENGTH:
        return {}
    return {name: value for name, value in attributes.items() if name not in STANDARD}


def message_of(record: LogRecord) -> str:
    """The record's message; where it can't be rendered, what can be said instead. Never raises."""
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - the text says so
        return _unrendered(record, error)


def _unrendered(record: LogRecord, error: Exception) -> str:
    arguments = text_of(record.args, repr)
    return f"{text_of(record.msg)} [not rendered: {type(error).__name__}: {text_of(error)}; args={arguments}]"


def text_of(value: object, render: Any = str) -> str:
    """`str(value)` (or `repr`), or a note that it failed. Never raises."""
    try:
        return str.__str__(render(value))
    except Exception as error:  # noqa: BLE001 - the text says so
        return f"<{getattr(render, '__name__', 'repr')}() of {type(value).__name__} failed: {type(error).__name__}>"


def is_immutable(value: object, depth: int = 0) -> bool:
    """Whether a value may wait: of an exact immutable type, or a tuple of such values. Never raises."""
    # Not `__class__`: a proxy (a request's user, a lazy text) gives that of what it stands for at this moment.
    cls = type(value)
    if cls in IMMUTABLE or cls is bytes:
        return True
    if cls is tuple:
        # Deeper ones are rendered: following them would end in a RecursionError.
        return depth < _MAX_DEPTH and all(is_immutable(item, depth + 1) for item in cast("tuple[object, ...]", value))
    module = cls.__module__
    if type(module) is not str or cls.__name__ not in _LEARNED.get(module, ()):
        return False
    if getattr(sys.modules.get(module), cls.__name__, None) is not cls:
        return False
    IMMUTABLE.add(cls)
    return True


def _fix_message(record: LogRecord, snapshot: Snapshot) -> str | None:
    """Render the message now unless it may wait; gives the template of what was rendered."""
    message, arguments = cast("object", record.msg), record.args
    # A record of a class of its own may render in a way of its own: braces, say.
    if type(message) is str and type(record).getMessage in {LogRecord.getMessage, Record.getMessage}:
        if not arguments or is_immutable(arguments):
            return None
        if type(arguments) is dict:
            named = cast("dict[object, object]", arguments).copy()
            if all(is_immutable(key) and is_immutable(value) for key, value in named.items()):
                snapshot["args"] = named
                return None
        snapshot["msg"] = message_of(record)
        snapshot["args"] = ()
        return message
    if not arguments and type(message) in _CONTAINERS:
        # structlog hands its event dictionary over as `msg`: its formatter in a sink must find a dictionary.
        snapshot["msg"] = fixed(message)
        return None
    snapshot["msg"] = message_of(record)
    snapshot["args"] = ()
    return text_of(message)


def _fix_exception(snapshot: Snapshot) -> FrozenException | None:
    info: tuple[object, ...] | BaseException | bool | None = snapshot.get("exc_info")
    # An exception may be false, or refuse to say: it is not asked.
    if not isinstance(info, BaseException) and not info:
        return None
    error: object = info
    if isinstance(info, tuple) and len(info) == 3:  # noqa: PLR2004 - type, value, traceback
        error = info[1]
    snapshot["exc_info"] = None
    # Another handler's formatter may have left its own text there, colours and all.
    snapshot["exc_text"] = None
    if isinstance(error, BaseException):
        return freeze(error)
    snapshot["exc_text"] = "NoneType: None"  # what the standard formatter says where there was no exception
    return None


def _text_or_none(value: object) -> str | None:
    """What stands where a text should. Never raises."""
    if value is None or type(value) is str:
        return value
    try:
        return text_of(value) if value else None
    except Exception:  # noqa: BLE001 - it refuses to say whether it is anything
        return text_of(value)


def _add_context(snapshot: Snapshot, context: Mapping[str, ContextVar[Any]]) -> None:
    for name, variable in context.items():
        value = variable.get(KEY)
        if value is not KEY:
            snapshot.setdefault(name, fixed(value))


def fixed(value: object, max_depth: int = _MAX_DEPTH) -> object:
    """A value that no later change reaches: plain containers are copied, other objects become their text. Never raises.

    What is more than `max_depth` containers down, a container within itself, and what comes after `_MAX_CONTAINERS` of
    them is given as its `repr`, shortened: nodes that know their neighbours would be walked along every path there is.
    """
    return _fixed(value, (), max_depth, [_MAX_CONTAINERS])


def _fixed(value: object, above: tuple[int, ...], max_depth: int, left: list[int]) -> object:
    if is_immutable(value):
        return value
    cls = type(value)
    if cls not in _CONTAINERS:
        return scalar_of(value)
    if len(above) >= max_depth or left[0] <= 0 or id(value) in above:
        return text_of(value, _short.repr)
    left[0] -= 1
    try:
        return _copied(value, (*above, id(value)), max_depth, left)
    except RuntimeError:
        return text_of(value, _short.repr)  # another thread was changing it


def _copied(value: object, above: tuple[int, ...], max_depth: int, left: list[int]) -> object:
    cls = type(value)
    if cls is dict:
        pairs = cast("dict[object, object]", value).copy().items()
        return {_key(key): _fixed(item, above, max_depth, left) for key, item in pairs}
    if cls is list or cls is tuple:
        items = [_fixed(item, above, max_depth, left) for item in cast("list[object]", value)]
        return items if cls is list else tuple(items)
    return {_key(item) for item in cast("set[object]", value).copy()}


def _key(value: object) -> object:
    return value if is_immutable(value) else text_of(value)


def scalar_of(value: object) -> object:
    """Subclasses of plain values (an IntEnum, a Markup) as the plain value, anything else as text. Never raises."""
    mro = type(value).__mro__
    if str in mro:
        return str.__str__(cast("str", value))
    if int in mro:
        return int.__add__(cast("int", value), 0)
    if float in mro:
        return float.__add__(cast("float", value), 0.0)
    return text_of(value)


def _size(snapshot: Snapshot, exception: FrozenException | None) -> int:
    size = BASE_BYTES
    message = snapshot.get("msg")
    if type(message) is str:
        size += len(message)
    arguments = snapshot.get("args")
    if arguments:
        size += weight_of(arguments, 0)
    if len(snapshot) > PLAIN_LENGTH:
        size += sum([weight_of(value, 0) for name, value in snapshot.items() if name not in STANDARD])
    stack = snapshot.get("stack_info")
    if type(stack) is str:
        size += len(stack)
    return size if exception is None else size + exception.size_bytes


def _size_of_fields(fields: Fields) -> int:
    size: int = BASE_BYTES + len(fields[MSG])
    if fields[ARGS]:
        size += weight_of(fields[ARGS], 0)
    if fields[STACK_INFO] is not None:
        size += len(fields[STACK_INFO])
    return size


def weight_of(value: Any, depth: int = 0) -> int:
    """About how many bytes an argument takes, or a value in `extra`."""
    cls: Any = type(value)  # pyright: ignore[reportUnknownVariableType]
    if cls is str or cls is bytes:
        return 50 + len(value)
    if depth < _MAX_DEPTH:
        if cls is tuple or cls is list or cls is set:
            size = _TUPLE_BYTES
            for item in value:
                kind: Any = type(item)  # pyright: ignore[reportUnknownVariableType]
                # The common ones here: a call for each would be most of the work.
                if kind is str:
                    size += 50 + len(item)
                elif kind is int or kind is float:
                    size += 32
                else:
                    size += weight_of(item, depth + 1)
            return size
        if cls is dict:
            return 64 + sum([100 + weight_of(item, depth + 1) for item in value.values()])
    return 32
