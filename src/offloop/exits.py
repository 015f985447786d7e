"""The end of the process: what still waits then is delivered on a loop of its own, or printed, and counted.

The hook runs when the interpreter ends, or a child of `multiprocessing`, which skips `atexit`. It is registered when
offloop is imported: of an application's own exit functions those that are registered later run before it, and what
they log is delivered; what is logged after it is printed at once. Nothing here runs in a process that is killed, or
ends by `os._exit`.
"""

from __future__ import annotations

import asyncio
import atexit
import sys
from asyncio import events
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any

from offloop import diagnostics, fork, worker
from offloop.capture import Record, text_of
from offloop.intake import Intake
from offloop.registry import Server
from offloop.remains import Printing
from offloop.stderr import Budget

__all__ = ["finish"]

_GRACE = 0.2  # seconds beyond its deadline that a loop in another thread gets
_LAST = -100  # among multiprocessing's finalizers: after those that may log


def finish() -> None:
    """Deliver what waits anywhere in this process, within the deadlines of the listeners; print what can't be.

    Never raises. Ctrl-C cuts it short.
    """
    budget = Budget()
    intakes = Intake.every()
    servers = {id(intake.server): intake.server for intake in intakes if intake.server is not None}.values()
    worker.at_exit(max((server.shutdown_timeout for server in servers), default=0.0))
    try:
        _deliver(servers, budget)
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - said, and what is left is printed
        diagnostics.report(
            "exit:error", f"not all could be delivered at exit: {type(error).__name__}: {text_of(error)}"
        )
    Intake.last_resort = partial(_print, budget)
    for server in servers:
        server.surrender(budget)
    for intake in intakes:
        intake.detach()
        _print(budget, intake)
    if budget.asked:
        told = f"{budget.printed} printed, {budget.asked - budget.printed} lost"
        diagnostics.report("exit", f"at exit {budget.asked} record(s) could not be delivered: {told}")
    diagnostics.flush()


def _deliver(servers: Iterable[Server], budget: Budget) -> None:
    elsewhere = [(server, stopping) for server in servers if (stopping := _stop_elsewhere(server)) is not None]
    busy = [server for server in servers if server.holds and all(server is not other for other, _ in elsewhere)]
    if busy and events._get_running_loop() is None:  # noqa: SLF001 - documented as "for framework developers"
        _deliver_here(busy, budget)
    for server, stopping in elsewhere:
        with suppress(TimeoutError):  # the loop is held up: what it holds is printed
            stopping.result(server.shutdown_timeout + _GRACE)


def _stop_elsewhere(server: Server) -> Future[Any] | None:
    """Ask a listener to stop whose loop runs in a daemon thread; None if its loop does not run."""
    loop = server.loop
    if loop is None or not loop.is_running() or loop is events._get_running_loop():  # noqa: SLF001 - as above
        return None
    return asyncio.run_coroutine_threadsafe(server.stop(), loop)


def _deliver_here(servers: Sequence[Server], budget: Budget) -> None:
    for server in servers:
        server.give_up()
    loop = asyncio.new_event_loop()
    # An attempt that hangs is left behind: there is nobody to tell that it was never finished.
    loop.set_exception_handler(lambda _loop, _context: None)
    try:
        loop.run_until_complete(_finish_all(servers, budget))
    finally:
        loop.close()


async def _finish_all(servers: Sequence[Server], budget: Budget) -> None:
    await asyncio.gather(*(server.finish(budget) for server in servers), return_exceptions=True)


def _print(budget: Budget, intake: Intake) -> None:
    """Print what waits in an intake, now."""
    # What another thread logs meanwhile, or the printing itself, waits for the next turn.
    while intake.pending and _process.printing.acquire(blocking=False):
        try:
            intake.surrender(partial(_put_away, budget))
        finally:
            _process.printing.release()


def _put_away(budget: Budget, records: Sequence[Record]) -> int:
    printing = Printing("the queue", records, budget)
    printing.run()
    return len(printing.stop())


class _Process:
    """Sees that the hook runs in children of `multiprocessing` too, however they are started."""

    def __init__(self) -> None:
        self.printing = Lock()
        fork.inherits(self)
        self._join()

    def after_fork(self) -> None:
        self.printing = Lock()
        worker.at_exit(None)
        self._join()

    def _join(self) -> None:
        # Not imported for this: without it there are no such children.
        util: Any = sys.modules.get("multiprocessing.util")
        if util is not None:
            # A child throws away what finalizers it finds, and then calls this.
            util.register_after_fork(self, partial(_finalize, util))
            _finalize(util)


def _finalize(util: Any, _: object = None) -> None:
    util.Finalize(None, finish, exitpriority=_LAST)


atexit.register(finish)
_process = _Process()
