"""Plain handlers as sinks."""

from __future__ import annotations

import asyncio
import io
import logging
import logging.handlers
import threading
import time
from pathlib import Path

from offloop import Pipeline, Retry
from offloop.sinks import HandlerSink

SOON = Retry(initial=0.001, maximum=0.01, give_up_after=5)


class Keeps(logging.Handler):
    """Remembers what it emitted, and fails where told."""

    def __init__(self, *errors: BaseException | None) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.threads: set[str] = set()
        self.errors = list(errors)
        self.flushed = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.threads.add(threading.current_thread().name)
        error = self.errors.pop(0) if self.errors else None
        try:
            if error is not None:
                raise error
        except Exception:
            self.handleError(record)
        else:
            self.seen.append(record.getMessage())

    def flush(self) -> None:
        self.flushed += 1


async def test_handler_works_in_a_thread_of_its_own(log: logging.Logger) -> None:
    """Off the loop, in order, and is flushed at the end."""
    handler = Keeps()
    async with Pipeline(handler, logger=log):
        for number in range(100):
            log.info("%d", number)
    assert handler.seen == [str(number) for number in range(100)]
    assert handler.threads == {"offloop-Keeps"}
    assert handler.flushed == 1


async def test_level_and_filters_are_the_handlers(log: logging.Logger) -> None:
    """As they are at the time; what the filters refuse is counted as filtered."""
    handler = Keeps()
    handler.setLevel(logging.ERROR)
    handler.addFilter(lambda record: record.msg != "no")
    pipeline = Pipeline(handler, logger=log)
    async with pipeline:
        log.info("below")
        handler.setLevel(logging.INFO)
        log.info("no")
        log.info("yes")
        await pipeline.flush(5)
        pipeline.sinks[0].setLevel("WARNING")
        log.info("below again")
    assert handler.level == logging.WARNING
    assert handler.seen == ["yes"]
    counts = pipeline.stats().sinks["Keeps"]
    assert (counts.delivered, counts.filtered) == (1, 2)


async def test_os_error_is_tried_again(log: logging.Logger) -> None:
    """What `emit` reports by `handleError` is not lost when the cause may pass."""
    handler = Keeps(None, OSError("disk full"), OSError("disk full"))
    pipeline = Pipeline(HandlerSink(handler, retry=SOON), logger=log)
    async with pipeline:
        for text in "abc":
            log.info(text)
    assert handler.seen == ["a", "b", "c"]
    assert pipeline.stats().sinks["Keeps"].delivered == 3


async def test_other_errors_reject_the_record(log: logging.Logger) -> None:
    """Counted, and the rest goes on."""
    handler = Keeps(None, ValueError("what is this"))
    pipeline = Pipeline(handler, logger=log)
    async with pipeline:
        for text in "abc":
            log.info(text)
    assert handler.seen[:2] == ["a", "c"]
    assert handler.seen[2].startswith("1 record was lost")
    assert pipeline.stats().sinks["Keeps"].dropped == {"rejected": {"INFO": 1}}


async def test_error_raised_out_of_emit_and_a_handle_error_of_its_own(log: logging.Logger) -> None:
    """A handler that raises is treated alike, and a class's own `handleError` is called."""
    told: list[str] = []

    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ValueError(record.msg)

        def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
            told.append(record.name)
            raise RuntimeError("worse")

    pipeline = Pipeline(Raises(), logger=log)
    async with pipeline:
        log.info("x")
    assert told == [log.name, "offloop.loss"]
    assert pipeline.stats().sinks["Raises"].dropped == {"rejected": {"INFO": 1, "WARNING": 1}}


async def test_stuck_handler_is_waited_for_and_not_called_again(log: logging.Logger) -> None:
    """Its record is delivered once, when it comes back; `logging.shutdown` will not wait for it."""
    release = threading.Event()

    class Stuck(Keeps):
        def emit(self, record: logging.LogRecord) -> None:
            if record.msg == "stuck":
                release.wait(10)
            super().emit(record)

    handler = Stuck()
    pipeline = Pipeline(HandlerSink(handler, retry=SOON, send_timeout=0.02), logger=log)
    async with pipeline:
        for text in ("before", "stuck", "after"):
            log.info(text)
        while "stuck" not in (pipeline.stats().sinks["Stuck"].error or ""):
            await asyncio.sleep(0)
        assert not any(reference() is handler for reference in logging._handlerList)  # type: ignore[attr-defined]
        while "still stuck" not in (pipeline.stats().sinks["Stuck"].error or ""):
            await asyncio.sleep(0)
        release.set()
    assert handler.seen == ["before", "stuck", "after"]
    assert pipeline.stats().sinks["Stuck"].delivered == 3


