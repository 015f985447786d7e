"""The listener and its lanes, with sinks in memory."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import logging.handlers
import threading
from typing import Any

import pytest

from helpers import logged, told, until
from offloop import (
    Batch,
    Batching,
    Buffer,
    ConfigError,
    JSONFormatter,
    Pipeline,
    PipelineInUse,
    QueueHandler,
    QueueListener,
    Retry,
    Sink,
    diagnostics,
)
from offloop.testing import HANG, FaultySink, MemorySink

SOON = Retry(initial=0.001, maximum=0.01)


@pytest.fixture
def queue(log: logging.Logger) -> asyncio.Queue[Any]:
    """A plain queue with a handler on the test's logger."""
    queue: asyncio.Queue[Any] = asyncio.Queue()
    log.handlers = [QueueHandler(queue)]
    return queue


async def test_records_reach_every_sink_in_order(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """One stream, several sinks, the same records in the same order."""
    first, second = MemorySink(), MemorySink()
    async with QueueListener(queue, first, second):
        for number in range(1_000):
            log.info("n %d", number)
    assert first.messages == second.messages == [f"n {number}" for number in range(1_000)]


async def test_plain_queue_can_be_joined(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """What the listener takes from a user's queue it reports as done."""
    async with QueueListener(queue, MemorySink()):
        log.info("x")
        await asyncio.wait_for(queue.join(), 5)


async def test_records_of_a_standard_handler_are_taken(log: logging.Logger) -> None:
    """A `LogRecord` that something else put on the queue is a record too."""
    queue: asyncio.Queue[Any] = asyncio.Queue()
    log.handlers = [logging.handlers.QueueHandler(queue)]  # type: ignore[arg-type]
    sink = MemorySink()
    async with QueueListener(queue, sink):
        log.info("standard %d", 1)
    assert sink.messages == ["standard 1"]


async def test_what_is_no_record_is_counted_and_nothing_else_suffers(
    queue: asyncio.Queue[Any], log: logging.Logger
) -> None:
    """Anyone may put anything on a queue of their own, as the standard listener's sentinel, or a level in words."""
    sink = MemorySink()
    async with QueueListener(queue, sink) as listener:
        log.info("before")
        for odd in (None, "text", {}, {"msg": "no level"}, object()):
            queue.put_nowait(odd)
        queue.put_nowait(logging.makeLogRecord({"msg": "a word", "levelno": "INFO"}))
        log.info("after")
        await sink.wait_for(3)
        assert (await listener.flush()).complete
    assert logged(sink.records) == ["before", "a word", "after"]
    assert listener.stats().intake.dropped == told(sink.records, queue=True) == {"rejected": {"NOTSET": 5}}
    assert listener.stats().balanced


@pytest.mark.parametrize("name", ["exc_info", "exc_text", "stack_info", "processName"])
async def test_record_with_another_attribute_in_place_of_a_standard_one_is_delivered(
    queue: asyncio.Queue[Any], log: logging.Logger, name: str
) -> None:
    """It has as many as a plain one."""
    sink = MemorySink()
    record = logging.LogRecord("shop", logging.INFO, "shop.py", 7, "sold %d", (3,), None, "buy")
    record.mine = 1
    delattr(record, name)
    async with QueueListener(queue, sink) as listener:
        log.handle(record)
    assert sink.messages == ["sold 3"]
    assert listener.stats().intake.lost == 0
    assert json.loads(JSONFormatter().encode(sink.records[0]))["message"] == "sold 3"


async def test_levels_relay(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """Each sink gets what its level lets through, and counts the rest as filtered; what none takes never enters."""
    errors, infos = MemorySink(level="ERROR", name="errors"), MemorySink(level="INFO", name="infos")
    async with QueueListener(queue, errors, infos) as listener:
        log.debug("d")
        log.info("i")
        log.error("e")
    assert (errors.messages, infos.messages) == (["e"], ["i", "e"])
    stats = listener.stats()
    assert stats.intake.filtered == 1
    assert stats.sinks["errors"].filtered == 1
    assert stats.balanced


async def test_levels_can_be_ignored(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """As in the standard library, for those who want every record everywhere."""
    sink = MemorySink(level="ERROR")
    async with QueueListener(queue, sink, respect_handler_level=False):
        log.debug("d")
    assert sink.messages == ["d"]


async def test_lowered_level_takes_effect_while_nothing_happens(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """The first record of the new level is not turned away by the old floor."""
    sink = MemorySink(level="ERROR")
    async with QueueListener(queue, sink):
        log.info("no")
        sink.setLevel("INFO")
        log.info("yes")
    assert sink.messages == ["yes"]


async def test_filter_of_one_sink_changes_nothing_for_another(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """A filter that edits the record edits its own sink's copy."""

    def redact(record: logging.LogRecord) -> bool:
        record.msg = "redacted"
        return True

    open_sink, redacted = MemorySink(name="open"), MemorySink(name="redacted")
    redacted.addFilter(redact)
    redacted.addFilter(lambda record: record.levelno > logging.DEBUG)
    async with QueueListener(queue, redacted, open_sink) as listener:
        log.debug("filtered away")
        log.info("secret")
    assert (redacted.messages, open_sink.messages) == (["redacted"], ["filtered away", "secret"])
    assert listener.stats().sinks["redacted"].filtered == 1


async def test_filter_that_raises_lets_the_record_through(
    queue: asyncio.Queue[Any], log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken filter costs no record and no task."""
    sink = MemorySink()
    sink.addFilter(lambda record: 1 / 0)  # type: ignore[arg-type,return-value]
    async with QueueListener(queue, sink):
        log.info("kept")
    assert sink.messages == ["kept"]
    diagnostics.flush(5)
    assert "ZeroDivisionError" in capsys.readouterr().err


async def test_filter_may_replace_the_record(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """A filter may give a record of its own (3.12 and later take it)."""
    sink = MemorySink()
    sink.addFilter(lambda record: logging.makeLogRecord({**record.__dict__, "msg": "replaced"}))  # type: ignore[arg-type]
    async with QueueListener(queue, sink):
        log.info("original")
    assert sink.messages in (["replaced"], ["original"])


async def test_hung_sink_delays_no_other(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """With one sink hung for ever and a buffer of ten, another has all 200 records at once."""
    hung = FaultySink(always=HANG, name="hung", buffer=Buffer(max_records=10))
    healthy = MemorySink(name="healthy")
    listener = QueueListener(queue, hung, healthy)
    listener.start()
    for number in range(200):
        log.info("n %d", number)
    await healthy.wait_for(200)
    report = await listener.stop(timeout=0.1)
    assert not report.complete
    counts = report.sinks["hung"]
    assert counts.dropped["shed"] == {"INFO": 192}
    assert counts.notices == 1
    assert counts.printed + counts.lost == 200 + 1
    assert report.balanced


async def test_send_that_swallows_cancellation_is_abandoned(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """It costs its deadline; the batch goes out with the next attempt."""
    release = asyncio.Event()

    async def stubborn(batch: object) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        raise RuntimeError("nobody listens any more")

    sink = FaultySink(stubborn, send_timeout=0.02, retry=SOON)
    async with QueueListener(queue, sink):
        log.info("x")
        await sink.wait_for(1)
        release.set()
    assert sink.messages == ["x"]


async def test_record_from_another_thread_arrives(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """An idle loop is woken."""
    sink = MemorySink()
    async with QueueListener(queue, sink):
        await asyncio.to_thread(log.info, "from a thread")
        await sink.wait_for(1)
    assert sink.records[0].threadName != threading.current_thread().name


async def test_eight_threads_lose_nothing_and_keep_order(log: logging.Logger) -> None:
    """Ten thousand records each into a queue of 100,000."""
    queue: asyncio.Queue[Any] = asyncio.Queue(100_000)
    log.handlers = [QueueHandler(queue)]
    sink = MemorySink(buffer=Buffer(max_records=100_000, max_bytes=1 << 30))

    def work(name: int) -> None:
        for number in range(10_000):
            log.info("%d %d", name, number)

    async with QueueListener(queue, sink, shutdown_timeout=30):
        await asyncio.gather(*(asyncio.to_thread(work, name) for name in range(8)))
    assert len(sink.records) == 80_000
    for name in range(8):
        numbers = [record.args[1] for record in sink.records if record.args[0] == name]  # type: ignore[index]
        assert numbers == list(range(10_000))


async def test_tracebacks_are_rendered_as_they_were(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """A note added after the call is not in it; message and traceback stay apart."""
    sink, other = MemorySink(), MemorySink()
    async with QueueListener(queue, sink, other):
        try:
            raise ValueError("as it was")
        except ValueError as error:
            log.exception("failed")
            error.add_note("too late")
        log.info("after")
    record, after = sink.records
    assert record.getMessage() == "failed"
    assert record.exc_text is not None
    assert record.exc_text.endswith("ValueError: as it was")
    assert record.exc_info is None
    assert after.exc_text is None
    assert other.records[0].exc_text == record.exc_text


async def test_temporary_failures_are_retried_in_order(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """The batch goes out when the sink recovers, nothing overtakes it, and it is opened anew."""
    sink = FaultySink(OSError("away"), EOFError, TimeoutError, retry=SOON)
    async with QueueListener(queue, sink) as listener:
        log.info("first")
        log.info("second")
        await sink.wait_for(2)
        log.info("third")
    assert sink.messages == ["first", "second", "third"]
    assert sink.opens == 4
    assert listener.stats().sinks["FaultySink"].error is None


async def test_state_tells_of_trouble(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """While a sink fails its state and last error can be read."""
    sink = FaultySink(always=OSError("no route"), retry=SOON)
    async with QueueListener(queue, sink, shutdown_timeout=0.05) as listener:
        log.info("x")
        await sink_failed(listener)
        counts = listener.stats().sinks["FaultySink"]
        assert (counts.state, counts.error) == ("retrying", "OSError: no route")


async def sink_failed(listener: QueueListener) -> None:
    """Wait until some sink has failed."""
    while not any(counts.error for counts in listener.stats().sinks.values()):
        await asyncio.sleep(0)


async def test_formatter_that_raises_costs_the_form_only(
    queue: asyncio.Queue[Any], log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record goes out as the sink's default formatter has it."""
    sink = MemorySink(formatter=logging.Formatter("%(request_id)s %(message)s"))
    async with QueueListener(queue, sink):
        log.info("no request")
        log.info("with", extra={"request_id": 7})
    assert b'"no request"' in sink.encoded[0]
    assert sink.encoded[1] == b"7 with"
    diagnostics.flush(5)
    assert "could not format" in capsys.readouterr().err


async def test_record_is_encoded_once_for_sinks_that_format_alike(
    queue: asyncio.Queue[Any], log: logging.Logger
) -> None:
    """Two sinks with one formatter share the bytes; a third with another has its own."""
    calls: list[str] = []

    class Counting(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            calls.append(record.getMessage())
            return super().format(record)

    shared = Counting()
    sinks = [MemorySink(formatter=shared), MemorySink(formatter=shared), MemorySink(formatter=Counting())]
    async with QueueListener(queue, *sinks):
        log.info("x")
    assert calls == ["x", "x"]
    assert all(sink.encoded == [b"x"] for sink in sinks)


async def test_batches_keep_to_their_limits(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """By count and by bytes; a record that is larger than a batch goes alone."""
    plain = logging.Formatter("%(message)s")
    by_count = MemorySink(formatter=plain, batching=Batching(max_records=3))
    by_bytes = MemorySink(formatter=plain, batching=Batching(max_bytes=10))
    async with QueueListener(queue, by_count, by_bytes):
        for text in ("aaaa", "bbbb", "cccc", "d" * 50, "eeee", "ffff"):
            log.info(text)
    assert max(by_count.batches) <= 3
    assert [len(by_bytes.encoded[i]) for i in range(6)] == [4, 4, 4, 50, 4, 4]
    assert max(by_bytes.batches) <= 2


@pytest.mark.parametrize("others", [0, 1])
async def test_lines_keep_to_the_limit_in_bytes(log: logging.Logger, others: int) -> None:
    """JSON too, made many at a time: in their order, and one that is larger than a batch goes alone."""
    sink = MemorySink(name="sink", batching=Batching(max_bytes=2_000))
    batches: list[Batch] = []
    send = sink.send

    async def seen(batch: Batch) -> None:
        batches.append(batch)
        await send(batch)

    sink.send = seen  # type: ignore[method-assign]
    texts = [str(number).zfill(3) * (1_000 if number == 70 else 1) for number in range(150)]
    async with Pipeline(sink, *(MemorySink() for _ in range(others)), logger=log):
        for text in texts:
            log.info(text)
    assert sink.messages == texts
    assert all(batch.bytes <= 2_000 or len(batch) == 1 for batch in batches)
    assert 15 <= len(batches) <= 40
    assert b"".join(batch.lines for batch in batches) == b"".join(line + b"\n" for line in sink.encoded)


@pytest.mark.parametrize("fast", [True, False])
async def test_what_is_more_than_plain_is_delivered_whole(log: logging.Logger, *, fast: bool) -> None:
    """A stack, the text of an exception from elsewhere, a long text and bytes, between records that have nothing."""
    sink = MemorySink()
    async with Pipeline(sink, logger=log, fast_records=fast):
        log.info("plain")
        log.info("stack", stack_info=True)
        log.handle(
            logging.makeLogRecord({"name": log.name, "levelno": 20, "msg": "text", "exc_text": "Traceback of far"})
        )
        log.info("%s", "long " * 1_000)
        log.info("%s", b"bytes")
        log.info("plain")
    lines = [json.loads(line) for line in sink.encoded]
    assert [line["message"] for line in lines] == ["plain", "stack", "text", "long " * 1_000, "b'bytes'", "plain"]
    assert lines[1]["stack"].startswith("Stack (most recent call last):")
    assert lines[2]["exception"]["stacktrace"] == "Traceback of far"


@pytest.mark.parametrize("fast", [True, False])
async def test_long_argument_is_weighed(log: logging.Logger, *, fast: bool) -> None:
    """A bound in bytes holds for it, and for many short ones."""
    sink = MemorySink(buffer=Buffer(max_bytes=100_000, overflow="drop_new"))
    async with Pipeline(sink, logger=log, fast_records=fast) as pipeline:
        log.info("%s", "x" * 100_000)
        for number in range(200):
            log.info("%s", str(number) * 100)
    told = pipeline.stats().sinks["MemorySink"]
    assert (told.offered - told.notices, told.delivered - told.notices + told.lost) == (201, 201)
    assert 120 < told.lost < 160  # below WARNING there is room for 80,000 bytes: some 60 records of 1,350


async def test_max_wait_gathers_and_flush_does_not_wait_for_it(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """Records logged apart go out together; a flush sends them at once."""
    sink = MemorySink(batching=Batching(max_wait=3600))
    async with QueueListener(queue, sink) as listener:
        log.info("a")
        await asyncio.sleep(0)
        log.info("b")
        report = await listener.flush(5)
        assert report.complete
        assert sink.batches == [2]
        log.info("c")
    assert sink.batches == [2, 1]


async def test_max_wait_ends_by_itself(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """A batch that is not full goes out when its time has come."""
    sink = MemorySink(batching=Batching(max_wait=0.01))
    async with QueueListener(queue, sink):
        log.info("a")
        await sink.wait_for(1)


async def test_flush_tells_when_the_deadline_passed(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """Nothing is lost by it: the record is still pending."""
    sink = FaultySink(HANG, send_timeout=0.2, retry=SOON)
    async with QueueListener(queue, sink) as listener:
        assert (await listener.flush(0.01)).complete
        log.info("x")
        report = await listener.flush(0.01)
        assert not report.complete
        assert report.sinks["FaultySink"].pending == 1
        assert (await listener.flush(5)).complete


async def test_overflow_of_a_lane_keeps_the_newest_and_the_errors(
    queue: asyncio.Queue[Any], log: logging.Logger
) -> None:
    """drop_old evicts the oldest below ERROR; what was being sent is not touched."""
    release = asyncio.Event()
    sink = FaultySink(lambda batch: release.wait(), buffer=Buffer(max_records=4))
    async with QueueListener(queue, sink) as listener:
        log.info("sent 0")
        while not sink.attempts:
            await asyncio.sleep(0)
        log.error("keep")
        for number in range(5):
            log.info("info %d", number)
        while listener.stats().intake.pending:
            await asyncio.sleep(0)
        release.set()
    assert logged(sink.records) == ["sent 0", "keep", "info 3", "info 4"]
    assert told(sink.records) == {"overflow": {"INFO": 3}}


async def test_overflow_of_a_lane_may_refuse_the_newest(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """drop_new keeps what came first."""
    sink = MemorySink(buffer=Buffer(max_records=3, overflow="drop_new"))
    async with QueueListener(queue, sink) as listener:
        for number in range(5):
            log.info("%d", number)
    assert logged(sink.records) == ["0", "1", "2"]
    assert listener.stats().sinks["MemorySink"].dropped == told(sink.records) == {"overflow": {"INFO": 2}}


async def test_buffer_is_bounded_in_bytes(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """A large record takes the place of several small ones; one larger than the buffer is refused."""
    sink = MemorySink(buffer=Buffer(max_bytes=10_000, reserve=0))
    async with QueueListener(queue, sink) as listener:
        for number in range(3):
            log.info("small %d", number)
        log.info("x" * 20_000)
        log.info("y" * 7_000)
    assert [message[:7] for message in logged(sink.records)] == ["small 2", "yyyyyyy"]
    assert listener.stats().balanced


async def test_records_wait_for_a_listener(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """Logged before the start, from any thread, and between a stop and the next start."""
    await asyncio.to_thread(log.info, "thread before")
    log.info("before")
    sink = MemorySink()
    listener = QueueListener(queue, sink)
    async with listener:
        log.info("while")
    log.info("between")
    async with listener:
        pass
    assert sink.messages == ["thread before", "before", "while", "between"]
    assert (sink.opens, sink.closes) == (2, 2)


def test_listener_serves_another_loop(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """One loop after another, the same objects; what one left is found by the next."""
    sink = MemorySink()
    listener = QueueListener(queue, sink)

    async def once(text: str) -> None:
        async with listener:
            log.info(text)

    asyncio.run(once("one"))
    log.info("no loop")
    asyncio.run(once("two"))
    assert sink.messages == ["one", "no loop", "two"]


def test_loop_that_was_closed_without_a_stop_is_left_behind(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """A dead loop's listener can be started again; what its lane held goes out."""
    sink = FaultySink(HANG)
    listener = QueueListener(queue, sink)
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        listener.start()
        log.info("held")
        while not sink.attempts:
            await asyncio.sleep(0)

    loop.run_until_complete(begin())
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()

    async def again() -> None:
        async with listener:
            await sink.wait_for(1)

    asyncio.run(again())
    assert sink.messages == ["held"]


def test_logging_after_a_loop_was_closed_without_a_stop_raises_nothing(
    queue: asyncio.Queue[Any], log: logging.Logger
) -> None:
    """The idle listener of a dead loop can't be woken; the record waits for the next start."""
    sink = MemorySink()
    listener = QueueListener(queue, sink)
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        listener.start()
        await listener.flush()
        await until(lambda: listener._intake.waiter is not None)

    loop.run_until_complete(begin())
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    log.info("nobody listens")
    assert listener.stats().intake.dropped == {}

    async def again() -> None:
        async with listener:
            await sink.wait_for(1)

    asyncio.run(again())
    assert sink.messages == ["nobody listens"]


def test_end_of_asyncio_run_drains(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """A listener that nobody stopped drains when `asyncio.run` cancels its tasks, with what others log meanwhile."""
    sink = MemorySink()

    async def worker() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.info("cancelled")

    async def main() -> asyncio.Task[None]:
        QueueListener(queue, sink).start()
        task = asyncio.create_task(worker())
        await asyncio.sleep(0)
        log.info("last words")
        return task

    asyncio.run(main())
    assert sorted(sink.messages) == ["cancelled", "last words"]


async def test_cancelled_stop_drains_and_raises(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """The first cancellation does not end the drain."""
    sink = FaultySink(0.05)
    listener = QueueListener(queue, sink)
    listener.start()
    log.info("x")
    stopping = asyncio.create_task(listener.stop(5))
    while not sink.attempts:
        await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert sink.messages == ["x"]


async def test_second_cancellation_cuts_the_drain_short(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """What is left is counted."""
    sink = FaultySink(always=HANG, send_timeout=60)
    listener = QueueListener(queue, sink)
    listener.start()
    log.info("x")
    stopping = asyncio.create_task(listener.stop(60))
    while not sink.attempts:
        await asyncio.sleep(0)
    for _ in range(2):
        stopping.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert listener.stats().sinks["FaultySink"].printed == 1


async def test_stop_ends_though_more_comes_than_is_routed(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """Whoever logs on and on during a stop keeps no task of the listener alive; what is left waits for the next one."""

    def goes_on(_record: logging.LogRecord) -> bool:
        queue.put_nowait(logging.makeLogRecord({"msg": "more"}))  # as threads do that are faster than the loop
        return True

    sink = MemorySink()
    sink.addFilter(goes_on)
    before = asyncio.all_tasks()
    listener = QueueListener(queue, sink)
    listener.start()
    log.info("one")
    await sink.wait_for(100)
    await listener.stop(timeout=0.1)
    await until(lambda: asyncio.all_tasks() == before)
    assert listener.stats().balanced
    assert listener.stats().intake.pending
    sink.removeFilter(goes_on)
    async with listener:
        pass
    assert not listener.stats().intake.pending


async def test_sink_that_recovers_during_the_stop_gets_its_records(
    queue: asyncio.Queue[Any], log: logging.Logger
) -> None:
    """The backoff is shortened to what the deadline leaves."""
    sink = FaultySink(*[OSError("away")] * 2, retry=Retry(initial=3600, maximum=3600))
    listener = QueueListener(queue, sink)
    listener.start()
    log.info("x")
    await sink_failed(listener)
    report = await listener.stop(1)
    assert report.complete
    assert sink.messages == ["x"]


async def test_stop_leaves_no_task_of_a_sink_that_hangs_in_everything(
    queue: asyncio.Queue[Any], log: logging.Logger
) -> None:
    """The report has the last word, and a start right after it finds a lane that has ended."""

    class Stubborn(FaultySink):
        async def aclose(self) -> None:
            await asyncio.Event().wait()

    sink = Stubborn(HANG, retry=SOON)
    listener = QueueListener(queue, sink)
    listener.start()
    log.info("lost")
    await until(lambda: sink.attempts)
    before = asyncio.get_running_loop().time()
    report = await listener.stop(0.05)
    assert asyncio.get_running_loop().time() - before < 0.15
    assert report.sinks["Stubborn"].printed == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}
    listener.start()
    log.info("taken")
    await sink.wait_for(1)
    await listener.stop(0)
    assert listener.stats().balanced


def test_dead_loop_that_is_collected_touches_nothing(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """A loop closed without a stop leaves coroutines; they end when they are collected, while another loop delivers."""
    sink = FaultySink(HANG, 0.2, retry=SOON)
    listener = QueueListener(queue, sink)
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        listener.start()
        log.info("held")
        await until(lambda: sink.attempts == 1)

    loop.run_until_complete(begin())
    dead = asyncio.all_tasks(loop)
    for task in dead:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()

    async def again() -> None:
        async with listener:
            await until(lambda: sink.attempts == 2)
            for task in dead:
                task.get_coro().close()
            assert listener._lanes[0].backlog.flying
            log.info("next")
            await sink.wait_for(2)

    asyncio.run(again())
    assert sink.messages == ["held", "next"]


@pytest.mark.parametrize("method", ["open", "send", "aclose"])
@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError(), StopIteration(), GeneratorExit()])
async def test_whatever_a_sink_raises_the_lane_and_the_loop_live_on(
    queue: asyncio.Queue[Any], log: logging.Logger, method: str, error: BaseException
) -> None:
    """Though asyncio ends a loop for some of it; and though the method may not be async at all."""

    def fail(*_: object) -> None:
        raise error

    sink = MemorySink(retry=SOON)
    whole = getattr(sink, method)
    setattr(sink, method, fail)
    async with QueueListener(queue, sink, shutdown_timeout=1) as listener:
        log.info("kept")
        if method != "aclose":
            await until(lambda: listener.stats().sinks["MemorySink"].error)
            setattr(sink, method, whole)
        await sink.wait_for(1)
    assert sink.messages == ["kept"]
    assert listener.stats().sinks["MemorySink"].state == "stopped"


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError(), ValueError()])
async def test_whatever_filters_and_formatters_raise_records_go_out(
    queue: asyncio.Queue[Any], log: logging.Logger, error: BaseException
) -> None:
    """In another form, if they must."""

    def fail(*_: object) -> Any:
        raise error

    sink, other = MemorySink(formatter=logging.Formatter()), MemorySink()
    sink.encode = sink.default_formatter = fail  # type: ignore[method-assign]
    sink.addFilter(fail)
    sink.filter = fail  # type: ignore[method-assign]
    other.encode = lambda record: "text"  # type: ignore[method-assign,assignment,return-value]
    async with QueueListener(queue, sink, other) as listener:
        log.info("out")
        assert (await listener.flush()).complete
    assert sink.messages == other.messages == ["out"]
    assert b"out" in sink.encoded[0]
    assert b"out" in other.encoded[0]


def test_interrupt_within_a_filter_or_a_formatter_ends_no_task(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """Ctrl-C ends the loop's run, not the listener's: what it interrupted goes on in the next run, exactly once."""
    sink = MemorySink()
    steps = [KeyboardInterrupt, None, KeyboardInterrupt, None]

    def interrupt(record: logging.LogRecord) -> bool:
        if record.getMessage() == "two" and (step := steps.pop(0)):
            raise step
        return True

    sink.addFilter(interrupt)
    sink.encode = lambda record: str(interrupt(record)).encode()  # type: ignore[method-assign]
    listener = QueueListener(queue, sink)
    loop = asyncio.new_event_loop()
    loop.call_soon(listener.start)
    for message in ("one", "two", "three"):
        log.info(message)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.sleep(60))
    loop.run_until_complete(sink.wait_for(3))
    report = loop.run_until_complete(listener.stop())
    loop.close()
    assert sink.messages == ["one", "two", "three"]
    assert report.complete
    assert report.balanced


async def test_cancellation_before_the_first_step_is_a_shutdown(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """Whoever cancels all tasks right after a start has the records drained, and may start again."""
    sink = MemorySink()
    listener = QueueListener(queue, sink)
    log.info("drained")
    for _ in range(2):
        listener.start()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await until(lambda: not listener.running)
    assert sink.messages == ["drained"]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_sink_that_takes_records_out_of_its_batch_is_an_error(
    queue: asyncio.Queue[Any], log: logging.Logger
) -> None:
    """It would be sent them again and again; and one that names a record twice as filtered has it counted once."""

    def consume(batch: Any) -> None:
        batch.records.pop()

    def turn_away(batch: Any) -> None:
        batch.filtered += [*batch.records, *batch.records, object()]

    sink = FaultySink(consume, turn_away, retry=SOON)
    async with QueueListener(queue, sink) as listener:
        log.info("once")
        assert (await listener.flush()).complete
    assert sink.messages == ["once"]
    assert listener.stats().sinks["FaultySink"].filtered == 1
    assert listener.stats().balanced


async def test_stop_without_start_and_twice(queue: asyncio.Queue[Any]) -> None:
    """Stopping what does not run is no error."""
    listener = QueueListener(queue, MemorySink())
    assert (await listener.stop()).complete
    async with listener:
        assert repr(listener) == "<QueueListener running, 1 sinks, 0 waiting>"
        await listener.stop()
    assert (await listener.flush()).complete


async def test_second_start_and_second_listener_are_refused(queue: asyncio.Queue[Any]) -> None:
    """A queue has one listener, and a listener one loop."""
    listener = QueueListener(queue, MemorySink())
    async with listener:
        with pytest.raises(PipelineInUse, match="already running in this event loop"):
            listener.start()
        with pytest.raises(PipelineInUse, match="another listener"):
            QueueListener(queue, MemorySink()).start()

        def other() -> None:
            async def use() -> None:
                with pytest.raises(PipelineInUse, match="in another event loop"):
                    listener.start()
                with pytest.raises(PipelineInUse, match="flush was called in another"):
                    await listener.flush()

            asyncio.run(use())

        await asyncio.to_thread(other)


@pytest.mark.parametrize("sinks", [(MemorySink(name="x"), MemorySink(name="x")), (7,), (MemorySink,)])
def test_bad_sinks_are_refused(queue: asyncio.Queue[Any], sinks: Any) -> None:
    """Two of one name, or no sink at all."""
    with pytest.raises(ConfigError, match=r"two sinks have the name 'x'|a sink must be"):
        QueueListener(queue, *sinks)


def test_queue_must_be_an_asyncio_queue() -> None:
    """Anything else is refused."""
    with pytest.raises(ConfigError, match="asyncio.Queue"):
        QueueListener([])  # type: ignore[arg-type]


def test_names_are_unique(queue: asyncio.Queue[Any]) -> None:
    """Sinks without a name are numbered, and never take a given one."""
    listener = QueueListener(queue, MemorySink(), MemorySink(), MemorySink(name="MemorySink-2"))
    assert list(listener.stats().sinks) == ["MemorySink", "MemorySink-3", "MemorySink-2"]


async def test_sink_on_a_logger_says_that_it_needs_a_handler(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once, on stderr, and nobody is blocked."""
    log.handlers = [MemorySink(name="lonely")]
    log.info("x")
    log.info("y")
    log.handlers[0].emit(logging.makeLogRecord({}))
    diagnostics.flush(5)
    assert capsys.readouterr().err.count("it needs a QueueHandler in front") == 1


async def test_sink_that_fails_at_once_leaves_the_loop_its_turns(
    queue: asyncio.Queue[Any], log: logging.Logger
) -> None:
    """However often it is tried without a pause."""
    attempts = 0

    class Away(Sink):
        async def send(self, batch: Batch) -> None:
            nonlocal attempts
            attempts += 1
            raise OSError("away")

    async with QueueListener(queue, Away(retry=Retry(initial=0.0, maximum=0.0)), shutdown_timeout=0.1):
        log.info("x")
        await until(lambda: attempts > 10)
    assert attempts > 10


async def test_what_a_sink_logs_does_not_feed_it(queue: asyncio.Queue[Any], log: logging.Logger) -> None:
    """No feedback: its own records are counted, and go to diagnostics."""
    sink = FaultySink(lambda batch: log.info("I am sending"))
    async with QueueListener(queue, sink) as listener:
        log.info("x")
        assert (await listener.flush(5)).complete
    assert sink.messages == ["x"]
    assert listener.stats().intake.dropped == {"own": {"INFO": 1}}


async def test_stats_from_another_thread_balance_at_every_moment(
    queue: asyncio.Queue[Any], log: logging.Logger
) -> None:
    """Whatever is going on."""
    sink = FaultySink(*[OSError("x"), None] * 50, retry=SOON, buffer=Buffer(max_records=100))
    done = threading.Event()
    unbalanced: list[object] = []
    async with QueueListener(queue, sink) as listener:

        def read() -> None:
            while not done.is_set():
                stats = listener.stats()
                if not stats.balanced:
                    unbalanced.append(stats)

        reader = asyncio.create_task(asyncio.to_thread(read))
        for number in range(5_000):
            log.info("%d", number)
            if not number % 50:
                await asyncio.sleep(0)
        await listener.flush(10)
        done.set()
        await reader
    assert not unbalanced


class Colour(logging.Formatter):
    """Leaves its mark on what it formats, as some do."""

    def format(self, record: logging.LogRecord) -> str:
        record.levelname, record.msg = "\x1b[31mRED", "coloured"
        return super().format(record)


async def test_formatter_of_one_sink_changes_nothing_for_another(
    queue: asyncio.Queue[Any], log: logging.Logger
) -> None:
    """Neither in a sink of ours nor in a plain handler's thread."""
    coloured, plain, handler = MemorySink(formatter=Colour()), MemorySink(), logging.StreamHandler(io.StringIO())
    handler.setFormatter(Colour())
    async with QueueListener(queue, coloured, handler, MemorySink(formatter=Colour()), plain):
        for _ in range(20):
            log.info("as it was")
    assert plain.messages == ["as it was"] * 20
    assert all(b"RED" not in data for data in plain.encoded)
    assert coloured.encoded == [b"coloured"] * 20


async def test_arguments_that_do_not_fit_are_delivered_by_plain_handlers_too(
    queue: asyncio.Queue[Any], log: logging.Logger
) -> None:
    """`getMessage` of a delivered record says what it can, and raises nothing."""
    stream = io.StringIO()
    async with QueueListener(queue, logging.StreamHandler(stream)) as listener:
        log.info("%d", "x")
    assert "%d [not rendered: TypeError" in stream.getvalue()
    assert listener.stats().sinks["StreamHandler"].delivered == 1


async def test_record_class_that_renders_in_its_own_way_is_asked_in_the_caller(
    queue: asyncio.Queue[Any], log: logging.Logger
) -> None:
    """Braces, as in the logging cookbook."""

    class Brace(logging.LogRecord):
        def getMessage(self) -> str:  # noqa: N802
            return str(self.msg).format(*self.args or ())

    sink = MemorySink()
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(Brace)
    try:
        async with QueueListener(queue, sink):
            log.info("{} and {}", 1, 2)  # noqa: PLE1205
    finally:
        logging.setLogRecordFactory(before)
    assert sink.messages == ["1 and 2"]
    assert sink.records[0].template == "{} and {}"


async def test_order_and_errors_survive_eviction_from_all_sides(log: logging.Logger) -> None:
    """ERRORs of the loop, each in its place, while other threads push an overfull queue."""
    pipeline = Pipeline(sink := MemorySink(level="ERROR"), logger=log, queue_size=20, overflow="drop_old")
    pipeline.listener.respect_handler_level = True
    sink.setLevel("INFO")
    done = threading.Event()

    def push() -> None:
        while not done.is_set():
            log.info("noise")

    async with pipeline:
        noise = [asyncio.create_task(asyncio.to_thread(push)) for _ in range(3)]
        for number in range(300):
            log.error("%d", number)
            await asyncio.sleep(0)
        done.set()
        await asyncio.gather(*noise)
    numbers = [int(message) for message in logged(sink.records) if message != "noise"]
    assert numbers == sorted(numbers)
    assert "rejected" not in pipeline.stats().intake.dropped
    assert pipeline.stats().balanced


def test_handler_of_its_own_queue_is_no_sink(queue: asyncio.Queue[Any]) -> None:
    """Records would go round for ever."""
    with pytest.raises(ConfigError, match="takes them from"):
        QueueListener(queue, QueueHandler(queue))
