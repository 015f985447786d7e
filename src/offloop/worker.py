"""A thread of offloop's own, for what would hold the loop up: tracebacks, building a mail, compression, plain handlers.

Not a pool that the application shares: its endpoints can't starve offloop, and a stuck handler can't starve them. The
thread is a daemon, so that nothing it hangs in delays the end of the process.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, ParamSpec, TypeVar

from offloop import marks

__all__ = ["Breather", "Worker", "at_exit", "overdue"]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Job = Callable[[], None]
_Jobs = SimpleQueue[_Job | None]

_WORK = 1e-4  # seconds of work
_REST = 5e-5  # seconds


class Worker:
    """One daemon thread that runs functions one after another, in the order they came.

    It starts with the first job, serves any event loop (several, one after another), and works again after `close` and
    in a forked child, where jobs of the parent are not run. What is logged in it counts as offloop's own. Where the
    interpreter is ending and starts no threads, see `at_exit`.
    """

    def __init__(self, name: str) -> None:
        """Start nothing yet.

        Args:
            name: What the thread is called, for debuggers.
        """
        self._name = name
        self._lock = Lock()
        self._jobs: _Jobs | None = None
        self._pid = 0

    async def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call the function in the thread and give its result.

        On cancellation a job that has not begun is left out; one that has begun goes on, and nobody waits for it.

        Raises:
            RuntimeError: The interpreter is ending and starts no threads; or the function raised something that must
                not pass through an event loop (`SystemExit`, `StopIteration`).
            Exception: What the function raised.
        """
        return await self.begin(function, *args, **kwargs)

    def begin(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> asyncio.Future[_T]:
        """As `run`, for who waits later: a future, and no task that the end of `asyncio.run` would cancel.

        Raises:
            RuntimeError: The interpreter is ending and starts no threads.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._put(partial(_answer, loop, future, partial(function, *args, **kwargs)))
        return future

    def close(self) -> None:
        """Let the thread end after the jobs it has; waits for none of them. Idempotent; the next job starts another."""
        jobs, self._jobs = self._jobs, None
        if jobs is not None:
            jobs.put(None)

    def __del__(self) -> None:
        self.close()

    def __repr__(self) -> str:
        running = self._jobs is not None and self._pid == os.getpid()
        return f"<{type(self).__name__} {self._name} {'running' if running else 'not running'}>"

    def _put(self, job: _Job) -> None:
        jobs = self._jobs
        if jobs is None or self._pid != os.getpid():
            try:
                jobs = self._start()
            except RuntimeError:
                if not _ending:
                    raise
                job()
                return
        jobs.put(job)

    def _start(self) -> _Jobs:
        if self._pid != os.getpid():
            # The parent's thread isn't here, and its locks are as the fork found them, perhaps held.
            self._lock, self._jobs, self._pid = Lock(), None, os.getpid()
        with self._lock:
            if self._jobs is None:
                jobs: _Jobs = SimpleQueue()
                # The thread knows its queue and not the worker, so that a worker nobody holds can be collected. The
                # context is a fresh one: free-threaded builds would have the thread inherit the caller's.
                Thread(target=Context().run, args=(_work, jobs), name=self._name, daemon=True).start()
                self._jobs = jobs
            return self._jobs


class Breather:
    """For long work in a thread: call it between two pieces, and the loop's thread waits about 0.1 ms for the GIL."""

    __slots__ = ("_clock", "_sleep", "_until", "_work")

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], object] = time.sleep,
        work: float = _WORK,
    ) -> None:
        """Begin to count the work.

        Args:
            clock: Gives the time in seconds.
            sleep: Lets go of the GIL for so many seconds.
            work: Seconds between two rests.
        """
        self._clock = clock
        self._sleep = sleep
        self._work = work
        self._until = clock() + work

    def __call__(self) -> None:
        """Rest for a moment if the last rest was so long ago, or longer."""
        if self._clock() >= self._until:
            self._sleep(_REST)
            self._until = self._clock() + self._work


_ending: list[float] = []
"""When the process must have ended, by the clock of `time.monotonic`; empty before `at_exit`."""


def at_exit(timeout: float | None) -> None:
    """The process ends: from now on a job for which no thread starts is called at once, by whoever asks for it.

    Args:
        timeout: Seconds after which `overdue` tells a long job to leave off. None: it does not end after all, but is a
            child that was forked meanwhile.
    """
    _ending[:] = [] if timeout is None else [time.monotonic() + timeout]


def overdue() -> bool:
    """Whether the process should have ended by now."""
    return bool(_ending) and time.monotonic() >= _ending[0]


def _work(jobs: _Jobs) -> None:
    marks.mark()
    while (job := jobs.get()) is not None:
        job()
        # A job holds what it worked on, and the next may be hours away.
        del job


def _answer(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], function: Callable[[], Any]) -> None:
    if future.cancelled():
        return
    settle = _outcome(future, function)
    # The loop may be closed by now: then nobody waits for the answer any more.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(settle)


def _outcome(future: asyncio.Future[Any], function: Callable[[], Any]) -> Callable[[], None]:
    try:
        return partial(_set_result, future, function())
    except BaseException as error:  # noqa: BLE001 - raised again in whoever waits
        return partial(_set_exception, future, error)


def _set_result(future: asyncio.Future[Any], result: object) -> None:
    if not future.done():
        future.set_result(result)


def _set_exception(future: asyncio.Future[Any], error: BaseException) -> None:
    if future.done():
        return
    if not isinstance(error, Exception) or isinstance(error, StopIteration):
        # A future refuses the one, and the others would end the application's loop.
        passed = RuntimeError(f"a worker's function raised {error!r}")
        passed.__cause__ = error
        error = passed
    future.set_exception(error)
