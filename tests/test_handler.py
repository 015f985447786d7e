"""The handler on the application's loggers."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import logging.config
import signal
import threading
import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from offloop import ConfigError, Pipeline, QueueHandler, QueueListener, diagnostics
from offloop.capture import Record, message_of, restore
from offloop.intake import Intake, OwnQueue
from offloop.marks import mark
from offloop.testing import MemorySink


def taken(queue: asyncio.Queue[Any]) -> list[Record]:
    """What the listener would find."""
    intake = Intake.of(queue)
    records = [restore(item) for item in list(intake.take(1_000_000))]
    intake.commit(len(records))
    return records


def messages(queue: asyncio.Queue[Any]) -> list[str]:
    """Their messages."""
    return [message_of(record) for record in taken(queue)]


@pytest.fixture
def queue(log: logging.Logger) -> asyncio.Queue[Any]:
    """A queue with a handler on the test's logger."""
    queue: asyncio.Queue[Any] = asyncio.Queue()
    log.addHandler(QueueHandler(queue))
    return queue


def test_queue_must_be_an_asyncio_queue() -> None:
    """Anything else is refused with its value."""
    with pytest.raises(ConfigError, match="must be an asyncio.Queue, got 7"):
        QueueHandler(7)  # type: ignore[arg-type]


def test_unknown_overflow_is_refused() -> None:
    """The error names the value and the choices."""
    with pytest.raises(ConfigError, match="'drop_new', 'drop_old', 'wait', got 'block'"):
        QueueHandler(asyncio.Queue(), "block")  # type: ignore[arg-type]


def test_negative_wait_timeout_is_refused() -> None:
    """The error names the value and the limit."""
    with pytest.raises(ConfigError, match="wait_timeout must be at least 0 seconds, got -1"):
        QueueHandler(asyncio.Queue(), "wait", wait_timeout=-1)


@pytest.mark.parametrize("context", [["x"], {"a": 1}, 7])
def test_context_must_be_context_variables(context: Any) -> None:
    """A name is not a variable."""
    with pytest.raises(ConfigError, match="ContextVars"):
        QueueHandler(asyncio.Queue(), context=context)


