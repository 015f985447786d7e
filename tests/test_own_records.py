"""What is logged by the work of delivering does not come back to it: no feedback, no recursion."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from helpers import collecting, messages_of
from offloop import Pipeline, TCPSink
from offloop.testing import MemorySink


async def test_debug_mode_of_asyncio(log: logging.Logger) -> None:
    """What asyncio says of our connection is counted `own`; what it says of the application's is delivered."""
    asyncio.get_running_loop().set_debug(True)
    asyncio_log = logging.getLogger("asyncio")
    level, parent = asyncio_log.level, asyncio_log.parent
    asyncio_log.setLevel("DEBUG")
    asyncio_log.parent = log
    try:
        async with collecting() as collector:
            # What asyncio says after it was left waits for the end of the process, when nobody listens any more.
            async with Pipeline(TCPSink("127.0.0.1", collector.port), logger=log, shutdown_timeout=2) as pipeline:
                log.info("hello")
                assert (await pipeline.flush(5)).complete
                offered = pipeline.stats().intake.offered
                # Turns in which nobody logs: what was delivered caused nothing new.
                for _ in range(20):
                    await asyncio.sleep(0)
                assert pipeline.stats().intake.offered == offered
            assert "hello" in messages_of(collector.lines)
            assert pipeline.stats().intake.dropped["own"]["DEBUG"] >= 1
            assert not [line for line in collector.lines if "_SelectorSocketTransport" in line]
    finally:
        asyncio_log.parent = parent
        asyncio_log.setLevel(level)


@pytest.mark.parametrize("where", ["formatter", "filter", "plain handler", "open"])
async def test_every_step_may_log(log: logging.Logger, where: str) -> None:
    """Whatever logs on the way to the destination is counted once, and delivered nowhere."""

    def say(*_: object) -> bool:
        log.warning("from the %s", where)
        return True

    class Formats(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            say()
            return super().format(record)

    class Emits(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say()

    class Opens(MemorySink):
        async def open(self) -> None:
            say()

    sinks: dict[str, Any] = {
        "formatter": MemorySink(formatter=Formats()),
        "filter": MemorySink(),
        "plain handler": Emits(),
        "open": Opens(),
    }
    sink = sinks[where]
    if where == "filter":
        sink.addFilter(say)
    async with Pipeline(sink, logger=log) as pipeline:
        log.info("hello")
        assert (await pipeline.flush(5)).complete
    intake = pipeline.stats().intake
    assert intake.delivered == 1
    assert intake.dropped == {"own": {"WARNING": 1}}
