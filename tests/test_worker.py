"""A worker runs jobs in a thread of its own, for any loop, and outlives whatever they do."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from contextvars import ContextVar

import pytest

from offloop import marks
from offloop.worker import Breather, Worker

_variable: ContextVar[str] = ContextVar("variable", default="unset")


def _fail(error: BaseException) -> None:
    raise error


async def test_runs_in_a_marked_daemon_thread() -> None:
    """A job runs in a named daemon thread whose context is fresh and marked as offloop's own."""
    _variable.set("the application's")
    worker = Worker("test-worker")

    def look() -> tuple[str, bool, bool, str]:
        thread = threading.current_thread()
        return thread.name, thread.daemon, marks.is_own(), _variable.get()

    assert await worker.run(look) == ("test-worker", True, True, "unset")
    assert not marks.is_own()


def test_serves_several_loops_one_after_another() -> None:
    """The same thread answers in whichever loop asks."""
    worker = Worker("test-worker")

    async def ident() -> int:
        return await worker.run(threading.get_ident)

    assert asyncio.run(ident()) == asyncio.run(ident())


async def test_works_again_after_close() -> None:
    """After `close`, twice, the next job starts another thread; the old one has ended."""
    worker = Worker("test-worker")
    first = await worker.run(threading.current_thread)
    worker.close()
    worker.close()
    first.join()
    assert "not running" in repr(worker)
    assert await worker.run(threading.current_thread) is not first
    assert repr(worker) == "<Worker test-worker running>"


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration("no"), SystemExit("no")])
async def test_failure_reaches_the_caller(error: BaseException) -> None:
    """An exception is raised in whoever waits; what would end or hang the loop comes as a RuntimeError."""
    worker = Worker("test-worker")
    with pytest.raises((ValueError, RuntimeError), match="no") as caught:
        await worker.run(_fail, error)
    assert error in {caught.value, caught.value.__cause__}
    assert await worker.run(len, "abc") == 3


async def test_cancelled_job_is_left_out() -> None:
    """A job that was cancelled before its turn is not run, and one cancelled in its turn answers nobody."""
    worker = Worker("test-worker")
    begun, go = threading.Event(), threading.Event()
    ran: list[int] = []

    def hold() -> None:
        begun.set()
        go.wait(10)

    held = asyncio.ensure_future(worker.run(hold))
    waiting = asyncio.ensure_future(worker.run(ran.append, 1))
    failing = asyncio.ensure_future(worker.run(_fail, ValueError("no")))
    await asyncio.to_thread(begun.wait, 10)
    held.cancel()
    waiting.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(ValueError, match="no"):
        await failing
    assert await worker.run(lambda: ran) == []
    assert held.cancelled()


async def test_failure_of_a_cancelled_job_is_dropped() -> None:
    """A job that fails after its caller went away disturbs neither loop nor thread."""
    worker = Worker("test-worker")
    begun, go = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        go.wait(10)
        raise ValueError

    held = asyncio.ensure_future(worker.run(hold))
    await asyncio.to_thread(begun.wait, 10)
    held.cancel()
    go.set()
    assert await worker.run(len, "abc") == 3


def test_closed_loop_is_tolerated() -> None:
    """An answer for a loop that is gone is dropped, and the thread goes on."""
    worker = Worker("test-worker")
    begun, go = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        go.wait(10)

    async def leave() -> None:
        task = asyncio.ensure_future(worker.run(hold))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()

    async def ask() -> int:
        return await worker.run(len, "abc")

    asyncio.run(leave())
    go.set()
    assert asyncio.run(ask()) == 3


async def test_worker_nobody_holds_ends_its_thread() -> None:
    """A worker that is collected takes its thread along."""
    worker = Worker("test-worker")
    thread = await worker.run(threading.current_thread)
    gone = weakref.ref(worker)
    del worker
    gc.collect()
    assert gone() is None
    thread.join()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_works_in_a_forked_child() -> None:
    """A child has a thread of its own, though the parent's was in the middle of a job."""
    worker = Worker("test-worker")
    begun, go = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        go.wait(10)

    async def leave() -> None:
        task = asyncio.ensure_future(worker.run(hold))
        await asyncio.to_thread(begun.wait, 10)
        task.cancel()

    asyncio.run(leave())
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        code = 1
        try:
            code = 0 if asyncio.run(asyncio.wait_for(worker.run(len, "abc"), 5)) == 3 else 1
        finally:
            os._exit(code)
    go.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_breather_rests_after_work() -> None:
    """A breather lets go of the GIL once 0.1 ms have passed since the last rest, and not before."""
    times = iter([0.0, 0.00005, 0.00010, 0.00015, 0.00020, 0.00026, 0.00030])
    rests: list[float] = []
    breathe = Breather(clock=lambda: next(times), sleep=rests.append)
    counts = []
    for _ in range(4):
        breathe()
        counts.append(len(rests))
    assert counts == [0, 1, 1, 2]
