"""For the state machines: a loop whose time is free, cancellations at a chosen await, a tally of what occurred."""

from __future__ import annotations

import ast
import asyncio
import selectors
import sys
import types
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

import offloop
from offloop.worker import Worker

__all__ = ["Cancellations", "Tally", "VirtualLoop", "awaits", "interruptible"]

_SOURCE = str(Path(offloop.__file__).parent)
_BEGIN = Worker.begin.__code__
_LONGEST = 10.0  # seconds for a thread to answer; nothing here takes that long
_TURN = 1e-6  # seconds of virtual time that a turn of the loop takes: where nothing takes any, two may wait for ever
_MOMENT = 0.0003  # seconds of real time for the machine's own threads, before virtual time goes on


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Waits for nobody but threads at work: where nothing is ready, the clock goes to the next timer."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        self.loop.now += _TURN
        if timeout == 0:
            return ()  # there is work; what a thread said is among it already
        events = super().select(0)
        if events:
            return events
        until = monotonic() + _LONGEST
        while self.loop.is_awaiting_a_worker:
            events = super().select(_MOMENT)
            if events:
                return events
            if monotonic() >= until:
                raise TimeoutError("a thread of offloop's does not answer")
        events = super().select(_MOMENT if self.loop.visitors else 0)  # what a worker said before we looked
        if events:
            return events
        if timeout is None:
            events = super().select(_LONGEST)
            if not events:
                raise TimeoutError("the loop would wait for ever")
            return events
        self.loop.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which waiting costs no time.

    Attributes:
        now: Its clock, in seconds.
        visitors: Threads of the test that are about to call in.
    """

    def __init__(self, now: float = 0.0) -> None:
        selector = _Selector()
        selector.loop = self
        self.now = now
        self.visitors = 0
        self._asked = list[asyncio.Future[Any]]()
        super().__init__(selector)
        # Tasks of a loop that was closed without a stop are collected: nobody is to hear of it.
        self.set_exception_handler(lambda _loop, _context: None)

    def time(self) -> float:
        return self.now

    def create_future(self) -> asyncio.Future[Any]:
        future = super().create_future()
        if sys._getframe(1).f_code is _BEGIN:
            self._asked.append(future)
        return future

    @property
    def is_awaiting_a_worker(self) -> bool:
        """Whether a thread of offloop's has yet to answer."""
        if self._asked:
            self._asked = [future for future in self._asked if not future.done()]
        return bool(self._asked)


@dataclass
class Tally:
    """How often each thing occurred: a kind and a name."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, kind: str, name: str, count: int = 1) -> None:
        self.counts[kind, name] += count


class Cancellations:
    """Cancels tasks at an await that was chosen before: the nth from then on, of a task of one kind."""

    def __init__(self, tally: Tally) -> None:
        self.watch: Callable[[], None] = lambda: None
        """Called at each of these awaits."""
        self._tally = tally
        self._armed: dict[str, list[tuple[int, bool]]] = {}

    def arm(self, kind: str, nth: int, *, answered: bool) -> None:
        """Have the nth await from now on of a task of this kind be cancelled.

        Args:
            kind: The task's name, or that of its coroutine.
            nth: From 1.
            answered: When what it waits for is there and it has not heard of it; otherwise while it waits.
        """
        self._armed.setdefault(kind, []).append((nth, answered))

    def disarm(self) -> None:
        self._armed.clear()

    def factory(self, loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """For `loop.set_task_factory`."""
        return asyncio.Task(_Driven(coro, self), loop=loop, **options)

    def at(self, kind: str, coro: Any, awaited: object) -> None:
        """A task is about to wait."""
        plans = self._armed.get(kind)
        if not plans:
            return
        due = [answered for nth, answered in plans if nth == 1]
        self._armed[kind] = [(nth - 1, answered) for nth, answered in plans if nth > 1]
        if due:
            self.watch()
            for place in _places(coro):
                self._tally.add("await", place)
            self._tally.add("cancelled", f"{kind}, {'as it is answered' if any(due) else 'while it waits'}")
            _cancel(awaited, answered=any(due))

    @property
    def is_armed(self) -> bool:
        return bool(self._armed)


class _Driven(Coroutine[Any, Any, Any]):
    """A task's coroutine, with a look at each of its awaits."""

    def __init__(self, coro: Coroutine[Any, Any, Any], cancellations: Cancellations) -> None:
        self._coro = coro
        self._cancellations = cancellations

    def send(self, value: Any) -> Any:
        return self._looked_at(self._coro.send(value))

    def throw(self, *error: Any) -> Any:
        return self._looked_at(self._coro.throw(*error))

    def close(self) -> None:
        self._coro.close()

    def __await__(self) -> Any:
        raise NotImplementedError  # a task sends and throws

    def __getattr__(self, name: str) -> Any:  # its state, for those who look into tasks
        return getattr(self._coro, name)

    def _looked_at(self, awaited: Any) -> Any:
        if self._cancellations.is_armed:
            self._cancellations.at(_kind(self._coro), self._coro, awaited)
        return awaited


