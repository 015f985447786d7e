"""A callable as a sink: async ones are awaited, others run in a thread of their own."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

from offloop.sink import Batch, Sink
from offloop.worker import Worker

__all__ = ["FunctionSink"]


class FunctionSink(Sink):
    """Calls a function with a list of records, one batch at a time.

    What the function raises means what it means for `Sink.send`. A function that is not async runs in a daemon thread
    of its own; at `send_timeout` it is no longer waited for, but can't be interrupted, and the next call waits behind
    it.
    """

    encodes = False

    def __init__(self, function: Callable[[list[Any]], Any], **options: Any) -> None:
        """Wrap the function.

        Args:
            function: Takes a list of records, oldest first; async or not.
            options: What every sink takes.
        """
        self.function = function
        self._is_async = _is_async(function)
        self._worker = Worker(f"offloop-{self.default_name()}")
        super().__init__(**options)

    def default_name(self) -> str:
        """The function's name."""
        function: Any = self.function
        if isinstance(function, partial):
            function = cast("partial[object]", function).func
        return getattr(function, "__name__", type(function).__name__)

    async def send(self, batch: Batch) -> None:
        """Call the function with the batch's records."""
        records = list(batch)
        result = self.function(records) if self._is_async else await self._worker.run(self.function, records)
        if inspect.isawaitable(result):
            await cast("Awaitable[object]", result)

    async def aclose(self) -> None:
        """Let the thread end, if there is one."""
        self._worker.close()


def _is_async(function: Callable[..., Any]) -> bool:
    if isinstance(function, partial):
        return _is_async(function.func)
    call = getattr(function, "__call__", None)  # noqa: B004 - what is wanted is the method itself
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
