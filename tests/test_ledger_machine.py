"""Random interleavings of everything a pipeline does: each record logged is delivered exactly once, or counted.

`python tests/machine.py` (nox session `machine`) runs thousands of examples, and says how often each thing occurred.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from inspect import CORO_CREATED, getcoroutinestate
from itertools import product
from pathlib import Path
from threading import Lock, Thread
from time import sleep
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from interleaving import Cancellations, Tally, VirtualLoop, interruptible
from offloop import (
    Batch,
    Batching,
    Breaker,
    Buffer,
    PartialFailure,
    PermanentFailure,
    Pipeline,
    Retry,
    SinkFailure,
    Spool,
    TemporaryFailure,
)
from offloop.capture import Record, made
from offloop.digest import DIGEST_LOGGER
from offloop.losses import LOSS_LOGGER, QUEUE, Losses
from offloop.spooled_lane import SpooledLane
from offloop.testing import MemorySink

LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
SINKS = ("one", "two")
FATES = {"fallback": "diverted", "dead_letters": "dead_lettered"}
OTHER = "other"  # what the first falls back on, and the second's dead letters
QUEUE_SIZE = 10
BUFFERS = (
    Buffer(4),
    Buffer(4, overflow="drop_new"),
    Buffer(10, shed_at=0.5, reserve=0.3),
    Buffer(10, overflow="drop_new", shed_below=logging.ERROR),
    Buffer(max_bytes=8_000),
    Buffer(),
)
BATCHINGS = (Batching(1), Batching(3), Batching(), Batching(5, max_wait=0.3))
RETRIES = (
    Retry(initial=0.1, maximum=2.0),
    Retry(initial=0.1, maximum=2.0, give_up_after=3.0),
    Retry(initial=0.0, maximum=2.0),
    Retry(initial=0.0, maximum=0.0, give_up_after=0.3),
)
BREAKERS = tuple(Breaker(failures, probe) for failures, probe in product((2, 3), (None, 0.5)))
NOTICES = frozenset({LOSS_LOGGER, DIGEST_LOGGER})
TOLD = frozenset({"overflow", "shed", "expired", "rejected", "corrupt", "shutdown"})
SEND_TIMEOUT = 1.0
SLOW = SEND_TIMEOUT / 4
STEPS = (
    "temporary",
    "os error",
    "sink failure",
    "permanent",
    "partial",
    "filtered",
    "undeclared",
    "cancels itself",
    "slow",
    "hang",
    "deaf",
    "taken, then broken",
    "logs",
)
RAISED: dict[str, type[BaseException]] = {
    "temporary": TemporaryFailure,
    "os error": OSError,
    "sink failure": SinkFailure,
    "permanent": PermanentFailure,
    "undeclared": ValueError,
    "cancels itself": asyncio.CancelledError,
}
OPENING = ("os error", "hang", "undeclared")
CLOSING = ("os error", "hang", "undeclared")
SCRIPTS = [script for length in (1, 2) for script in product(STEPS, repeat=length)] + [(step,) * 6 for step in STEPS]
ENTRIES = ("pipeline", "listener", "lifespan", "iterator", "twice")
# Tasks by their names, or by that of their coroutine: `run` renders tracebacks, `_print` what is left at a deadline.
KINDS = (
    *("offloop", "offloop:route", "offloop:one", "offloop:two", "offloop:other"),
    *("offloop:one:divert", "offloop:two:divert", "attempt", "application", "run", "_print"),
)
NTH = (1, 2, 3, 4, 6, 9, 11, 12, 13, 14)
PLACES = tuple(product(KINDS, NTH, (False, True), ("goes on", "stops")))
SPOOL_PLACES = tuple(product(("offloop:one:spool", "offloop:two:spool"), NTH[:5], (False, True), ("goes on", "stops")))
LOGGING = tuple(product(LEVELS, (1, 3, 12), (False, True)))
FILTERS = ("none", "odd", "raises", "interrupts", "slow")

# Where tasks of ours wait. Sinks and their connections are interrupted at each await by the contract suite.
ROOMS = (
    "delivery.py",
    "diversion.py",
    "lane.py",
    "listener.py",
    "packing.py",
    "pipeline.py",
    "run.py",
    "shutdown.py",
    "spooled_lane.py",
    "spooling/disk.py",
    "worker.py",
)
OUT_OF_REACH = {
    "Lane._main (2)": "after a fault of the lane's own",
    "Pipeline.stop (1)": "raises before it waits",
    "QueueListener.finish (1)": "on a loop of its own, at exit",
}

tally = Tally()
_numbers = itertools.count()
_counting = Lock()


def out_of_reach(place: str) -> str | None:
    """Why no task can be cancelled at an await; None if it can."""
    return OUT_OF_REACH.get(place.partition(" ")[2])


RULES: list[str] = []


def step(**drawn: Any) -> Callable[[Callable[..., None]], Any]:
    """A rule, counted."""

    def decorate(function: Callable[..., None]) -> Any:
        @wraps(function)
        def counted(machine: PipelineMachine, *arguments: Any, **named: Any) -> None:
            tally.add("rule", function.__name__)
            function(machine, *arguments, **named)

        RULES.append(function.__name__)
        return rule(**drawn)(counted)

    return decorate


class Witness(MemorySink):
    """Does what the script says, and knows of each number how often it was taken and whether that was acknowledged."""

    def __init__(self, machine: PipelineMachine, **options: Any) -> None:
        super().__init__(**options)
        self.machine = machine
        self.script: list[str] = []
        self.opening: list[str] = []
        self.closing: list[str] = []
        self.taken: Counter[str] = Counter()
        self.acknowledged: Counter[str] = Counter()
        self.unsure: Counter[str] = Counter()
        """Taken, and the listener does not know, or did not hear of it."""
        self.handed: dict[str, Counter[str]] = {name: Counter() for name in SINKS}
        """Of what was acknowledged, what another sink handed over."""
        self.notices = 0
        """Of what was acknowledged, how many were notices: they are counted apart, since two may say the same."""
        self.doubtful_notices = 0
        self.latest = deque[logging.LogRecord](
            maxlen=max(1, min(self.batching.max_records, self.buffer.max_records // 2))
        )
        """The last batch that was acknowledged: perhaps it is still on disk."""

    @property
    def giver(self) -> str:
        """Whose records these are, where nothing is said: the first sink's, if it fell back on this one."""
        return SINKS[0] if self.name == OTHER else self.name or ""

    def number(self, *, once: bool) -> tuple[int, int]:
        """How many records were acknowledged, and of how many it is not known; each `once`, or each time."""
        return (len(self.acknowledged), len(self.unsure)) if once else (self.acknowledged.total(), self.unsure.total())

    def doubt(self, lane: Any) -> None:
        """The loop is closed, with what the lane has on its way."""

    def heal(self) -> None:
        self.script, self.opening, self.closing = [], [], []

    async def open(self) -> None:
        await interruptible(self._go("open", self.opening), self.machine.cancellations, "attempt")

    async def aclose(self) -> None:
        await interruptible(self._go("aclose", self.closing), self.machine.cancellations, "attempt")

    async def send(self, batch: Batch) -> None:
        await interruptible(self._send(batch), self.machine.cancellations, "attempt")

    async def _go(self, what: str, steps: list[str]) -> None:
        step = steps.pop(0) if steps else "works"
        tally.add(what, step)
        if step == "os error":
            raise OSError
        if step == "undeclared":
            raise ValueError
        await asyncio.sleep(60.0 if step == "hang" else SLOW if self.script else 0)

    async def _send(self, batch: Batch) -> None:
        self.machine.look_at_breakers()
        step = self.script.pop(0) if self.script else "works"
        tally.add("send", step)
        records = list(batch)
        if step in RAISED:
            raise RAISED[step]
        match step:
            case "partial":
                # The first is to be sent again, the second is refused, the others are taken.
                self._take(records[2:])
                raise PartialFailure(retry=records[:1], rejected=records[1:2])
            case "filtered":
                batch.filtered += records[::2]
                records = records[1::2]
            case "slow":
                await asyncio.sleep(SLOW)
            case "hang":
                await asyncio.sleep(60)
            case "deaf":
                await self._ignore_cancellation()
                self._take(records, sure=False)
                raise OSError
            case "taken, then broken":
                self._take(records, sure=False)
                raise OSError
            case "logs":
                self.machine._log_now(logging.ERROR, 1, False)
            case _:
                await asyncio.sleep(0)
        self._take(records)

    async def _ignore_cancellation(self) -> None:
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(2 * SEND_TIMEOUT)

    def _take(self, records: list[Any], *, sure: bool = True) -> None:
        numbers = numbers_of(records)
        self.taken.update(numbers)
        if not sure:
            self.unsure.update(numbers)
            return
        self.latest.extend(records)
        self.acknowledged.update(numbers)
        notices = [record for record in records if record.name in NOTICES]
        self.notices += len(notices)
        self.machine.rumours.hear(self, notices)
        if self.name == OTHER:
            for record in records:
                if record.name not in NOTICES:
                    self.handed[origin(self, record)][record.getMessage()] += 1