async def test_record_is_taken(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """Message, arguments, level and name arrive."""
    log.info("hello %s", "world")
    (record,) = taken(queue)
    assert (record.getMessage(), record.levelname, record.name) == ("hello world", "INFO", log.name)


async def test_caller_record_is_left_alone(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """A handler behind ours sees message, arguments and exception as they were given."""
    seen: list[logging.LogRecord] = []
    behind = logging.Handler()
    behind.emit = seen.append  # type: ignore[method-assign]
    log.addHandler(behind)
    argument = [1]
    try:
        raise ValueError
    except ValueError as error:
        log.exception("failed %s", argument)
        (record,) = seen
        assert record.exc_info is not None
        assert record.exc_info[1] is error
    assert record.args == (argument,)
    assert record.msg == "failed %s"
    assert record.exc_text is None


async def test_list_changed_afterwards_is_delivered_as_it_was(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """Mutable arguments are rendered at the call."""
    things = ["a"]
    log.info("things: %s", things, extra={"more": things})
    things.append("b")
    (record,) = taken(queue)
    assert record.getMessage() == "things: ['a']"
    assert record.more == ["a"]  # type: ignore[attr-defined]


async def test_str_that_raises_or_logs_harms_nobody(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """The record arrives with what could be said, and what `__str__` logged arrives too."""

    class Hostile:
        def __str__(self) -> str:
            log.info("from inside")
            raise RuntimeError("no text")

    log.info("it is %s", Hostile())
    inside, outside = messages(queue)
    assert inside == "from inside"
    assert "it is %s [not rendered: RuntimeError: no text" in outside


async def test_wrong_arguments_are_said_in_the_message(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """A format that does not fit its arguments loses nothing."""
    log.info("%d apples", "many")
    assert messages(queue) == [
        "%d apples [not rendered: TypeError: %d format: a real number is required, not str; args=('many',)]"
    ]


async def test_logging_in_del_and_signal_handlers(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """The handler is re-entrant."""

    class Logs:
        def __str__(self) -> str:
            signal.raise_signal(signal.SIGUSR1)
            return "text"

        def __del__(self) -> None:
            log.info("deleted")

    before = signal.signal(signal.SIGUSR1, lambda *_: log.info("signalled"))
    try:
        log.info("a %s", Logs())
    finally:
        signal.signal(signal.SIGUSR1, before)
    gc.collect()
    assert sorted(messages(queue)) == ["a text", "deleted", "signalled"]


async def test_filters_run_in_the_caller(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """What a filter of the handler refuses is counted, not queued."""
    (handler,) = log.handlers
    handler.addFilter(lambda record: "no" not in record.msg)
    log.info("yes")
    log.info("no")
    assert messages(queue) == ["yes"]
    assert Intake.of(queue).counts().filtered == 1


async def test_filter_that_raises_lets_the_record_through(
    queue: asyncio.Queue[Any], log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is raised into the caller, nothing is lost, and stderr says why."""

    def broken(record: logging.LogRecord) -> bool:
        raise ZeroDivisionError(record.msg)

    log.handlers[0].addFilter(broken)
    log.info("kept")
    assert messages(queue) == ["kept"]
    diagnostics.flush(5)
    assert "ZeroDivisionError: kept" in capsys.readouterr().err


async def test_filter_may_replace_the_record(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """From 3.12 on the standard library allows it; earlier, a record is merely true."""

    def replace(record: logging.LogRecord) -> logging.LogRecord:
        twin = copy.copy(record)
        twin.msg = "another"
        return twin

    log.handlers[0].addFilter(replace)  # type: ignore[arg-type]
    log.info("one")
    assert messages(queue) in (["another"], ["one"])


async def test_formatter_renders_the_message_and_keeps_the_traceback_apart(
    queue: asyncio.Queue[Any], log: logging.Logger
) -> None:
    """As with the standard handler, but message and traceback are never merged."""
    log.handlers[0].setFormatter(logging.Formatter("<%(name)s> %(message)s"))
    try:
        raise KeyError("k")
    except KeyError:
        log.exception("failed %d", 3)
    (record,) = taken(queue)
    assert record.getMessage() == f"<{log.name}> failed 3"
    assert record.exception is not None
    assert record.exception.type_name == "KeyError"


async def test_formatter_that_raises_leaves_the_message(
    queue: asyncio.Queue[Any], log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record goes out unformatted."""
    log.handlers[0].setFormatter(logging.Formatter("%(nothing)s"))
    log.info("plain")
    assert messages(queue) == ["plain"]
    diagnostics.flush(5)
    assert "formatter" in capsys.readouterr().err


async def test_context_variables_travel_along(log: logging.Logger) -> None:
    """The caller's values, and none where a variable is not set."""
    queue: asyncio.Queue[Any] = asyncio.Queue()
    request: ContextVar[str] = ContextVar("request_id")
    user: ContextVar[str] = ContextVar("user")
    log.addHandler(QueueHandler(queue, context={"request": request, "user": user}))
    log.info("before")
    request.set("r1")
    log.info("after")
    before, after = taken(queue)
    assert not hasattr(before, "request")
    assert after.request == "r1"  # type: ignore[attr-defined]
    assert not hasattr(after, "user")


async def test_own_records_are_kept_out(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """What is logged on behalf of a sink is counted as `own` and goes to diagnostics."""

    async def sink() -> None:
        mark()
        log.warning("inside")

    await asyncio.create_task(sink())
    log.info("outside")
    assert messages(queue) == ["outside"]
    assert Intake.of(queue).counts().dropped == {"own": {"WARNING": 1}}


async def test_odd_records_are_handled(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """A record made by hand may have no level, and arguments of any kind."""
    handler = log.handlers[0]
    handler.handle(logging.makeLogRecord({"msg": "no level"}))
    handler.handle(logging.makeLogRecord({"msg": "%(a)s", "args": {"a": 1}, "levelno": 10, "levelname": "DEBUG"}))
    handler.handle(logging.makeLogRecord({"msg": {"event": "x"}, "args": None, "levelno": 10}))
    assert messages(queue) == ["no level", "1", "{'event': 'x'}"]


async def test_mapping_that_cannot_be_walked_raises_nothing(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """A mapping among the arguments may be changed by another thread, or refuse: that is no matter of the caller's."""

    class Moody(dict[str, object]):
        def __iter__(self) -> Iterator[str]:
            message = "dictionary changed size during iteration"
            raise RuntimeError(message)

    log.info("%(a)s", Moody(a=1))
    assert messages(queue) == ["1"]


async def test_subclass_that_overrides_a_step_is_honoured(log: logging.Logger) -> None:
    """The quick way is only for handlers that left every step as it is."""

    class Shouting(QueueHandler):
        def prepare(self, record: logging.LogRecord) -> Any:
            snapshot = super().prepare(record)
            snapshot["msg"] = snapshot["msg"].upper()
            return snapshot

    queue: asyncio.Queue[Any] = asyncio.Queue()
    log.addHandler(Shouting(queue))
    log.info("hello")
    assert messages(queue) == ["HELLO"]


async def test_subclass_whose_step_raises_costs_the_record_and_says_so(log: logging.Logger) -> None:
    """It is counted as rejected; the caller goes on."""

    class Broken(QueueHandler):
        def enqueue(self, record: Any) -> None:
            raise OSError("full")

    queue: asyncio.Queue[Any] = asyncio.Queue()
    log.addHandler(Broken(queue))
    log.error("lost")
    assert Intake.of(queue).counts().dropped == {"rejected": {"ERROR": 1}}


def test_shutdown_while_another_thread_configures(queue: asyncio.Queue[Any]) -> None:
    """`logging.shutdown` in one thread and `dictConfig` in another don't wait for each other over this handler."""
    handler = QueueHandler(queue)
    with logging._lock:  # type: ignore[attr-defined] # as dictConfig does
        stopping = threading.Thread(target=logging.shutdown, args=([weakref.ref(handler)],))
        stopping.start()
        handler.acquire()
        handler.flush()
        handler.release()
    stopping.join()
    assert handler.lock is None


async def test_flush_and_close_leave_a_working_handler(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """`dictConfig` calls both on handlers that stay in use."""
    log.handlers[0].flush()
    log.handlers[0].close()
    log.info("still here")
    assert messages(queue) == ["still here"]


def test_dict_config_builds_a_handler() -> None:
    """The standard configuration, with a factory."""
    queue: asyncio.Queue[Any] = asyncio.Queue()
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"q": {"()": QueueHandler, "queue": queue, "overflow": "drop_old", "level": "INFO"}},
        "loggers": {"test.configured": {"handlers": ["q"], "level": "DEBUG", "propagate": False}},
    }
    logging.config.dictConfig(config)
    logger = logging.getLogger("test.configured")
    logger.debug("below")
    logger.info("configured")
    assert messages(queue) == ["configured"]
    logger.handlers = []


def test_repr_tells_what_waits(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """Level and count."""
    log.info("x")
    assert repr(log.handlers[0]) == "<QueueHandler (NOTSET), 1 waiting>"


class Refuses:
    """An object that does not say whether it is true."""

    def __bool__(self) -> bool:
        raise ValueError

    def __repr__(self) -> str:
        return "refuses"


@pytest.mark.parametrize("attribute", ["exc_text", "stack_info", "exc_info"])
@pytest.mark.parametrize("kind", [OwnQueue, asyncio.Queue])
async def test_attribute_that_refuses_to_be_looked_at(log: logging.Logger, attribute: str, kind: Any) -> None:
    """Nothing is raised into the call, and what comes after it is delivered; it too, if it is a text that is odd."""
    sink = MemorySink()
    async with QueueListener(queue := kind(10), sink) as listener:
        log.addHandler(QueueHandler(queue))
        log.handle(logging.makeLogRecord({"name": log.name, "levelno": 20, "msg": "odd", attribute: Refuses()}))
        log.info("after")
        assert (await listener.flush(5)).complete
    counts = listener.stats().intake
    assert "after" in sink.messages
    if attribute == "exc_info":
        assert counts.dropped == {"rejected": {"INFO": 1}}
    else:
        assert sink.messages == ["odd", "after"]
        assert b"refuses" in sink.encoded[0]


async def test_text_that_is_none(log: logging.Logger) -> None:
    """Where somebody gives False for a stack, there is none."""
    sink = MemorySink()
    async with Pipeline(sink, logger=log):
        log.handle(logging.makeLogRecord({"name": log.name, "levelno": 20, "msg": "x", "stack_info": False}))
        log.handle(logging.makeLogRecord({"name": log.name, "levelno": 20, "msg": "x", "stack_info": False, "more": 1}))
    assert not any(b"stack" in line for line in sink.encoded)
    assert len(sink.encoded) == 2
