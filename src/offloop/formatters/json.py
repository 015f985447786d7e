"""Records as JSON objects, one to a line."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, ClassVar, Literal, get_args
from uuid import uuid4

from offloop.capture import SNAPSHOTS, Held, extras, fixed, made, message_of
from offloop.errors import ConfigError
from offloop.formatters.encoding import DEL, quickly, shown, to_json
from offloop.formatters.fields import FIELD_SETS, Common, Fields, Site, failure_of, free_name
from offloop.formatters.times import FIRST, THREE, iso_time, second_of
from offloop.policies import one_of
from offloop.records import ARGS, HAS_TASKS, IN_NS, MSG, SITE, TIME, created_of
from offloop.sifting import plain_of

__all__ = ["JSONFormatter"]

Timestamp = Literal["iso", "epoch"]

Line = tuple[bytes, bytes, bytes, bytes]
"""JSON around a time, the text of a message, and a task."""

_MARK = f"offloop-{uuid4().hex}"  # stands where a line differs from others of the same call; nobody can log it
_MAX_LINES = 1_024  # calls whose lines are known
_ROUND = 1.5 * 2**52  # added and taken away again it rounds a float as `round` does, and takes a third less
_ROUND_UP = _ROUND + 1e6


class JSONFormatter(logging.Formatter):
    """One JSON object a record: UTF-8, without any line break or control character, whatever it holds. Never raises.

    A field of the record is never replaced: an `extra` called like one of them, or like a static field, is written as
    `extra.` and its name. A message that can't be rendered says so in its text. What JSON has no form for is written as
    `offloop.formatters.encoding` says.

    | | `plain` | `otel` | `ecs` |
    | --- | --- | --- | --- |
    | time | `time` | `timestamp` | `@timestamp` |
    | level | `level` | `severity_text`, `severity_number` | `log.level` |
    | logger | `logger` | `instrumentation_scope.name` | `log.logger` |
    | message | `message` | `body` | `message` |
    | place | `file`, `line`, `function` | `code.*` | `log.origin.*` |
    | process, thread | `process`, `thread` | `process.pid`, `thread.*` | `process.*` |
    | task, where there is one | `task` | `asyncio.task.name` | `asyncio.task.name` |
    | exception | `exception` | `exception.*` | `error.*` |
    | `stack_info` | `stack` | `code.stacktrace` | `error.stack_trace` |
    | `extra` | beside these | in `attributes` | beside these |
    | static | beside these | in `resource` | beside these |

    With `otel`, place to stack are in `attributes`, and `trace_id`, `span_id` and `trace_flags` among the `extra` move
    to the top; with `ecs` the first two become `trace.id` and `span.id`. `exception` is an object: `type`, `message`,
    `notes`, `stacktrace`, `causes` (the chain, nearest first), `exceptions` (the members of a group).

    Formatters with the same configuration are equal, and sinks that have equal ones share one encoding. A subclass is
    equal only to itself unless it says otherwise.
    """

    pure: ClassVar[bool] = True
    """It changes no record that it formats: sinks may share one."""

    def __init__(
        self, *, fields: Fields = "plain", static: Mapping[str, Any] | None = None, timestamp: Timestamp = "iso"
    ) -> None:
        """Choose the names.

        Args:
            fields: `"plain"`, `"otel"` (OpenTelemetry) or `"ecs"` (Elastic Common Schema).
            static: Fields of every record, such as the name of the service. Read once, now.
            timestamp: `"iso"`: ISO 8601 in UTC with microseconds; `"epoch"`: seconds since 1970 as a number.

        Raises:
            ConfigError: A word that is not among the choices, or a static field called like one of the record's.
        """
        super().__init__()
        one_of("JSONFormatter: ", "fields", fields, get_args(Fields))
        one_of("JSONFormatter: ", "timestamp", timestamp, get_args(Timestamp))
        names = FIELD_SETS[fields]
        self._static = {name: fixed(value) for name, value in (static or {}).items()}
        self._common, self._begin, self._finish = names.common, names.begin, names.finish
        self._site = names.site
        self._lines: dict[Site, Line] = {}
        self._task_lines: dict[Common, Line] = {}
        self._second = FIRST
        self._epoch = timestamp == "epoch"
        self._reserved = names.reserved
        if fields != "otel":  # there they have an object of their own
            clash = sorted(names.reserved & self._static.keys())
            if clash:
                msg = f"JSONFormatter: static must not replace the record's own fields, got {', '.join(clash)}"
                raise ConfigError(msg)
            self._reserved |= self._static.keys()
        self._configuration = (fields, timestamp, to_json(self._static) if static else b"")

    def encode(self, record: logging.LogRecord) -> bytes:
        """The record as UTF-8 JSON, without a line end."""
        snapshot = plain_of(record)
        if snapshot is not None:
            try:
                return self._alone(snapshot)
            except Exception:  # noqa: BLE001, S110 - whatever it is that is not like others, the other way has an answer
                pass
        return self._whole(record)

    def encode_all(self, held: Sequence[Held]) -> list[bytes]:
        """Each of these as `encode` would give it."""
        if len(set(map(type, held))) > 1:
            return [line for _, run in groupby(held, type) for line in self.encode_all(list(run))]
        plain = self.encode_plain(held)
        return [self.encode(made(one)) for one in held] if plain is None else plain

    def encode_plain(self, held: Sequence[Held]) -> list[bytes] | None:
        """As `encode_all`, where these are several plain ones of one kind; None if they are not."""
        if len(held) > 1 and type(held[0]) in SNAPSHOTS:
            try:
                return self._together(held)
            except Exception:  # noqa: BLE001, S110 - as above; or they are not all of one kind
                pass
        return None

    def _alone(self, snapshot: Any) -> bytes:
        """As `_together`, for one."""
        kind: Any = type(snapshot)  # pyright: ignore[reportUnknownVariableType]
        if kind is tuple:
            template, arguments, created, site = snapshot[MSG], snapshot[ARGS], created_of(snapshot), snapshot[SITE]
        else:
            template, arguments, created = snapshot["msg"], snapshot["args"], snapshot["created"]
            site = self._site(snapshot)
        text = quickly(template % arguments if arguments else template)
        if not text.isascii() or DEL in text:
            text = shown(text)
        before, between, after = self._line(site)
        return b"".join((before, *self._when(created), between, text[1:-1], after))

    def _when(self, created: float) -> tuple[bytes, bytes, bytes]:
        """A time in three parts."""
        if self._epoch:
            return to_json(created), b"", b""
        second, date = self._second
        micros = round((created - second) * 1e6)
        if not 0 <= micros < 1_000_000:  # noqa: PLR2004 - a second
            self._second, micros = second_of(created)
            date = self._second[1]
        return date, THREE[micros // 1000], THREE[micros % 1000]

    def _whens(self, times: Sequence[float]) -> tuple[bytes, list[bytes]]:
        """What the times have in common, and what each has behind that."""
        if self._epoch:
            return b"", to_json(times)[1:-1].split(b",")
        second, date = self._second
        # A million more, so that each has its zeros; written all at once, `[1000042,1000047]`, and taken apart.
        numbers = quickly([int((created - second) * 1e6 + _ROUND_UP - _ROUND) for created in times])
        micros = numbers[2:-1].split(b",1")
        if numbers.startswith(b"[1") and set(map(len, micros)) == {6}:
            return date, micros  # most are of the second that the last one was of
        return b"", [b"".join(self._when(created)) for created in times]

    def _together(self, held: Sequence[Any]) -> list[bytes]:
        """As `encode_all`, for snapshots of one kind. Raises whatever comes of one that is not like others."""
        if type(held[0]) is tuple:
            messages = [one[MSG] % one[ARGS] if one[ARGS] else one[MSG] for one in held]
            times = [one[TIME] / 1e9 for one in held] if IN_NS else [one[TIME] for one in held]
            sites = [one[SITE] for one in held]
        else:
            messages = [one["msg"] % one["args"] if one["args"] else one["msg"] for one in held]
            times = [one["created"] for one in held]
            sites = list(map(self._site, held))
        # All at once, and taken apart where no text can have a quote that is not escaped.
        texts = quickly(messages)
        if not texts.isascii() or DEL in texts:
            texts = shown(texts)
        date, whens = self._whens(times)
        pairs = zip(whens, texts[2:-2].split(b'","'), strict=True)
        last = sites[0]
        before, between, after = self._line(last)
        head = before + date
        if sites.count(last) == len(sites):
            return [b"".join((head, when, between, text, after)) for when, text in pairs]
        found: list[bytes] = []
        for (when, text), site in zip(pairs, sites, strict=True):
            if site != last:
                before, between, after = self._line(site)
                head, last = before + date, site
            found.append(b"".join((head, when, between, text, after)))
        return found

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON text; the same as `encode` gives."""
        return self.encode(record).decode()

    def _line(self, site: Site) -> tuple[bytes, bytes, bytes]:
        """What a line has before its time, between that and the text of its message, and after it."""
        # Without the task: each has a name of its own.
        task = site[-1] if HAS_TASKS else None
        lines, common = (self._lines, site) if task is None else (self._task_lines, site[:-1])
        line = lines.get(common)
        if line is None:
            if len(lines) >= _MAX_LINES:
                lines.clear()
            line = lines[common] = self._learn(site[:-1] if HAS_TASKS else site, has_task=task is not None)
        before, between, after, end = line
        return before, between, after if task is None else b"".join((after, to_json(task), end))

    def _learn(self, common: Common, *, has_task: bool) -> Line:
        fields = self._begin(_MARK, _MARK, common, _MARK if has_task else None)
        if self._static:
            self._finish(fields, None, None, {}, self._static)
        before, between, after, *end = to_json(fields).split(to_json(_MARK))
        if not self._epoch:
            before, between = before + b'"', b'Z"' + between
        return before, between + b'"', b'"' + after, b"".join(end)

    def _whole(self, record: logging.LogRecord) -> bytes:
        """As `encode`, for any record."""
        try:
            return self._encoded(record)
        except (AttributeError, KeyError):  # someone took attributes away: with their defaults it goes
            return self._encoded(logging.makeLogRecord(record.__dict__))

    def _encoded(self, record: logging.LogRecord) -> bytes:
        values = record.__dict__
        created = values["created"]
        when = created if self._epoch else iso_time(created)
        fields = self._begin(when, message_of(record), self._common(values), values.get("taskName"))
        extra = extras(record)
        if extra and not self._reserved.isdisjoint(extra):
            extra = self._freed(extra)
        self._finish(fields, failure_of(record), values["stack_info"], extra, self._static)
        return to_json(fields)

    def _freed(self, extra: dict[str, Any]) -> dict[str, Any]:
        taken = self._reserved
        return {free_name(name, taken, extra) if name in taken else name: value for name, value in extra.items()}

    def __eq__(self, other: object) -> bool:
        if type(self) is JSONFormatter and type(other) is JSONFormatter:
            return self._configuration == other._configuration
        return self is other

    def __hash__(self) -> int:
        return hash(self._configuration)

    def __repr__(self) -> str:
        fields, timestamp, _ = self._configuration
        return f"<{type(self).__name__} {fields}, {timestamp} time, {len(self._static)} static fields>"
