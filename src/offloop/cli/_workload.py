"""The application of the demo: a heartbeat, and requests that log; the same in every round.

Open-loop: each beat and each request has its intended time, and what the loop does in between is counted against it. A
loop that stalls owes the beats it missed, and each of them is late.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["BEAT", "RECORDS_PER_REQUEST", "Measured", "errors_expected", "percentile", "run"]

BEAT = 0.005
"""Seconds between two heartbeats: 1,000 in 5 seconds, so that p99 rests on ten of them."""

RECORDS_PER_REQUEST = 3
_ERRORS_PER_SECOND = 1.5
_STEP = 0.002  # seconds a request waits for its database, twice


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least `part` (0 to 1) of all are not above; 0 if there are none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


@dataclass(slots=True)
class Measured:
    """What the workload saw.

    Attributes:
        due: The loop's time at which the workload was to end.
        beats: Seconds each heartbeat was late.
        requests: Seconds from each request's intended start to its end.
        logged: Records logged, errors included.
        errors: Records of level ERROR.
    """

    due: float
    beats: list[float] = field(default_factory=list[float])
    requests: list[float] = field(default_factory=list[float])
    logged: int = 0
    errors: int = 0


def _every(requests_per_second: float) -> int:
    """One request in so many fails."""
    return max(1, round(requests_per_second / _ERRORS_PER_SECOND))


def _fails(number: int, every: int) -> bool:
    return number % every == every // 2


def errors_expected(seconds: float, rate: float) -> int:
    """How many requests of a round fail: about 1.5 a second at any rate, for each costs a mail."""
    every = _every(rate / RECORDS_PER_REQUEST)
    return sum(_fails(number, every) for number in range(_requests(seconds, rate)))


def _requests(seconds: float, rate: float) -> int:
    return max(1, round(seconds * rate / RECORDS_PER_REQUEST))


class _Metronome:
    """Calls at `start + n * interval`, for n from 0; one that can't be made in time is made late, none is left out."""

    def __init__(self, start: float, interval: float, count: int, call: Callable[[int, float], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = start
        self._interval = interval
        self._count = count
        self._call = call
        self.finished: asyncio.Future[None] = self._loop.create_future()
        self._schedule(0)

    def _schedule(self, number: int) -> None:
        due = self._start + number * self._interval
        self._loop.call_at(due, self._tick, number, due)

    def _tick(self, number: int, due: float) -> None:
        self._call(number, due)
        if number + 1 < self._count:
            self._schedule(number + 1)
        else:
            self.finished.set_result(None)


class ItemMissingError(LookupError):
    """What the failing requests fail with."""


class _Service:
    """Answers requests and logs about them."""

    def __init__(self, logger: logging.Logger, name: str, every: int, measured: Measured) -> None:
        self._logger = logger
        self._name = name
        self._every = every
        self._measured = measured
        self._numbers = itertools.count()
        self._loop = asyncio.get_running_loop()
        self._logs = logger.isEnabledFor(logging.CRITICAL)
        self.running: set[asyncio.Task[None]] = set()

    def start(self, number: int, due: float) -> None:
        """Begin a request that was due at the loop's time `due`."""
        task = self._loop.create_task(self._request(number, due))
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def _request(self, number: int, due: float) -> None:
        item = number % 97
        self._logger.debug("%s GET /items/%d", self._tag(), item)
        await asyncio.sleep(_STEP)
        self._logger.debug("%s %d rows for item %d", self._tag(), 1 + item % 3, item)
        await asyncio.sleep(_STEP)
        taken = self._loop.time() - due
        try:
            self._answer(number, item)
        except ItemMissingError:
            self._measured.errors += self._logs
            self._logger.exception("%s GET /items/%d: 500 after %.1f ms", self._tag(), item, 1e3 * taken)
        else:
            self._logger.info("%s GET /items/%d: 200 after %.1f ms", self._tag(), item, 1e3 * taken)
        self._measured.requests.append(self._loop.time() - due)

    def _tag(self) -> str:
        self._measured.logged += self._logs
        return f"{self._name}#{next(self._numbers)}"

    def _answer(self, number: int, item: int) -> None:
        if _fails(number, self._every):
            msg = f"item {item} is in no shelf"
            raise ItemMissingError(msg)


async def run(logger: logging.Logger, name: str, seconds: float, rate: float) -> Measured:
    """Run the workload once.

    Args:
        logger: Where the requests log. One that is disabled makes the idle round.
        name: Goes into each message, with the record's number.
        seconds: How long requests and beats are started.
        rate: Records a second.

    Returns:
        When every beat was struck and every request answered.
    """
    loop = asyncio.get_running_loop()
    start = loop.time() + BEAT
    measured = Measured(due=start + seconds)
    count = _requests(seconds, rate)
    service = _Service(logger, name, _every(rate / RECORDS_PER_REQUEST), measured)
    beats = _Metronome(
        start, BEAT, max(1, round(seconds / BEAT)), lambda _, due: measured.beats.append(loop.time() - due)
    )
    requests = _Metronome(start, seconds / count, count, service.start)
    await asyncio.gather(beats.finished, requests.finished)
    await asyncio.gather(*service.running)
    return measured
