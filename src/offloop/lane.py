"""One sink's buffer and worker task: gathers batches, encodes them in the shared slices, has them delivered.

A lane waits for its own sink only, so a hung one delays no other. Everything here runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress, islice
from typing import Protocol

from offloop import diagnostics
from offloop.backlog import Backlog, Barrier
from offloop.breaker import Circuit
from offloop.capture import Held, Record, made, text_of
from offloop.delivery import Delivery
from offloop.diversion import Early, Porter
from offloop.folds import Fold
from offloop.gate import acceptance, is_below
from offloop.gathering import Gathering, gathering_of
from offloop.ledger import Counts, Ledger
from offloop.losses import Losses
from offloop.packing import pack, render, takes_snapshots
from offloop.remains import Printing
from offloop.run import Run
from offloop.shutdown import BEYOND, Shutdown
from offloop.sink import Batch, Sink
from offloop.staging import level_of
from offloop.stderr import Budget

__all__ = ["Awaited", "Lane"]

_LAST_CHANCE = 0.05  # seconds before the deadline of a shutdown in which no new attempt begins
_AWAY = frozenset({"retrying", "failing", "open", "probing"})
_REST = 1.0  # seconds in which a disk should have given what goes with the last mail
_BIT = 16  # records that are let go of between two looks at the clock
_PLACES = 2  # where records are lost: here, and in the queue


class Awaited(Protocol):
    """What a flush waits for at a lane."""

    @property
    def ahead(self) -> int:
        """How many records are still to be settled before it; perhaps 1 for some."""
        ...


class Lane:
    """A sink's side of a listener."""

    def __init__(self, sink: Sink, name: str) -> None:
        """Hold nothing yet.

        Args:
            sink: Where the records go.
            name: What statistics call it.
        """
        self.sink = sink
        self.name = name
        self.backlog = Backlog(sink.buffer)
        self.porter = Porter(self)
        self.gathering = gathering_of(sink, _now)
        """What waits for the next digest, if the sink has one."""
        self.ledger = Ledger(self._pending)
        self.losses = Losses(name)
        self.chunk: list[Held] = []
        """What the listener has for this lane in the slice at hand,"""
        self.sizes: list[int] = []
        """and how large each is in bytes."""
        self.siblings: Sequence[Sink] = ()
        """Who else gets what is routed here."""
        self.givers: Sequence[Lane] = ()
        """Who hands over to this one."""
        self.depth = 0
        """How many lanes a record may have passed before it comes here."""
        self.share = 1.0
        """Which part of a shutdown's time is for this lane; the rest is for those it falls back on."""
        self.respects_level = True
        """Whether a record below the sink's level is kept from it when another lane hands it over."""
        self._sleeper: asyncio.Future[None] | None = None
        self._run: Run | None = None
        self._time: Shutdown | None = None
        self._circuit: Circuit | None = None

    # -- for the listener --------------------------------------------------------------------------------------------

    def commit(self, offered: int) -> None:
        """Take the chunk: of so many records offered these are for us."""
        self.ledger.begin()
        self._count_in(offered, self.chunk, self.sizes)
        self.ledger.end()
        self.clear_chunk()
        self._arrived()

    def clear_chunk(self) -> None:
        """Forget what was for this lane."""
        self.chunk.clear()
        self.sizes.clear()
        if self.gathering is not None:
            self.gathering.forget_chunk()

    @property
    def takes_snapshots(self) -> bool:
        """Whether it wants no records made of what is plain."""
        return self.gathering is None and takes_snapshots(self.sink, self.siblings)

    @property
    def hears(self) -> int:
        """The lowest level of which it is to be told."""
        preceding = self.sink.preceding if self.gathering is not None else None
        return self.sink.level if preceding is None else min(self.sink.level, preceding.levelno)

    def listen(self, passing: Iterable[tuple[Held, int]], floor: int, mine: Iterable[Held]) -> None:
        """Take note of what is about to come, and of what passes by below the sink's level.

        Args:
            passing: All that is routed, with its level number.
            floor: The sink's level, as far as it counts.
            mine: Those of it that are for this lane.
        """
        gathering, hears = self.gathering, self.hears
        if gathering is not None:
            gathering.overhear(made(held) for held, level in passing if hears <= level < floor)
            for held in mine:
                gathering.classify(made(held))

    def take(self, records: Sequence[Record], give: Callable[[], None]) -> None:
        """Take over what another lane can't deliver, as far as level and filters let it in.

        Args:
            records: For nobody else.
            give: Has the other lane let go of them.
        """
        accept = acceptance(self.sink, alone=True)
        level = self.sink.level if self.respects_level else 0
        accepted = [
            taken for record in records if not is_below(record, level) and (taken := accept(record)) is not None
        ]
        self.ledger.begin()
        give()
        self._count_in(len(records), accepted, [record.size_bytes for record in accepted])
        self.ledger.end()
        self._arrived()

    def lost_before(self, lost: Mapping[tuple[str, int], int], floor: int) -> None:
        """Take note of what was lost in the queue, by reason and level; what is below `floor` was not for us."""
        self.losses.note_queue(lost, floor)
        self.wake()

    async def main(self, run: Run) -> None:
        """Deliver in the running loop, until the shutdown is over or nothing more is to come."""
        if self._run is not run:
            self._enter(run)
        self._sleeper = None
        self._land()
        await self._main(run)

    def wake(self) -> None:
        """Have a look again."""
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)
        self.porter.ring()

    def give_up(self) -> None:
        """Forget a loop that will not go on; what it left here is for the next one."""
        self._run = self._sleeper = self._time = self._circuit = None
        self.porter.give_up()

    def surrender(self, budget: Budget) -> None:
        """Print what is held, on this thread, since no loop will run any more."""
        if self.counts().pending:
            self._say_the_rest()
        printing = Printing(self.name, self._unsaved, budget)
        printing.run()
        self._leave(printing)

    def after_fork(self) -> None:
        """In a child: what the parent holds is the parent's."""
        self.give_up()
        self.clear_chunk()
        self.losses = Losses(self.name)
        self.backlog = Backlog(self.sink.buffer)
        self.porter.clear()
        self.gathering = gathering_of(self.sink, _now)
        self.ledger = Ledger(self._pending)

    def counts(self) -> Counts:
        """A snapshot of the ledger."""
        return self.ledger.counts()

    def barrier(self) -> Awaited:
        """What to wait for in a flush; wakes the lane, so that it ignores `max_wait`."""
        barrier = self.backlog.barrier()
        self.wake()
        return barrier

    def forget(self, awaited: Awaited) -> None:
        """Nobody waits for it any longer."""
        if isinstance(awaited, Barrier):
            self.backlog.forget(awaited)

    # -- the settlement of a delivery --------------------------------------------------------------------------------

    def delivered(self, held: Sequence[Held], filtered: Sequence[Held]) -> None:
        """Count what the destination took, and what its own filters turned away."""
        ledger = self.ledger
        ledger.begin()
        was_away = self._is_away
        ledger.state, ledger.error = "connected", None
        folded = self._told(held, filtered) if self.gathering is not None else 0
        self._settle(held)
        ledger.delivered += len(held) - len(filtered) + folded
        ledger.filtered += len(filtered)
        if self.losses:
            self.losses.told(held)
            self.losses.works(again=was_away)
        ledger.end()
        self._started.progressed()

    def dropped(self, held: Sequence[Held], reason: str) -> None:
        """Count what was lost, or have the fallback take it."""
        self.ledger.begin()
        self._settle(held)
        for one in held:
            self._miss(one, reason)
        self.ledger.end()
        self._progressed()

    def rejected(self, held: Sequence[Held], why: str) -> None:
        """Count what the destination refuses, or have it go to the dead letters."""
        self.ledger.begin()
        self._settle(held)
        for one in held:
            self._lose_fold(one, "rejected")
            if self.porter.dead_letters is None:
                self._count_lost(one, "rejected")
            elif not self._drop_notice(one, "rejected"):
                self.porter.leaving.append((made(one), why))
        self.ledger.end()
        self._progressed()

    def failing(self, state: str, error: BaseException) -> None:
        """Show that the sink is in trouble."""
        self.ledger.state, self.ledger.error = state, f"{type(error).__name__}: {text_of(error)}"
        self.wake()

    def probing(self) -> None:
        """Show that the sink is tried although its breaker is open."""
        self.ledger.state = "probing"
        self.wake()

    async def back_off(self, seconds: float, asked: float) -> bool:
        """Wait before the next attempt; False if there will be none.

        A shutdown that would end before it shortens the wait, so that a sink which comes back late gets its records;
        what the destination asked for is kept. Behind an open breaker nothing waits that can go to the fallback.
        """
        shutdown, loop = self._deadline, asyncio.get_running_loop()
        if self._parts_with_batch():
            return False
        earliest = loop.time() + asked
        until = max(earliest, loop.time() + seconds)
        waited = False
        while not (shutdown.over or self._relieved or self.diverts):
            remaining = shutdown.remaining
            if until > loop.time() + remaining:
                until = max(earliest, loop.time() + remaining / 2)
                if remaining < _LAST_CHANCE or until > loop.time() + remaining:
                    await self._sleep(remaining)  # there will be none
                    continue
            left = until - loop.time()
            # A turn even where no pause is wanted: a sink that fails at once would keep the loop for ever.
            if left <= 0 and waited:
                return True
            await self._sleep(max(0.0, left))
            waited = True
        return False

    # ----------------------------------------------------------------------------------------------------------------

    @property
    def _started(self) -> Run:
        if self._run is None:
            msg = f"lane {self.name} was not started"
            raise RuntimeError(msg)
        return self._run

    @property
    def _deadline(self) -> Shutdown:
        """When this lane has to be done."""
        return self._time if self._time is not None else self._started.shutdown

    def _progressed(self) -> None:
        """Something was settled, or is about to leave."""
        self.porter.ring()
        self._started.progressed()

    def _enter(self, run: Run) -> None:
        """Begin to work in a loop."""
        self._run, self._circuit = run, None
        if self._is_away:
            self.ledger.state = "idle"  # that was in a loop which was closed without a stop: here nothing was tried
        self.porter.give_up()
        self._time = self._part_of(run.shutdown)
        self._time.tell(self._hear_of_shutdown)
        if run.shutdown.begun:  # stopped before our first turn
            self.losses.last_chance()

    def _part_of(self, shutdown: Shutdown) -> Shutdown:
        """The deadline of this lane: with a fallback, there has to be time left for that."""
        return shutdown if self.share >= 1 else Early(shutdown, self.share)

    # -- what goes to other lanes ------------------------------------------------------------------------------------

    @property
    def diverts(self) -> bool:
        """Whether what waits goes to the fallback, and what comes too."""
        run = self._run
        if self.porter.fallback is None or run is None or run.shutdown.over:
            return False
        if self._deadline.over:
            return True
        circuit = self._circuit
        return circuit is not None and not circuit.closed and (run.shutdown.begun or not circuit.due)

    def surplus(self, count: int) -> Sequence[Record]:
        """The next, at most so many, of what waits and is to go to the fallback."""
        backlog = self.backlog
        return [backlog.record(index) for index in range(min(count, len(backlog.waiting)))] if self.diverts else ()

    def release(self, records: Sequence[Record]) -> None:
        """Let go of these, which are the next."""
        for record in records:
            self._lose_fold(record, "overflow")
            self.backlog.evict(0)

    def _parts_with_batch(self) -> bool:
        """After an attempt failed: whether the batch goes to the fallback, rather than to wait behind the breaker."""
        circuit, run = self._circuit, self._run
        if circuit is None or circuit.closed or self.porter.fallback is None or run is None or run.shutdown.over:
            return False
        self._let_fly_away()
        return True

    def _let_fly_away(self) -> None:
        batch = list(self.backlog.flying)
        self.ledger.begin()
        self._settle(batch)
        for held in batch:
            self._lose_fold(held, "overflow")
        self.porter.leaving.extend((made(held), None) for held in batch)
        self.ledger.end()
        self.porter.ring()

    def _miss(self, held: Held, reason: str) -> None:
        """What has no place here goes to the fallback, or is lost."""
        self._lose_fold(held, reason)
        run = self._run
        if self.porter.fallback is None or run is None or run.shutdown.over or self.porter.has_ended(run):
            self._count_lost(held, reason)
        elif not self._drop_notice(held, reason):
            self.porter.leaving.append((made(held), None))

    # -- where the records are: in memory here, on disk too in a spooled lane ----------------------------------------

    def _count_in(self, offered: int, accepted: Sequence[Held], sizes: Sequence[int]) -> None:
        self.ledger.offered += offered
        self.ledger.filtered += offered - len(accepted)
        self._admit_all(accepted, sizes)

    def _arrived(self) -> None:
        """Records came, and were counted."""
        self.wake()

    def _pending(self) -> int:
        """How many records are held in memory alone."""
        return len(self.backlog) + len(self.porter.leaving) + self._folded

    @property
    def _folded(self) -> int:
        """How many are held as a number alone, and are nowhere else."""
        return 0 if self.gathering is None else self.gathering.folded

    def _admit_all(self, held: Sequence[Held], sizes: Sequence[int]) -> None:
        """Take them in, oldest first, and see to what is lost by it."""
        if self.gathering is not None:
            whole = list(map(self.gathering.enter, map(made, held, sizes)))
            held, sizes = list(compress(held, whole)), list(compress(sizes, whole))
        if self.backlog.extend(held, sizes):
            return
        for one, size_bytes in zip(held, sizes, strict=True):
            for lost, reason in self.backlog.add(one, size_bytes):
                self._miss(lost, reason)

    def _count_lost(self, held: Held, reason: str) -> None:
        """Count a record as dropped, and note it for the next notice."""
        if not self._drop_notice(held, reason):
            self.ledger.drop(reason, level_of(held))
            self.losses.note(reason, level_of(held))

    def _drop_notice(self, record: Held, reason: str) -> bool:
        """Drop it if it is a notice of ours, which is no loss to tell of, but what it said is; False if it is none."""
        closes = self.gathering is not None and self.gathering.untold(made(record))
        if not (closes or self.losses.untold(record)):
            return False
        self.ledger.drop(reason, level_of(record))
        return True

    def _told(self, held: Sequence[Held], filtered: Sequence[Held]) -> int:
        """A digest with these was taken; gives how many were delivered by it that are held as a number alone."""
        if self.gathering is None:
            return 0
        folds = self.gathering.told(list(map(made, held)), map(made, filtered))
        for fold in folds.values():
            self._settle_rows(fold)
        turned_away = sum(folds[id(one)].count for one in filtered if id(one) in folds)
        self.ledger.filtered += turned_away
        return sum(fold.count for fold in folds.values()) - turned_away

    def _lose_fold(self, held: Held, reason: str) -> None:
        """What is held as a number alone behind a record that leaves is lost."""
        if self.gathering is None:
            return
        fold = self.gathering.lose(made(held))
        if fold is not None:
            self._settle_rows(fold)
            for level, count in fold.counts.items():
                self.ledger.drop(reason, level, count)
                self.losses.note(reason, level, count)

    def _settle_rows(self, fold: Fold) -> None:
        """Let go of what is on disk too."""

    def _settle(self, held: Sequence[Held]) -> None:
        """Let go of what was in flight."""
        self.backlog.settle(held)

    @property
    def _ready(self) -> bool:
        """Whether the next batch may be formed."""
        waits = self.backlog.waiting or self.backlog.notices or self._silence == 0 or self._is_over_due
        return bool(waits) and not self.diverts

    @property
    def _empty(self) -> bool:
        """Whether a shutdown has nothing to wait for."""
        if self.diverts:  # no attempt is made any more: what is untold is among what is left
            return not (self.backlog.bounded or self.porter.leaving)
        return not self._pending() and self._silence is None

    @property
    def _expects_more(self) -> bool:
        """Whether more joins the backlog soon."""
        return False

    @property
    def _flushing(self) -> bool:
        """Whether somebody waits for all that is held."""
        return self.backlog.flushing

    @property
    def _is_away(self) -> bool:
        """Whether the last attempt failed."""
        return self.ledger.state in _AWAY

    @property
    def _silence(self) -> float | None:
        """Seconds until the sink's stream is to be told of losses, even if nothing else goes there; None: never.

        To a sink that is away nothing can be told: the notice goes with the next batch that is tried.
        """
        if not self.losses:
            return None
        ending = self._run is not None and self._run.shutdown.begun
        if self._is_away and not ending:
            return None
        wait = self.losses.wait(ending=ending)
        if wait is None or ending or self.gathering is None:
            return wait
        return max(wait, self.gathering.pause_for_losses())

    @property
    def _relieved(self) -> bool:
        """Whether a shutdown has no need of further attempts."""
        return False

    async def _close(self, run: Run) -> None:
        """Do what is to be done before what is left is counted as lost."""

    def _lose(self) -> Sequence[Held]:
        """Let go of everything; gives what is lost by it."""
        return [*self.porter.clear(), *self.backlog.clear()]

    # -- digests -----------------------------------------------------------------------------------------------------

    @property
    def _is_over_due(self) -> bool:
        """Whether it is to be told that a kind of record is over, though nothing waits."""
        if self.gathering is None or self._is_away or self._started.shutdown.begun:
            return False
        return self.gathering.wait() == 0

    def _land(self) -> None:
        """What was in flight waits again."""
        if self.gathering is not None:
            self.gathering.landed()
        self.backlog.land()

    async def _compile(self, batch: Batch, gathering: Gathering, run: Run) -> None:
        """Say in the batch what there is to tell of each kind in it."""
        pieces = gathering.gathered(batch.records, closing=run.shutdown.begun)

        def step(deadline: float) -> bool:
            try:
                while time.perf_counter() < deadline:
                    next(pieces)
            except StopIteration as end:
                batch.gathered = end.value
                return True
            return False

        await run.work(step)

    async def _settle_kinds(self, run: Run, rest: list[object]) -> None:
        """See to the kinds of what was told, and let go of thousands of records bit by bit: that takes its time too."""
        if self.gathering is not None:
            pieces = self.gathering.settle()
            await run.work(lambda deadline: all(time.perf_counter() < deadline for _ in pieces))

        def let_go(deadline: float) -> bool:
            while rest and time.perf_counter() < deadline:
                del rest[-_BIT:]
            return not rest

        await run.work(let_go)

    # ----------------------------------------------------------------------------------------------------------------

    def _hear_of_shutdown(self) -> None:
        self.losses.last_chance()
        self.wake()

    async def _main(self, run: Run) -> None:
        delivery = Delivery(self.sink, self, self._deadline.hold)
        self._circuit = delivery.circuit
        while not run.shutdown.over and not (run.routed and self._empty and self._are_givers_done(run)):
            try:
                await self._step(run, delivery)
            except Exception as error:  # noqa: BLE001 - no fault may end the lane; it is reported, and the records stay
                if self._run is not run:
                    return
                self.failing("failing", error)
                diagnostics.report(
                    f"lane:{self.name}", f"lane {self.name} failed: {type(error).__name__}: {text_of(error)}"
                )
                await self._sleep(1.0)
            finally:
                # Not when the task of a loop that was closed without a stop is collected, while another loop delivers.
                if self._run is run:
                    self._land()
            self._stepped()
        if self._run is not run:
            return  # left behind: the sink is another loop's by now
        self.porter.end(run)
        self._say_the_rest()
        printing = self._printing(run.budget)
        # Beside the closing: the time that a hung sink may cost beyond the deadline is for both.
        printed = printing.begin(run.printer)
        await delivery.close(min(self.sink.send_timeout, run.shutdown.remaining), run.shutdown.hold)
        if printed is not None:
            await run.shutdown.hold(printed, beyond=BEYOND)
        if self._run is run:
            await self._close(run)
            self._leave(printing)

    async def _step(self, run: Run, delivery: Delivery) -> None:
        if not self._ready:
            circuit, silence = self._circuit, self._silence
            self.porter.ring()
            wait = 0.0 if circuit is None or run.shutdown.begun else circuit.wait
            closing = None if self.gathering is None or self._is_away else self.gathering.wait()
            # If something is due at once, what it waits for wakes us.
            await self._sleep(min((seconds for seconds in (wait, silence, closing) if seconds), default=None))
            return
        limit = self.sink.batching.max_records
        await self._gather(run)
        await render(islice(self.backlog.waiting, limit), run.renderer, self._deadline.hold)
        self._announce(limit, closings=not run.shutdown.begun)
        batch = await pack(self.sink, self.backlog, self.ledger, self.siblings, run)
        if batch:
            if self.gathering is not None:
                await self._compile(batch, self.gathering, run)
            await delivery.deliver(batch)
            if batch.gathered is not None:
                rest: list[object] = [*batch.held, *batch.gathered.groups]
                del batch
                await self._settle_kinds(run, rest)

    def _stepped(self) -> None:
        """Nothing is in flight, and what was told is seen to."""

    def _are_givers_done(self, run: Run) -> bool:
        """Whether nothing more comes from other lanes."""
        return all(giver.porter.has_ended(run) for giver in self.givers)

    def _printing(self, budget: Budget) -> Printing:
        """What is held, to be printed at the deadline."""
        return Printing(self.name, self._unsaved, budget)

    @property
    def _unsaved(self) -> Sequence[Held]:
        """What is in memory alone."""
        return [*(record for record, _ in self.porter.leaving), *self.backlog]

    def _announce(self, limit: int, *, closings: bool = False) -> None:
        """Have the next batch begin with what is to be told of losses, and of what is over."""
        if self.losses or self.gathering is not None:
            ending = self._run is None or self._run.shutdown.begun
            notices = self.losses.notices(limit, works=not self._is_away, ending=ending)
            if closings and self.gathering is not None:
                notices += self.gathering.closings(limit - len(notices))
            self.ledger.begin()
            more = self.backlog.announce(notices)
            self.ledger.offered += more
            self.ledger.notices += more
            self.ledger.end()

    def _say_the_rest(self) -> None:
        """Have what is still untold at the end among what is left."""
        self.losses.last_chance()
        self._announce(_PLACES)

    def _leave(self, printing: Printing) -> None:
        """The deadline has passed or nothing is left: what is still here was printed or is lost, and counted."""
        printed = set(map(id, printing.stop()))
        ledger = self.ledger
        ledger.begin()
        left = self._lose()
        for record in left:
            self._lose_fold(record, "shutdown")
            if id(record) in printed:
                ledger.printed += 1
                self.losses.told((record,))
            else:
                self._count_lost(record, "shutdown")
        if self.gathering is not None:
            self.gathering.clear()
        ledger.state = "stopped"
        ledger.end()
        if left:
            diagnostics.report(f"shutdown:{self.name}", f"{printing} when the deadline passed")
        self._run = None

    async def _sleep(self, seconds: float | None) -> None:
        shutdown = self._started.shutdown
        if shutdown.begun:  # whatever is waited for: at the deadline is an end to it
            seconds = shutdown.remaining if seconds is None else min(seconds, shutdown.remaining)
        self._sleeper = asyncio.get_running_loop().create_future()
        await shutdown.nap(self._sleeper, seconds)
        self._sleeper = None

    async def _gather(self, run: Run) -> None:
        """Wait for more, as long as the sink allows."""
        if self.gathering is not None:
            await self._hold_back(run, self.gathering)
            return
        batching, backlog = self.sink.batching, self.backlog
        until = asyncio.get_running_loop().time() + batching.max_wait
        while len(backlog.waiting) < batching.max_records and not backlog.flushing and not run.shutdown.begun:
            left = until - asyncio.get_running_loop().time()
            silence = self._silence
            if silence is not None:
                left = min(left, silence)
            if left <= 0:
                return
            await self._sleep(left)

    async def _hold_back(self, run: Run, gathering: Gathering) -> None:
        """Wait until the next digest is due."""
        while not (self._flushing or run.shutdown.begun):
            left = min((wait for wait in (gathering.wait(), self._silence) if wait is not None), default=0.0)
            if left <= 0:
                return
            await self._sleep(left)
        # One mail, rather than one of what is here by now and another of the rest.
        loop, shutdown = asyncio.get_running_loop(), run.shutdown
        until = loop.time() + (min(_REST, shutdown.remaining / 2) if shutdown.begun else _REST)
        while (self._expects_more or self._is_to_be_asked(run)) and loop.time() < until and not shutdown.over:
            await self._sleep(until - loop.time())

    def _is_to_be_asked(self, run: Run) -> bool:
        """Whether a shutdown has begun, and more may be on its way from the queue: once that is here we are asked."""
        return run.shutdown.begun and not (self._flushing or run.routed)


def _now() -> float:
    """The time by the clock of the loop that runs; at exit none does, and a loop's clock is this one."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()
