"""The way in: from any thread, at any time, into the listener's asyncio.Queue.

Nothing here raises into the caller, and nothing waits on a thread that runs a loop. Any thread stages its records in a
deque and wakes the loop once per burst; with the queue of a `Pipeline` that deque is the inside of the queue. An
`asyncio.Queue` of somebody's own is touched on the loop's thread only: what other threads stage is beside it. The
listener takes the queue first, then what is staged; while anything is staged the loop's own records go there too, so
each thread's order is kept, and what a thread logged before it signalled the loop comes before what the loop logs
after.

A burst within one turn of the loop never reaches the lanes, so a queue with a bound gives way in the steps that a
sink's `Buffer` has by default: records below WARNING fill it to 80%, those below ERROR to 90%.
"""

from __future__ import annotations

import asyncio
import logging
import math
from asyncio import events
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from threading import get_ident
from typing import Any, ClassVar

from offloop import fork
from offloop.capture import Record, restore
from offloop.exclusive import Exclusive
from offloop.ledger import Counts, steadily, tabulate
from offloop.overflow import Refusal, Room, evictable
from offloop.policies import Buffer, QueueOverflow
from offloop.registry import Registry, Server
from offloop.sifting import vet
from offloop.staging import Item, Staging, level_of
from offloop.turnstile import Turnstile

__all__ = ["FILTERED", "Intake", "OwnQueue"]

FILTERED = "filtered"
_TOLD = frozenset({"overflow", "shed", "rejected"})  # what sinks hear of: no sink was to have its `own` records

_FOLD_AT = 1_024
_NOBODY = -1  # no thread's identity: every thread then stages its records, and signals


class OwnQueue(asyncio.Queue[Item]):
    """The queue of a `Pipeline`: an `asyncio.Queue` to which any thread may append, at its container."""

    container: Staging

    def _init(self, maxsize: int) -> None:
        self._queue = self.container = Staging()


