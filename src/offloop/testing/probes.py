"""What the contract suite looks at a sink with: interference at each of its awaits, and what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

__all__ = ["Interference", "Leftovers", "Stepped", "cancel_as_answered", "cancel_now", "pause"]

Interference = Callable[[object], Generator[Any, None, None]]
"""What to do at an await; it gets what is waited for, and may wait itself."""

# Kept by those who made them for whoever comes next: they belong to the loop or the process, not to a sink.
_SHARED_THREADS = ("offloop-diagnostics", "asyncio_", "AnyIO worker thread")


class Stepped:
    """A coroutine that is interfered with at its nth await; awaiting this runs it.

    Attributes:
        reached: Whether it came to that await.
    """

    def __init__(self, call: Coroutine[Any, Any, None], at: int, interfere: Interference) -> None:
        """Wrap a coroutine.

        Args:
            call: The coroutine. Awaits of tasks that it starts are not counted.
            at: Which await, from 1.
            interfere: Called before it waits.
        """
        self.reached = False
        self._call = call
        self._at = at
        self._interfere = interfere

    async def run(self) -> None:
        """Run it to its end."""
        await self

    def __await__(self) -> Generator[Any, None, None]:
        steps = self._call.__await__()
        resume: Callable[[], Any] = partial(steps.send, None)
        count = 0
        while True:
            try:
                awaited = resume()
            except StopIteration:
                return
            count += 1
            if count == self._at:
                self.reached = True
                yield from self._interfere(awaited)
            try:
                yield awaited
            except BaseException as error:  # noqa: BLE001 - goes where it would have gone
                resume = partial(steps.throw, error)
            else:
                resume = partial(steps.send, None)


def cancel_now(_: object) -> Generator[Any, None, None]:
    """Cancel the task while it waits."""
    _this_task().cancel()
    yield from ()


def cancel_as_answered(awaited: object) -> Generator[Any, None, None]:
    """Cancel the task when what it waits for is there and it has not heard of it: the answer is lost."""
    task = _this_task()
    if asyncio.isfuture(awaited):
        # Called before the task's own callback, which is added when it begins to wait.
        awaited.add_done_callback(lambda _: task.cancel())
    else:
        task.cancel()
    yield from ()


def pause(reached: asyncio.Event, go_on: asyncio.Event) -> Interference:
    """Say that the await is reached, and let it go on when told."""

    def interfere(_: object) -> Generator[Any, None, None]:
        reached.set()
        yield from go_on.wait().__await__()

    return interfere


class Leftovers:
    """What is there now; asked later, what more there is: tasks, threads and open sockets."""

    def __init__(self) -> None:
        """Look around. In a running event loop."""
        self._tasks = _tasks()
        self._threads = set(threading.enumerate())
        self.sockets = open_sockets()

    def told(self) -> str:
        """What has come since and is still there, in words; empty if nothing is."""
        tasks = list((_tasks() - self._tasks).elements())
        threads = [
            thread.name
            for thread in set(threading.enumerate()) - self._threads
            if not thread.name.startswith(_SHARED_THREADS)
        ]
        sockets = max(0, open_sockets() - self.sockets)
        parts = [
            f"{len(tasks)} task(s) ({', '.join(sorted(tasks))})" if tasks else "",
            f"{len(threads)} thread(s) ({', '.join(sorted(threads))})" if threads else "",
            f"{sockets} open socket(s)" if sockets else "",
        ]
        return ", ".join(filter(None, parts))


def _tasks() -> Counter[str]:
    """By what they run, not one by one: a server's may have made way for others of their kind."""
    return Counter(getattr(task.get_coro(), "__qualname__", task.get_name()) for task in asyncio.all_tasks())


def open_sockets() -> int:
    """How many sockets this process has open; 0 where the system does not tell."""
    try:
        descriptors = os.listdir("/dev/fd")  # noqa: PTH208 - numbers, not paths
    except OSError:
        return 0
    return sum(map(_is_socket, map(int, descriptors)))


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:  # closed meanwhile: the one that listed the folder, for instance
        return False


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - awaited by a task
    return task
