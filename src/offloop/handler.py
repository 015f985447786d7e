"""The handler on the application's loggers: captures the record, offers it to the intake, and is done.

`handle` takes no lock, is re-entrant (`__del__`, signal handlers, a `__str__` that logs), never raises into the caller
and never waits, but with `overflow="wait"` on a thread that runs no event loop.
"""

from __future__ import annotations

import asyncio
import logging
import logging.handlers
import sys
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from logging import LogRecord
from typing import Any, cast, get_args

from offloop import diagnostics
from offloop import exits as exits  # noqa: PLC0414 - whoever can log has the exit hook
from offloop.capture import IMMUTABLE, PLAIN_LENGTH, Snapshot, capture, message_of, text_of
from offloop.errors import ConfigError
from offloop.intake import FILTERED, Intake, OwnQueue
from offloop.marks import OWN, is_own
from offloop.policies import QueueOverflow, at_least, one_of
from offloop.records import ARGS, EXC_INFO, LEVELNO, MSG, STACK_INFO, FastRecord
from offloop.sifting import SHORT

__all__ = ["Context", "QueueHandler", "context_names"]

Context = Iterable[ContextVar[Any]] | Mapping[str, ContextVar[Any]]


class QueueHandler(logging.handlers.QueueHandler):
    """Puts records on an `asyncio.Queue`, from any thread, at any time: before the loop runs, while it runs, after it.

    Each record is captured as it is now (arguments, `extra`, exception, context variables); the caller's own record is
    left as it was for other handlers. Filters and a formatter on this handler run in the caller. What `prepare` gives
    is what goes on the queue; a subclass may override it, `enqueue` or `filter`, and is then a little slower.

    A record is turned away, and counted, where no sink of the listener takes its level.
    """

    queue: asyncio.Queue[Any]  # pyright: ignore[reportIncompatibleVariableOverride] - the one we take

    def __init__(
        self,
        queue: asyncio.Queue[Any],
        overflow: QueueOverflow = "drop_new",
        *,
        wait_timeout: float = 1.0,
        context: Context | None = None,
        level: int | str = logging.NOTSET,
    ) -> None:
        """Share the queue's intake with its listener and its other handlers.

        Args:
            queue: Any `asyncio.Queue`; its `maxsize` bounds what waits, 0 means no bound.
            overflow: What happens as it fills. From 80% on records below WARNING are refused (counted as `shed`), and
                the last 10% is kept for ERROR and above; shares are rounded as those of a `Buffer`. A record that does
                not fit within that: `"drop_new"` refuses it, `"drop_old"` evicts the oldest (never ERROR or above for
                less); both are counted as `overflow`. `"wait"` holds up a thread until the listener has made room for
                a record of that level, so that nothing is shed either. It never holds up a thread that runs an event
                loop, a signal handler that interrupted a wait, or anybody while no listener runs: there it is
                `"drop_new"`.
            wait_timeout: Seconds that `"wait"` waits at most; then the record is dropped (`overflow`). A listener that
                is not held up itself makes room within milliseconds. The second is for a loop that somebody blocks,
                perhaps by waiting for this very thread: it costs a pause then, not a deadlock.
            context: Context variables whose values each record takes along as attributes, as if given as `extra`: an
                iterable (each under its own name) or a mapping of attribute names.
            level: Records below it are not handled.

        Raises:
            ConfigError: Not a queue, an unknown overflow policy, or a negative timeout.
        """
        if not isinstance(queue, asyncio.Queue):
            msg = f"QueueHandler: queue must be an asyncio.Queue, got {queue!r}"
            raise ConfigError(msg)
        one_of("QueueHandler: ", "overflow", overflow, get_args(QueueOverflow))
        at_least("QueueHandler: ", "wait_timeout", wait_timeout, 0, "seconds")
        super().__init__(queue)
        self.setLevel(level)
        self.overflow: QueueOverflow = overflow
        self.wait_timeout = wait_timeout
        self.context = context_names(context)
        self.intake = Intake.of(queue)
        if isinstance(queue, OwnQueue) and not self.context and _is_plain(type(self)):
            self.handle = _fast_handle(self)  # type: ignore[method-assign,assignment]

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter and emit, without the handler's lock; False if the record was turned away."""
        try:
            return self._handle(record)
        except Exception:  # noqa: BLE001 - reported there
            self.handleError(record)
            return False

    def emit(self, record: logging.LogRecord) -> None:
        """Capture the record and offer it."""
        self.enqueue(self.prepare(record))

    def prepare(self, record: logging.LogRecord) -> Snapshot:
        """The snapshot of the record that goes on the queue; a formatter on this handler renders its message here."""
        snapshot = capture(record, self.context)
        if self.formatter is not None:
            # The standard handler would merge the traceback into the message; here both stay apart.
            formatted = self._formatted(record, snapshot)
            snapshot["msg"] = formatted
            snapshot["args"] = ()
        return snapshot

    def enqueue(self, record: Any) -> None:
        """Offer what `prepare` gave to the intake."""
        self.intake.offer(record, self.overflow, self.wait_timeout)

    def createLock(self) -> None:  # noqa: N802 - the standard library's name
        """Have none: with it `logging.shutdown` would wait for the lock under which `dictConfig` waits for it."""
        self.lock = None

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        """Say on stderr that a record could not be handled, at most once in a while; it is counted as dropped."""
        error = sys.exc_info()[1]
        self.intake.lose("rejected", record.levelno)
        diagnostics.report(
            f"handle:{id(self)}",
            f"a record of logger {record.name!r} could not be handled: {type(error).__name__}: {text_of(error)}",
        )

    def flush(self) -> None:
        """Do nothing: the standard library calls this under its lock. `Pipeline.flush` waits."""

    def _handle(self, record: logging.LogRecord) -> bool:
        if not isinstance(record.levelno, int):
            record = logging.makeLogRecord({**record.__dict__, "levelno": logging.NOTSET})
        levelno = record.levelno
        if is_own():
            self.intake.turn_away("own", levelno)
            diagnostics.report(f"own:{record.name}", f"logged while a sink delivers: {_brief(record)}")
            return False
        if not self.intake.wants(levelno):
            self.intake.turn_away(FILTERED, levelno)
            return False
        passed = self._filtered(record)
        if passed is None:
            self.intake.turn_away(FILTERED, levelno)
            return False
        self.emit(passed)
        return True

    def _filtered(self, record: logging.LogRecord) -> logging.LogRecord | None:
        """What the filters let through; a filter that raises lets the record through, and is reported."""
        try:
            passed: object = self.filter(record)
        except Exception as error:  # noqa: BLE001 - reported; a log call raises nothing
            diagnostics.report(
                f"filter:{id(self)}", f"a filter of {self!r} failed: {type(error).__name__}: {text_of(error)}"
            )
            return record
        if isinstance(passed, logging.LogRecord):  # 3.12 and later: a filter may replace the record
            return passed
        return record if passed else None

    def _formatted(self, record: logging.LogRecord, snapshot: Snapshot) -> str:
        # A copy, since formatters leave `message`, `asctime` and `exc_text` behind on what they format.
        shown = logging.makeLogRecord(record.__dict__)
        shown.exc_info, shown.exc_text, shown.stack_info = None, None, None
        try:
            return self.format(shown)
        except Exception as error:  # noqa: BLE001 - reported; the message goes out without the format
            diagnostics.report(
                f"format:{id(self)}", f"the formatter of {self!r} failed: {type(error).__name__}: {text_of(error)}"
            )
            return text_of(snapshot["msg"])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} ({logging.getLevelName(self.level)}), {self.intake.backlog} waiting>"


