"""The state machine with sinks that have a digest: what is held as a number alone is counted like all the rest.

What is more to hold: each record of a batch is in one group, and no group names another; what mails tell that were
acknowledged is what the ledger says was delivered; how many there were of a kind never goes back while it goes on.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize

import test_ledger_machine as ledger
from offloop import Batch, Batching, Buffer, Digest, Preceding
from offloop.capture import made
from offloop.digest import DIGEST_LOGGER
from test_ledger_machine import OTHER, PipelineMachine, SpooledMachine, Witness, step, tally

DIGESTS = (
    Digest(gather=0.0, first=0.5, longest=4.0, hourly=None, daily=None),
    Digest(gather=0.2, first=1.0, longest=8.0, hourly=2, daily=4),
    Digest(gather=1.0, first=2.0, longest=2.0, hourly=None, daily=2),
)
BUFFERS = (
    Buffer(30),
    Buffer(30, overflow="drop_new"),
    Buffer(60, shed_at=0.5, reserve=0.3),
    Buffer(max_bytes=40_000),
    Buffer(),
)
BATCHINGS = (Batching(1), Batching(3), Batching(30), Batching())
WANTED = frozenset(
    {"folded", "over", "with what preceded", "at the cap", "held by the cap", "notices of an end", "exact by level"}
)
"""What has to occur."""
STORMS = tuple(itertools.product(ledger.LEVELS, (25, 60), (False, True)))


class GatheredWitness(Witness):
    """And knows what mails told that it acknowledged."""

    def __init__(self, machine: PipelineMachine, **options: Any) -> None:
        super().__init__(machine, **options)
        self.told: Counter[int] = Counter()
        """By level, without notices."""
        self.doubtful = 0
        self.last_count = 0
        """What the last mail told that was acknowledged."""
        self.totals: dict[tuple[str, float], int] = {}

    def number(self, *, once: bool) -> tuple[int, int]:
        return self.told.total(), self.doubtful

    def doubt(self, lane: Any) -> None:
        folds = lane.gathering._folds
        # The lane does not know that it told of these, if it did.
        for key in [key for key in self.totals if key[0] in lane.gathering._flying]:
            del self.totals[key]
        for record in map(made, lane.backlog.flying):
            self.doubtful += 1 + (folds[id(record)].count if id(record) in folds else 0)
        if self.spool is not None:
            self.doubtful += self.last_count

    async def send(self, batch: Batch) -> None:
        self.batch = batch
        self._look_at(batch)
        await super().send(batch)

    def _look_at(self, batch: Batch) -> None:
        assert batch.gathered is not None
        groups = batch.gathered.groups
        named = [record for group in groups for record in group.records]
        assert sorted(map(id, named)) == sorted(map(id, batch))
        assert len({group.kind for group in groups}) == len(groups)
        for group in groups:
            own = Counter(record.levelno for record in group.records if record.name != DIGEST_LOGGER)
            assert own <= Counter(group.counts)
            assert group.total >= group.count
            assert group.first <= group.last
            tally.add("digest", "with what preceded", bool(group.preceding))
            tally.add("digest", "folded", group.count - own.total())
            tally.add("digest", "over", group.over)
        tally.add("digest", "at the cap", batch.gathered.cap is not None)
        tally.add("digest", "held by the cap", batch.gathered.held_since is not None)
        half = len(batch) // 2
        parts = [piece.gathered for piece in (batch.part(0, half), batch.part(half)) if piece.gathered is not None]
        assert sum(part.count for part in parts) == batch.gathered.count

    def _take(self, records: list[Any], *, sure: bool = True) -> None:
        super()._take(records, sure=sure)
        if not sure or not records:
            return
        ours = {id(record): position for position, record in enumerate(self.batch)}
        told, taken = self.batch.gathered, self.batch.pick([ours[id(record)] for record in records]).gathered
        assert told is not None
        assert taken is not None
        whole = {group.kind: group.count for group in told.groups}
        self.last_count = 0
        for group in taken.groups:
            if group.records[0].name == ledger.LOSS_LOGGER:
                continue
            self.told.update(group.counts)
            self.last_count += group.count
            key = group.kind, group.since
            # One that was over may begin anew with a copy of the record it began with: what another sink hands over.
            assert not group.mails or group.total >= self.totals.get(key, 0), group
            # What it tells of may be refused in part.
            self.totals[key] = group.total - (whole[group.kind] - group.count)
        tally.add("digest", "notices of an end", sum(record.name == DIGEST_LOGGER for record in records))


class Gathered:
    """What both machines have beyond their bases."""

    def _begin(self: Any, *arguments: Any, **options: Any) -> None:
        policies = {name: options.pop(name) for name in ("digest", "preceding")}
        self.witness = type("Witness", (GatheredWitness,), policies)
        self.logged_by_level: Counter[int] = Counter()
        super()._begin(*arguments, **options)  # type: ignore[misc]

    def _log_now(self: Any, level: int, count: int, error: bool) -> None:
        super()._log_now(level, count, error)  # type: ignore[misc]
        with ledger._counting:
            self.logged_by_level[level] += count

    def _check(self: Any, sink: Any, report: Any) -> None:
        super()._check(sink, report)  # type: ignore[misc]
        counts = report.sinks[sink.name]
        if sink.name == OTHER or sink.doubtful or counts.recovered:
            return
        assert sink.told.total() == counts.delivered - sink.notices
        elsewhere = report.intake.filtered + counts.filtered + counts.diverted + counts.dead_lettered + counts.printed
        if elsewhere or (counts.notices and counts.dropped):
            return
        tally.add("digest", "exact by level")
        for level in ledger.LEVELS:
            name = logging.getLevelName(level)
            lost = sum(levels.get(name, 0) for source in (report.intake, counts) for levels in source.dropped.values())
            assert sink.told[level] + lost == self.logged_by_level[level], (level, sink.told, report)


class GatheredMachine(Gathered, PipelineMachine):  # pyright: ignore[reportIncompatibleMethodOverride]
    """Two sinks with a digest, and what they fall back on."""

    name = "gathered"
    queue_size = 200

    @initialize(
        overflow=st.sampled_from(["drop_new", "drop_old", "wait"]),
        buffer=st.sampled_from(BUFFERS),
        batching=st.sampled_from(BATCHINGS),
        retry=st.sampled_from(ledger.RETRIES),
        breaker=st.sampled_from(ledger.BREAKERS),
        digest=st.sampled_from(DIGESTS),
        preceding=st.sampled_from([None, Preceding(level=logging.DEBUG, records=3)]),
    )
    def begin(self, **options: Any) -> None:
        self._begin(**options)

    @step(what=st.sampled_from(STORMS))
    def log_a_storm(self, what: tuple[int, int, bool]) -> None:
        self._run(self._log(*what))


class SpooledGatheredMachine(Gathered, SpooledMachine):  # pyright: ignore[reportIncompatibleMethodOverride]
    """The same with a spool behind each."""

    name = "spooled digests"
    queue_size = 200
    patience = 20_000

    @initialize(
        overflow=st.sampled_from(["drop_new", "drop_old", "wait"]),
        buffer=st.sampled_from(BUFFERS),
        batching=st.sampled_from(BATCHINGS[2:]),
        retry=st.sampled_from(ledger.RETRIES),
        breaker=st.sampled_from(ledger.BREAKERS),
        disk=st.sampled_from(["works", "works", "small", "broken"]),
        digest=st.sampled_from(DIGESTS),
        preceding=st.sampled_from([None, Preceding(level=logging.DEBUG, records=3)]),
    )
    def begin(self, disk: str, **options: Any) -> None:
        super().begin(disk, **options)

    @step(what=st.sampled_from(STORMS))
    def log_a_storm_to_disk(self, what: tuple[int, int, bool]) -> None:
        self._run(self._log(*what))


TestGatheredMachine = GatheredMachine.TestCase
TestGatheredMachine.settings = settings(ledger.FEW, max_examples=20)
TestSpooledGatheredMachine = SpooledGatheredMachine.TestCase
TestSpooledGatheredMachine.settings = settings(ledger.FEW, max_examples=5)
