"""The clockwork of a digest: laws that hold whatever comes, and when."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offloop.digest import Digest
from offloop.schedule import Schedule

pytestmark = pytest.mark.once

HOUR, DAY = 3600.0, 86_400.0
EPOCH = 1.7e9
KINDS = ("a", "b", "c")
PAUSES = st.sampled_from([0.0, 0.5, 1.0, 59.0, 60.0, 61.0, 1800.0, 3600.0, 7200.0])
NOTES = st.lists(st.tuples(PAUSES, st.sampled_from(KINDS), st.booleans()), max_size=60)
CAPS = st.sampled_from([None, 1, 2, 5])


class Clock:
    """Time that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return EPOCH + self.now


class Teller:
    """Sends a mail of all that waits, as soon as it may."""

    def __init__(self, digest: Digest) -> None:
        self.clock = Clock()
        self.schedule = Schedule(digest, self.clock, self.clock.wall)
        self.waiting: dict[str, int] = {}
        self.mails: list[float] = []
        self.told: dict[str, list[float]] = {kind: [] for kind in KINDS}

    def note(self, kind: str) -> None:
        self.schedule.note(kind, self.clock.wall())
        self.waiting[kind] = self.waiting.get(kind, 0) + 1

    def wait(self, seconds: float) -> None:
        """Let time pass, and send what is due meanwhile."""
        until = self.clock.now + seconds
        while (left := self.schedule.wait()) is not None and self.clock.now + left <= until:
            self.clock.now += left
            if self.schedule.wait() == 0:
                self.send()
        self.clock.now = until

    def send(self) -> None:
        over = [kind for kind in self.schedule.closing() if kind not in self.waiting]
        kinds = {**self.waiting, **dict.fromkeys(over, 0)}
        assert kinds, "a mail is due that has nothing to tell"
        self.waiting = {}
        for kind in kinds:
            self.schedule.taken(kind, rest=False)
        for kind, count in kinds.items():
            has_stopped = self.schedule.has_stopped(kind)
            self.schedule.told(kind, count, over=kind in over or has_stopped)
            if count:
                self.told[kind].append(self.clock.now)
        self.schedule.mailed()
        self.mails.append(self.clock.now)
        for kind in kinds:
            self.schedule.landed(kind, waiting=False)


@given(NOTES, CAPS, CAPS)
def test_cap_holds_in_any_window(notes: list[tuple[float, str, bool]], hourly: int | None, daily: int | None) -> None:
    """As long as nobody ignores `wait`, there are at most so many mails in any hour, and in any day."""
    teller = Teller(Digest(hourly=hourly, daily=daily))
    for pause, kind, _ in notes:
        teller.note(kind)
        teller.wait(pause)
    teller.wait(3 * DAY)
    for limit, period in ((hourly, HOUR), (daily, DAY)):
        if limit is not None:
            spans = zip(teller.mails, teller.mails[limit:], strict=False)
            assert all(later - earlier >= period - 1e-6 for earlier, later in spans)


@given(NOTES, CAPS, CAPS)
def test_every_kind_is_told_at_some_time(notes: list[tuple[float, str, bool]], hourly: Any, daily: Any) -> None:
    """What was noted is due at some time, whatever the cap; in the end there is nothing more to tell."""
    teller = Teller(Digest(hourly=hourly, daily=daily))
    for pause, kind, _ in notes:
        teller.note(kind)
        teller.wait(pause)
    teller.wait(30 * DAY)
    assert not teller.waiting
    assert teller.schedule.wait() is None
    assert all(teller.schedule.progress(kind) is None for kind in KINDS)


