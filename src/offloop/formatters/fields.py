"""What a record's fields are called: three vocabularies, each a function from a record to a dictionary.

`plain` is this project's own. `otel`: the OpenTelemetry log data model with the semantic conventions for `code`,
`thread` and `exception`, trace fields at the top level as its compatibility document for JSON says. `ecs`: the Elastic
Common Schema as its logging libraries write it, dotted names, the first three in the order their specification asks
for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from logging import LogRecord
from operator import itemgetter
from typing import Any, Literal, cast

from offloop.capture import Record, text_of
from offloop.records import EXC_INFO, HAS_TASKS, fields_of, file_of
from offloop.tracebacks import FrozenException, freeze

__all__ = ["FIELD_SETS", "Common", "FieldSet", "Fields", "Site", "failure_of", "free_name"]

Fields = Literal["plain", "otel", "ecs"]

_NAMES = ("name", "levelname", "levelno", "pathname", "lineno", "funcName", "process", "thread", "threadName")
_MAX_GROUPS = 8
_MAX_CHAIN = 100


Common = tuple[Any, ...]
Site = tuple[Any, ...]
Failure = tuple[FrozenException | None, str]


@dataclass(frozen=True, slots=True)
class FieldSet:
    """One vocabulary.

    Attributes:
        names: Of a record's attributes those that `begin` takes.
        begin: Time, message, what is common, the task's name: what every record has, as an object.
        finish: Adds to that what few have: its failure, its stack, what the caller gave as `extra` (with free names,
            and not to be used again), the static fields.
        reserved: Names that no `extra` may take.
    """

    names: tuple[str, ...]
    begin: Callable[[object, str, Common, str | None], dict[str, Any]]
    finish: Callable[[dict[str, Any], Failure | None, object, dict[str, Any], Mapping[str, Any]], None]
    reserved: frozenset[str]

    @property
    def common(self) -> Callable[[Mapping[str, Any]], Common]:
        """Gives these of a record's attributes."""
        return cast("Callable[[Mapping[str, Any]], Common]", itemgetter(*self.names))

    @property
    def site(self) -> Callable[[Mapping[str, Any]], Site]:
        """These, and the name of the task, where records have one: what `records.SITE` has of its fields, or more."""
        return replace(self, names=(*self.names, "taskName")).common if HAS_TASKS else self.common


def free_name(name: str, taken: frozenset[str], extra: Mapping[str, Any]) -> str:
    """The name under which an `extra` is written that is called like a standard field: `extra.` and its own."""
    while name in taken or name in extra:
        name = f"extra.{name}"
    return name


def failure_of(record: LogRecord) -> Failure | None:
    """The record's exception and its traceback's text; None if it has neither.

    A `Record` has its text by the time a sink sees it. A live `exc_info` of a record from elsewhere is rendered here.
    """
    noted = fields_of(record)
    if noted is not None and not noted[EXC_INFO]:
        return None
    frozen = record.exception if isinstance(record, Record) else None
    text, info = record.exc_text, record.exc_info
    if not (text or info or frozen):
        return None
    if frozen is None and info:
        error = info[1] if isinstance(info, tuple) else info
        frozen = freeze(error) if isinstance(error, BaseException) else None
    if not text and frozen is not None:
        text = frozen.render()
    return (frozen, text_of(text)) if text else None


def _begin_plain(when: object, message: str, common: Common, task: str | None) -> dict[str, Any]:
    name, level, _, path, line, function, process, _, thread = common
    fields = {
        "time": when,
        "level": level,
        "logger": name,
        "message": message,
        "file": path,
        "line": line,
        "function": function,
        "process": process,
        "thread": thread,
    }
    if task is not None:
        fields["task"] = task
    return fields


def _finish_plain(
    fields: dict[str, Any], failure: Failure | None, stack: object, extra: dict[str, Any], static: Mapping[str, Any]
) -> None:
    if failure is not None:
        frozen, text = failure
        fields["exception"] = {**(_described(frozen) if frozen is not None else {}), "stacktrace": text}
    if stack:
        fields["stack"] = stack
    if static:
        fields.update(static)
    if extra:
        fields.update(extra)


def _described(frozen: FrozenException, depth: int = 0) -> dict[str, Any]:
    """Type, message, notes; the chain as a flat list, nearest first; a group's members."""
    described = _named(frozen)
    causes: list[dict[str, Any]] = []
    link = frozen.cause or frozen.context
    while link is not None and len(causes) < _MAX_CHAIN:
        causes.append(_named(link))
        link = link.cause or link.context
    if causes:
        described["causes"] = causes
    if frozen.exceptions is not None and depth < _MAX_GROUPS:
        described["exceptions"] = [_described(member, depth + 1) for member in frozen.exceptions]
    return described