class Intake:
    """What all handlers and the listener of one queue share. One exists for a queue as long as anyone uses it."""

    _registry: ClassVar[Registry[Intake]] = Registry()
    last_resort: ClassVar[Callable[[Intake], None] | None] = None
    """After the exit hook: takes what is waiting, at once."""

    def __init__(self, queue: asyncio.Queue[Item]) -> None:
        """Use `of`: a second intake for one queue would not know of the first."""
        self.queue = queue
        self.staged = queue.container if isinstance(queue, OwnQueue) else Staging()
        self._plain: asyncio.Queue[Item] | None = None if isinstance(queue, OwnQueue) else queue
        # Its inside, for eviction alone; queues of another make have none that we know of.
        inside = getattr(self._plain, "_queue", None)
        self._container: deque[Item] | None = inside if isinstance(inside, deque) else None
        self.bound = max(0, queue.maxsize)
        self._room = Room(Buffer(max_records=self.bound)) if self.bound else None
        self.easy = math.inf if self._room is None else self._room.easy_records
        """As long as fewer records wait, none is refused."""
        self._turnstile = Turnstile()
        self.hand: list[Item] = []
        """Taken from the queue and being routed: still pending."""
        self.floor = 0
        """Level below which no sink takes anything: a hint, read again before a record is turned away."""
        self.thread = 0
        """Identity of the listener's thread while it runs, else 0; after the exit hook `_NOBODY`."""
        self.waiter: asyncio.Future[None] | None = None
        self.server: Server | None = None
        """The listener that serves it, or last did, or is going to."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._read_floor: Callable[[], int] = int
        self.awake = True
        """The listener looks by itself, or was told to: nobody need wake it."""
        self._version = 0
        self._taken = 0
        self._odd = 0  # taken, and then dropped
        self._delivered = 0
        self._printed = 0
        # What was turned away, as (reason, level) per record: an append needs no lock, whoever interrupts whom.
        self._tally: deque[tuple[str, int]] = deque()
        self._totals: Counter[tuple[str, int]] = Counter()
        self.lossy = False
        """Records were lost here, and the listener does not know."""
        self._known: Counter[tuple[str, int]] = Counter()
        self._folding = Exclusive()
        self.detach()
        fork.inherits(self)

    @classmethod
    def of(cls, queue: asyncio.Queue[Any]) -> Intake:
        """The one intake of a queue."""
        return cls._registry.of(queue, lambda: cls(queue))

    @classmethod
    def every(cls) -> set[Intake]:
        """All that are in use."""
        return cls._registry.every()

    # -- from any thread ---------------------------------------------------------------------------------------------

    def wants(self, levelno: int) -> bool:
        """Whether any sink may take a record of this level."""
        if levelno >= self.floor:
            return True
        # A sink's level may have been lowered since: nobody would tell us, and nothing would wake the listener.
        self.floor = self._read_floor()
        return levelno >= self.floor

    def offer(self, item: Item, overflow: QueueOverflow, wait_timeout: float = 0.0) -> bool:
        """Take a record, or make room for it, or count it as dropped; True if it was taken.

        Args:
            item: The record.
            overflow: What to do where there is no room. With `"wait"` a thread that runs no loop is held up, unless
                the listener does not run or the thread waits already.
            wait_timeout: For at most so many seconds.
        """
        if self.vetted:
            item = vet(item)
        here = self._on_loop_thread()
        if self.backlog >= self.easy:
            refusal = self._refusal(level_of(item), overflow, wait_timeout, here=here)
            if refusal is not None:
                self.lose(refusal, level_of(item))
                return False
        if self._plain is not None and here and not self.staged:
            self._put(self._plain, item)
        else:
            self.staged.append(item)
        if not self.awake:
            self.signal()
        return True

    def turn_away(self, reason: str, levelno: int) -> None:
        """Count a record that goes no further: a reason of the ledger, or `FILTERED`."""
        self._tally.append((reason, levelno))
        if len(self._tally) >= _FOLD_AT:
            self._fold()

    def lose(self, reason: str, levelno: int) -> None:
        """Count a record that is lost here, and have the listener tell the sinks."""
        self.turn_away(reason, levelno)
        # Flagged before looking, as `sleep` looks after it has cleared: the last loss of a burst is told too.
        self.lossy = True
        if not self.awake and self._loop is not None:
            self.signal()

    def losses(self) -> Counter[tuple[str, int]]:
        """What was lost here since the last call, by reason and level number; for the listener."""
        self.lossy = False
        totals = self._fold()
        if totals is None:
            self.lossy = True  # somebody is at it: the next call finds it
            return Counter()
        lost = Counter({key: count for key, count in totals.items() if key[0] in _TOLD})
        news = lost - self._known
        self._known = lost
        return news

    @property
    def vetted(self) -> bool:
        """Whether all that looks like a plain record is one: nobody else can put anything on a queue of our own."""
        return self._plain is None

    @property
    def backlog(self) -> int:
        """How many records wait to be taken."""
        staged = len(self.staged)
        return staged if self._plain is None else staged + self._plain.qsize()

    @property
    def pending(self) -> int:
        """How many records are in here, those being routed included."""
        return self.backlog + len(self.hand)

    def counts(self) -> Counts:
        """A snapshot that balances."""
        alone = self._folding.enter()
        try:
            return steadily(lambda: self._version, self._read, self._read_settled)
        finally:
            if alone:
                self._folding.leave()

    # -- on the loop's thread ----------------------------------------------------------------------------------------

    @property
    def served(self) -> bool:
        """Whether a listener is attached, in a loop that is still open."""
        return self._loop is not None and not self._loop.is_closed()

    def attach(self, read_floor: Callable[[], int]) -> None:
        """Begin to serve the running loop's listener.

        Args:
            read_floor: Gives the lowest level any sink takes.
        """
        self._loop = asyncio.get_running_loop()
        self._read_floor = read_floor
        self.floor = read_floor()
        self.awake = True
        self.thread = get_ident()
        self._registry.served.add(self)
        self._turnstile.open()

    def retire(self) -> None:
        """Nothing more will be taken by this listener: no thread is to wait for it."""
        self._turnstile.close()

    def detach(self) -> None:
        """The listener is gone: what comes now waits for the next one; after the exit hook it is printed at once."""
        self.retire()
        ended = Intake.last_resort is not None
        self.thread = _NOBODY if ended else 0
        self._loop = None
        self.waiter = None
        self.floor = 0
        self._read_floor = int
        self.awake = not ended
        if not self.pending:
            self._registry.served.discard(self)

    def surrender(self, put_away: Callable[[Sequence[Record]], int]) -> None:
        """Give up what waits.

        Args:
            put_away: Takes the records, oldest first, and tells how many of them it printed; the others are lost.
        """
        hand = self.take(self.pending)
        records = list[Record]()
        for item in hand:
            with suppress(Exception):  # what is no record is counted below
                records.append(restore(item))
        printed = put_away(records)
        self._version += 1
        self._printed += printed
        self._odd += len(hand) - printed
        for record in records[printed:]:
            self.turn_away("shutdown", record.levelno)
        for _ in range(len(hand) - len(records)):
            self.turn_away("rejected", logging.NOTSET)
        hand.clear()
        self._version += 1

    def after_fork(self) -> None:
        """In a child: what waits is the parent's to deliver, what was counted the parent's to tell."""
        self._folding = Exclusive()
        self._turnstile = Turnstile()  # who waited is in the parent
        self.staged.after_fork()
        self.hand.clear()
        if self._plain is not None:
            # RuntimeError: somebody of a loop that is closed waited to put more.
            with suppress(asyncio.QueueEmpty, RuntimeError):
                while True:
                    _get(self._plain)
        self._tally.clear()
        self._totals.clear()
        self._known.clear()
        self.lossy = False
        self._version = self._taken = self._odd = self._delivered = self._printed = 0
        Intake.last_resort = None
        self.detach()

    def take(self, limit: int) -> list[Item]:
        """Move up to `limit` records into the hand, oldest first; they stay pending until `commit`."""
        self.floor = self._read_floor()
        hand = self.hand
        held = len(hand)
        self._version += 1
        try:
            if self._plain is not None:
                with suppress(asyncio.QueueEmpty):
                    while len(hand) < limit:
                        hand.append(_get(self._plain))
            self.staged.move(hand, limit)  # what is staged comes after what is queued
        finally:
            self._taken += len(hand) - held
            self._version += 1
        self._turnstile.admit(self.bound - self.backlog)
        return hand

    def commit(self, count: int, odd: int = 0) -> None:
        """From the front of the hand `count` records were routed; `odd` items among them were none, and are dropped."""
        self._version += 1
        self._delivered += count
        self._odd += odd
        del self.hand[: count + odd]
        for _ in range(odd):
            self.lose("rejected", logging.NOTSET)
        self._version += 1

    def sleep(self) -> asyncio.Future[None] | None:
        """A future that the next record or loss resolves; None if there are such now."""
        # Cleared before looking: a record staged in between wakes us again, and none is stranded.
        self.awake = False
        if self.pending or self.lossy:
            self.awake = True
            return None
        self.waiter = asyncio.get_running_loop().create_future()
        return self.waiter

    def wake(self) -> None:
        """Resolve what `sleep` gave."""
        self.awake = True
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            # Where the loop was closed without a stop the record is in the queue all the same, for the next start.
            with suppress(RuntimeError):
                waiter.set_result(None)

    def mark(self) -> int:
        """A position: what is in here now has passed it when `passed` says so."""
        return self._delivered + self.pending

    def passed(self, mark: int) -> bool:
        """Whether all that was in here at the mark is on its way.

        Evictions don't count: one may have hit a record behind the mark. In the place of each that hit one before it, a
        later record is waited for.
        """
        return self._delivered >= mark or not self.pending

    # ----------------------------------------------------------------------------------------------------------------

    def _on_loop_thread(self) -> bool:
        if self.thread:
            return get_ident() == self.thread
        # Nobody listens yet. Whoever runs a loop may use a plain queue, as its own consumer would expect.
        return events._get_running_loop() is not None  # noqa: SLF001 - documented as "for framework developers"

    def signal(self) -> None:
        """Wake the listener; once for a burst."""
        if self.waiter is not None and get_ident() == self.thread:
            self.wake()
            return
        self.awake = True
        loop = self._loop
        if loop is None and Intake.last_resort is not None:
            self.awake = False
            Intake.last_resort(self)
        try:
            if loop is not None:
                loop.call_soon_threadsafe(self.wake)
        except RuntimeError:
            self.awake = False  # the loop is closed: whoever listens next is not to miss its wake-up

    def _put(self, queue: asyncio.Queue[Item], item: Item) -> None:
        try:
            queue.put_nowait(item)
        except asyncio.QueueFull:
            self.staged.append(item)  # a queue with a bound of its own making; the listener takes it from here
        except RuntimeError:
            pass  # a consumer of a closed loop still waited on the queue; the record is in it all the same

    def _refusal(self, levelno: int, overflow: QueueOverflow, wait_timeout: float, *, here: bool) -> Refusal | None:
        """Why a record does not get in, None if it does; room was perhaps made for it, or waited for."""
        refusal = self._full_for(levelno)
        if refusal is None:
            return None
        if overflow == "wait" and not here and wait_timeout > 0 and self._running and self._turnstile.usable:
            # Rather than be shed, too: who asks to wait prefers being held up to losing a record.
            has_room = self._turnstile.wait(lambda: self._full_for(levelno) is None, wait_timeout)
            return None if has_room else "overflow"
        if refusal == "overflow" and overflow == "drop_old" and self._make_room(levelno, here=here):
            return None
        return refusal

    def _full_for(self, levelno: int) -> Refusal | None:
        return None if self._room is None else self._room.refusal(levelno, self.backlog)

    @property
    def _running(self) -> bool:
        """Whether the listener's loop runs: one that stands between two runs takes nothing."""
        loop = self._loop
        return loop is not None and loop.is_running()

    def _make_room(self, levelno: int, *, here: bool) -> bool:
        """Evict the oldest record that may go; False if the newcomer has to.

        Other threads evict only what is staged: a queue that is not ours is the loop's.
        """
        if here and self._evict_queued(levelno):
            return True
        victim = self.staged.evict(levelno)
        if victim is not None:
            self.lose("overflow", level_of(victim))
            return True
        # Of a burst from another thread into a queue that the loop filled, the newest is kept; and an ERROR is, should
        # somebody else be evicting now.
        return (not here and not self.staged) or (bool(self.staged) and levelno >= logging.ERROR)

    def _evict_queued(self, levelno: int) -> bool:
        container = self._container
        index = None if container is None else evictable(container, level_of, levelno)
        if container is None or index is None:
            return False
        victim = container[index]
        self._version += 1
        del container[index]
        self.queue.task_done()
        self.lose("overflow", level_of(victim))
        self._version += 1
        return True

    def _fold(self) -> Counter[tuple[str, int]] | None:
        """Sum up the tally; gives all sums, None if somebody is at it."""
        if not self._folding.enter(patience=0.0):
            return None
        try:
            for _ in range(len(self._tally)):
                self._totals[self._tally.popleft()] += 1
            return self._totals.copy()
        finally:
            self._folding.leave()

    def _read(self) -> Counts:
        # Once: records are appended while we look.
        backlog = self.backlog
        counts = self._found(backlog)
        # Counted on its own, where records come in: what was lost on the way from there would show.
        return replace(counts, offered=self._taken - self._odd + backlog + counts.filtered + counts.lost)

    def _read_settled(self) -> Counts:
        """As `_read`, for a reader that interrupted a move: what is offered is what is found."""
        return self._found(self.backlog)

    def _found(self, backlog: int) -> Counts:
        turned = Counter(self._totals)
        turned.update(self._tally.copy())
        filtered = sum(count for (reason, _), count in turned.items() if reason == FILTERED)
        drops = {key: count for key, count in turned.items() if key[0] != FILTERED}
        pending = backlog + len(self.hand)
        return Counts(
            offered=self._delivered + self._printed + pending + filtered + sum(drops.values()),
            delivered=self._delivered,
            filtered=filtered,
            dropped=tabulate(drops.items()),
            printed=self._printed,
            pending=pending,
            state="running" if self.thread > 0 else "idle",
        )


def _get(queue: asyncio.Queue[Item]) -> Item:
    item = queue.get_nowait()
    queue.task_done()
    return item
