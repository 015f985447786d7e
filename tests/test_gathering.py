"""What a sink with a digest is told, and when: in simulated time, through a whole pipeline."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from helpers import record_of
from interleaving import VirtualLoop
from offloop.digest import Digest, Gathered, Preceding
from offloop.errors import TemporaryFailure
from offloop.gathering import Gathering
from offloop.pipeline import Pipeline
from offloop.policies import Buffer
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


def tell(
    story: Story, digest: Digest = Digest(hourly=None, daily=None), kind: type[Mailbox] = Mailbox, **options: Any
) -> Mailbox:
    """Log what the story says, in simulated time; all must be accounted for in the end."""
    sink = kind(digest, name="mail", **options)

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
    # What was logged came within a moment of real time; the mail two minutes later by the loop's.
    assert group.since - group.last > 100


def test_failed_mail_is_sent_again_as_it_was() -> None:
    """A mail that was not taken goes again with the same content and identity, and counts once."""

    async def story(sink: Mailbox, pipeline: Pipeline) -> None:
        sink.failures = [TemporaryFailure("later", retry_after=100.0)]
        await storm(100, 50)
        await asyncio.sleep(300)

    sink = tell(story)
    assert len(set(sink.keys)) == len(sink.keys) - 1
    assert sum(sink.counts) == 100


def test_what_led_to_a_later_record_is_not_shown_with_an_earlier_one() -> None:
    """One that an earlier process left on disk comes in after a new one of its kind was seen."""
    gathering = Gathering(Digest(gather=0), Preceding(), lambda: 0.0, lambda: 0.0)
    left, new = (record_of("broken", level=logging.ERROR, name="shop") for _ in range(2))
    left.created -= 100.0
    gathering.overhear([record_of("just now", name="shop")])
    new.created += 100.0
    gathering.classify(new)
    assert gathering.enter(left, 1)
    assert gathering.enter(new, 2)
    (group,) = gathering.gather([left, new], closing=False).groups
    assert group.preceding == ()


def test_all_that_was_logged_before_a_stop_is_one_mail() -> None:
    """What is in the queue still when it begins goes with what has been routed."""

    async def story(sink: Mailbox, pipeline: Pipeline) -> None:
        for number in range(3_000):
            log.error("no stock of %d", number)

    sink = tell(story)
    assert sink.counts == [3_000]
    assert sink.mails[0][1].closing


def test_rare_error_becomes_rarer() -> None:
    """An error that comes back each 90 seconds is not told each time."""

    async def story(sink: Mailbox, pipeline: Pipeline) -> None:
        for _ in range(40):
            log.error("again")
            await asyncio.sleep(90)

    sink = tell(story)
    assert sum(sink.counts) == 40
    assert len(sink.mails) <= 10


class Listing(Mailbox):
    """One that has records encoded, as a sink does unless it says otherwise."""

    encodes = True


def test_sink_that_encodes_is_told_of_kinds_too() -> None:
    """A lane with a digest holds records, also where a plain sink's would hold snapshots."""

    async def story(sink: Mailbox, pipeline: Pipeline) -> None:
        await storm(100, 20)

    sink = tell(story, kind=Listing)
    assert sink.counts == [20, 80]
    assert [len(gathered.groups) for _, gathered in sink.mails] == [1, 1]


def test_kind_of_which_all_was_lost_is_not_waited_for() -> None:
    """What lost its place to others is not due any more, and nobody looks for it again and again."""
    turns = 0

    async def story(sink: Mailbox, pipeline: Pipeline) -> None:
        nonlocal turns
        log.info("a rumour")
        for number in range(4):
            logging.getLogger(f"shop.part{number}").error("broken")
        await pipeline.flush()
        for _ in range(10):
            log.info("a rumour")
        for number in range(4):
            logging.getLogger(f"shop.part{number}").error("broken again")
        before = asyncio.get_running_loop().time()
        await asyncio.sleep(7200)
        turns = round((asyncio.get_running_loop().time() - before - 7200) / 1e-6)

    sink = tell(story, buffer=Buffer(4))
    assert sum(sink.counts) < 19
    assert turns < 1000


def test_total_counts_on_while_a_mail_is_on_its_way() -> None:
    """What comes while a mail is tried again and again belongs to the same episode, and is told as more of it."""

    async def story(sink: Mailbox, pipeline: Pipeline) -> None:
        await storm(100, 90)
        sink.failures = [TemporaryFailure("later", retry_after=200.0)]
        await storm(100, 300)
        await asyncio.sleep(3600)

    sink = tell(story)
    groups = [gathered.groups[0] for _, gathered in sink.mails]
    assert len({group.since for group in groups}) == 1
    assert [group.total for group in groups] == list(itertools.accumulate(sink.counts))


class Choosy(Mailbox):
    """Takes one record at a time, after it failed on many."""

    async def send(self, batch: Batch) -> None:
        if self.failures and len(batch) > 1:
            raise self.failures.pop()
        await super().send(batch)


def test_parts_of_a_mail_tell_what_is_in_them() -> None:
    """A digest that is sent in parts tells each number once, and is one step of the schedule."""

    async def story(sink: Mailbox, pipeline: Pipeline) -> None:
        sink.failures = [ValueError("one of them is odd")]
        await storm(100, 0)
        await asyncio.sleep(90)
        await storm(20, 0)
        await asyncio.sleep(50)

    sink = tell(story, kind=Choosy)
    assert sink.counts == [81, 1, 18, 20]
    assert sink.times[-1] == 90
    assert [gathered.groups[0].mails for _, gathered in sink.mails] == [0, 0, 0, 0]


def test_what_a_sink_leaves_out_is_not_told() -> None:
    """Records that the sink filters out are counted as filtered, with those behind them, and no mail told of them."""

    class Filtering(Mailbox):
        async def send(self, batch: Batch) -> None:
            if not self.keys:
                batch.filtered += batch.records
            await super().send(batch)

    async def story(sink: Mailbox, pipeline: Pipeline) -> None:
        await storm(100, 0)
        await pipeline.flush()
        assert pipeline.stats().sinks["mail"].filtered == 100
        await storm(20, 0)

    sink = tell(story, kind=Filtering)
    assert sink.counts == [100, 20]
    assert sink.mails[-1][1].groups[0].mails == 0


@pytest.mark.parametrize("key", [lambda record: [record], lambda record: 1 / 0, lambda record: Odd()])
def test_fingerprint_that_fails_costs_no_record(key: Callable[[Any], Any]) -> None:
    """One that raises, or gives what can't be told apart, is reported; records are then of one kind by their logger."""

    async def story(sink: Mailbox, pipeline: Pipeline) -> None:
        await storm(40, 10)
        log.warning("odd")

    sink = tell(story, Digest(fingerprint=key))
    assert sum(sink.counts) == 41


class Odd:
    """Has no form."""

    def __repr__(self) -> str:
        raise SystemExit


def test_record_that_is_out_of_shape_is_told_all_the_same() -> None:
    """A filter may leave anything in a record: neither its time nor its level ends a lane."""

    def bend(record: logging.LogRecord) -> bool:
        record.created = float("nan") if record.levelno == logging.ERROR else cast("Any", "today")
        record.levelno = cast("Any", "high")
        return True

    async def story(sink: Mailbox, pipeline: Pipeline) -> None:
        sink.addFilter(bend)
        await storm(100, 10)
        log.warning("bent too")

    sink = tell(story)
    assert sum(sink.counts) == 101
