"""Which queues are in use in this process, and who serves them: for the ends of a process, and for forks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Lock
from typing import Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

from offloop import fork
from offloop.stderr import Budget

__all__ = ["Registry", "Server"]

_T = TypeVar("_T")


class Server(Protocol):
    """A listener, as the end of the process sees it."""

    @property
    def shutdown_timeout(self) -> float:
        """Seconds for what is left."""
        ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop it was started in and has not been stopped in."""
        ...

    @property
    def holds(self) -> bool:
        """Whether records wait in it or in its queue."""
        ...

    async def stop(self) -> object:
        """Deliver what is left, in the loop it runs in."""

    async def finish(self, budget: Budget) -> None:
        """Start, deliver what is left, and stop."""

    def give_up(self) -> None:
        """Forget a loop that will not go on."""

    def surrender(self, budget: Budget) -> None:
        """Print what the lanes hold."""


class Registry(Generic[_T]):
    """What exists in the process for each queue, as long as anyone uses it."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self.served: set[_T] = set()
        """Held, though nobody else may: they have a listener, or it left records."""
        self._lock = Lock()
        self._known: WeakValueDictionary[int, _T] = WeakValueDictionary()
        fork.inherits(self)

    def of(self, queue: object, make: Callable[[], _T]) -> _T:
        """The one of this queue; it holds the queue, so that the identity is taken as long as the entry lives."""
        with self._lock:
            one = self._known.get(id(queue))
            if one is None:
                one = self._known[id(queue)] = make()
            return one

    def every(self) -> set[_T]:
        """All that are in use."""
        found = (reference() for reference in self._known.valuerefs())
        return self.served.union(one for one in found if one is not None)

    def after_fork(self) -> None:
        """In a child: the same ones, and no listener serves any."""
        self._lock = Lock()
        self._known = WeakValueDictionary(self._known.items())
        self.served = set()