def numbers_of(records: Any) -> list[str]:
    """What was logged of these."""
    return [record.getMessage() for record in records if record.name not in NOTICES]


def origin(sink: Witness, record: Any) -> str:
    """The sink whose lane had the record first: a notice from its spool may go to its fallback, or be refused."""
    if record.name == DIGEST_LOGGER:
        return sink.name or ""
    return getattr(record, "dead_letter_sink", None) or getattr(record, "sink", QUEUE).replace(QUEUE, "") or sink.giver


class Rumours:
    """What notices told, by the sink they were for and the place (a sink, or the queue) they tell of."""

    def __init__(self) -> None:
        self.told: dict[tuple[str, str], Counter[tuple[str, str]]] = {}
        self.doubtful: dict[tuple[str, str], Counter[tuple[str, str]]] = {}
        """What may be told again: the loop was closed before the lane, or the disk, heard that a sink has it."""
        self.heard: Counter[str] = Counter()
        self.news = False

    def hear(self, sink: Witness, notices: list[Any]) -> None:
        """These were acknowledged."""
        for record in notices:
            self.heard[origin(sink, record)] += 1
            if record.name == LOSS_LOGGER:
                _note(self.told, origin(sink, record), record)
                self.news = True

    def doubt(self, sink: Witness, records: Any) -> None:
        """Those among these that are notices may come again."""
        for record in records:
            if record.name == LOSS_LOGGER:
                _note(self.doubtful, origin(sink, record), record)

    def check(self, stats: Any) -> None:
        """Nothing was told that is not counted."""
        if self.news:
            self.news = False
            for (name, place), told in self.told.items():
                counts = stats.intake if place == QUEUE else stats.sinks[name]
                invented = told - lost_of(counts) - self.doubtful.get((name, place), Counter())
                assert not invented, (name, place, invented)

    def check_all(self, name: str, stats: Any, *, by_level: bool) -> bool:
        """All that is counted was told, unless a notice was lost itself; tells whether that could be seen."""
        counts = stats.sinks[name]
        if self.heard[name] != counts.notices or any(name == known for known, _ in self.doubtful):
            return False
        assert self.told.get((name, name), Counter()) == lost_of(counts), (name, self.told, counts)
        if not by_level:
            assert self.told.get((name, QUEUE), Counter()) == lost_of(stats.intake), (name, self.told, stats.intake)
        return True


