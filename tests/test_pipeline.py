"""The front door."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextvars import ContextVar
from typing import Any

import pytest

from helpers import logged, told
from offloop import Buffer, ConfigError, Pipeline, PipelineInUse, QueueHandler, QueueListener
from offloop.intake import OwnQueue
from offloop.testing import FaultySink, MemorySink


async def test_enter_attaches_and_leaving_detaches(log: logging.Logger) -> None:
    """In between, what is logged is delivered."""
    sink = MemorySink()
    before = log.handlers
    pipeline = Pipeline(sink, logger=log)
    log.info("too early")
    async with pipeline as entered:
        assert entered is pipeline
        assert [type(handler) for handler in log.handlers] == [QueueHandler]
        log.info("hello")
    assert log.handlers == []
    assert log.handlers is not before
    assert sink.messages == ["hello"]


async def test_handlers_that_are_there_stay(log: logging.Logger) -> None:
    """Attaching makes a new list, so that a thread that walks the old one misses nothing."""
    other = logging.NullHandler()
    before: list[logging.Handler] = [other]
    log.handlers = before
    async with Pipeline(MemorySink(), logger=log):
        assert before == [other]
        assert log.handlers[0] is other
    assert log.handlers == [other]


async def test_root_logger_is_the_default() -> None:
    """Its level is set while the pipeline is entered, and restored."""
    sink = MemorySink()
    root = logging.getLogger()
    before = root.level
    async with Pipeline(sink, level="DEBUG"):
        logging.getLogger("anything").debug("deep")
    assert root.level == before
    assert "deep" in sink.messages


async def test_logger_by_name() -> None:
    """A name will do."""
    sink = MemorySink()
    async with Pipeline(sink, logger="test.by_name", level=logging.INFO):
        logging.getLogger("test.by_name.child").info("x")
    assert sink.messages == ["x"]


async def test_nested_entry_is_counted(log: logging.Logger) -> None:
    """The last to leave stops it; one that leaves earlier has what it logged delivered."""
    sink = MemorySink()
    pipeline = Pipeline(sink, logger=log)
    async with pipeline:
        async with pipeline:
            assert len(log.handlers) == 1
            log.info("inner")
        assert sink.messages == ["inner"]
        assert len(log.handlers) == 1
        log.info("outer")
    assert sink.messages == ["inner", "outer"]
    assert sink.closes == 1


def test_pipeline_can_be_entered_again_in_another_loop(log: logging.Logger) -> None:
    """Counts go on."""
    sink = MemorySink()
    pipeline = Pipeline(sink, logger=log)

    async def use() -> None:
        async with pipeline:
            log.info("x")

    asyncio.run(use())
    asyncio.run(use())
    assert pipeline.stats().intake.delivered == 2


async def test_two_loops_at_once_are_refused(log: logging.Logger) -> None:
    """With an error that says what to do."""
    pipeline = Pipeline(MemorySink(), logger=log)
    errors: list[BaseException] = []

    def other() -> None:
        async def use() -> None:
            try:
                pipeline.start()
            except PipelineInUse as error:
                errors.append(error)

        asyncio.run(use())

    async with pipeline:
        await asyncio.to_thread(other)
        log.info("still works")
    assert "another event loop" in str(errors[0])
    assert pipeline.stats().intake.delivered == 1


async def test_called_with_an_application_it_is_a_lifespan(log: logging.Logger) -> None:
    """It enters as None, for Starlette, and is an iterator of two steps, for aiohttp."""
    sink = MemorySink()
    pipeline = Pipeline(sink, logger=log)
    async with pipeline(object()) as state:
        assert state is None
        log.info("lifespan")
    steps = 0
    async for nothing in pipeline(object()):
        assert nothing is None
        steps += 1
        log.info("iterator")
    assert steps == 1
    assert sink.messages == ["lifespan", "iterator"]
    assert not pipeline.listener.running


async def test_handler_can_be_attached_elsewhere_before_the_start(log: logging.Logger) -> None:
    """What is logged through it before the loop runs waits."""
    sink = MemorySink()
    pipeline = Pipeline(sink, logger="test.unused")
    log.handlers = [pipeline.handler]
    log.info("early")
    async with pipeline:
        pass
    assert sink.messages == ["early"]


async def test_queue_is_bounded_before_the_start(log: logging.Logger) -> None:
    """What does not fit is counted."""
    pipeline = Pipeline(MemorySink(), logger="test.unused", queue_size=2, overflow="drop_old")
    log.handlers = [pipeline.handler]
    for number in range(5):
        log.info("%d", number)
    stats = pipeline.stats()
    assert (stats.intake.pending, stats.intake.lost) == (2, 3)
    async with pipeline:
        pass
    assert pipeline.stats().balanced


def burst(log: logging.Logger, errors: int) -> None:
    """A hundred INFO before each ERROR."""
    for number in range(errors):
        for _ in range(100):
            log.info("noise")
        log.error("error %d", number)


@pytest.mark.parametrize("kind", [OwnQueue, asyncio.Queue])
@pytest.mark.parametrize("overflow", ["drop_new", "drop_old"])
@pytest.mark.parametrize("threads", [0, 5])
async def test_errors_in_a_burst_are_delivered(
    log: logging.Logger, kind: type[asyncio.Queue[Any]], overflow: Any, threads: int
) -> None:
    """Within one turn of the loop ten times what the queue holds in INFO, and as many ERRORs as its reserve."""
    queue = kind(100)
    log.handlers = [QueueHandler(queue, overflow)]
    sink = MemorySink()
    async with QueueListener(queue, sink) as listener:
        if threads:
            crowd = [threading.Thread(target=burst, args=(log, 10 // threads)) for _ in range(threads)]
            for thread in crowd:
                thread.start()
            for thread in crowd:
                thread.join()
        else:
            burst(log, 10)
    assert sum(message.startswith("error") for message in sink.messages) == 10
    counts = listener.stats().intake
    assert counts.offered == 1_010
    delivered = len(logged(sink.records))
    assert counts.dropped == told(sink.records, queue=True) == {"shed": {"INFO": 1_010 - delivered}}
    assert 90 <= delivered <= 90 + threads


async def test_threads_wait_rather_than_lose(log: logging.Logger) -> None:
    """With overflow="wait", many times what the queue holds gets through from threads while the loop goes on."""
    sink = MemorySink(buffer=Buffer(max_records=100_000))
    pipeline = Pipeline(sink, logger=log, queue_size=10, overflow="wait")
    pipeline.handler.wait_timeout = 30
    async with pipeline:
        await asyncio.gather(*(asyncio.to_thread(burst, log, 3) for _ in range(4)))
    assert len(sink.messages) == 4 * 303
    assert pipeline.stats().intake.lost == 0


async def test_wait_does_not_hold_up_the_loop(log: logging.Logger) -> None:
    """On the loop's thread a full queue drops the newest at once."""
    sink = MemorySink()
    async with Pipeline(sink, logger=log, queue_size=100, overflow="wait") as pipeline:
        burst(log, 10)
    assert len(logged(sink.records)) == 90
    assert pipeline.stats().intake.dropped == {"shed": {"INFO": 920}}


