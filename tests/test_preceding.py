"""What led to an error: records of lower levels, by task, request or tree of loggers."""

from __future__ import annotations

import asyncio
import logging
import sys
import uuid
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from threading import Thread
from typing import Any

import pytest

from helpers import record_of
from interleaving import VirtualLoop
from offloop import Batch, Digest, Pipeline, Preceding, QueueHandler, QueueListener, Sink
from offloop.digest import Group
from offloop.preceding import Rings
from offloop.testing import MemorySink

log = logging.getLogger("shop.cart")
request_id: ContextVar[Any] = ContextVar("request_id")


class Mailbox(Sink):
    """Keeps what each mail tells."""

    encodes = False
    digest = Digest(gather=0.0, hourly=None, daily=None)

    def __init__(self, preceding: Preceding | None = None, **options: Any) -> None:
        settings: dict[str, Any] = {"level": logging.ERROR, "name": "mail"}
        super().__init__(**settings | options)
        self.preceding = preceding
        self.groups: list[Group] = []

    async def send(self, batch: Batch) -> None:
        assert batch.gathered is not None
        self.groups += batch.gathered.groups

    @property
    def led(self) -> list[tuple[str, list[str]]]:
        """The message of each group's first record, and those that led to it."""
        return [
            (group.records[0].getMessage(), [record.getMessage() for record in group.preceding])
            for group in self.groups
        ]


def tell(story: Callable[[], Awaitable[None]], *sinks: Sink, **options: Any) -> Any:
    """Log what the story says, in simulated time; gives the counts."""

    async def main() -> Any:
        pipeline = Pipeline(*sinks, logger="shop", level="DEBUG", **options)
        async with pipeline:
            await story()
        stats = pipeline.stats()
        assert stats.balanced
        return stats

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


async def requests() -> None:
    """Two requests, one step of each after the other; both fail."""

    async def serve(name: str) -> None:
        request_id.set(name)
        for step in range(3):
            log.info("%s step %d", name, step)
            await asyncio.sleep(0.01)
        log.error(f"{name} failed")

    async with asyncio.TaskGroup() as group:
        for name in ("left", "right"):
            group.create_task(serve(name))
    await asyncio.sleep(1)


APART = [(f"{name} failed", [f"{name} step {step}" for step in range(3)]) for name in ("left", "right")]


def test_context_variable_tells_requests_apart() -> None:
    """Each error comes with what its own request logged, where a captured variable says which it was."""
    sink = Mailbox(Preceding(by=("request_id",)))
    tell(requests, sink, context=[request_id])
    assert sorted(sink.led) == APART


def test_context_variable_of_any_kind_tells_requests_apart() -> None:
    """A request may be known by a UUID as well."""

    async def story() -> None:
        for name in ("left", "right"):
            request_id.set(uuid.uuid4())
            log.info("%s step", name)
            log.error(f"{name} failed")

    sink = Mailbox(Preceding(by=("request_id",)))
    tell(story, sink, context=[request_id])
    assert sorted(sink.led) == [(f"{name} failed", [f"{name} step"]) for name in ("left", "right")]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="records have no taskName")
def test_tasks_are_told_apart() -> None:
    """Without a variable each error comes with what its own task logged."""
    sink = Mailbox(Preceding())
    tell(requests, sink)
    assert sorted(sink.led) == APART


def test_threads_share_the_tree_of_loggers() -> None:
    """Where nothing tells requests apart it is the last records of the same tree, from threads too."""

    async def story() -> None:
        thread = Thread(target=lambda: [logging.getLogger("shop.stock").info("n %d", number) for number in range(20)])
        thread.start()
        thread.join()
        log.error("failed")
        await asyncio.sleep(1)

    sink = Mailbox(Preceding(records=4))
    tell(story, sink)
    assert sink.led == [("failed", [f"n {number}" for number in range(16, 20)])]


def test_other_sinks_are_undisturbed_and_nothing_is_counted_twice() -> None:
    """A sink of lower levels gets what it always got; at the mail's nothing is delivered that only led to an error."""

    async def story() -> None:
        for number in range(50):
            log.debug("detail %d", number)
            log.info("step %d", number)
        log.error("failed")

    mail, plain, beside = Mailbox(Preceding()), Mailbox(name="plain"), MemorySink(level=logging.INFO, name="file")
    stats = tell(story, mail, plain, beside)
    assert [len(preceding) for _, preceding in mail.led + plain.led] == [10, 0]
    assert beside.messages == [*(f"step {number}" for number in range(50)), "failed"]
    for name in ("mail", "plain"):
        counts = stats.sinks[name]
        assert (counts.delivered, counts.pending, counts.lost) == (1, 0, 0)
        assert counts.offered == counts.filtered + 1
    assert stats.intake.filtered == 50  # of the details nobody is told


def test_handler_level_that_is_not_respected_makes_all_the_sinks() -> None:
    """Where levels count for nothing all records are the sink's own, and none precedes."""
    sink = Mailbox(Preceding())

    async def main() -> None:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        handler = QueueHandler(queue)
        log.addHandler(handler)
        log.setLevel(logging.DEBUG)
        try:
            async with QueueListener(queue, sink, respect_handler_level=False):
                log.info("step")
                log.error("failed")
        finally:
            log.removeHandler(handler)
            log.setLevel(logging.NOTSET)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
    assert sorted(sink.led) == [("failed", []), ("step", [])]


def test_memory_is_bounded() -> None:
    """Of many tasks and trees the latest are known, each with its last records; a huge record is not kept."""
    rings = Rings(Preceding(records=3, by=("request",)))
    for number in range(2_000):
        for step in range(5):
            rings.add(record_of("step %d", step, name=f"tree{number}.part", request=number))
    rings.add(record_of("x" * 100_000, name="tree1999", request=1999))
    assert sum(map(len, rings._tasks.values())) + sum(map(len, rings._trees.values())) <= 3 * (256 + 64)
    known = rings.before(record_of("failed", name="tree1999", request=1999))
    assert [record.getMessage() for record in known] == ["step 2", "step 3", "step 4"]
    assert rings.before(record_of("failed", name="tree0", request=0)) == ()