def _note(table: dict[tuple[str, str], Counter[tuple[str, str]]], name: str, record: Any) -> None:
    row = table.setdefault((name, record.sink), Counter())
    for reason, levels in record.lost.items():
        for level, count in levels.items():
            row[reason, level] += count


def lost_of(counts: Any) -> Counter[tuple[str, str]]:
    """What was dropped for reasons that are told of."""
    return Counter(
        {
            (reason, level): count
            for reason, levels in counts.dropped.items()
            if reason in TOLD
            for level, count in levels.items()
        }
    )


class PipelineMachine(RuleBasedStateMachine):
    """A pipeline with two sinks, driven step by step from its own loop and from threads."""

    name = "memory"
    kinds = KINDS
    witness: type[Witness] = Witness
    queue_size = QUEUE_SIZE
    ways: tuple[str, ...] = ("fallback", "dead_letters")
    """How each sink hands over to the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.cancellations = Cancellations(tally)
        self.rumours = Rumours()
        self.circuits: dict[str, tuple[object, str]] = {}
        self.with_levels: set[int] = set()
        self.loop = VirtualLoop()
        self.loop.set_task_factory(self.cancellations.factory)
        self.log = logging.getLogger(f"test.machine.{next(_numbers)}")
        self.log.setLevel(logging.DEBUG)
        self.log.propagate = False
        self.logged = self.odd = 0

    @initialize(
        overflow=st.sampled_from(["drop_new", "drop_old", "wait"]),
        buffer=st.sampled_from(BUFFERS),
        batching=st.sampled_from(BATCHINGS),
        retry=st.sampled_from(RETRIES),
        breaker=st.sampled_from(BREAKERS),
    )
    def begin(self, **options: Any) -> None:
        self._begin(**options)

    def _begin(self, overflow: Any, buffer: Buffer, batching: Batching, retry: Retry, breaker: Breaker) -> None:
        options: dict[str, Any] = {"send_timeout": SEND_TIMEOUT, "buffer": buffer, "batching": batching}
        options |= {"retry": retry, "breaker": breaker}
        other = self.witness(self, name=OTHER, **options)
        routed = [
            self.witness(self, name=name, spool=self._spool(name), **options, **{way: other})
            for name, way in zip(SINKS, self.ways, strict=False)
        ]
        self.sinks = [*routed, other]
        self.pipeline = Pipeline(*routed, logger=self.log, queue_size=self.queue_size, overflow=overflow)
        self.lanes = self.pipeline.listener._lanes
        for lane in self.lanes:
            # When a notice is due is a matter of the loop's time here.
            lane.losses = Losses(lane.name, lambda: self.loop.now, lambda: 1e9 + self.loop.now)
        self.listener = self.pipeline.listener
        self.cancellations.watch = self._check_balance
        # Attached for good: what is logged between two runs waits for the next.
        self.log.handlers = [self.pipeline.handler]
        self._run(self._start())

    def _spool(self, name: str) -> Spool | None:
        return None

    def _sink(self, number: int) -> Witness:
        return self.sinks[number % len(self.sinks)]

    # -- what happens ------------------------------------------------------------------------------------------------

    @step(what=st.sampled_from(LOGGING))
    def log_from_the_loop(self, what: tuple[int, int, bool]) -> None:
        self._run(self._log(*what))

    @step(what=st.sampled_from(LOGGING))
    def log_from_threads(self, what: tuple[int, int, bool]) -> None:
        threads = [Thread(target=self._log_now, args=what) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @step(level=st.sampled_from(LEVELS), count=st.sampled_from([3, 12, 40]))
    def log_from_threads_while_the_loop_runs(self, level: int, count: int) -> None:
        async def log() -> None:
            self.loop.visitors += 1
            try:
                await asyncio.gather(*(self._in_thread(self._log_and_look, level, count) for _ in range(2)))
            finally:
                self.loop.visitors -= 1

        self._run(log())

    @step(what=st.sampled_from(LOGGING))
    def log_without_a_loop(self, what: tuple[int, int, bool]) -> None:
        self._log_now(*what)

    @step()
    def put_what_is_no_record(self) -> None:
        self._run(self._put(object()))

    @step(seconds=st.sampled_from([0.0, 0.0, 0.05, 0.5, 3.0, 30.0]), turns=st.sampled_from([1, 3, 10]))
    def let_time_pass(self, seconds: float, turns: int) -> None:
        async def turn() -> None:
            for _ in range(turns):
                await asyncio.sleep(seconds / turns)

        self._run(turn())

    @step(sink=st.sampled_from([0, 1, 2]), script=st.sampled_from(SCRIPTS))
    def fail(self, sink: int, script: tuple[str, ...]) -> None:
        self._sink(sink).script += script

    @step(sink=st.sampled_from([0, 1, 2]), opening=st.sampled_from(OPENING), closing=st.sampled_from(CLOSING))
    def fail_to_open_and_close(self, sink: int, opening: str, closing: str) -> None:
        self._sink(sink).opening = [opening]
        self._sink(sink).closing = [closing]

    @step(sink=st.sampled_from([0, 1, 2]), level=st.sampled_from(LEVELS))
    def set_level(self, sink: int, level: int) -> None:
        self._sink(sink).setLevel(level)
        self.with_levels.add(self.sinks.index(self._sink(sink)))

    @step(sink=st.sampled_from([0, 1]), kind=st.sampled_from(FILTERS))
    def set_filter(self, sink: int, kind: str) -> None:
        filtered = self.sinks[sink % len(self.ways)]

        def odd(record: logging.LogRecord) -> bool:
            return int(record.getMessage()) % 2 == 1

        def raises(record: logging.LogRecord) -> bool:
            tally.add("filter", kind)
            raise ValueError(record)

        def interrupts(record: logging.LogRecord) -> bool:
            filtered.filters[:] = []
            tally.add("filter", kind)
            raise KeyboardInterrupt

        def slow(record: logging.LogRecord) -> bool:
            tally.add("filter", kind)
            sleep(0.0006)  # longer than a slice of the loop's time
            return True

        filters = {"none": None, "odd": odd, "raises": raises, "interrupts": interrupts, "slow": slow}
        chosen: Any = filters[kind]
        filtered.filters[:] = [] if chosen is None else [chosen]

    @step()
    def start(self) -> None:
        self._run(self._start())

    @step(timeout=st.sampled_from([0.0, 0.02, 0.7, 5.0]))
    def stop(self, timeout: float) -> None:
        self._apply(self.listener.stop(timeout))

    @step(timeout=st.sampled_from([0.0, 0.1, 20.0]))
    def flush(self, timeout: float) -> None:
        self._apply(self._flush(timeout))

    @step(entry=st.sampled_from(ENTRIES), level=st.sampled_from(LEVELS), nth=st.sampled_from([0, 1, 2, 3, 4, 5]))
    def enter_log_and_leave(self, entry: str, level: int, nth: int) -> None:
        if nth:
            self.cancellations.arm("application", nth, answered=False)
        self._apply(self._enter(entry, level))
        self.log.handlers = [self.pipeline.handler]

    @step(place=st.sampled_from(PLACES), script=st.sampled_from(SCRIPTS))
    def cancel_at_an_await(self, place: tuple[str, int, bool, str], script: tuple[str, ...]) -> None:
        kind, nth, answered, then = place
        self.sinks[0].script += script
        if then == "stops":
            self._apply(self._live())
            self.cancellations.arm(kind, nth, answered=answered)
            self._apply(self.listener.stop(0.7))
        else:
            self.cancellations.arm(kind, nth, answered=answered)
            self._apply(self._live())

    @step()
    def cancel_all_tasks(self) -> None:
        async def cancel() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()

        self._run(cancel())

    @step()
    def stop_and_move_to_another_loop(self) -> None:
        self._run(self.listener.stop(0.0))
        self._close()
        self._new_loop()

    @step()
    def abandon_the_loop(self) -> None:
        """As when a loop is closed without a stop, or the process forgets it otherwise."""
        self._abandon()
        self._new_loop()

    # -- what holds --------------------------------------------------------------------------------------------------

    @invariant()
    def balances(self) -> None:
        if hasattr(self, "pipeline"):
            stats = self._check_balance()
            assert stats.intake.offered == self.logged + self.odd
            *routed, other = (stats.sinks[sink.name or ""] for sink in self.sinks)
            assert {counts.offered - counts.notices for counts in routed} == {stats.intake.delivered}
            handed = sum(getattr(counts, FATES[way]) for counts, way in zip(routed, self.ways, strict=True))
            assert other.offered - other.notices == handed
            # A slice that was interrupted has as many in its hand.
            assert stats.intake.pending <= 2 * self.queue_size + 2
            self.rumours.check(stats)
            self.look_at_breakers()
            assert not stats.intake.dropped.get("shed", {}).keys() - {"DEBUG", "INFO"}
            for sink in self.sinks:
                shed = stats.sinks[sink.name or ""].dropped.get("shed", {})
                assert all(logging.getLevelNamesMapping()[level] < sink.buffer.shed_below for level in shed)

    def _check_balance(self) -> Any:
        stats = self.pipeline.stats()
        assert stats.balanced, stats
        return stats

    def teardown(self) -> None:
        try:
            if hasattr(self, "pipeline"):
                self._end()
            self._close()
        finally:
            self.log.handlers = []
            self.loop.close()

    def _end(self) -> None:
        self.cancellations.disarm()
        for sink in self.sinks:
            sink.heal()
        # A listener whose tasks were cancelled is ending by itself: what came since is for the next start.
        self._run(self.listener.stop(10))
        report = self._run(self._finish())
        assert report.complete
        assert report.balanced
        for sink in self.sinks:
            self._check(sink, report)
        self._tally(report)

    async def _finish(self) -> Any:
        await self._start()
        return await self.listener.stop(60)

    def _check(self, sink: Witness, report: Any) -> None:
        counts = report.sinks[sink.name or ""]
        other = self.sinks[-1]
        most = Counter(dict.fromkeys(sink.taken, 2 if sink is other else 1))  # two may have handed it over
        again = sink.taken - most - sink.unsure
        # What lay on disk still when its loop was closed is found again, and counted again.
        repeated = sum(giver.recovered for giver in report.sinks.values()) if sink is other else 0
        assert again.total() <= repeated, again
        # What was taken when its loop was abandoned may have been dropped since, for all that the lane knows.
        acknowledged, unsure = sink.number(once=sink is not other)
        acknowledged += sink.notices
        doubtful = sink.doubtful_notices
        assert counts.delivered - counts.recovered <= acknowledged <= counts.delivered + unsure + doubtful
        assert counts.pending == counts.spooled == 0
        assert counts.state == "stopped"
        if sink is not other:
            fates = sink.acknowledged + other.handed[sink.name or ""]
            again = fates - Counter(fates.keys()) - sink.unsure - other.unsure
            assert again.total() <= counts.recovered, again
            by_level = self.sinks.index(sink) in self.with_levels
            if self.rumours.check_all(sink.name or "", report, by_level=by_level) and lost_of(counts):
                tally.add("notices", "told all")
        elif self.rumours.heard[OTHER] == counts.notices and (OTHER, OTHER) not in self.rumours.doubtful:
            assert self.rumours.told.get((OTHER, OTHER), Counter()) == lost_of(counts)

    def _tally(self, report: Any) -> None:
        tally.add("example", self.name)
        for where, counts in (("intake", report.intake), *(("sink", counts) for counts in report.sinks.values())):
            for reason, levels in counts.dropped.items():
                tally.add(f"dropped by the {where}", reason, sum(levels.values()))
            for fate in ("delivered", "filtered", "printed", "recovered", "diverted", "dead_lettered", "notices"):
                tally.add(f"at the {where}", fate, getattr(counts, fate))
        tally.add("sinks", "taken twice", sum((sink.taken - Counter(sink.taken.keys())).total() for sink in self.sinks))

    # ----------------------------------------------------------------------------------------------------------------

    async def _log(self, level: int, count: int, error: bool) -> None:
        self._log_now(level, count, error)

    def _log_now(self, level: int, count: int, error: bool) -> None:
        for _ in range(count):
            self.log.log(level, "%d", next(_numbers), exc_info=ValueError("x") if error else None)
        with _counting:
            self.logged += count

    def _log_and_look(self, level: int, count: int) -> None:
        self._log_now(level, count, False)
        self._check_balance()

    async def _live(self) -> None:
        await self._start()
        self._log_now(logging.WARNING, 2, False)
        self._log_now(logging.ERROR, 2, True)
        await asyncio.sleep(0.01)
        await self.pipeline.flush(0.5)
        await asyncio.sleep(2.0)

    async def _enter(self, entry: str, level: int) -> None:
        if entry == "listener":
            await self.listener.stop(0.5)
            async with self.listener:
                await self._log(level, 3, True)
        elif entry == "iterator":
            async for _ in self.pipeline(None):
                await self._log(level, 3, True)
        else:
            async with self.pipeline(None) if entry == "lifespan" else self.pipeline:
                if entry == "twice":
                    async with self.pipeline:
                        await self._log(level, 3, False)
                await self._log(level, 3, True)
                await self.pipeline.flush(0.5)

    async def _put(self, item: Any) -> None:
        if self.pipeline.stats().intake.pending < self.queue_size:
            self.listener.queue.put_nowait(item)
            self.odd += 1
        if self.listener.running:
            self._log_now(logging.ERROR, 1, False)  # nobody else tells the listener of it

    async def _start(self) -> None:
        if not self.listener.running:
            self.listener.start()

    async def _flush(self, timeout: float) -> None:
        report = await self.pipeline.flush(timeout)
        if report.complete:
            # Nothing is logged in between: complete means empty, but for what is told of losses since.
            assert report.intake.pending == 0, report
            for lane in self.lanes:
                assert report.sinks[lane.name].pending == len(lane.backlog.notices), report

    async def _in_thread(self, function: Any, *arguments: Any) -> None:
        done = asyncio.get_running_loop().create_future()

        def call() -> None:
            try:
                function(*arguments)
            except BaseException as error:
                self.loop.call_soon_threadsafe(done.set_exception, error)
            else:
                self.loop.call_soon_threadsafe(done.set_result, None)

        Thread(target=call).start()
        await done

    def _apply(self, coroutine: Any) -> None:
        """Run it as the application's task, which may be cancelled."""
        with suppress(asyncio.CancelledError):
            self._run(self.loop.create_task(coroutine, name="application"))

    def _run(self, awaitable: Any) -> Any:
        task = asyncio.ensure_future(awaitable, loop=self.loop)
        while True:
            try:
                return self.loop.run_until_complete(task)
            except KeyboardInterrupt:
                tally.add("loop", "Ctrl-C")

    def look_at_breakers(self) -> None:
        for lane in self.lanes:
            circuit = lane._circuit
            if circuit is not None:
                known, before = self.circuits.get(lane.name, (None, "closed"))
                if known is not circuit:
                    before = "closed"
                if circuit.state != before:
                    tally.add("breaker", "opened" if (before, circuit.state) == ("closed", "open") else circuit.state)
                self.circuits[lane.name] = circuit, circuit.state

    def _new_loop(self) -> None:
        self.loop = VirtualLoop(self.loop.now)
        self.loop.set_task_factory(self.cancellations.factory)

    def _abandon(self) -> None:
        if self.listener.running:
            for sink, lane in zip(self.sinks, self.lanes, strict=True):
                # Perhaps it was taken, and the lane, or the disk, was not told.
                flying = [*map(made, lane.backlog.flying), *lane.backlog.notices.values()]
                if sink.spool is not None:
                    flying += [record for record in sink.latest if record not in flying]
                sink.unsure.update(set(numbers_of(flying)))
                sink.doubtful_notices += sum(record.name in NOTICES for record in flying)
                sink.doubt(lane)
                self.rumours.doubt(sink, flying)
                tally.add("loop", "abandoned while records were in flight", bool(flying))
        for task in asyncio.all_tasks(self.loop):
            coro: Any = task.get_coro()
            if getcoroutinestate(coro) == CORO_CREATED:
                coro.close()  # it never had a turn: Python would warn of it
        self.loop.close()

    def _close(self) -> None:
        async def settle() -> None:
            # An attempt that was given up at the last moment, and nothing else.
            async with asyncio.timeout(30):
                while others := asyncio.all_tasks() - {asyncio.current_task()}:
                    await asyncio.wait(others)

        self._run(settle())
        self._run(self.loop.shutdown_asyncgens())
        self.loop.close()


