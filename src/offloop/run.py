"""What the lanes and the listener share while they run in one event loop: slices, a deadline, threads."""

from __future__ import annotations

from collections.abc import Callable

from offloop.pacer import Pacer
from offloop.shutdown import Shutdown
from offloop.stderr import Budget
from offloop.worker import Worker

__all__ = ["Run"]


class Run:
    """What the lanes and the listener share while they run in one loop."""

    def __init__(
        self, pacer: Pacer, shutdown: Shutdown, renderer: Worker, progressed: Callable[[], None], budget: Budget
    ) -> None:
        """Nothing is routed yet.

        Args:
            pacer: Whose slices all of them work in.
            shutdown: Their deadline.
            renderer: The thread that renders tracebacks.
            progressed: Called when records were settled.
            budget: What may be printed in the end.
        """
        self.pacer = pacer
        self.shutdown = shutdown
        self.renderer = renderer
        self.progressed = progressed
        self.budget = budget
        self.printer = Worker("offloop-stderr")
        self.routed = False
        """The listener will route nothing more."""

    async def work(self, step: Callable[[float], bool]) -> None:
        """Call `step` in slices until it says that it is done; it gets the time at which to stop for now."""
        while True:
            turn = self.pacer.turn()
            if turn is not None:
                await self.shutdown.nap(turn)
                if turn.cancelled():
                    continue
            deadline = self.pacer.begin()
            try:
                if step(deadline):
                    return
            finally:
                self.pacer.done()