async def test_nobody_waits_while_sinks_are_closed(log: logging.Logger) -> None:
    """From when the last record was routed the listener takes nothing more: threads are not held up for it."""
    closing, clings = asyncio.Event(), True

    class Clinging(MemorySink):
        async def aclose(self) -> None:
            closing.set()
            if clings:
                await asyncio.Event().wait()

    pipeline = Pipeline(Clinging(), logger=log, queue_size=1, overflow="wait", shutdown_timeout=30)
    pipeline.handler.wait_timeout = 30
    pipeline.start()
    stopping = asyncio.create_task(pipeline.stop())
    await closing.wait()
    for _ in range(3):
        await asyncio.to_thread(log.info, "x")
    assert not stopping.done()
    assert pipeline.stats().intake.dropped == {"overflow": {"INFO": 2}}
    await pipeline.listener.stop(0)
    await stopping
    clings = False
    async with pipeline:  # what waits for the next start would hold up the end of the process
        pass


async def test_context_variables(log: logging.Logger) -> None:
    """Named ones travel with each record."""
    request: ContextVar[str] = ContextVar("request")
    sink = MemorySink()
    async with Pipeline(sink, logger=log, context=[request]):
        request.set("r1")
        log.info("x")
    assert sink.records[0].request == "r1"  # type: ignore[attr-defined]