class AloneMachine(PipelineMachine):
    """The same with one sink, whose lane holds plain records as snapshots, until somebody asks for records."""

    name = "alone"
    ways = ("fallback",)

    @rule()
    def look_whether_these_are_snapshots(self) -> None:
        for held in self.lanes[0].backlog.waiting:
            tally.add("waits as", "a record" if isinstance(held, Record) else "a snapshot")


class RefusedMachine(AloneMachine):
    """And what it refuses goes to the dead letters."""

    name = "refused"
    ways = ("dead_letters",)


class SpooledMachine(PipelineMachine):
    """The same with a spool behind each sink: one for outages, one that stores everything."""

    name = "spool"
    patience = 600
    """Seconds after which all is to be delivered."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="offloop-machine-"))
        self.directory = self.folder / "spool"
        self.max_bytes = 0

    @initialize(
        overflow=st.sampled_from(["drop_new", "drop_old", "wait"]),
        buffer=st.sampled_from(BUFFERS),
        batching=st.sampled_from(BATCHINGS),
        retry=st.sampled_from(RETRIES),
        breaker=st.sampled_from(BREAKERS),
        disk=st.sampled_from(["works", "works", "small", "broken"]),
    )
    def begin(self, disk: str, **options: Any) -> None:
        self.max_bytes = 5_000 if disk == "small" else 10_000_000
        if disk == "broken":
            self.directory.touch()  # no directory can be made in its place
        self._begin(**options)

    def _spool(self, name: str) -> Spool | None:
        when: Any = "outage" if name == "one" else "always"
        return Spool(self.directory, when=when, max_bytes=self.max_bytes)

    @step()
    def mend_the_disk(self) -> None:
        if self.directory.is_file():
            self.directory.unlink()
            tally.add("disk", "mended")
        for lane in self.lanes:
            if isinstance(lane, SpooledLane):
                lane._retry_at = 0.0  # by the process's clock, which goes slowly here

    @step(place=st.sampled_from(SPOOL_PLACES), script=st.sampled_from(SCRIPTS))
    def cancel_the_spool_at_an_await(self, place: tuple[str, int, bool, str], script: tuple[str, ...]) -> None:
        self.cancel_at_an_await(place, script)

    def _check(self, sink: Witness, report: Any) -> None:
        super()._check(sink, report)
        assert "corrupt" not in report.sinks[sink.name or ""].dropped, report

    async def _finish(self) -> Any:
        self.mend_the_disk()
        await self._start()
        stats = self.pipeline.stats()
        for _ in range(self.patience):
            stats = self.pipeline.stats()
            if not any(counts.spooled or counts.pending for counts in stats.sinks.values()):
                break
            await asyncio.sleep(self.patience / 600)
        else:
            raise AssertionError(f"not drained: {stats}")
        return await super()._finish()

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            shutil.rmtree(self.folder)


FEW = settings(max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TestPipelineMachine = PipelineMachine.TestCase
TestPipelineMachine.settings = FEW
TestAloneMachine = AloneMachine.TestCase
TestAloneMachine.settings = settings(FEW, max_examples=30)
TestRefusedMachine = RefusedMachine.TestCase
TestRefusedMachine.settings = settings(FEW, max_examples=10)
TestSpooledMachine = SpooledMachine.TestCase
TestSpooledMachine.settings = settings(FEW, max_examples=10)


def play(disk: str, *steps: tuple[str, dict[str, Any]], **options: Any) -> None:
    """Steps that once went wrong, as the machine itself would play them."""
    machine = SpooledMachine()
    given: dict[str, Any] = {
        "overflow": "drop_new",
        "buffer": Buffer(max_records=4),
        "batching": Batching(max_records=1),
        "retry": Retry(initial=0.1, maximum=2.0),
        "breaker": Breaker(failures=2),
    }
    try:
        machine.begin(disk=disk, **given | options)
        machine.balances()
        for name, arguments in steps:
            getattr(machine, name)(**arguments)
            machine.balances()
    finally:
        machine.teardown()


CANCELLED = ("offloop", 1, False, "goes on")


@pytest.mark.parametrize("_", range(5))  # what the thread of the spool does first is not ours to say
def test_lane_that_can_tell_nobody_of_a_loss_ends(_: int) -> None:
    """Its own time is over, its disk fails, the fallback gets what is left, and a notice is due: a stop is complete."""
    play(
        "broken",
        ("abandon_the_loop", {}),
        ("fail", {"script": ("undeclared",) * 6, "sink": 1}),
        ("put_what_is_no_record", {}),
        ("cancel_at_an_await", {"place": CANCELLED, "script": ("permanent",)}),
    )


@pytest.mark.parametrize("_", range(5))
def test_notice_on_its_way_to_disk_is_told_once(_: int) -> None:
    """A loop that is closed while a stop stores what could not be told."""
    play(
        "works",
        ("abandon_the_loop", {}),
        ("enter_log_and_leave", {"entry": "listener", "level": 10, "nth": 5}),
        ("put_what_is_no_record", {}),
        ("cancel_at_an_await", {"place": CANCELLED, "script": ("temporary",)}),
        ("cancel_all_tasks", {}),
        ("abandon_the_loop", {}),
    )


def test_notice_is_told_in_the_next_loop() -> None:
    """A sink that had failed in a loop which was closed is not away for the next one: a stop there tells of losses."""
    play(
        "works",
        (
            "cancel_the_spool_at_an_await",
            {"place": ("offloop:one:spool", 1, False, "goes on"), "script": ("temporary",)},
        ),
        ("start", {}),
        ("fail", {"script": ("partial", "permanent"), "sink": 0}),
        ("let_time_pass", {"seconds": 0.5, "turns": 1}),
        ("abandon_the_loop", {}),
        buffer=Buffer(max_records=10, shed_at=0.5, reserve=0.3),
        batching=Batching(),
    )


@pytest.mark.parametrize("_", range(5))  # what the thread of the spool does first is not ours to say
def test_lane_that_is_stopped_before_its_first_turn_tells_of_losses(_: int) -> None:
    """Also what a notice said that was lost itself when it stopped last."""
    play(
        "broken",
        ("log_from_threads", {"what": (10, 1, False)}),
        ("stop_and_move_to_another_loop", {}),
        ("fail", {"script": ("temporary",), "sink": 0}),
        ("log_from_threads", {"what": (10, 1, False)}),
        ("log_from_threads_while_the_loop_runs", {"count": 3, "level": 10}),
        ("start", {}),
        ("fail_to_open_and_close", {"closing": "os error", "opening": "os error", "sink": 0}),
        ("stop_and_move_to_another_loop", {}),
        buffer=Buffer(4, overflow="drop_new"),
    )
