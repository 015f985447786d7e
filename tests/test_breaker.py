"""When a sink is left alone: each transition of the breaker, and no storm of attempts."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from helpers import logged, until
from offloop import (
    Breaker,
    ConfigError,
    PartialFailure,
    PermanentFailure,
    Pipeline,
    Retry,
    SinkFailure,
    Spool,
    TCPSink,
    TemporaryFailure,
    diagnostics,
)
from offloop.breaker import Circuit
from offloop.testing import HANG, FaultySink, MemorySink

SOON = Retry(initial=0.0, maximum=0.001)
NEVER = 3600.0


class Clock:
    """A time that is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock, probe: float = 30.0) -> Circuit:
    """A circuit that has just opened."""
    circuit = Circuit(Breaker(failures=1, probe=probe), clock)
    assert circuit.failed(0.0, fatal=False)
    return circuit


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    """A delivery in between begins the count anew."""
    circuit = Circuit(Breaker(failures=3), Clock())
    told = [circuit.failed(0.0, fatal=False) for _ in range(2)]
    assert not circuit.delivered()
    told += [circuit.failed(0.0, fatal=False) for _ in range(3)]
    assert told == [False] * 4 + [True]
    assert circuit.state == "open"


def test_a_fatal_failure_opens_it_at_once() -> None:
    """No number of attempts would help."""
    circuit = Circuit(Breaker(), Clock(), longest=20.0)
    assert circuit.closed
    assert circuit.wait == 0
    assert circuit.failed(0.0, fatal=True)
    assert not circuit.closed
    assert circuit.wait == 20.0


def test_without_a_probe_of_its_own_the_pause_decides() -> None:
    """That is the backoff's, whatever the longest would be."""
    circuit = Circuit(Breaker(failures=1), Clock(), longest=20.0)
    circuit.failed(3.0, fatal=False)
    assert circuit.wait == 3.0


def test_it_waits_for_the_probe_and_for_what_was_asked() -> None:
    """The longer of the interval and the pause decides when the next attempt is due."""
    clock = Clock()
    circuit = opened(clock, probe=30.0)
    assert (circuit.wait, circuit.due) == (30.0, False)
    clock.now += 30
    assert (circuit.wait, circuit.due) == (0.0, True)
    circuit.attempt()
    circuit.failed(120.0, fatal=False)
    assert circuit.wait == 120.0
    assert repr(circuit) == "<Circuit open, 2 failures, 120.0 s to wait>"


def test_a_probe_that_fails_opens_it_again() -> None:
    """For another interval; that it opened is not news."""
    clock = Clock()
    circuit = opened(clock)
    clock.now += 30
    assert circuit.attempt()
    assert not circuit.attempt()
    assert circuit.state == "probing"
    assert not circuit.due
    assert not circuit.failed(0.0, fatal=False)
    assert (circuit.state, circuit.wait) == ("open", 30.0)


def test_only_a_delivery_closes_it() -> None:
    """A refusal shows that the sink is there: the next probe may come at once."""
    clock = Clock()
    circuit = opened(clock)
    circuit.answered()
    assert circuit.wait == 30.0
    clock.now += 30
    circuit.attempt()
    circuit.answered()
    assert (circuit.state, circuit.due) == ("open", True)
    circuit.attempt()
    assert circuit.delivered()
    assert circuit.closed
    assert not circuit.attempt()


@pytest.mark.parametrize(("failures", "probe"), [(0, 30.0), (1.5, 30.0), (True, 30.0), (5, -1), (5, "30")])
def test_limits_are_checked(failures: Any, probe: Any) -> None:
    """With the value and the limit."""
    with pytest.raises(ConfigError, match="^Breaker\\..* must be .*, got"):
        Breaker(failures, probe)


def test_a_sink_wants_a_breaker() -> None:
    """And says how to write one."""
    with pytest.raises(ConfigError, match="breaker must be of class Breaker"):
        MemorySink(breaker=5)


