"""The listener: one task that takes records off the queue and routes each to the lanes of the sinks that want it."""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import events
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from importlib import import_module
from itertools import compress
from types import NoneType, TracebackType
from typing import Any, Self

import anyio

from offloop import diagnostics, fork
from offloop.capture import Held, made, text_of
from offloop.delivery import marked_context
from offloop.errors import ConfigError, PipelineInUse
from offloop.gate import Accept, acceptance
from offloop.intake import Intake
from offloop.lane import Lane
from offloop.ledger import Report, Stats
from offloop.pacer import Pacer
from offloop.policies import at_least
from offloop.run import Run
from offloop.shutdown import BEYOND, Shutdown
from offloop.sifting import sift
from offloop.sink import Destination, Sink, check_kind
from offloop.spool import Spool
from offloop.stderr import Budget
from offloop.wiring import Wiring
from offloop.worker import Worker

__all__ = ["QueueListener"]

# anyio imports its backend in the first call into it, which would hold the loop for tens of milliseconds.
import_module("anyio._backends._asyncio")

_HAND, _SMALL_HAND = 256, 48  # records taken from the queue at a time; where kinds are told apart
_MANY, _FEW = 128, 16  # records routed between two looks at the clock; with filters
_TURNS = 10  # of the loop, that tasks get to end in when their time is over
_ROUNDS = 5  # how often a stop goes back for what was logged meanwhile

Wait = Callable[[asyncio.Future[None], float], Awaitable[bool]]