async def test_handler_stuck_for_ever_costs_the_deadline(log: logging.Logger) -> None:
    """What it did not emit is counted; what it had emitted is not sent again after a restart."""
    release = threading.Event()

    class Stuck(Keeps):
        def emit(self, record: logging.LogRecord) -> None:
            super().emit(record)
            if record.msg == "stuck":
                release.wait(10)

    handler = Stuck()
    pipeline = Pipeline(HandlerSink(handler, send_timeout=5), logger=log, shutdown_timeout=0.1)
    async with pipeline:
        log.info("stuck")
        log.info("after")
    release.set()
    counts = pipeline.stats().sinks["Stuck"]
    assert counts.printed == 2
    async with pipeline:
        log.info("again")
    assert handler.seen == ["stuck", "again"]


async def test_standard_formatter_has_the_traceback(log: logging.Logger) -> None:
    """A stream handler writes what it would have written on the logger."""
    stream, direct = io.StringIO(), io.StringIO()
    form = logging.Formatter("%(levelname)s %(name)s %(message)s")
    handlers = [logging.StreamHandler(stream), logging.StreamHandler(direct)]
    for handler in handlers:
        handler.setFormatter(form)
    log.addHandler(handlers[1])
    async with Pipeline(handlers[0], logger=log):
        try:
            raise KeyError("k")
        except KeyError:
            log.exception("failed %s", "here", stack_info=True)
    assert stream.getvalue() == direct.getvalue()
    assert "KeyError: 'k'" in stream.getvalue()


async def test_rotating_file(log: logging.Logger, tmp_path: Path) -> None:
    """A standard handler with files of its own."""
    path = tmp_path / "app.log"
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=200, backupCount=50)
    async with Pipeline(handler, logger=log):
        for number in range(100):
            log.info("line %d", number)
    handler.close()
    lines = [line for file in tmp_path.iterdir() for line in file.read_text().splitlines()]
    assert sorted(lines) == sorted(f"line {number}" for number in range(100))


async def test_name_is_the_handlers(log: logging.Logger) -> None:
    """Its own name in statistics, without taking it from `logging`'s table."""
    handler = Keeps()
    handler.name = "kept"
    pipeline = Pipeline(handler, logger=log)
    assert list(pipeline.stats().sinks) == ["kept"]
    assert logging._handlers["kept"] is handler  # type: ignore[attr-defined]


async def test_failure_after_it_was_stuck_is_counted(log: logging.Logger) -> None:
    """What a stuck handler fails in, once it comes back, is rejected, and not taken for emitted."""
    release = threading.Event()

    class Stuck(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            release.wait(10)
            raise ValueError(record.msg)

    pipeline = Pipeline(HandlerSink(Stuck(), retry=SOON, send_timeout=0.02), logger=log)
    async with pipeline:
        log.info("late")
        while "still stuck" not in (pipeline.stats().sinks["Stuck"].error or ""):
            await asyncio.sleep(0)
        release.set()
    # The notice of it is rejected too.
    assert pipeline.stats().sinks["Stuck"].dropped == {"rejected": {"INFO": 1, "WARNING": 1}}


async def test_one_handler_behind_two_sinks_is_never_called_twice_at_once(log: logging.Logger) -> None:
    """Each sink has its records emitted, and each failure is the record's that failed."""
    alone = threading.Lock()

    class Single(Keeps):
        def emit(self, record: logging.LogRecord) -> None:
            assert alone.acquire(blocking=False)
            time.sleep(0.0001)
            alone.release()
            super().emit(record)

    handler = Single()
    pipeline = Pipeline(handler, handler, logger=log)
    async with pipeline:
        for n in range(2):
            for _ in range(50):
                log.info(str(n))
            assert (await pipeline.flush()).complete
    assert len(handler.seen) == 200
    assert "handleError" not in vars(handler)


async def test_handle_error_set_on_the_handler_itself_is_called_and_stays(log: logging.Logger) -> None:
    """As tests and applications do, to learn of failures."""
    handler, told = Keeps(ValueError()), list[str]()
    own = handler.handleError = lambda record: told.append(record.msg)  # type: ignore[method-assign]
    async with Pipeline(handler, logger=log):
        log.info("x")
    assert told == ["x"]
    assert handler.handleError is own


async def test_handler_that_hangs_in_flush_is_not_waited_for_at_exit(log: logging.Logger) -> None:
    """Not by `stop`, and not by `logging.shutdown`, which would take its lock."""
    release = threading.Event()

    class Hangs(Keeps):
        def flush(self) -> None:
            with self.lock:  # type: ignore[union-attr]
                release.wait(10)

    handler = Hangs()
    async with Pipeline(handler, logger=log, shutdown_timeout=0.1):
        log.info("x")
    assert not any(reference() is handler for reference in logging._handlerList)  # type: ignore[attr-defined]
    release.set()
