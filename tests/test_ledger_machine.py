"""Random interleavings of everything a pipeline does: each record logged is delivered exactly once, or counted."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from threading import Lock, Thread
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from helpers import logged, told
from offloop import Batch, Batching, Buffer, PartialFailure, PermanentFailure, Pipeline, Retry, TemporaryFailure
from offloop.testing import HANG, FaultySink

LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
SINKS = ("one", "two")
QUEUE = 10
BUFFERS = (
    Buffer(4),
    Buffer(4, overflow="drop_new"),
    Buffer(10, shed_at=0.5, reserve=0.3),
    Buffer(10, overflow="drop_new", shed_below=logging.ERROR),
    Buffer(max_bytes=8_000),
    Buffer(),
)
SOON = Retry(initial=0.0, maximum=0.001)
_numbers = itertools.count()
_counting = Lock()


def _take_some(batch: Batch) -> None:
    """The first is to be sent again, the second is refused, the others are taken."""
    raise PartialFailure(retry=batch.records[:1], rejected=batch.records[1:2])


def _turn_away(batch: Batch) -> None:
    batch.filtered += batch.records[::2]


STEPS: dict[str, Any] = {
    "temporary": TemporaryFailure(),
    "os error": OSError(),
    "permanent": PermanentFailure(),
    "partial": _take_some,
    "filtered": _turn_away,
    "undeclared": ValueError(),
    "cancelled": asyncio.CancelledError,
    "slow": 0.001,
    "hang": HANG,
}


class PipelineMachine(RuleBasedStateMachine):
    """A pipeline with two sinks, driven step by step from its own loop and from threads."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.log = logging.getLogger(f"test.machine.{next(_numbers)}")
        self.log.setLevel(logging.DEBUG)
        self.log.propagate = False
        self.logged = 0

    @initialize(
        overflow=st.sampled_from(["drop_new", "drop_old", "wait"]),
        buffer=st.sampled_from(BUFFERS),
        max_records=st.sampled_from([1, 3, 500]),
    )
    def begin(self, overflow: Any, buffer: Buffer, max_records: int) -> None:
        self.sinks = [
            FaultySink(name=name, retry=SOON, send_timeout=0.005, buffer=buffer, batching=Batching(max_records))
            for name in SINKS
        ]
        self.pipeline = Pipeline(*self.sinks, logger=self.log, queue_size=QUEUE, overflow=overflow)
        # Attached for good: what is logged between two runs waits for the next.
        self.log.handlers = [self.pipeline.handler]

    # -- what happens ------------------------------------------------------------------------------------------------

    @rule(level=st.sampled_from(LEVELS), count=st.integers(1, 12), error=st.booleans())
    def log_from_the_loop(self, level: int, count: int, error: bool) -> None:
        self._run(self._log(level, count, error))

    @rule(level=st.sampled_from(LEVELS), count=st.integers(1, 12))
    def log_from_threads(self, level: int, count: int) -> None:
        threads = [Thread(target=self._log_now, args=(level, count, False)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @rule(level=st.sampled_from(LEVELS), count=st.integers(1, 40))
    def log_from_threads_while_the_loop_runs(self, level: int, count: int) -> None:
        async def log() -> None:
            await asyncio.gather(*(asyncio.to_thread(self._log_now, level, count, False) for _ in range(2)))

        self._run(log())

    @rule(level=st.sampled_from(LEVELS), count=st.integers(1, 12))
    def log_without_a_loop(self, level: int, count: int) -> None:
        self._log_now(level, count, False)

    @rule(turns=st.integers(1, 20))
    def let_time_pass(self, turns: int) -> None:
        async def turn() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self._run(turn())

    @rule(sink=st.sampled_from([0, 1]), steps=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=3))
    def fail(self, sink: int, steps: list[str]) -> None:
        self.sinks[sink]._steps += [STEPS[step] for step in steps]

    @rule(sink=st.sampled_from([0, 1]), level=st.sampled_from(LEVELS))
    def set_level(self, sink: int, level: int) -> None:
        self.sinks[sink].setLevel(level)

    @rule(sink=st.sampled_from([0, 1]), kind=st.sampled_from(["none", "odd", "raises"]))
    def set_filter(self, sink: int, kind: str) -> None:
        def odd(record: logging.LogRecord) -> bool:
            return int(record.getMessage()) % 2 == 1

        def raises(record: logging.LogRecord) -> bool:
            raise ValueError(record)

        self.sinks[sink].filters[:] = {"none": [], "odd": [odd], "raises": [raises]}[kind]

    @rule()
    def start(self) -> None:
        self._run(self._start())

    @rule(timeout=st.sampled_from([0.0, 0.02, 5.0]), cancel=st.booleans())
    def stop(self, timeout: float, cancel: bool) -> None:
        self._run(self._interrupted(self.pipeline.listener.stop(timeout), cancel))

    @rule(timeout=st.sampled_from([0.0, 0.02]))
    def flush(self, timeout: float) -> None:
        self._flush(timeout)

    @rule()
    def cancel_all_tasks(self) -> None:
        async def cancel() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()

        self._run(cancel())

    @rule()
    def move_to_another_loop(self) -> None:
        self._run(self.pipeline.listener.stop(0.0))
        self._close()
        self.loop = asyncio.new_event_loop()

    # -- what holds --------------------------------------------------------------------------------------------------

    @invariant()
    def balances(self) -> None:
        if hasattr(self, "pipeline"):
            stats = self.pipeline.stats()
            assert stats.balanced
            assert stats.intake.offered == self.logged
            assert all(counts.offered - counts.notices == stats.intake.delivered for counts in stats.sinks.values())
            assert stats.intake.pending <= QUEUE + 2
            assert not stats.intake.dropped.get("shed", {}).keys() - {"DEBUG", "INFO"}
            for sink in self.sinks:
                shed = stats.sinks[sink.name or ""].dropped.get("shed", {})
                assert all(logging.getLevelNamesMapping()[level] < sink.buffer.shed_below for level in shed)

    def teardown(self) -> None:
        if hasattr(self, "pipeline"):
            for sink in self.sinks:
                sink.heal()
            # A listener whose tasks were cancelled is ending by itself: what came since is for the next start.
            self._run(self.pipeline.listener.stop(10))
            self._run(self._start())
            report = self._run(self.pipeline.listener.stop(10))
            assert report.complete
            assert report.balanced
            for sink in self.sinks:
                self._check(sink, report.sinks[sink.name or ""])
        self._close()
        self.log.handlers = []

    def _check(self, sink: FaultySink, counts: Any) -> None:
        messages = Counter(logged(sink.records))
        assert not [message for message, times in messages.items() if times > 1]
        # The scripted sink keeps what it counts as filtered.
        assert counts.delivered <= len(sink.records) <= counts.delivered + counts.filtered
        assert counts.pending == 0
        assert counts.state == "stopped"
        if len(sink.records) - messages.total() == counts.notices:  # none was lost or printed
            assert told(sink.records) == counts.dropped

    # ----------------------------------------------------------------------------------------------------------------

    async def _log(self, level: int, count: int, error: bool) -> None:
        self._log_now(level, count, error)

    def _log_now(self, level: int, count: int, error: bool) -> None:
        for _ in range(count):
            self.log.log(level, "%d", next(_numbers), exc_info=ValueError("x") if error else None)
        with _counting:
            self.logged += count

    async def _start(self) -> None:
        if not self.pipeline.listener.running:
            self.pipeline.listener.start()

    def _flush(self, timeout: float) -> None:
        before = self.pipeline.stats()
        report = self._run(self.pipeline.flush(timeout))
        if report.complete:
            # Nothing is logged in between: complete means empty.
            assert report.intake.pending == 0, before
            assert all(counts.pending == 0 for counts in report.sinks.values()), before

    async def _interrupted(self, stopping: Any, cancel: bool) -> None:
        task = asyncio.ensure_future(stopping)
        if cancel:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait({task})

    def _run(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    def _close(self) -> None:
        async def settle() -> None:
            # An attempt that was given up at the last moment, and nothing else.
            async with asyncio.timeout(5):
                while others := asyncio.all_tasks() - {asyncio.current_task()}:
                    await asyncio.wait(others)

        self._run(settle())
        self._run(self.loop.shutdown_asyncgens())
        self.loop.close()


TestPipelineMachine = PipelineMachine.TestCase
TestPipelineMachine.settings = settings(
    max_examples=100, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