@pytest.mark.parametrize("failure", [TemporaryFailure("away"), OSError("gone"), HANG, ValueError("chokes")])
async def test_state_shows_open_and_records_wait(log: logging.Logger, failure: Any) -> None:
    """Whatever the failures are: after so many of them nothing more is tried before the next probe."""
    sink = FaultySink(always=failure, retry=SOON, breaker=Breaker(3, NEVER), send_timeout=0.01, name="sink")
    pipeline = Pipeline(sink, logger=log, shutdown_timeout=0.0)
    async with pipeline:
        log.info("first")
        await until(lambda: pipeline.stats().sinks["sink"].state == "open")
        attempts = sink.attempts
        assert attempts == 3
        log.info("second")
        await pipeline.flush(0.02)
        counts = pipeline.stats().sinks["sink"]
        assert (counts.state, counts.pending, sink.attempts) == ("open", 2, attempts)
        assert counts.error is not None


async def test_a_probe_that_delivers_closes_it(log: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    """All that waited comes in order, and stderr tells of both."""
    sink = FaultySink(*[OSError("gone")] * 4, retry=SOON, breaker=Breaker(3, 0.01), name="sink")
    async with Pipeline(sink, logger=log) as pipeline:
        for number in range(10):
            log.info("n %d", number)
        assert (await pipeline.flush(5)).complete
        assert pipeline.stats().sinks["sink"].state == "connected"
    assert sink.messages == [f"n {number}" for number in range(10)]
    diagnostics.flush(5)
    told = capfd.readouterr().err
    assert "the breaker is open after 3 failure(s) in a row, next attempt in 0.0 s: OSError: gone" in told
    assert "works again: its breaker is closed" in told


async def test_a_sink_failure_opens_it_at_once_and_keeps_the_records(log: logging.Logger) -> None:
    """The first is enough; a shutdown does not wait for the probe to try once more."""
    sink = FaultySink(SinkFailure("wrong password"), retry=SOON, breaker=Breaker(5, NEVER), name="sink")
    pipeline = Pipeline(sink, logger=log, shutdown_timeout=0.3)
    async with pipeline:
        log.info("kept")
        await until(lambda: pipeline.stats().sinks["sink"].state == "open")
        assert sink.attempts == 1
    assert sink.messages == ["kept"]


async def test_what_the_destination_asked_for_is_kept_while_it_is_open(log: logging.Logger) -> None:
    """A probe is no earlier than `retry_after`, not even at a shutdown."""
    busy = TemporaryFailure("busy", retry_after=NEVER)
    sink = FaultySink(always=busy, retry=SOON, breaker=Breaker(1, 0.001), name="sink")
    async with Pipeline(sink, logger=log, shutdown_timeout=0.1) as pipeline:
        log.info("kept")
        await until(lambda: pipeline.stats().sinks["sink"].state == "open")
        await pipeline.flush(0.02)
    assert sink.attempts == 1
    counts = pipeline.stats().sinks["sink"]
    assert counts.printed + counts.lost == 1


async def test_what_is_put_off_is_no_outage(log: logging.Logger) -> None:
    """A destination that answers "later" is there: its breaker stays closed, and nothing is diverted."""
    later = TemporaryFailure("greylisted", retry_after=0.001, outage=False)
    fallback = MemorySink(name="other")
    sink = FaultySink(*[later] * 9, retry=SOON, breaker=Breaker(2, NEVER), name="sink", fallback=fallback)
    async with Pipeline(sink, logger=log) as pipeline:
        log.info("late")
        await pipeline.flush(5)
        assert pipeline.stats().sinks["sink"].state == "connected"
    assert (sink.messages, fallback.messages) == (["late"], [])


@pytest.mark.parametrize("answer", [PermanentFailure("no"), lambda batch: _refuse_all(batch)])
async def test_a_probe_that_is_refused_is_followed_by_the_next(log: logging.Logger, answer: Any) -> None:
    """The sink is there, though nothing is delivered: other records need not wait."""
    sink = FaultySink(OSError("gone"), answer, retry=SOON, breaker=Breaker(1, 0.001), name="sink")
    async with Pipeline(sink, logger=log) as pipeline:
        log.info("refused")
        await until(lambda: pipeline.stats().sinks["sink"].lost)
        assert pipeline.stats().sinks["sink"].dropped == {"rejected": {"INFO": 1}}
        log.info("taken")
        await sink.wait_for(1)
    assert logged(sink.records) == ["taken"]


async def test_expired_batches_are_no_way_around_it(log: logging.Logger) -> None:
    """Where each batch is given up at its first failure, the sink is left alone all the same."""
    retry = Retry(initial=0, maximum=0, give_up_after=0)
    sink = FaultySink(always=OSError("gone"), retry=retry, breaker=Breaker(3, NEVER), name="sink")
    pipeline = Pipeline(sink, logger=log, shutdown_timeout=0.0)
    async with pipeline:
        for number in range(6):
            log.info("n %d", number)
            await pipeline.flush(0.02)
        counts = pipeline.stats().sinks["sink"]
        assert sink.attempts == 3
        assert (counts.dropped, counts.pending) == ({"expired": {"INFO": 3}}, 3)
        assert counts.balanced


async def test_a_start_begins_with_a_closed_breaker(log: logging.Logger) -> None:
    """What was wrong may have been mended in between."""
    sink = FaultySink(SinkFailure("no"), retry=SOON, breaker=Breaker(5, NEVER), name="sink")
    pipeline = Pipeline(sink, logger=log, shutdown_timeout=0.0)
    async with pipeline:
        log.info("printed")
        await until(lambda: pipeline.stats().sinks["sink"].state == "open")
    async with pipeline:
        log.info("delivered")
        await sink.wait_for(1)
    assert sink.messages == ["delivered"]


async def test_behind_an_open_breaker_what_waits_is_on_disk(log: logging.Logger, tmp_path: Any) -> None:
    """An outage's spool takes what is in memory, not only what does not fit; then it comes back in order."""
    sink = FaultySink(always=OSError("gone"), retry=SOON, breaker=Breaker(3, 0.05), name="sink", spool=Spool(tmp_path))
    async with Pipeline(sink, logger=log) as pipeline:
        for number in range(700):
            log.info("n %d", number)
        await until(lambda: pipeline.stats().sinks["sink"].spooled == 700)
        log.info("n %d", 700)
        await until(lambda: pipeline.stats().sinks["sink"].spooled == 701)
        assert pipeline.stats().balanced
        sink.heal()
        await sink.wait_for(701)
    assert sink.messages == [f"n {number}" for number in range(701)]
    assert pipeline.stats().sinks["sink"].spooled == 0


async def test_a_peer_that_accepts_and_closes_gets_no_storm(log: logging.Logger) -> None:
    """A connection is no delivery: backoff and probe interval bound how often it is asked."""
    connections = 0

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    sink = TCPSink("127.0.0.1", server.sockets[0].getsockname()[1], retry=SOON, breaker=Breaker(4, NEVER), name="sink")
    pipeline = Pipeline(sink, logger=log, shutdown_timeout=0.0)
    async with server, pipeline:
        for _ in range(50):
            log.info("again")
            await pipeline.flush(0.005)
        await until(lambda: pipeline.stats().sinks["sink"].state == "open")
        assert pipeline.stats().sinks["sink"].pending == 50
    # Not four: a connection that breaks within an attempt may be made anew once.
    assert 4 <= connections <= 8


async def test_a_thousand_cycles_take_as_long_as_the_interval_says() -> None:
    """In a time that is set: a sink that fails each probe is tried once an interval, for ever."""
    clock = Clock()
    circuit = Circuit(Breaker(5, 30.0), clock)
    retry = Retry(initial=0.5, maximum=30.0)
    begin = clock.now
    for failures in range(1, 1_001):
        assert circuit.wait == 0
        circuit.attempt()
        delay = retry.delay(failures, lambda: 0.0)
        circuit.failed(delay, fatal=False)
        clock.now += max(delay, circuit.wait)
    assert clock.now - begin == (1_000 - 4) * 30.0
    assert circuit.state == "open"


def _refuse_all(batch: Any) -> None:
    raise PartialFailure("none of them", rejected=batch.records)