async def test_another_task_may_leave(log: logging.Logger) -> None:
    """Entry and exit need not be in one task, as with fixtures of test frameworks."""
    sink = MemorySink()
    pipeline = Pipeline(sink, logger=log)
    await asyncio.create_task(pipeline.__aenter__())
    log.info("x")
    await asyncio.create_task(pipeline.__aexit__(None, None, None))
    assert sink.messages == ["x"]


async def test_cancelled_body_is_drained(log: logging.Logger) -> None:
    """What was logged before the cancellation is delivered, then it is raised again."""
    sink = FaultySink(0.05)

    async def use() -> None:
        async with Pipeline(sink, logger=log):
            log.info("x")
            await asyncio.Event().wait()

    task = asyncio.create_task(use())
    while not sink.attempts:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sink.messages == ["x"]


async def test_entry_while_it_is_being_left_starts_it_again(log: logging.Logger) -> None:
    """What is logged by whoever enters during the drain, or right at its end, is taken; the level comes back."""
    sink = FaultySink(0.01)
    pipeline = Pipeline(sink, logger=log, level=logging.INFO)
    level = log.level
    for _ in range(2):
        pipeline.start()
        log.info("first")
        stopping = asyncio.create_task(pipeline.stop())
        await asyncio.sleep(0)
        pipeline.start()
        await stopping
        assert pipeline.listener.running
        log.info("second")
        await pipeline.stop()
    assert sink.messages == ["first", "second"] * 2
    assert log.level == level
    assert log.handlers == []


async def test_stop_of_what_does_not_run_says_what_is_held(log: logging.Logger) -> None:
    """Nothing was settled where records still wait for a start."""
    pipeline = Pipeline(MemorySink(), logger=log)
    log.addHandler(pipeline.handler)
    assert (await pipeline.stop()).complete
    log.addHandler(pipeline.handler)
    log.info("waits")
    assert not (await pipeline.flush()).complete
    assert not (await pipeline.stop()).complete
    async with pipeline:
        pass


async def test_anyio_scope_that_is_cancelled_does_not_cut_the_drain(log: logging.Logger) -> None:
    """A cancelled task group waits for the delivery."""
    import anyio

    sink = FaultySink(0.05)
    with anyio.CancelScope() as scope:
        async with Pipeline(sink, logger=log):
            log.info("x")
            scope.cancel()
            await anyio.sleep_forever()
    assert sink.messages == ["x"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue_size": 0}, "queue_size must be at least 1 record, got 0"),
        ({"queue_size": True}, "queue_size must be at least 1 record, got True"),
        ({"overflow": "block"}, "got 'block'"),
        ({"logger": 7}, "must be a logging.Logger, its name or None, got 7"),
        ({"level": "LOUD"}, "got 'LOUD'"),
        ({"shutdown_timeout": -1}, "shutdown_timeout must be at least 0 seconds, got -1"),
    ],
)
def test_bad_values_are_refused(options: dict[str, Any], message: str) -> None:
    """Each error names the value and the limit."""
    with pytest.raises(ConfigError, match=message):
        Pipeline(MemorySink(), **options)


async def test_repr_tells_state_logger_and_sinks(log: logging.Logger) -> None:
    """For a debugger."""
    pipeline = Pipeline(MemorySink(name="memory"), logger=log)
    assert repr(pipeline) == f"<Pipeline stopped on logger {log.name!r} to memory>"
    async with pipeline:
        assert "running" in repr(pipeline)
    assert pipeline.sinks[0].name == "memory"
    assert repr(Pipeline(logger=log)).endswith("to no sink>")


async def test_stats_before_during_and_after_from_any_thread(log: logging.Logger) -> None:
    """A frozen snapshot each time."""
    pipeline = Pipeline(MemorySink(), logger=log)
    seen: list[int] = []

    def read() -> None:
        seen.append(pipeline.stats().intake.offered)

    read()
    async with pipeline:
        log.info("x")
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    read()
    assert seen == [0, 1, 1]


async def test_stop_from_another_loop_leaves_the_pipeline_as_it_is(log: logging.Logger) -> None:
    """It raises, and records go on arriving."""
    pipeline = Pipeline(sink := MemorySink(), logger=log)

    def other() -> None:
        with pytest.raises(PipelineInUse, match="another event loop"):
            asyncio.run(pipeline.stop())

    async with pipeline:
        await asyncio.to_thread(other)
        log.info("still here")
    assert sink.messages == ["still here"]
