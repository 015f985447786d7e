"""Lines of JSON as records: what a file of dead letters holds, or whatever a `JSONFormatter` wrote."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, cast

from offloop.capture import Record, restore
from offloop.errors import OffloopError
from offloop.tracebacks import Frame, FrozenException

__all__ = ["NoRecords", "parsed"]

_CODE = compile("", "", "exec")
_FRAME = re.compile(r'^  File "(?P<file>[^"\n]+)", line (?P<line>[0-9]+), in (?P<function>.+)$', re.MULTILINE)
_LINKED = re.compile(
    r"\n\n(?:The above exception was the direct cause|During handling of the above exception)[^\n]*\n\n"
)

# A record's attribute, and where each vocabulary has it.
_PLACES: Mapping[str, tuple[str, ...]] = {
    "created": ("time", "timestamp", "@timestamp"),
    "levelname": ("level", "severity_text", "log.level"),
    "name": ("logger", "instrumentation_scope.name", "log.logger"),
    "msg": ("message", "body"),
    "pathname": ("file", "code.file.path", "log.origin.file.name"),
    "lineno": ("line", "code.line.number", "log.origin.file.line"),
    "funcName": ("function", "code.function.name", "log.origin.function"),
    "process": ("process", "process.pid"),
    "threadName": ("thread", "thread.name", "process.thread.name"),
    "taskName": ("task", "asyncio.task.name"),
    "type": ("type", "exception.type", "error.type"),
    "message": ("message", "exception.message", "error.message"),
    "stacktrace": ("stacktrace", "exception.stacktrace", "error.stack_trace"),
    "stack_info": ("stack", "code.stacktrace"),
}
_KNOWN = {place for places in _PLACES.values() for place in places} | {
    *("exception", "attributes", "instrumentation_scope", "severity_number", "thread.id", "process.thread.id"),
    *("ecs.version", "resource"),
}


class NoRecords(OffloopError):
    """A file that can't be read as lines of JSON."""


def parsed(lines: Iterable[bytes], name: str) -> Iterator[Record]:
    """The records of a file, in its order; empty lines count for nothing.

    Args:
        lines: Of the file.
        name: The file's, for errors.

    Raises:
        NoRecords: A line is no record; says which and why.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield _record(_object(json.loads(line)))
            except (ValueError, TypeError) as error:
                msg = f"{name}, line {number}: not a record as JSON: {error}"
                raise NoRecords(msg) from error


def _record(fields: dict[str, Any]) -> Record:
    scope = _object(fields.get("instrumentation_scope"))
    given = {**fields, **_object(fields.get("attributes")), "instrumentation_scope.name": scope.get("name")}
    name, message = _found(given, "name"), _found(fields, "msg")
    if message is None:
        raise ValueError("it has no message")
    level = str(_found(given, "levelname") or "ERROR").upper()
    record = logging.LogRecord(
        str(name or "root"),
        logging.getLevelNamesMapping().get(level, logging.ERROR),
        str(_found(given, "pathname") or ""),
        _number(_found(given, "lineno")),
        str(message),
        (),
        None,
        _found(given, "funcName"),
    )
    record.levelname = level
    record.created = _moment(_found(given, "created"))
    record.msecs = record.created % 1 * 1000
    record.process, record.threadName = _number(_found(given, "process")), _found(given, "threadName")
    record.taskName = _found(given, "taskName")
    record.stack_info = _found(given, "stack_info")
    record.__dict__.update({key: value for key, value in given.items() if key not in _KNOWN and key.isidentifier()})
    whole = restore(record)
    failure = _object(fields.get("exception")) or _without(given, *_PLACES["msg"])
    text = _found(failure, "stacktrace")
    if text:
        whole.exc_text = str(text)
        whole.exception = _exception(failure, str(text))
    return whole


def _object(value: object) -> dict[str, Any]:
    """A JSON object as it is, and nothing for anything else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _without(given: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in names}


def _found(fields: Mapping[str, Any], attribute: str) -> Any:
    return next((fields[place] for place in _PLACES[attribute] if fields.get(place) is not None), None)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _moment(value: object) -> float:
    """Seconds since the epoch; 0 where there is no time that can be read."""
    if isinstance(value, (int, float)):
        return float(value)
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except ValueError:
        return 0.0


def _exception(failure: Mapping[str, Any], text: str) -> FrozenException:
    """What can be told of it by its traceback: the frames of the last exception in a chain."""
    module, _, qualname = str(_found(failure, "type") or "Exception").rpartition(".")
    frames = tuple(
        Frame(_CODE.replace(co_filename=sys.intern(at["file"]), co_name=at["function"]), -1, int(at["line"]))
        for at in _FRAME.finditer(_LINKED.split(text)[-1])
    )
    exception = FrozenException(module or "builtins", qualname, str(_found(failure, "message") or ""), frames=frames)
    exception._text = text  # noqa: SLF001 - as it was rendered where it was raised
    return exception
