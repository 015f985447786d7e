"""What a sink with a digest is told, and when: in simulated time, through a whole pipeline."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from interleaving import VirtualLoop
from offloop.digest import Digest, Gathered
from offloop.errors import TemporaryFailure
from offloop.pipeline import Pipeline
from offloop.sink import Batch, Sink

log = logging.getLogger("shop")


class Mailbox(Sink):
    """Keeps what each mail tells, and when it came."""

    encodes = False

    def __init__(self, digest: Digest, **options: Any) -> None:
        super().__init__(**options)
        self.digest = digest
        self.mails: list[tuple[float, Gathered]] = []
        self.failures: list[Exception] = []
        self.keys: list[str] = []
        self._began = 0.0

    async def open(self) -> None:
        self._began = self._began or asyncio.get_running_loop().time()

    async def send(self, batch: Batch) -> None:
        self.keys.append(batch.key)
        if self.failures:
            raise self.failures.pop()
        assert batch.gathered is not None
        assert {id(record) for group in batch.gathered.groups for record in group.records} == set(map(id, batch))
        self.mails.append((asyncio.get_running_loop().time() - self._began, batch.gathered))

    @property
    def times(self) -> list[int]:
        """When the mails came, in whole seconds since the first."""
        return [round(moment) for moment, _ in self.mails]

    @property
    def counts(self) -> list[int]:
        """How many records each told of."""
        return [gathered.count for _, gathered in self.mails]


Story = Callable[[Mailbox, Pipeline], Awaitable[None]]


def tell(story: Story, digest: Digest = Digest(hourly=None, daily=None), **options: Any) -> Mailbox:
    """Log what the story says, in simulated time; all must be accounted for in the end."""
    sink = Mailbox(digest, name="mail", **options)

    async def main() -> None:
        pipeline = Pipeline(sink, logger="shop", level="DEBUG", queue_size=30_000)
        async with pipeline:
            await story(sink, pipeline)
        stats = pipeline.stats()
        assert stats.balanced
        assert stats.sinks["mail"].pending == 0

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
    return sink


async def storm(count: int, seconds: float, message: str = "no stock of %s") -> None:
    """Log one kind of error at a steady rate."""
    steps = count // 20
    for step in range(steps):
        for _ in range(20):
            log.error(message, step)
        await asyncio.sleep(seconds / steps)


def test_storm_of_one_kind_is_told_by_the_schedule() -> None:
    """26,000 equal errors in ten minutes are one mail at once, then digests after pauses that double, all counted."""

    async def story(sink: Mailbox, pipeline: Pipeline) -> None:
        await storm(26_000, 600)
        await asyncio.sleep(3600)

    sink = tell(story)
    assert sink.times == [0, 60, 180, 420, 900]
    assert sum(sink.counts) == 26_000
    last = sink.mails[-1][1].groups[0]
    assert (last.total, last.over, last.mails) == (26_000, True, 4)
    assert [gathered.groups[0].total for _, gathered in sink.mails][:2] == [sink.counts[0], sum(sink.counts[:2])]


def test_fifty_new_kinds_share_a_mail() -> None:
    """50 kinds that are new within one second are one mail with 50 groups."""

    async def story(sink: Mailbox, pipeline: Pipeline) -> None:
        for number in range(50):
            logging.getLogger(f"shop.part{number}").error("broken")
            await asyncio.sleep(0.015)
        await asyncio.sleep(30)

    sink = tell(story)
    assert [len(gathered.groups) for _, gathered in sink.mails] == [50]


def test_new_kind_alerts_during_a_storm() -> None:
    """A kind that is new while others storm is told within a second or so, with what is known of them by then."""

    async def story(sink: Mailbox, pipeline: Pipeline) -> None:
        raging = asyncio.create_task(storm(2_000, 100))
        await asyncio.sleep(30)
        log.error("the till is on fire")
        await raging

    sink = tell(story)
    alert = sink.mails[1][1]
    assert 29 <= sink.times[1] <= 31
    assert "the till is on fire" in [record.getMessage() for group in alert.groups for record in group.records]


def test_cap_holds_back_and_says_so() -> None:
    """At the cap a mail says that it is the last for now; what comes is told when the hour is over, and counted."""

    async def story(sink: Mailbox, pipeline: Pipeline) -> None:
        for number in range(10):
            logging.getLogger(f"shop.part{number}").error("broken")
            await asyncio.sleep(10)
        await asyncio.sleep(3600)

    sink = tell(story, Digest(hourly=3, daily=None))
    assert sink.times[:4] == [0, 10, 20, 3600]
    caps = [gathered.cap for _, gathered in sink.mails]
    assert caps[:2] == [None, None]
    assert caps[2] is not None
    assert (caps[2].mails, caps[2].per) == (3, "hour")
    assert sink.mails[3][1].held_since is not None
    assert sum(sink.counts) == 10


def test_stop_sends_what_is_held() -> None:
    """What is held when the pipeline stops goes out as one last digest, over the cap too."""

    async def story(sink: Mailbox, pipeline: Pipeline) -> None:
        await storm(100, 20)
        logging.getLogger("shop.other").error("broken")

    sink = tell(story, Digest(hourly=1))
    assert sum(sink.counts) == 101
    assert sink.mails[-1][1].closing
    assert len(sink.mails) == 2


def test_kind_that_went_on_is_told_as_over() -> None:
    """A kind that was said to go on, and of which nothing more came, is told as over by a mail of its own."""

    async def story(sink: Mailbox, pipeline: Pipeline) -> None:
        await storm(100, 59)
        await asyncio.sleep(300)

    sink = tell(story)
    assert sink.times == [0, 60, 180]
    (group,) = sink.mails[-1][1].groups
    assert (group.count, group.total, group.over) == (0, 100, True)


def test_failed_mail_is_sent_again_as_it_was() -> None:
    """A mail that was not taken goes again with the same content and identity, and counts once."""

    async def story(sink: Mailbox, pipeline: Pipeline) -> None:
        sink.failures = [TemporaryFailure("later", retry_after=100.0)]
        await storm(100, 50)
        await asyncio.sleep(300)

    sink = tell(story)
    assert len(set(sink.keys)) == len(sink.keys) - 1
    assert sum(sink.counts) == 100


def test_rare_error_becomes_rarer() -> None:
    """An error that comes back each 90 seconds is not told each time."""

    async def story(sink: Mailbox, pipeline: Pipeline) -> None:
        for _ in range(40):
            log.error("again")
            await asyncio.sleep(90)

    sink = tell(story)
    assert sum(sink.counts) == 40
    assert len(sink.mails) <= 10