@types.coroutine
def interruptible(coro: Coroutine[Any, Any, Any], cancellations: Cancellations, kind: str) -> Generator[Any, Any, Any]:
    """Run a coroutine; `kind` stands for the name of its task, which was not made by the loop."""
    resume: Callable[[Any], Any] = coro.send
    value: Any = None
    while True:
        try:
            awaited = resume(value)
        except StopIteration as stop:
            return stop.value
        if cancellations.is_armed:
            cancellations.at(kind, coro, awaited)
        try:
            value = yield awaited
            resume = coro.send
        except GeneratorExit:  # collected with its loop: in any order, the inner one perhaps first
            coro.close()
            raise
        except BaseException as error:
            value = error
            resume = coro.throw


def _kind(coro: Any) -> str:
    task = asyncio.current_task()
    name = "" if task is None else task.get_name()
    return name if name.startswith(("offloop", "application")) else coro.__name__


def _cancel(awaited: object, *, answered: bool) -> None:
    task = asyncio.current_task()
    assert task is not None
    if answered and asyncio.isfuture(awaited):
        # Called before the task's own callback, which is added when it begins to wait.
        awaited.add_done_callback(lambda _: task.cancel())
    else:
        task.cancel()


def _places(coro: Any) -> list[str]:
    """The awaits of offloop that a task stands in, the outer ones too."""
    frames = list[FrameType | None]()
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "_called":
        frame = frame.f_back
    if frame is not None:  # an attempt: what awaits the sink stands above us, and above that perhaps who made its task
        frames.append(frame)
    while coro is not None:
        frames.append(getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None))
        coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None)
    found = [_place(frame.f_code.co_filename, frame.f_lineno) for frame in frames if frame is not None]
    return [place for place in found if place is not None]


def _place(path: str, line: int) -> str | None:
    if not path.startswith(_SOURCE):
        return None
    name = path[len(_SOURCE) + 1 :]
    around = [(end - begin, begin, where) for begin, end, where in _awaits_of(name) if begin <= line <= end]
    return f"{name}:{min(around)[1]} {min(around)[2]}" if around else None


def awaits(*rooms: str) -> list[str]:
    """Every `await` in these modules."""
    return [f"{name}:{begin} {where}" for name in rooms for begin, _, where in sorted(_awaits_of(name))]


@cache
def _awaits_of(name: str) -> list[tuple[int, int, str]]:
    """First and last line of each, the function it is in, and which of its awaits it is."""
    found = list[tuple[int, int, str]]()
    seen = dict[tuple[int, int], str]()

    def look(node: ast.AST, within: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = within
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                inner = f"{within}.{child.name}" if within else child.name
            if isinstance(child, ast.Await):
                lines = child.lineno, child.end_lineno or child.lineno
                if lines not in seen:  # two on one line count as one
                    seen[lines] = inner
                    nth = sum(where == inner for where in seen.values())
                    found.append((*lines, f"{inner} ({nth})"))
            look(child, inner)

    look(ast.parse((Path(_SOURCE) / name).read_text()), "")
    return found
