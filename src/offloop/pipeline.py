"""The front door: handler, queue and listener as one object."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self, get_args

from offloop import records
from offloop.errors import ConfigError, PipelineInUse
from offloop.handler import Context, QueueHandler
from offloop.intake import OwnQueue
from offloop.ledger import Report, Stats
from offloop.listener import QueueListener
from offloop.policies import QueueOverflow, at_least, one_of
from offloop.sink import Sink, check_kind
from offloop.sinks import Destination
from offloop.spool import Spool

__all__ = ["Pipeline"]


class Pipeline:
    """Logging off the event loop: `async with Pipeline(sink): ...`.

    On entry a `QueueHandler` is attached to the logger and a `QueueListener` is started; on leaving, what was logged is
    delivered within the deadline, the sinks are closed and the handler is detached. It may be entered again, in another
    event loop too, and from several places of one loop (the last to leave stops it).

    A web framework gets the same object: `FastAPI(lifespan=pipeline)`, `Starlette(lifespan=pipeline)`,
    `Litestar(lifespan=[pipeline])`, `aiohttp_app.cleanup_ctx.append(pipeline)`.

    Attributes:
        handler: The handler, to be attached elsewhere too (loggers that don't propagate, loguru, structlog).
        listener: The listener.
    """

    def __init__(  # noqa: PLR0913 - keywords, each a choice of its own
        self,
        *sinks: Destination,
        logger: logging.Logger | str | None = None,
        level: int | str | None = None,
        queue_size: int = 10_000,
        overflow: QueueOverflow = "drop_new",
        spool: Spool | None = None,
        fallback: Destination | None = None,
        shutdown_timeout: float = 5.0,
        context: Context | None = None,
        fast_records: bool = False,
    ) -> None:
        """Prepare; nothing is attached and nothing runs before it is entered.

        Args:
            sinks: As for `QueueListener`.
            logger: The logger, or its name, whose records are taken; None: the root logger.
            level: Set on that logger while the pipeline is entered; None: the logger's own stays. (The root logger's is
                WARNING unless somebody set it.)
            queue_size: How many records may wait for the listener.
            overflow: What happens as they become too many: see `QueueHandler`, whose `wait_timeout` of a second holds
                for `"wait"`.
            spool: Where the records of each sink are kept on disk, while its destination is away, that has no spool of
                its own: see `Spool`, whose bounds are for each of them. None: in memory alone.
            fallback: What each sink falls back on that has no `fallback` of its own: see `QueueListener`.
            shutdown_timeout: Seconds that leaving takes at most, plus 0.1.
            context: Context variables to take along: see `QueueHandler`.
            fast_records: While the pipeline is entered, have every logger of the process make
                `offloop.records.FastRecord`s: they cost a third, and show what a `LogRecord` shows. Entering raises
                `ConfigError` where the application has installed a record factory of its own.

        Raises:
            ConfigError: A value is out of its limits.
        """
        at_least("Pipeline: ", "queue_size", queue_size, 1, "record")
        one_of("Pipeline: ", "overflow", overflow, get_args(QueueOverflow))
        if logger is not None and not isinstance(logger, (logging.Logger, str)):
            msg = f"Pipeline: logger must be a logging.Logger, its name or None, got {logger!r}"
            raise ConfigError(msg)
        self._logger = logger if isinstance(logger, logging.Logger) else logging.getLogger(logger)
        if not isinstance(fast_records, bool):
            msg = f"Pipeline: fast_records must be True or False, got {fast_records!r}"
            raise ConfigError(msg)
        self._fast_records = fast_records
        self._installed = False
        self._level = None if level is None else _checked_level(level)
        self._level_before: int | None = None
        if spool is not None:
            check_kind("Pipeline", "spool", spool, Spool)
        queue = OwnQueue(queue_size)
        self.handler = QueueHandler(queue, overflow, context=context)
        self.listener = QueueListener(queue, *sinks, shutdown_timeout=shutdown_timeout, spool=spool, fallback=fallback)
        self._entered = 0

    @property
    def sinks(self) -> tuple[Sink, ...]:
        """The sinks, plain handlers and callables wrapped."""
        return self.listener.sinks

    def start(self) -> None:
        """Attach the handler and start the listener in the running event loop.

        Raises:
            RuntimeError: No event loop runs in this thread.
            PipelineInUse: It is running in another event loop.
            ConfigError: `fast_records`, and another record factory than the standard one is installed.
        """
        if not self.listener.running:
            self._entered = 0
            self._install()
            try:
                self.listener.start()
            except BaseException:
                self._uninstall()
                raise
        elif not self.listener.runs_here:
            msg = (
                "the pipeline is already entered in another event loop: leave it there first, or make one for each loop"
            )
            raise PipelineInUse(msg)
        self._entered += 1
        if self._entered == 1:
            self._attach()

    async def stop(self, timeout: float | None = None) -> Report:
        """Deliver what was logged, close the sinks, detach the handler. See `QueueListener.stop`.

        Raises:
            PipelineInUse: It is running in another event loop.
        """
        if self.listener.running and not self.listener.runs_here:
            return await self.listener.stop(timeout)  # raises; the other loop's pipeline is left as it is
        self._entered -= 1
        if self._entered > 0:
            return await self.flush(timeout)
        self._entered = 0
        try:
            return await self.listener.stop(timeout)
        finally:
            if not self._entered:
                self._detach()
            elif not self.listener.running:
                self.listener.start()  # it was entered again while it was being left

    async def flush(self, timeout: float | None = None) -> Report:
        """Wait until every record offered before the call is settled, or the deadline has passed.

        See `QueueListener.flush`.
        """
        return await self.listener.flush(timeout)

    def stats(self) -> Stats:
        """A snapshot of the counts, from any thread, at any time."""
        return self.listener.stats()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __call__(self, app: object) -> Lifespan:
        """What a web framework calls with its application: a context that enters and leaves this pipeline."""
        del app
        return Lifespan(self)

    def __repr__(self) -> str:
        state = "running" if self.listener.running else "stopped"
        names = ", ".join(self.stats().sinks)
        return f"<{type(self).__name__} {state} on logger {self._logger.name!r} to {names or 'no sink'}>"

    def _install(self) -> None:
        if self._fast_records and not self._installed:
            records.install()
            self._installed = True

    def _uninstall(self) -> None:
        if self._installed:
            self._installed = False
            records.uninstall()

    def _attach(self) -> None:
        logger = self._logger
        if self.handler not in logger.handlers:
            # A new list: one that is changed in place makes a thread that walks it miss a handler.
            logger.handlers = [*logger.handlers, self.handler]
        if self._level is not None and self._level_before is None:
            self._level_before = logger.level
            logger.setLevel(self._level)

    def _detach(self) -> None:
        logger = self._logger
        logger.handlers = [handler for handler in logger.handlers if handler is not self.handler]
        self._uninstall()
        if self._level_before is not None:
            logger.setLevel(self._level_before)
            self._level_before = None


class Lifespan:
    """One application's time with a pipeline: an async context manager, and the async iterator that aiohttp wants.

    It enters as None: Starlette takes what a lifespan gives for the application's state.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        """Enter nothing yet."""
        self._pipeline = pipeline
        self._step = 0

    async def __aenter__(self) -> None:
        self._pipeline.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pipeline.stop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> None:
        """Enter at the first step, leave at the second."""
        self._step += 1
        if self._step == 1:
            self._pipeline.start()
            return
        if self._step == 2:  # noqa: PLR2004 - said above
            await self._pipeline.stop()
        raise StopAsyncIteration


def _checked_level(level: int | str) -> int:
    if isinstance(level, str):
        number = logging.getLevelNamesMapping().get(level)
        if number is None:
            msg = (
                f"Pipeline: level must be a number or one of {', '.join(logging.getLevelNamesMapping())}, got {level!r}"
            )
            raise ConfigError(msg)
        return number
    return level