class QueueListener:
    """Takes records from an `asyncio.Queue` and has each delivered to the sinks whose level and filters it passes.

    Each sink has a lane of its own: order is kept per sink, and one that hangs delays no other. Any number of
    `QueueHandler`s may put records on the queue, from any thread. Use it as `async with listener:`, or call `start` and
    `stop`; it may be started again after it was stopped, in another event loop too.
    """

    def __init__(
        self,
        queue: asyncio.Queue[Any],
        *sinks: Destination,
        respect_handler_level: bool = True,
        shutdown_timeout: float = 5.0,
        spool: Spool | None = None,
        fallback: Destination | None = None,
    ) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            queue: The queue of the handlers.
            sinks: `Sink`s, plain `logging.Handler`s (each works in a thread of its own), or callables, async or not,
                that take a list of records (a sync one works in a thread of its own).
            respect_handler_level: Whether a record below a sink's level is kept from it.
            shutdown_timeout: Seconds that `stop` takes at most where it is not told otherwise.
            spool: Where the records of each sink are kept on disk that has no spool of its own; bounds are for each of
                them. None: in memory alone. The sinks stay as they are.
            fallback: What each sink falls back on that has no `fallback` of its own: a sink, which gets what the others
                can't deliver. It may be one of the sinks, and has a fallback only if it has one of its own.

        Raises:
            ConfigError: Not a queue, something that is no sink, two sinks of one name, or sinks that fall back on one
                another.
        """
        if not isinstance(queue, asyncio.Queue):
            msg = f"QueueListener: queue must be an asyncio.Queue, got {queue!r}"
            raise ConfigError(msg)
        at_least("QueueListener: ", "shutdown_timeout", shutdown_timeout, 0, "seconds")
        if spool is not None:
            check_kind("QueueListener", "spool", spool, Spool)
        wiring = Wiring(sinks, fallback, spool, respect_level=respect_handler_level)
        for lane in wiring.lanes:
            handler = getattr(lane.sink, "handler", lane.sink)
            if getattr(handler, "queue", None) is queue:
                msg = f"QueueListener: {handler!r} puts records on the queue that this listener takes them from"
                raise ConfigError(msg)
        self.queue = queue
        self.sinks: tuple[Sink, ...] = wiring.sinks
        self.respect_handler_level = respect_handler_level
        self.shutdown_timeout = shutdown_timeout
        self._intake = Intake.of(queue)
        self._lanes: Sequence[Lane] = wiring.lanes
        self._routed: Sequence[Lane] = wiring.routed
        self._depth = wiring.depth
        self._renderer = Worker("offloop-tracebacks")
        self._budget: Budget | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._run: Run | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._complete = True
        self._watchers: set[asyncio.Future[None]] = set()
        if self._intake.server is None:
            self._intake.server = self
        fork.inherits(self)

    # -- in and out --------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended, in a loop that is still open."""
        return self._run is not None and self._loop is not None and not self._loop.is_closed()

    @property
    def _idle(self) -> bool:
        """Whether nothing is held."""
        return not self._intake.pending and not any(lane.counts().pending for lane in self._lanes)

    @property
    def runs_here(self) -> bool:
        """Whether it is running in the event loop of the caller."""
        return self.running and self._loop is events._get_running_loop()  # noqa: SLF001 - documented for frameworks

    def start(self) -> None:
        """Begin to listen in the running event loop.

        Raises:
            RuntimeError: No event loop runs in this thread.
            PipelineInUse: It is running already, or another listener serves this queue.
        """
        loop = asyncio.get_running_loop()
        if self.running:
            where = "this" if self._loop is loop else "another"
            msg = f"the listener is already running in {where} event loop: stop it there first"
            raise PipelineInUse(msg)
        if self._intake.served:
            msg = "another listener serves this queue: stop it first, or give it more sinks"
            raise PipelineInUse(msg)
        if self._run is not None:
            self.give_up()  # its loop was closed without a stop: nothing of that one is to be woken from here
        self._loop = loop
        shutdown, budget = Shutdown(self.shutdown_timeout), self._budget or Budget()
        self._run = run = Run(Pacer(), shutdown, self._renderer, self._progressed, budget)
        self._intake.server = self
        self._intake.attach(self._floor)
        run.shutdown.tell(self._intake.wake)
        self._tasks = {}
        for lane in self._lanes:
            self._keep(f"offloop:{lane.name}", run, lane.main)
            if lane.porter.needed:
                self._keep(f"offloop:{lane.name}:divert", run, lane.porter.carry)
        self._keep("offloop:route", run, self._route_on)
        self._keep("offloop", run, self._main)

    async def stop(self, timeout: float | None = None) -> Report:
        """Route what is queued, deliver what the lanes hold, close the sinks, all within one deadline.

        What is left then is printed on stderr, at most 1 MiB, and counted as `printed`; the rest is counted as dropped
        (`shutdown`). What is logged after it waits for the next start, or for the exit of the process. A
        cancellation does not end it before the deadline, a second one does; either is raised again at the end.

        Args:
            timeout: Seconds; None: `shutdown_timeout`. A sink that hangs costs the deadline and at most 0.1 s more.

        Returns:
            The counts at the end. Stopping what does not run returns at once.
        """
        started = time.monotonic()
        run = self._run
        if run is None or not self.running:
            return self._report(started, complete=self._idle)
        self._check_loop("stop")
        run.shutdown.begin(self.shutdown_timeout if timeout is None else timeout)
        current = asyncio.current_task()
        cancellations = current.cancelling() if current is not None else 0
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):
            while self._run is run and self.running:
                try:
                    await asyncio.wait((self._tasks["offloop"],))
                except asyncio.CancelledError as error:
                    cancelled = error
                    cancellations += 1
                    if cancellations > 1:
                        run.shutdown.begin(0.0)
        if cancelled is not None:
            raise cancelled
        return self._report(started, complete=self._complete)

    async def flush(self, timeout: float | None = None) -> Report:
        """Wait until every record offered before the call is settled, or the deadline has passed.

        It does not wait for `Batching.max_wait`, and does wait for the backoff of a sink that fails.

        Args:
            timeout: Seconds; None: `shutdown_timeout`.

        Returns:
            The counts, and in `complete` whether all was settled.
        """
        started = time.monotonic()
        if not self.running:
            return self._report(started, complete=self._idle)
        self._check_loop("flush")
        clock = asyncio.get_running_loop().time
        until = clock() + (self.shutdown_timeout if timeout is None else timeout)
        complete = await self._settled(_plain_wait, lambda: until - clock())
        return self._report(started, complete=complete)

    def stats(self) -> Stats:
        """A snapshot of the counts, from any thread, at any time."""
        return Stats(self._intake.counts(), {lane.name: lane.counts() for lane in self._lanes})

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped"
        return f"<{type(self).__name__} {state}, {len(self.sinks)} sinks, {self._intake.pending} waiting>"

    # -- the end of the process --------------------------------------------------------------------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop it was started in and has not been stopped in."""
        return self._loop if self._run is not None else None

    @property
    def holds(self) -> bool:
        """Whether records wait here or in the queue."""
        return not self._idle

    async def finish(self, budget: Budget) -> None:
        """Deliver what is left, in a loop that is there for nothing else; what can't be is printed."""
        self._budget = budget
        self.start()
        await self.stop()

    def give_up(self) -> None:
        """Forget a loop that will not go on; what it left is for the next start."""
        for task in self._tasks.values():
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - what they held lives on here
        if self._run is not None:
            self._run.shutdown.abandon()
        self._loop = self._run = None
        self._tasks = {}
        self._watchers = set()
        self._intake.detach()
        for lane in self._lanes:
            lane.give_up()

    def surrender(self, budget: Budget) -> None:
        """Print what the lanes hold, on this thread, since no loop will run any more."""
        self.give_up()
        for lane in self._lanes:
            lane.surrender(budget)

    def after_fork(self) -> None:
        """In a child: nothing runs, nothing is held, nothing is counted."""
        fork.keep(self._loop, self._tasks, self._run)
        self.give_up()
        for lane in self._lanes:
            lane.after_fork()

    # -- the task ----------------------------------------------------------------------------------------------------

    def _keep(self, name: str, run: Run, main: Callable[[Run], Coroutine[Any, Any, None]]) -> None:
        """Run it as a task, and again should it end before its time.

        That is a cancellation before its first step, or what no task survives: Ctrl-C within a filter or a formatter.
        """
        task = asyncio.get_running_loop().create_task(main(run), name=name, context=marked_context())
        self._tasks[name] = task

        def ended(task: asyncio.Task[None]) -> None:
            if self._run is not run:
                return
            if task.cancelled() or not isinstance(task.exception(), (Exception, NoneType)):
                diagnostics.report(f"task:{name}", f"the task {name} was ended from outside, and is started again")
                if task.cancelled():
                    run.shutdown.interrupt()
                self._keep(name, run, main)

        task.add_done_callback(ended)

    async def _main(self, run: Run) -> None:
        """Wait for the shutdown, see that everything is settled, and let the tasks end."""
        hold = run.shutdown.hold
        await hold(run.shutdown.started)
        for _ in range(_TURNS):
            # Tasks that are cancelled together with ours may log in their next turn: they get it first.
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        for _ in range(_ROUNDS):
            self._complete = await self._settled(hold, lambda: run.shutdown.remaining)
            if not self._complete or not self._intake.pending:
                break  # what is still logged after some rounds waits for the next start
        self._pass_on_losses()
        run.routed = True
        self._intake.retire()
        self._intake.wake()
        for lane in self._lanes:
            lane.wake()
        for name in self._tasks.keys() - {"offloop"}:
            # Anew, since a task that was ended is replaced.
            while not (task := self._tasks[name]).done() and await hold(task, beyond=BEYOND + 0.02):
                pass
        for _ in range(_TURNS):
            # The process may have been suspended over the deadline: what is over its time ends in its next turn.
            if all(task.done() for name, task in self._tasks.items() if name != "offloop"):
                break
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        if self._run is not run:
            return
        self._intake.detach()
        self._renderer.close()
        run.printer.close()
        self._run = None
        self._progressed()

    async def _route_on(self, run: Run) -> None:
        """Route what comes, until nothing more is to be routed."""
        while not run.routed and not run.shutdown.over:
            sleeper = self._intake.sleep()
            if sleeper is not None:
                await run.shutdown.nap(sleeper)
                continue
            try:
                # Threads may log faster than is routed: that there is more is no reason to go on for ever.
                await run.work(lambda deadline: run.routed or run.shutdown.over or self._route(deadline))
            except Exception as error:  # noqa: BLE001 - no fault may end the listener; it is reported
                diagnostics.report("listener", f"the listener failed: {type(error).__name__}: {text_of(error)}")

    def _route(self, deadline: float) -> bool:
        """Route a handful of records; True if there are no more."""
        routes = self._routes()
        # What is routed in a slice is admitted in one piece: no more of it where that takes time for each record.
        has_kinds = any(lane.gathering is not None for _, _, lane in routes)
        hand = self._intake.take(_SMALL_HAND if has_kinds else _HAND)
        vetted = self._intake.vetted
        levels_matter = any(floor > logging.NOTSET for floor, _, _ in routes)
        are_records = not all(lane.takes_snapshots and accept is None for _, accept, lane in routes)
        step = _FEW if has_kinds or any(accept is not None for _, accept, _ in routes) else _MANY
        start = count = 0
        while start < len(hand):
            piece = hand[start : start + step]
            held, sizes, levels, odd = sift(piece, deadline, vetted=vetted, with_levels=levels_matter or has_kinds)
            if are_records:
                held = list(map(made, held, sizes))
            lowest = min(levels) if levels_matter and levels else None
            for floor, accept, lane in routes:
                mine: Sequence[Held] = held
                my_sizes: Sequence[int] = sizes
                if lowest is not None and lowest < floor:
                    wanted = [level >= floor for level in levels]
                    mine, my_sizes = list(compress(held, wanted)), list(compress(sizes, wanted))
                if accept is not None:
                    accepted = list(filter(None, map(accept, map(made, mine))))
                    mine, my_sizes = accepted, [record.size_bytes for record in accepted]
                if lane.gathering is not None:
                    lane.listen(zip(held, levels, strict=True), floor, mine)
                lane.chunk.extend(mine)
                lane.sizes.extend(my_sizes)
            start += len(held) + odd
            count += len(held)
            if time.perf_counter() >= deadline:
                break
        odd = start - count
        for lane in self._routed:
            lane.commit(count)
        self._intake.commit(count, odd)
        self._pass_on_losses()
        if odd:
            diagnostics.report("odd", f"{odd} item(s) on the queue were no records")
        self._progressed()
        return not self._intake.pending

    def _pass_on_losses(self) -> None:
        """Let each lane know of what was lost in the queue, and would have been for it by its level."""
        if self._intake.lossy:
            lost = self._intake.losses()
            for lane in self._routed:
                lane.lost_before(lost, lane.sink.level if self.respect_handler_level else logging.NOTSET)

    def _routes(self) -> list[tuple[int, Accept | None, Lane]]:
        """Level, filter and lane of each sink, as they are now."""
        alone = len(self._routed) == 1
        for lane in self._routed:
            lane.clear_chunk()  # of a slice that was interrupted: its records are in the hand still
        return [
            (
                lane.sink.level if self.respect_handler_level else logging.NOTSET,
                acceptance(lane.sink, alone=alone) if lane.sink.filters else None,
                lane,
            )
            for lane in self._routed
        ]

    def _floor(self) -> int:
        """The lowest level any sink takes."""
        if not self.respect_handler_level or not self.sinks:
            return logging.NOTSET
        return min(lane.hears for lane in self._routed)

    # -- waiting -----------------------------------------------------------------------------------------------------

    async def _settled(self, wait: Wait, left: Callable[[], float]) -> bool:
        """Wait until all that was offered by now is settled; False if the time ran out."""
        mark = self._intake.mark()
        if not await self._until(lambda: self._intake.passed(mark), wait, left):
            return False
        # A lane may hand over to those below it: what they hold after that is waited for there.
        for depth in range(self._depth + 1):
            lanes = [lane for lane in self._lanes if lane.depth >= depth]
            if not await self._passed(lanes, wait, left):
                return False
        return True

    async def _passed(self, lanes: Sequence[Lane], wait: Wait, left: Callable[[], float]) -> bool:
        """Wait until all that these lanes hold is settled, or handed over."""
        barriers = [(lane, lane.barrier()) for lane in lanes]
        try:
            if not await self._until(lambda: not any(barrier.ahead for _, barrier in barriers), wait, left):
                return False
        finally:
            for lane, barrier in barriers:
                lane.forget(barrier)
        marks = [(lane.porter, lane.porter.mark()) for lane in lanes]
        return await self._until(lambda: all(porter.moved >= mark for porter, mark in marks), wait, left)

    async def _until(self, condition: Callable[[], bool], wait: Wait, left: Callable[[], float]) -> bool:
        while not condition():
            seconds = left()
            if seconds <= 0 or not self.running:
                return False
            watcher = asyncio.get_running_loop().create_future()
            self._watchers.add(watcher)
            try:
                await wait(watcher, seconds)
            finally:
                self._watchers.discard(watcher)
        return True

    def _progressed(self) -> None:
        """Something was routed or settled."""
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_result(None)

    def _report(self, started: float, *, complete: bool) -> Report:
        stats = self.stats()
        return Report(stats.intake, stats.sinks, complete=complete, elapsed=time.monotonic() - started)

    def _check_loop(self, what: str) -> None:
        if asyncio.get_running_loop() is not self._loop:
            msg = f"{what} was called in another event loop than the one the listener runs in"
            raise PipelineInUse(msg)


async def _plain_wait(future: asyncio.Future[None], seconds: float) -> bool:
    done, _ = await asyncio.wait((future,), timeout=seconds)
    return bool(done)
