"""One sink's buffer and worker task: gathers batches, encodes them in the shared slices, has them delivered.

A lane waits for its own sink only, so a hung one delays no other. Everything here runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Protocol

from offloop import diagnostics
from offloop.backlog import Backlog, Barrier
from offloop.breaker import Circuit
from offloop.capture import Record, message_of, text_of
from offloop.delivery import Delivery
from offloop.diversion import Early, Porter
from offloop.formatters.json import JSONFormatter
from offloop.gate import acceptance, is_below
from offloop.ledger import Counts, Ledger
from offloop.losses import Losses
from offloop.pacer import Pacer
from offloop.remains import Printing
from offloop.shutdown import BEYOND, Shutdown
from offloop.sink import FAILURES, Batch, Sink
from offloop.stderr import Budget
from offloop.worker import Breather, Worker

__all__ = ["Awaited", "Lane", "Run", "encode_safely"]

_RENDER_TIMEOUT = 5.0  # seconds; source files may lie on a disk that hangs
_LAST_CHANCE = 0.05  # seconds before the deadline of a shutdown in which no new attempt begins
_AWAY = frozenset({"retrying", "failing", "open", "probing"})
_PLACES = 2  # where records are lost: here, and in the queue


class Awaited(Protocol):
    """What a flush waits for at a lane."""

    @property
    def ahead(self) -> int:
        """How many records are still to be settled before it; perhaps 1 for some."""
        ...


class Run:
    """What the lanes and the listener share while they run in one loop."""

    def __init__(
        self, pacer: Pacer, shutdown: Shutdown, renderer: Worker, progressed: Callable[[], None], budget: Budget
    ) -> None:
        """Nothing is routed yet.

        Args:
            pacer: Whose slices all of them work in.
            shutdown: Their deadline.
            renderer: The thread that renders tracebacks.
            progressed: Called when records were settled.
            budget: What may be printed in the end.
        """
        self.pacer = pacer
        self.shutdown = shutdown
        self.renderer = renderer
        self.progressed = progressed
        self.budget = budget
        self.printer = Worker("offloop-stderr")
        self.routed = False
        """The listener will route nothing more."""

    async def work(self, step: Callable[[float], bool]) -> None:
        """Call `step` in slices until it says that it is done; it gets the time at which to stop for now."""
        while True:
            turn = self.pacer.turn()
            if turn is not None:
                await self.shutdown.nap(turn)
                if turn.cancelled():
                    continue
            deadline = self.pacer.begin()
            try:
                if step(deadline):
                    return
            finally:
                self.pacer.done()


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
        self.ledger = Ledger(self._pending)
        self.losses = Losses(name)
        self.chunk: list[Record] = []
        """What the listener has for this lane in the slice at hand."""
        self.siblings: Sequence[Lane] = ()
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
        self._count_in(offered, self.chunk)
        self.ledger.end()
        self.chunk.clear()
        self._arrived()

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
        self._count_in(len(records), accepted)
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
        self.backlog.land()
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
        printing = self._printing(budget)
        printing.run()
        self._leave(printing)

    def after_fork(self) -> None:
        """In a child: what the parent holds is the parent's."""
        self.give_up()
        self.chunk = []
        self.losses = Losses(self.name)
        self.backlog = Backlog(self.sink.buffer)
        self.porter.clear()
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

    def delivered(self, records: Sequence[Record], filtered: Sequence[Record]) -> None:
        """Count what the destination took, and what its own filters turned away."""
        ledger = self.ledger
        ledger.begin()
        was_away = self._is_away
        ledger.state, ledger.error = "connected", None
        self._settle(records)
        ledger.delivered += len(records) - len(filtered)
        ledger.filtered += len(filtered)
        if self.losses:
            self.losses.told(records)
            self.losses.works(again=was_away)
        ledger.end()
        self._started.progressed()

    def dropped(self, records: Sequence[Record], reason: str) -> None:
        """Count what was lost, or have the fallback take it."""
        self.ledger.begin()
        self._settle(records)
        for record in records:
            self._miss(record, reason)
        self.ledger.end()
        self._progressed()

    def rejected(self, records: Sequence[Record], why: str) -> None:
        """Count what the destination refuses, or have it go to the dead letters."""
        self.ledger.begin()
        self._settle(records)
        for record in records:
            if self.porter.dead_letters is None:
                self._count_lost(record, "rejected")
            elif not self._is_untold(record, "rejected"):
                self.porter.leaving.append((record, why))
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
        # Even where no pause is wanted: a sink that fails at once would keep the loop for ever.
        await self._sleep(0.0)
        while not (shutdown.over or self._relieved or self.diverts):
            remaining = shutdown.remaining
            if until > loop.time() + remaining:
                until = max(earliest, loop.time() + remaining / 2)
                if remaining < _LAST_CHANCE or until > loop.time() + remaining:
                    await self._sleep(remaining)  # there will be none
                    continue
            left = until - loop.time()
            if left <= 0:
                return True
            await self._sleep(left)
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
        self.porter.give_up()
        self._time = self._part_of(run.shutdown)
        self._time.tell(self._hear_of_shutdown)

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
        return list(islice(self.backlog.waiting, count)) if self.diverts else ()

    def release(self, records: Sequence[Record]) -> None:
        """Let go of these, which are the next."""
        for _ in records:
            self.backlog.evict(0)

    def _parts_with_batch(self) -> bool:
        """After an attempt failed: whether the batch goes to the fallback, rather than to wait behind the breaker."""
        circuit, run = self._circuit, self._run
        if circuit is None or circuit.closed or self.porter.fallback is None or run is None or run.shutdown.over:
            return False
        self._let_fly_away()
        return True

    def _let_fly_away(self) -> None:
        batch = list(self.backlog.flying.values())
        self.ledger.begin()
        self._settle(batch)
        self.porter.leaving.extend((record, None) for record in batch)
        self.ledger.end()
        self.porter.ring()

    def _miss(self, record: Record, reason: str) -> None:
        """What has no place here goes to the fallback, or is lost."""
        run = self._run
        if self.porter.fallback is None or run is None or run.shutdown.over or self.porter.has_ended(run):
            self._count_lost(record, reason)
        elif not self._is_untold(record, reason):
            self.porter.leaving.append((record, None))

    # -- where the records are: in memory here, on disk too in a spooled lane ----------------------------------------

    def _count_in(self, offered: int, accepted: Sequence[Record]) -> None:
        self.ledger.offered += offered
        self.ledger.filtered += offered - len(accepted)
        for record in accepted:
            self._admit(record)

    def _arrived(self) -> None:
        """Records came, and were counted."""
        self.wake()

    def _pending(self) -> int:
        """How many records are held in memory alone."""
        return len(self.backlog) + len(self.porter.leaving)

    def _admit(self, record: Record) -> None:
        """Take a record, and see to what is lost by it."""
        for lost, reason in self.backlog.add(record):
            self._miss(lost, reason)

    def _count_lost(self, record: Record, reason: str) -> None:
        """Count a record as dropped, and note it for the next notice."""
        if not self._is_untold(record, reason):
            self.ledger.drop(reason, record.levelno)
            self.losses.note(reason, record.levelno)

    def _is_untold(self, record: Record, reason: str) -> bool:
        """Whether it is a notice of ours: that is dropped, and no loss to tell of, but what it said is."""
        if not self.losses.untold(record):
            return False
        self.ledger.drop(reason, record.levelno)
        return True

    def _settle(self, records: Sequence[Record]) -> None:
        """Let go of records that were in flight."""
        self.backlog.settle(records)

    @property
    def _ready(self) -> bool:
        """Whether the next batch may be formed."""
        return (bool(self.backlog.waiting or self.backlog.notices) or self._silence == 0) and not self.diverts

    @property
    def _empty(self) -> bool:
        """Whether a shutdown has nothing to wait for."""
        if self.diverts:  # no attempt is made any more: what is untold is among what is left
            return not (self.backlog.bounded or self.porter.leaving)
        return not self._pending() and self._silence is None

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
        return None if self._is_away and not ending else self.losses.wait(ending=ending)

    @property
    def _relieved(self) -> bool:
        """Whether a shutdown has no need of further attempts."""
        return False

    async def _close(self, run: Run) -> None:
        """Do what is to be done before what is left is counted as lost."""

    def _lose(self) -> Sequence[Record]:
        """Let go of everything; gives what is lost by it."""
        return [*self.porter.clear(), *self.backlog.clear()]

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
                    self.backlog.land()
        if self._run is not run:
            return  # left behind: the sink is another loop's by now
        self.porter.end(run)
        self._say_the_rest()
        printing = self._printing(run.budget)
        # Beside the closing: the time that a hung sink may cost beyond the deadline is for both.
        printed = asyncio.get_running_loop().create_task(_print(run.printer, printing))
        await delivery.close(min(self.sink.send_timeout, run.shutdown.remaining), run.shutdown.hold)
        await run.shutdown.hold(printed, beyond=BEYOND)
        if self._run is run:
            await self._close(run)
            self._leave(printing)

    async def _step(self, run: Run, delivery: Delivery) -> None:
        if not self._ready:
            circuit, silence = self._circuit, self._silence
            self.porter.ring()
            wait = 0.0 if circuit is None or run.shutdown.begun else circuit.wait
            # If something is due at once, what it waits for wakes us.
            await self._sleep(min((seconds for seconds in (wait, silence) if seconds), default=None))
            return
        await self._gather(run)
        await self._render(run)
        batch = await self._form(run)
        if batch:
            await delivery.deliver(batch)

    def _are_givers_done(self, run: Run) -> bool:
        """Whether nothing more comes from other lanes."""
        return all(giver.porter.has_ended(run) for giver in self.givers)

    def _printing(self, budget: Budget) -> Printing:
        """What is held, to be printed."""
        leaving = (record for record, _ in self.porter.leaving)
        return Printing(self.name, [*leaving, *self.backlog], budget)

    def _announce(self, limit: int) -> None:
        """Have the next batch begin with what is to be told of losses."""
        if self.losses:
            ending = self._run is None or self._run.shutdown.begun
            notices = self.losses.notices(limit, works=not self._is_away, ending=ending)
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
            if id(record) in printed:
                ledger.printed += 1
                self.losses.told((record,))
            else:
                self._count_lost(record, "shutdown")
        ledger.state = "stopped"
        ledger.end()
        if left:
            diagnostics.report(f"shutdown:{self.name}", f"{printing} when the deadline passed")
        self._run = None

    async def _sleep(self, seconds: float | None) -> None:
        self._sleeper = asyncio.get_running_loop().create_future()
        await self._started.shutdown.nap(self._sleeper, seconds)
        self._sleeper = None

    async def _gather(self, run: Run) -> None:
        """Wait for more, as long as the sink allows."""
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

    async def _render(self, run: Run) -> None:
        """Have the tracebacks of the next batch rendered, off the loop; rendered ones are shared with other lanes."""
        waiting = islice(self.backlog.waiting, self.sink.batching.max_records)
        unrendered = [record for record in waiting if record.exception is not None and record.exc_text is None]
        if not unrendered:
            return
        task = asyncio.get_running_loop().create_task(run.renderer.run(_render_all, unrendered))
        await self._deadline.hold(task, _RENDER_TIMEOUT)
        for record in unrendered:
            if record.exc_text is None and record.exception is not None:
                record.exc_text = record.exception.brief()
        task.cancel()

    async def _form(self, run: Run) -> Batch | None:
        """The next batch: as many records as it may have, encoded where the sink wants them so."""
        sink, backlog = self.sink, self.backlog
        limits = sink.batching
        self._announce(limits.max_records)
        notices = list(backlog.notices.values())
        # At most half of the buffer flies, so that an outage always leaves something old to evict.
        max_records = min(limits.max_records - len(notices), max(1, sink.buffer.max_records // 2))
        encode = self._encoder() if sink.encodes else None
        encoded = list(map(encode, notices)) if encode is not None else []
        size_bytes = sum(map(len, encoded))

        def step(deadline: float) -> bool:
            nonlocal size_bytes
            count, done = 0, True
            for record in islice(backlog.waiting, max(0, max_records - len(backlog.flying))):
                if count and time.perf_counter() >= deadline:
                    done = False
                    break
                if record.exception is not None and record.exc_text is None:
                    break
                if encode is not None:
                    data = encode(record)
                    if encoded and size_bytes + len(data) > limits.max_bytes:
                        break
                    encoded.append(data)
                    size_bytes += len(data)
                count += 1
            self.ledger.begin()
            backlog.fly(count)
            self.ledger.end()
            return done

        await run.work(step)
        records = [*notices, *backlog.flying.values()]
        return Batch(records, sink, encoded if sink.encodes else None) if records else None

    def _encoder(self) -> Callable[[Record], bytes]:
        """How to encode a record for this sink: once, where several sinks would make the same bytes of it."""
        sink = self.sink
        key = sink.encoding_key()
        if key is None or not any(lane.sink.encoding_key() == key for lane in self.siblings):
            if self.siblings and not sink.encodes_purely():
                return lambda record: encode_safely(sink, record.twin())
            return lambda record: encode_safely(sink, record)

        def shared(record: Record) -> bytes:
            if record.encodings is None:
                record.encodings = {}
            data = record.encodings.get(key)
            if data is None:
                own = record if sink.encodes_purely() else record.twin()
                data = record.encodings[key] = encode_safely(sink, own)
            return data

        return shared


def encode_safely(sink: Sink, record: Record) -> bytes:
    """The record as the sink encodes it; failing that, as its default formatter does, or as JSON. Never raises."""
    try:
        return _bytes(sink.encode(record))
    except FAILURES as error:  # reported, and the record goes out in another form
        diagnostics.report(
            f"encode:{id(sink)}",
            f"{sink!r} could not format a record of {record.name!r}: {type(error).__name__}: {text_of(error)}",
        )
    repaired = record.twin()
    repaired.msg, repaired.args = message_of(record), ()
    with suppress(*FAILURES):  # reported above
        return _bytes(sink.encode(repaired))
    with suppress(*FAILURES):
        return sink.default_formatter().format(repaired).encode("utf-8", "backslashreplace")
    return JSONFormatter().format(repaired).encode("utf-8", "backslashreplace")


def _bytes(data: object) -> bytes:
    if isinstance(data, bytes):
        return data
    msg = f"encode must give bytes, got {type(data).__name__}"
    raise TypeError(msg)


async def _print(printer: Worker, printing: Printing) -> None:
    if not len(printing):
        return
    with suppress(RuntimeError):  # no thread starts any more: nothing is printed, and all is counted as dropped
        await printer.run(printing.run)


def _render_all(records: Sequence[Record]) -> None:
    """Fill in `exc_text`, in the renderer's thread. Idempotent: two lanes may ask for the same."""
    breather = Breather()
    for record in records:
        if record.exception is not None and record.exc_text is None:
            try:
                record.exc_text = record.exception.render()
            except Exception:  # noqa: BLE001 - an odd exception class; the plain form says as much
                record.exc_text = record.exception.brief()
        breather()