def _named(frozen: FrozenException) -> dict[str, Any]:
    named: dict[str, Any] = {"type": frozen.type_name, "message": frozen.message}
    if frozen.notes:
        named["notes"] = frozen.notes
    return named


def _begin_otel(when: object, message: str, common: Common, task: str | None) -> dict[str, Any]:
    name, level, levelno, path, line, function, process, thread, thread_name = common
    attributes: dict[str, Any] = {
        "code.file.path": path,
        "code.line.number": line,
        "code.function.name": function,
        "process.pid": process,
        "thread.id": thread,
        "thread.name": thread_name,
    }
    if task is not None:
        attributes["asyncio.task.name"] = task
    return {
        "timestamp": when,
        "severity_text": level,
        "severity_number": _severity(levelno),
        "body": message,
        "instrumentation_scope": {"name": name},
        "attributes": attributes,
    }


def _finish_otel(
    fields: dict[str, Any], failure: Failure | None, stack: object, extra: dict[str, Any], static: Mapping[str, Any]
) -> None:
    attributes: dict[str, Any] = fields["attributes"]
    if failure is not None:
        attributes.update(_error(failure, "exception.type", "exception.message", "exception.stacktrace"))
    if stack:
        attributes["code.stacktrace"] = stack
    if static:
        fields["resource"] = static
    for name in ("trace_id", "span_id", "trace_flags"):
        if name in extra:
            fields[name] = extra.pop(name)
    attributes.update(extra)


def _severity(levelno: object) -> int:
    """`SeverityNumber`: DEBUG 5, INFO 9, WARN 13, ERROR 17, FATAL 21; between them the numbers between; 0 unknown."""
    if not isinstance(levelno, int) or levelno <= 0:
        return 0
    tens, rest = divmod(min(levelno, 53), 10)
    return 1 + 4 * tens + min(rest, 3) if tens else 1


def _begin_ecs(when: object, message: str, common: Common, task: str | None) -> dict[str, Any]:
    name, level, _, path, line, function, process, thread, thread_name, *filename = common
    fields: dict[str, Any] = {
        "@timestamp": when,
        "log.level": level.lower() if isinstance(level, str) else level,
        "message": message,
        "ecs.version": "8.11.0",
        "log.logger": name,
        "log.origin.file.name": filename[0] if filename else file_of(path)[0],
        "log.origin.file.line": line,
        "log.origin.function": function,
        "process.pid": process,
        "process.thread.id": thread,
        "process.thread.name": thread_name,
    }
    if task is not None:
        fields["asyncio.task.name"] = task
    return fields


def _finish_ecs(
    fields: dict[str, Any], failure: Failure | None, stack: object, extra: dict[str, Any], static: Mapping[str, Any]
) -> None:
    if failure is not None:
        fields.update(_error(failure, "error.type", "error.message", "error.stack_trace"))
    if stack:
        # ECS has one place for both; the standard formatter writes them in this order too.
        stacks = (fields.get("error.stack_trace"), stack)
        fields["error.stack_trace"] = "\n".join(text_of(stack) for stack in stacks if stack)
    fields.update(static)
    for name, official in (("trace_id", "trace.id"), ("span_id", "span.id")):
        if name in extra and official not in extra:
            fields[official] = extra.pop(name)
    fields.update(extra)


def _error(failure: Failure, kind: str, message: str, stack: str) -> dict[str, str]:
    frozen, text = failure
    if frozen is None:
        return {stack: text}
    return {kind: frozen.type_name, message: frozen.message, stack: text}


_PLAIN = "time level logger message file line function process thread task exception stack"
_OTEL = (
    "code.file.path code.line.number code.function.name code.stacktrace process.pid thread.id thread.name "
    "asyncio.task.name exception.type exception.message exception.stacktrace"
)
# With the bare prefixes: an index that has `error.type` refuses a document whose `error` is a text.
_ECS = (
    "@timestamp log.level message ecs.version log.logger log.origin log.origin.file log.origin.file.name "
    "log.origin.file.line log.origin.function process.pid process.thread process.thread.id process.thread.name "
    "asyncio.task asyncio.task.name error.type error.message error.stack_trace log process error ecs asyncio"
)

FIELD_SETS: Mapping[str, FieldSet] = {
    "plain": FieldSet(_NAMES, _begin_plain, _finish_plain, frozenset(_PLAIN.split())),
    "otel": FieldSet(_NAMES, _begin_otel, _finish_otel, frozenset(_OTEL.split())),
    "ecs": FieldSet((*_NAMES, "filename"), _begin_ecs, _finish_ecs, frozenset(_ECS.split())),
}