@given(st.floats(1.0, 100.0), st.floats(1.0, 50.0))
def test_pauses_double_up_to_the_longest(first: float, factor: float) -> None:
    """A kind that goes on and on is told after pauses each of which is twice the last, and none above the longest."""
    digest = Digest(gather=0.0, first=first, longest=first * factor, hourly=None, daily=None)
    teller = Teller(digest)
    for _ in range(400):
        teller.note("a")
        teller.wait(first / 5)
    pauses = [later - earlier for earlier, later in zip(teller.told["a"], teller.told["a"][1:], strict=False)]
    expected = [min(first * 2**index, digest.longest) for index in range(len(pauses))]
    assert len(pauses) > 2
    assert all(want - 1e-6 <= pause <= want + first / 5 + 1e-6 for pause, want in zip(pauses, expected, strict=True))


@given(NOTES, st.integers(1, 3))
def test_lost_or_interrupted_kinds_leave_nothing_due(notes: list[tuple[float, str, bool]], rounds: int) -> None:
    """What was noted and is gone is not waited for; what was about to be told and was not waits on."""
    teller = Teller(Digest(hourly=None, daily=None))
    for pause, kind, is_lost in notes:
        teller.note(kind)
        if is_lost:
            teller.schedule.gone(kind)
            teller.waiting.pop(kind)
        else:
            for _ in range(rounds):
                teller.schedule.taken(kind, rest=False)
                teller.schedule.landed(kind, waiting=True)
        teller.wait(pause)
    teller.wait(30 * DAY)
    assert not teller.waiting
    assert teller.schedule.wait() is None


@given(NOTES, CAPS)
def test_saved_state_is_known_again(notes: list[tuple[float, str, bool]], hourly: int | None) -> None:
    """Another schedule goes on from what was saved, by a clock that began elsewhere."""
    digest = Digest(hourly=hourly)
    teller = Teller(digest)
    for pause, kind, _ in notes:
        teller.note(kind)
        teller.wait(pause)
    saved = teller.schedule.saved()()
    clock = Clock()
    clock.now = 0.0
    offset = EPOCH + teller.clock.now
    other = Schedule(digest, clock, lambda: offset + clock.now)
    other.restore(saved)
    for kind in KINDS:
        mine, theirs = teller.schedule.progress(kind), other.progress(kind)
        if mine is not None and mine.mails:
            assert theirs is not None
            assert (theirs.total, theirs.mails, theirs.over) == (mine.total, mine.mails, mine.over)
            assert theirs.since == pytest.approx(mine.since)
            assert teller.schedule.pause(kind) == pytest.approx(other.pause(kind), abs=1e-3)
    assert len(other._mails) == len(teller.schedule._mails)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)
ROW = st.lists(st.integers(-(10**400), 10**400) | st.floats() | st.booleans() | st.text(max_size=3), max_size=8)
KINDS_SAVED = st.dictionaries(st.text(max_size=4), ROW)
STATE = st.fixed_dictionaries({"kinds": KINDS_SAVED, "mails": st.lists(st.floats()) | JSON})


@settings(max_examples=200)
@given(st.binary(max_size=50) | (JSON | STATE).map(lambda value: json.dumps(value).encode()))
def test_garbage_is_refused_as_a_whole(saved: bytes) -> None:
    """What is no schedule's state raises ValueError and changes nothing; what passes for one keeps nobody waiting."""
    teller = Teller(Digest())
    before = teller.schedule.saved()()
    try:
        teller.schedule.restore(saved)
    except ValueError:
        assert teller.schedule.saved()() == before
    teller.note("a")
    teller.wait(3 * DAY)
    assert teller.told["a"]
    json.loads(teller.schedule.saved()())


def test_what_is_saved_is_bounded() -> None:
    """However many kinds there are, the latest few are written down, and what is idle is forgotten."""
    teller = Teller(Digest(hourly=None, daily=None))
    for number in range(12_000):
        teller.schedule.note(str(number), EPOCH)
        teller.schedule.told(str(number), 1, over=True)
        teller.schedule.gone(str(number))
        teller.schedule.wait()
    state = json.loads(teller.schedule.saved()())
    assert len(state["kinds"]) == 500
    assert "11999" in state["kinds"]
    assert len(teller.schedule._kinds) <= 10_001
    assert len(teller.schedule._ends) + len(teller.schedule._due) < 100_000
