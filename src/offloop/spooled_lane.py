"""A lane whose sink has a spool: what does not fit, or is not to be risked, goes to disk and comes back in order.

A record is in one of four places, in the order in which they were offered: in the backlog (being sent, or next), on
disk, being written, or in the tail, which waits to be written or to move up. The tail moves up without a disk as long
as nothing lies between. One task talks to the disk, one exchange at a time, in a thread of the spool's own. Only that
task waits for the disk, and the lane before a batch, until what the last one settled is removed: a crash repeats one
batch at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any, cast

from offloop import diagnostics, fork
from offloop.backlog import Barrier
from offloop.capture import Held, Record, made, text_of
from offloop.delivery import marked_context
from offloop.diversion import Early
from offloop.folds import Fold
from offloop.lane import Awaited, Lane
from offloop.ledger import Counts
from offloop.overflow import Refusal
from offloop.remains import Printing
from offloop.run import Run
from offloop.shutdown import Shutdown
from offloop.sink import Sink
from offloop.spool import Spool
from offloop.spooling.disk import Claim, Disk
from offloop.spooling.store import SpoolStore
from offloop.spooling.tail import Tail
from offloop.spooling.turn import Numbered, Outcome, Turn
from offloop.stderr import Budget

__all__ = ["SpooledLane"]

_GROUP = 500  # records in one commit, or read at once: what becomes of them is one short piece of work for the loop
_GROUP_OF_DIGEST = 32  # the kind of each is to be found out
_GROUP_BYTES = 4 * 1024 * 1024
_ON_THE_WAY_BYTES = 16 * 1024 * 1024  # in the tail, beyond what the buffer may hold, while the disk works
_AGAIN = 1.0  # seconds before a disk that failed is tried again
_SOON = 0.25  # seconds in which a sink that works should have taken what a shutdown finds
_RESERVE = 0.1  # seconds before a deadline at which what is left is stored
_LATE = 0.075  # seconds past it until which what there was no time to store may be printed


class SpooledLane(Lane):
    """A sink's side of a listener, with a disk behind it."""

    def __init__(self, sink: Sink, name: str, spool: Spool) -> None:
        """Hold nothing and touch no disk yet.

        Args:
            sink: Where the records go.
            name: What statistics call it, and its files.
            spool: Where they are kept.
        """
        self._loose: dict[int, int] = {}
        """Numbers of the records in memory alone, by identity, oldest first."""
        super().__init__(sink, name)
        # Where a digest is held for an hour it is held on disk.
        self._always = spool.when == "always" or sink.digest is not None
        self._group = _GROUP if sink.digest is None else _GROUP_OF_DIGEST
        self._is_told = False
        """A digest was taken since how far it has come was written down."""
        self._has_memo = False
        """It was read what others had written down."""
        self._max_kept_bytes = spool.max_bytes // 2
        self._store = SpoolStore(spool, name)
        self._disk = Disk(name, self._say_stuck)
        self._tail = Tail()
        self._writing: list[Numbered] = []
        """From the tail; back to its front if they can't be stored."""
        self._turn_rows: Sequence[Numbered] = ()
        """All that the disk is storing now, those of the backlog too."""
        self._safe: dict[int, int] = {}
        """Numbers of the records in the backlog that are on disk too, by identity."""
        self._marks: list[_Mark] = []
        """Of those who wait for a flush."""
        self._settled: list[int] = []
        """Numbers of records that are to be removed from the disk."""
        self._removing = False
        self._next = 0
        self._unread = 0
        self._cursor = -1
        self._size_bytes = 0
        self._open = False
        self._pressed = False
        self._ending = False
        self._gone = False
        self._trouble: str | None = None
        self._retry_at = 0.0
        self._claim = Claim()
        self._prints = False
        """What is left is printed at once, since the disk takes nothing; otherwise late, after it was to be stored."""
        self._late: Printing | None = None
        self._bell: asyncio.Future[None] | None = None
        self._tender: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []

    # -- for the listener --------------------------------------------------------------------------------------------

    async def main(self, run: Run) -> None:
        """Deliver in the running loop, what lies on disk first."""
        if self._run is not run:
            self._recover_memory()
            self._marks.clear()
            self._open = self._ending = self._gone = self._pressed = self._removing = False
            self._bell = None
            self._enter(run)
            run.shutdown.tell(self._prepare)
            if run.shutdown.begun:  # at exit a listener is started to be stopped
                self._prepare()
            self._begin_to_tend(run)
        await super().main(run)

    def counts(self) -> Counts:
        """A snapshot of the ledger; the disk's trouble is shown where the sink has none."""
        counts = super().counts()
        if self._trouble is None or counts.error is not None:
            return counts
        return replace(counts, error=f"spool: {self._trouble}")

    def listen(self, passing: Iterable[tuple[Held, int]], floor: int, mine: Iterable[Held]) -> None:
        """Take note of what led to what; of what kind it is is found out when it comes from the disk."""
        if self.sink.preceding is not None:
            super().listen(passing, floor, mine)

    def barrier(self) -> Awaited:
        """What to wait for in a flush: that it is delivered, or, of an outage's spool, on disk."""
        awaited = _Mark(self._is_before, self._next - 1, self.backlog.barrier())
        self._marks.append(awaited)
        if self._tail and self._unread:
            self._pressed = True  # it would wait for all that is on disk
        self.wake()
        self._ring()
        return awaited

    def forget(self, awaited: Awaited) -> None:
        """Nobody waits for it any longer."""
        if isinstance(awaited, _Mark):
            if awaited in self._marks:
                self._marks.remove(awaited)
            self.backlog.forget(awaited.front)

    def failing(self, state: str, error: BaseException) -> None:
        """Show that the sink is in trouble: a shutdown waits no longer for what is on disk.

        Behind an open breaker nothing waits in memory that can be on disk.
        """
        super().failing(state, error)
        if self._is_left_alone:
            self._press()
        self._started.progressed()

    # -- what goes to other lanes ------------------------------------------------------------------------------------

    @property
    def diverts(self) -> bool:
        """Whether the fallback is to take what waits: only if the disk can't."""
        return self._fails and super().diverts

    def surplus(self, count: int) -> Sequence[Record]:
        """The next, at most so many, of what waits in memory alone."""
        if not self.diverts:
            return ()
        held = chain(map(made, self.backlog.waiting), self._tail)
        return list(islice((record for record in held if id(record) in self._loose), count))

    def release(self, records: Sequence[Record]) -> None:
        """Let go of these."""
        for record in records:
            self._lose_fold(record, "overflow")
        gone = set(map(id, records))
        for index in reversed([index for index, record in enumerate(self.backlog.waiting) if id(record) in gone]):
            self.backlog.evict(index)
        while self._tail and id(self._tail.first) in gone:
            self._tail.pop()
        for key in gone:
            del self._loose[key]

    def _parts_with_batch(self) -> bool:
        return self._fails and super()._parts_with_batch()

    def _let_fly_away(self) -> None:
        """What is on disk too stays."""
        self._land()
        self.porter.ring()

    @property
    def _fails(self) -> bool:
        """Whether the disk takes nothing."""
        return self._trouble is not None or self._disk.stuck

    def _part_of(self, shutdown: Shutdown) -> Shutdown:
        # What is on disk needs no time of the fallback's: it is given its part if the disk fails by then.
        return shutdown if self.share >= 1 else Early(shutdown, 1.0)

    def _conclude(self) -> None:
        """The fallback needs what time is left, if it is to take anything."""
        if self._fails:
            self._deadline.begin(0.0)

    # -- where the records are ---------------------------------------------------------------------------------------

    def _arrived(self) -> None:
        """Records came: see whether there is something for the disk."""
        super()._arrived()
        self._ring()

    def _pending(self) -> int:
        """How many records are in memory alone."""
        return len(self._loose) + len(self.backlog.notices) + len(self.porter.leaving)

    @property
    def takes_snapshots(self) -> bool:
        """The disk takes records."""
        return False

    def _admit_all(self, held: Sequence[Held], sizes: Sequence[int]) -> None:
        # What the disk has room for is not the backlog's to say.
        for one in held:
            self._admit(made(one))

    def _admit(self, record: Record) -> None:
        self._loose[id(record)] = self._next
        self._next += 1
        self._tail.append(record)
        self._move_up()
        self._shed()

    def _settle(self, held: Sequence[Held]) -> None:
        for record in held:
            if id(record) in self.backlog.notices:
                continue  # has no number
            if self._loose.pop(id(record), None) is None:
                self._settled.append(self._safe.pop(id(record)))
                self.ledger.spooled -= 1
        self.backlog.settle(held)
        self._move_up()
        self._ring()

    def _move_up(self) -> None:
        """The tail joins the backlog where nothing lies between: no disk is needed."""
        if not self._is_contiguous or ((self._always or self._is_left_alone) and not self._fails):
            return
        while self._tail and self._has_room(self._tail.first):
            record = self._tail.pop()
            self._joins(record)
            self.backlog.append(record)

    def _has_room(self, record: Record) -> bool:
        """Whether the backlog takes it: in steps, by its level, only where there is no disk to spill to."""
        if self._fails:
            return self.backlog.refusal(record) is None
        limits = self.sink.buffer
        fits = self.backlog.size_bytes + record.size_bytes <= limits.max_bytes
        return fits and self.backlog.bounded < limits.max_records

    @property
    def _is_contiguous(self) -> bool:
        """Whether the tail follows the backlog; while a disk that hangs is opened, as if nothing were on it."""
        return not (self._unread or self._writing) and (self._open or self._disk.stuck)

    @property
    def _is_over(self) -> bool:
        """Whether something has to be dropped although there is a spool: the disk fails, or can't keep up."""
        if not self._fails:
            return self._tail.size_bytes > _ON_THE_WAY_BYTES
        if self._is_contiguous:
            return True  # what the backlog has no room for: nothing else is to come of it
        limits, held = self.sink.buffer, self.backlog.bounded + len(self._tail) + len(self._writing)
        return held > limits.max_records or self.backlog.size_bytes + self._tail.size_bytes > limits.max_bytes

    def _shed(self) -> None:
        """Drop what there is no place for, by the buffer's rule."""
        while self._tail and self._is_over:
            if self._is_contiguous:
                record = self._tail.pop()
                self._joins(record)
                for lost, reason in self.backlog.add(record):
                    self._drop(lost, reason)
            else:
                self._drop(self._tail.evict(newest=self.sink.buffer.overflow == "drop_new"), "overflow")
        self._move_up()

    def _joins(self, record: Record, row: int | None = None) -> bool:
        """Have a record join the backlog; False if it need not, since it is on disk and its number is enough."""
        return self.gathering is None or self.gathering.enter(record, row, folds=row is not None)

    def _settle_rows(self, fold: Fold) -> None:
        self._settled += fold.rows
        self.ledger.spooled -= len(fold.rows)
        self._ring()

    def _told(self, held: Sequence[Held], filtered: Sequence[Held]) -> int:
        self._is_told = True
        return super()._told(held, filtered)

    def _stepped(self) -> None:
        if self.gathering is not None:
            self._ring()  # what was told may leave the disk now

    def _drop(self, record: Held, reason: Refusal) -> None:
        if self._loose.pop(id(record), None) is None:
            self._settled.append(self._safe.pop(id(record)))
            self.ledger.spooled -= 1
        self._miss(record, reason)

    @property
    def _ready(self) -> bool:
        if self._relieved and self._is_away:
            return False  # nothing would be waited for: attempts would follow one another until all lanes are done
        return super()._ready and (self._fails or not (self._settled or self._removing))

    @property
    def _expects_more(self) -> bool:
        return not self._fails and bool(self._writing or (self._tail and self._is_to_write) or self._wanted)

    @property
    def _flushing(self) -> bool:
        return any(mark.ahead for mark in self._marks)

    @property
    def _is_left_alone(self) -> bool:
        """Whether the breaker is open: what comes goes to disk, rather than to wait in memory."""
        return self._circuit is not None and not self._circuit.closed

    @property
    def _empty(self) -> bool:
        if self._loose or self.porter.leaving or not (self._open or self._disk.stuck):
            return False
        if self.diverts:  # no attempt is made any more: what is untold is among what is left
            return not self.backlog.bounded
        return self._is_away or not (len(self.backlog) or self._unread or self._silence is not None)

    @property
    def _relieved(self) -> bool:
        return self._run is not None and self._run.shutdown.begun and not self._loose

    def _is_before(self, mark: int) -> bool:
        """Whether something up to this number is not settled."""
        if self._loose and next(iter(self._loose.values())) <= mark:
            return True
        if not self._always or (self._relieved and self._is_away):
            return False
        first = next(chain(self.backlog.flying, self.backlog.waiting), None)
        if first is not None and self._safe.get(id(first), mark + 1) <= mark:
            return True
        return self._unread > 0 and self._cursor < mark

    def _printing(self, budget: Budget) -> Printing:
        """What the disk can't take: the rest is stored, or, if there is no time for that, printed after it."""
        self._prints = self._fails
        return Printing(self.name, self._unsaved if self._prints else [], budget)

    @property
    def _unsaved(self) -> Sequence[Held]:
        """What is in memory alone, but for what is being written."""
        ours = self._loose.keys() | self.backlog.notices.keys()
        held = (record for record in chain(self.backlog, self._tail) if id(record) in ours)
        return [*(record for record, _ in self.porter.leaving), *held]

    def _leave(self, printing: Printing) -> None:
        late, self._late = self._late, None
        if late is not None:
            printing.stop()
            printing = late
        super()._leave(printing)

    def after_fork(self) -> None:
        """In a child: neither what is held nor what is on disk is ours."""
        fork.keep(self._tender)
        super().after_fork()
        self._disk = Disk(self.name, self._say_stuck)
        self._tail.replace(())
        self._writing, self._turn_rows = [], ()
        for held in (self._loose, self._safe, self._settled, self._timers):
            held.clear()
        self._removing = self._open = self._pressed = self._ending = self._gone = self._is_told = self._has_memo = False
        self._next = self._unread = self._size_bytes = 0
        self._cursor, self._trouble, self._retry_at = -1, None, 0.0
        self._claim, self._bell, self._tender, self._late = Claim(), None, None, None

    async def _close(self, run: Run) -> None:
        if not self._fails:
            # What could not be told goes to disk as any other record, behind all that was offered.
            self.ledger.begin()
            for notice in self.backlog.withdraw():
                self._loose[id(notice)] = self._next
                self._next += 1
                self._tail.append(notice)
            self.ledger.end()
        self._ending = True
        self._ring()
        tender = self._tender
        if tender is not None:
            await run.shutdown.hold(tender, beyond=self._disk.beyond)
            tender.cancel()
        if not self._prints and (unsaved := self._unsaved):
            self._late = Printing(self.name, unsaved, run.budget)
            if (printed := self._late.begin(run.printer)) is not None:
                await run.shutdown.hold(printed, beyond=_LATE)
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _lose(self) -> Sequence[Held]:
        self._gone = True
        self._settle_writing()
        ours = self._loose.keys() | self.backlog.notices.keys()
        left = [record for record in (*self.backlog.clear(), *self._tail) if id(record) in ours]
        self._tail.replace(())
        self._loose.clear()
        self._safe.clear()
        return [*self.porter.clear(), *left]

    def _settle_writing(self) -> None:
        """Decide the fate of what the thread is writing and nobody waits for: stored, unless we forestall it."""
        if self._claim.take():
            self._take_back()
        else:
            for _, record in self._turn_rows:
                if self._loose.pop(id(record), None) is not None:
                    self.ledger.spooled += 1
                    self.losses.told((record,))
        self._writing, self._turn_rows = [], ()

    def _take_back(self) -> None:
        """What could not be stored waits again."""
        self._tail.take_back([record for _, record in self._writing])
        self._writing = []

    def _recover_memory(self) -> None:
        """What a loop left that was closed without a stop: rows on disk are read again, the rest goes on from here."""
        self.ledger.begin()
        self._settle_writing()
        if self.gathering is not None:
            self.gathering.clear()
        notices = list(self.backlog.notices.values())
        held = [*map(made, self.backlog.clear()), *self._tail]
        # On their way to disk at an end that was cut short: each is made anew, and is not to be told twice.
        withdrawn = [record for record in held if id(record) in self._loose and self.losses.is_underway(record)]
        for record in withdrawn:
            del self._loose[id(record)]
        self.backlog.announce([*notices, *withdrawn])
        self._tail.replace(record for record in held if id(record) in self._loose)
        self._safe.clear()
        self._settled.clear()
        self._unread, self._cursor = 0, -1
        self.ledger.end()

    # -- the disk ----------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """A shutdown has begun: what is left is stored now if the sink is away, else if it doesn't go soon."""
        if self._run is None:
            return  # the deadline of others was moved; here all is done
        loop, remaining = asyncio.get_running_loop(), self._started.shutdown.remaining
        if self._is_away or remaining <= 0:
            self._press()
        for delay in (min(_SOON, remaining / 4), remaining / 2, remaining - _RESERVE):
            if delay > 0:
                self._timers.append(loop.call_later(delay, self._press))
        if self.share < 1:
            self._timers.append(loop.call_later(remaining * self.share, self._conclude))
        self._timers.append(loop.call_later(remaining / 2, self._disk.hurry))
        self._ring()

    def _press(self) -> None:
        self._pressed = True
        self._ring()

    def _ring(self) -> None:
        """Have the tender look again."""
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    def _begin_to_tend(self, run: Run) -> None:
        """Run the task that talks to the disk, and again should it be cancelled before its first step."""
        task = asyncio.get_running_loop().create_task(
            self._tend(run), name=f"offloop:{self.name}:spool", context=marked_context()
        )
        self._tender = task

        def ended(task: asyncio.Task[None]) -> None:
            if task.cancelled() and not self._gone:
                run.shutdown.interrupt()
                self._begin_to_tend(run)

        task.add_done_callback(ended)

    async def _tend(self, run: Run) -> None:
        """Exchange with the disk, as long as the lane runs; never fails."""
        if not self._open:
            await self._exchange(run, Turn(), self._store.open, self._floor, self.ledger.spooled)
            self._open = True
        self._move_up()
        self._changed(run)
        while not self._ending:
            turn = self._turn()
            if turn is None:
                self._bell = asyncio.get_running_loop().create_future()
                await run.shutdown.nap(self._bell, _AGAIN if self._trouble is not None else None)
                self._bell = None
            else:
                await self._exchange(run, turn, self._store.exchange, turn)
        self._pressed, self._retry_at = True, 0.0
        done = True
        while done and (turn := self._turn()) is not None:
            done = await self._exchange(run, turn, self._store.exchange, turn) and self._trouble is None
            self._pressed = True
        await self._disk.ask(run.shutdown, self._store.close)
        self._disk.close()

    @property
    def _floor(self) -> int:
        """The number from which on records are this run's."""
        return next(iter(self._loose.values()), self._next)

    def _turn(self) -> Turn | None:
        """What there is for the disk, if anything."""
        if self._trouble is not None:
            if time.monotonic() < self._retry_at:
                return None
            # It is tried again: with the next records, or, where all are to be on disk, with those that are not.
            self._trouble = None
            self._pressed = self._pressed or self._always
        front = self._front() if self._pressed else []
        tail = self._from_tail(self._group - len(front)) if self._is_to_write else []
        self._pressed = self._pressed and len(front) + len(tail) >= self._group
        want = self._wanted
        # What was told leaves together with how far the digest has come by it.
        lands = self.gathering is None or not self.gathering.is_landing
        memo = self._memo() if lands else None
        settled = sorted(self._settled) if lands else []
        if not (front or tail or settled or want or memo):
            return None
        keep = tail and self._stays(tail)
        handed = tail[-1][0] if keep else front[-1][0] if front else -1
        if settled:
            self._settled = []
        self._writing = tail
        self._removing = bool(settled)
        self._claim = Claim()
        self._turn_rows = [*front, *tail]
        return Turn(
            settled=settled,
            rows=self._turn_rows,
            handed=handed,
            want=0 if keep else want,
            want_bytes=self.sink.buffer.max_bytes // 2,
            claim=self._claim.take,
            memo=memo,
        )

    def _memo(self) -> Callable[[], bytes] | None:
        """How far the digest has come, if that is to be written down."""
        if self.gathering is None or not self._is_told:
            return None
        self._is_told = False
        return self.gathering.schedule.saved()

    def _front(self) -> list[Numbered]:
        """The next records of the backlog that are in memory alone."""
        held = cast("Iterator[Record]", chain(self.backlog.flying, self.backlog.waiting))  # never snapshots
        numbered = ((self._loose.get(id(record)), record) for record in held)
        return _some(((number, record) for number, record in numbered if number is not None), self._group)

    @property
    def _is_to_write(self) -> bool:
        """Whether the tail is to be stored, rather than to wait until there is room."""
        if not self._tail:
            return False
        if self._always or self._pressed or self._is_left_alone:
            return True
        limits = self.sink.buffer
        held_bytes = self.backlog.size_bytes + self._tail.size_bytes
        return self.backlog.bounded + len(self._tail) > limits.max_records or held_bytes > limits.max_bytes

    def _from_tail(self, count: int) -> list[Numbered]:
        numbered = ((self._loose[id(record)], record) for record in self._tail)
        taken = _some(numbered, count)
        for _ in taken:
            self._tail.pop()
        return taken

    def _stays(self, rows: Sequence[Numbered]) -> bool:
        """Whether rows that are stored are kept in memory too, since they are next."""
        if self._unread or self._ending or not self._always:
            return False
        fits = self.backlog.bounded + len(rows) <= self._room
        return fits and self._size_bytes < self._max_kept_bytes and self.backlog.size_bytes < _GROUP_BYTES

    @property
    def _room(self) -> int:
        """How many records the backlog may hold that are on disk too: some batches ahead."""
        return min(self.sink.buffer.max_records, 4 * self.sink.batching.max_records)

    @property
    def _wanted(self) -> int:
        """How many records to read."""
        if not self._unread or self._ending:
            return 0
        if self._started.shutdown.begun and self._is_away:
            return 0
        if len(self.backlog.waiting) > self.sink.batching.max_records or self.backlog.size_bytes > _GROUP_BYTES:
            return 0
        return max(0, min(self._group, self._room - self.backlog.bounded))

    async def _exchange(self, run: Run, turn: Turn, function: Callable[..., Outcome], *arguments: Any) -> bool:
        """One turn with the disk; False if the deadline passed before it was done."""
        try:
            outcome = await self._disk.ask(run.shutdown, function, *arguments)
        except Exception as error:  # noqa: BLE001 - no fault may end the task: it is the disk's trouble, and reported
            words = f"{type(error).__name__}: {text_of(error)}"
            outcome = Outcome(error=words, kept=list(turn.settled), unread=self._unread, size_bytes=self._size_bytes)
        if outcome is not None:
            self._store_result(turn, outcome)
            self._changed(run)
        return outcome is not None

    def _say_stuck(self) -> None:
        diagnostics.report(f"spool:{self.name}", f"the spool of sink {self.name} does not answer")
        self.ledger.begin()
        self._shed()
        self.ledger.end()
        self._changed(self._started)

    def _changed(self, run: Run) -> None:
        self.wake()
        run.progressed()

    def _store_result(self, turn: Turn, outcome: Outcome) -> None:
        """Count what came of a turn, and put what was read into the backlog."""
        self._store.unheard = None
        self._remember(outcome.memo)
        ledger = self.ledger
        ledger.begin()
        ledger.recovered += outcome.found
        # What a turn stored was counted as a whole if nobody could wait for its end.
        lost = outcome.lost + outcome.turned_away if self._gone else outcome.lost
        ledger.spooled += outcome.found - len(lost)
        for reason, levelno in lost:
            ledger.drop(reason, levelno)
            self.losses.note(reason, levelno)
        if not self._gone:  # otherwise it was decided without us what became of the rest
            if outcome.stored:
                self._all_stored(turn, frozenset(outcome.refused))
            self._take_back()
            self._turn_rows = ()
            for number, record in outcome.read:
                self._cursor = number
                if self._joins(record, number):
                    self._safe[id(record)] = number
                    self.backlog.append(record)
            self._settled += outcome.kept
            self._removing = False
            self._unread, self._size_bytes = outcome.unread, outcome.size_bytes
            self._note_trouble(outcome.error)
            if outcome.read:
                self._retry_at = 0.0  # what is there leaves the disk, full or not: no reason to wait
            self._shed()
        ledger.end()

    def _all_stored(self, turn: Turn, refused: frozenset[int]) -> None:
        first_of_tail = self._writing[0][0] if self._writing else self._next
        for number, record in turn.rows:
            key = id(record)
            kept = number <= turn.handed
            if number in refused:
                del self._loose[key]
                self._miss(record, "overflow")
                continue
            if self._loose.pop(key, None) is None:
                self._settled.append(number)  # it was delivered meanwhile
                continue
            self.ledger.spooled += 1
            if self.losses.underway:
                self.losses.told((record,))
            if kept:
                self._cursor = max(self._cursor, number)
                if number < first_of_tail or self._joins(record, number):
                    self._safe[key] = number
                    if number >= first_of_tail:
                        self.backlog.append(record)
        self._writing = []

    def _remember(self, memo: bytes | None) -> None:
        """Go on where another process ended; once, since what is read again later is our own."""
        if self.gathering is not None and memo is not None and not self._has_memo:
            try:
                self.gathering.schedule.restore(memo)
            except ValueError as error:
                diagnostics.report(f"spool:{self.name}", f"the digest of sink {self.name} begins anew: {error}")
        self._has_memo = self._has_memo or self._open

    def _note_trouble(self, error: str | None) -> None:
        self._trouble = error
        if error is not None:
            self._retry_at = time.monotonic() + _AGAIN
            diagnostics.report(f"spool:{self.name}", f"the spool of sink {self.name} fails: {error}")


class _Mark:
    """A point in the order of the records: what a flush waits for."""

    def __init__(self, is_before: Callable[[int], bool], number: int, front: Barrier) -> None:
        self.front = front
        self._is_before = is_before
        self._number = number

    @property
    def ahead(self) -> int:
        """1 while something before it is not settled."""
        return int(self._is_before(self._number))


def _some(numbered: Iterable[Numbered], count: int) -> list[Numbered]:
    """The first of them, as many as one commit takes."""
    taken: list[Numbered] = []
    size = 0
    for number, record in numbered:
        if len(taken) >= count or size > _GROUP_BYTES:
            break
        taken.append((number, record))
        size += record.size_bytes
    return taken
