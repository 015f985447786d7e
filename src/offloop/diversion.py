"""From lane to lane: what a sink can't have goes to its fallback, what its destination refuses to the dead letters.

A porter carries, in the slices that all share. It gives copies: a lane knows a record by its identity, and the other
one may hold the same record on its own account. Until it is handed over a record is the giver's, and pending there;
then it is counted at the giver, and offered to the taker, in one step. Used on the loop's thread only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from itertools import islice
from typing import Any, Protocol

from offloop import diagnostics
from offloop.capture import Record, text_of
from offloop.ledger import Ledger
from offloop.shutdown import Shutdown

__all__ = ["Early", "Giver", "Porter", "Taker"]

_HANDFUL = 16  # records handed over between two looks at the clock
_AGAIN = 1.0  # seconds after a fault
_REASON_BYTES = 250  # what the attributes of a dead letter weigh, beside the reason's text


class Taker(Protocol):
    """A lane that others hand over to."""

    def take(self, records: Sequence[Record], give: Callable[[], None]) -> None:
        """Take records over; `give` is called amid the counting, when nothing can go wrong any more."""
        ...

    def wake(self) -> None:
        """Have a look again."""
        ...


class Giver(Protocol):
    """A lane that hands over to others."""

    @property
    def name(self) -> str:
        """What statistics call it."""
        ...

    @property
    def ledger(self) -> Ledger:
        """Its counts."""
        ...

    def surplus(self, count: int) -> Sequence[Record]:
        """The next, at most so many, of what waits and is to go to the fallback."""
        ...

    def release(self, records: Sequence[Record]) -> None:
        """Let go of these."""
        ...

    def wake(self) -> None:
        """Have a look again."""
        ...


class Running(Protocol):
    """What a porter needs of the loop it works in."""

    @property
    def shutdown(self) -> Shutdown:
        """The deadline."""
        ...

    @property
    def progressed(self) -> Callable[[], None]:
        """To be called when records were settled."""
        ...

    def work(self, step: Callable[[float], bool]) -> Coroutine[Any, Any, None]:
        """Call `step` in slices until it says that it is done."""
        ...


class Porter:
    """Carries a lane's records to others.

    Attributes:
        fallback: Who takes what the sink can't have.
        dead_letters: Who takes what its destination refuses.
        leaving: What the lane has let go of, oldest first, each with the reason if it is a dead letter.
        moved: How many of those were handed over.
    """

    def __init__(self, lane: Giver) -> None:
        """Have nothing to carry."""
        self.fallback: Taker | None = None
        self.dead_letters: Taker | None = None
        self.leaving: deque[tuple[Record, str | None]] = deque()
        self.moved = 0
        self._lane = lane
        self._ended_in: object = None
        self._bell: asyncio.Future[None] | None = None

    @property
    def needed(self) -> bool:
        """Whether there is anywhere to go."""
        return self.fallback is not None or self.dead_letters is not None

    def mark(self) -> int:
        """A point in the order of what leaves: passed when `moved` has reached it."""
        return self.moved + len(self.leaving)

    async def carry(self, run: Running) -> None:
        """Hand over what there is, in the running loop, until the lane has ended."""
        while not run.shutdown.over and not self.has_ended(run):
            if not (self.leaving or self._lane.surplus(1)):
                await self._sleep(run, None)
                continue
            try:
                await run.work(lambda deadline: self._step(run, deadline))
            except Exception as error:  # noqa: BLE001 - no fault may end the task; it is reported, and the records stay
                diagnostics.report(
                    f"divert:{self._lane.name}",
                    f"lane {self._lane.name} can't hand over: {type(error).__name__}: {text_of(error)}",
                )
                await self._sleep(run, _AGAIN)
            self._lane.wake()
            run.progressed()

    def ring(self) -> None:
        """There may be something to carry."""
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    def end(self, run: Running) -> None:
        """Hand over nothing more: what is left is the lane's to deal with."""
        self._ended_in = run
        self.ring()
        for taker in (self.fallback, self.dead_letters):
            if taker is not None:
                taker.wake()

    def has_ended(self, run: Running) -> bool:
        """Whether nothing more comes from here in this loop."""
        return self._ended_in is run

    def give_up(self) -> None:
        """Forget a loop that will not go on; what is about to leave goes in the next one."""
        self._bell = self._ended_in = None

    def clear(self) -> Sequence[Record]:
        """Let go of everything; gives what was about to leave."""
        left = [record for record, _ in self.leaving]
        self.leaving.clear()
        return left

    async def _sleep(self, run: Running, seconds: float | None) -> None:
        self._bell = asyncio.get_running_loop().create_future()
        await run.shutdown.nap(self._bell, seconds)
        self._bell = None

    def _step(self, run: Running, deadline: float) -> bool:
        """Hand over until the time is up; True if nothing is left."""
        while not self.has_ended(run) and not run.shutdown.over:
            if self.leaving:
                self._hand_over_leaving()
            elif records := self._lane.surplus(_HANDFUL):
                self._divert(records, self._lane.release)
            else:
                return True
            if time.perf_counter() >= deadline:
                return False
        return True

    def _hand_over_leaving(self) -> None:
        """A handful of what leaves: diverted records, or dead letters."""
        dead = self.leaving[0][1] is not None
        handful: list[tuple[Record, str | None]] = []
        for item in islice(self.leaving, _HANDFUL):
            if (item[1] is not None) is not dead:
                break
            handful.append(item)

        def forget(records: Sequence[Record]) -> None:
            for _ in records:
                self.leaving.popleft()
            self.moved += len(records)

        if dead:
            self._bury(handful, forget)
        else:
            self._divert([record for record, _ in handful], forget)

    def _divert(self, records: Sequence[Record], let_go: Callable[[Sequence[Record]], None]) -> None:
        if self.fallback is not None:
            self._hand_over(self.fallback, [record.twin() for record in records], lambda: let_go(records), dead=False)

    def _bury(self, letters: Sequence[tuple[Record, str | None]], let_go: Callable[[Sequence[Record]], None]) -> None:
        if self.dead_letters is not None:
            copies = [_letter(record, self._lane.name, why or "") for record, why in letters]
            records = [record for record, _ in letters]
            self._hand_over(self.dead_letters, copies, lambda: let_go(records), dead=True)

    def _hand_over(self, taker: Taker, copies: Sequence[Record], let_go: Callable[[], None], *, dead: bool) -> None:
        def give() -> None:
            ledger = self._lane.ledger
            ledger.begin()
            let_go()
            if dead:
                ledger.dead_lettered += len(copies)
            else:
                ledger.diverted += len(copies)
            ledger.end()

        taker.take(copies, give)


class Early(Shutdown):
    """The deadline of a lane that has a fallback: before the whole shutdown's, so that the fallback has time too."""

    def __init__(self, whole: Shutdown, share: float) -> None:
        """Follow the whole one.

        Args:
            whole: The deadline of all.
            share: Which part of the time this lane gets.
        """
        super().__init__(0.0)
        self._whole = whole
        self._share = share
        whole.tell(self._follow)
        if whole.begun:
            self._follow()

    @property
    def over(self) -> bool:
        """Whether either deadline has passed."""
        return super().over or self._whole.over

    def interrupt(self) -> None:
        """A task was cancelled from outside: that concerns all lanes."""
        self._whole.interrupt()

    def _follow(self) -> None:
        self.begin(self._whole.remaining * self._share)


def _letter(record: Record, sink: str, why: str) -> Record:
    """A copy that says who refused it, and why."""
    letter = record.twin()
    letter.__dict__.update(dead_letter_sink=sink, dead_letter_reason=why)
    letter.size_bytes += _REASON_BYTES + len(sink) + len(why)
    return letter