def context_names(context: Context | None) -> dict[str, ContextVar[Any]]:
    """Attribute names and their context variables.

    Raises:
        ConfigError: Something else than context variables.
    """
    if context is None:
        return {}
    try:
        if isinstance(context, Mapping):
            names = dict(cast("Mapping[str, ContextVar[Any]]", context))
        else:
            names = {variable.name: variable for variable in context}
        if all(isinstance(variable, ContextVar) for variable in names.values()):
            return names
    except (AttributeError, TypeError):
        pass  # said below
    msg = f"context must be ContextVars, or a mapping of attribute names to ContextVars, got {context!r}"
    raise ConfigError(msg)


def _brief(record: logging.LogRecord) -> str:
    return f"{record.levelname} {record.name}: {message_of(record)}"


def _is_plain(cls: type[QueueHandler]) -> bool:
    """Whether no subclass changed a step that the quick way leaves out."""
    steps = ("handle", "emit", "prepare", "enqueue", "filter", "_handle")
    return all(getattr(cls, step) is getattr(QueueHandler, step) for step in steps)


def _fast_handle(handler: QueueHandler) -> Callable[[logging.LogRecord], bool]:  # noqa: C901 - what is in it
    """`handle` for the common record on a pipeline's own queue, as a closure: no lock, few attributes looked up.

    A record goes the careful way (`QueueHandler._handle`) where anything is out of the ordinary: a filter, a formatter,
    an argument that may change or is a long text, `extra`, an exception, a stack, a context of our own, or a queue so
    full that the level decides. What was noted of a `FastRecord` is never changed, and need not be copied.
    """
    intake = handler.intake
    easy = intake.easy
    filters = handler.filters
    immutable = IMMUTABLE
    own = OWN.get
    careful = QueueHandler.handle
    waiting = intake.staged
    put = waiting.append

    def handle(record: logging.LogRecord) -> bool:  # noqa: C901, PLR0911, PLR0912 - a call costs more than a line
        item: Any
        try:
            if type(record) is LogRecord:
                arguments: Any = record.args
                if (
                    record.levelno < intake.floor
                    or type(record.msg) is not str
                    or record.exc_info
                    or record.stack_info
                    or record.exc_text
                    or filters
                    or handler.formatter is not None
                    or own()
                    or len(waiting) >= easy
                ):
                    return careful(handler, record)
                item = record.__dict__.copy()
                if len(item) != PLAIN_LENGTH:
                    return careful(handler, record)
            elif type(record) is FastRecord:
                item = record._fields
                arguments = item[ARGS]
                if (
                    item[LEVELNO] < intake.floor
                    or type(item[MSG]) is not str
                    or item[EXC_INFO]
                    or item[STACK_INFO]
                    or filters
                    or handler.formatter is not None
                    or own()
                    or len(waiting) >= easy
                ):
                    return careful(handler, record)
            else:
                return careful(handler, record)
            if arguments:
                if type(arguments) is not tuple:  # walking a mapping runs foreign code, or fails while others change it
                    return careful(handler, record)
                for argument in arguments:  # pyright: ignore[reportUnknownVariableType]
                    kind: Any = type(argument)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
                    if kind is str:
                        if len(argument) > SHORT:  # pyright: ignore[reportUnknownArgumentType]
                            return careful(handler, record)
                    elif kind not in immutable:
                        return careful(handler, record)
        except Exception:  # noqa: BLE001 - not like others; or another thread looked at it meanwhile
            return careful(handler, record)
        put(item)
        if not intake.awake:
            intake.signal()
        return True

    return handle
