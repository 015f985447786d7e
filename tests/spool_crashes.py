"""Kills a process that logs through a spool, again and again, and sees what the next one finds.

Usage: spool_crashes.py DIRECTORY COUNT SEED. Prints a line of JSON with what was seen. Each process is forked from this
one, which has no threads: importing takes longer than a run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

from offloop import Batching, Breaker, Buffer, Pipeline, Retry, Spool, TemporaryFailure
from offloop.sink import Batch, Sink
from offloop.spool import When

BATCH = 20
LIFE = 1_000_000  # the numbers of the records of one process


class Reporting(Sink):
    """Takes batches as the dice fall, and says on a pipe which numbers it has taken."""

    def __init__(self, out: int, failing: float, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.out, self.failing = out, failing

    async def send(self, batch: Batch) -> None:
        await asyncio.sleep(random.random() * 0.002)
        if random.random() < self.failing:
            raise TemporaryFailure("away")
        tell(self.out, "got", *(record.getMessage() for record in batch))


def tell(out: int, *words: object) -> None:
    """One line, whole or not at all: shorter than a pipe's atomic write."""
    os.write(out, (" ".join(map(str, words)) + "\n").encode())


def pipeline_to(out: int, directory: Path, failing: float, when: When = "always") -> Pipeline:
    sink = Reporting(
        out,
        failing,
        name="crash",
        retry=Retry(initial=0.001, maximum=0.005),
        breaker=Breaker(probe=0.005),
        buffer=Buffer(max_records=200),
        batching=Batching(max_records=BATCH),
        spool=Spool(directory, when=when),
    )
    return Pipeline(sink, logger="crash", shutdown_timeout=10)


async def load(out: int, directory: Path, failing: float, when: When, start: int) -> None:
    """Log for ever, in bursts, and say how many are known to be stored."""
    log = logging.getLogger("crash")
    log.propagate = False
    log.setLevel(logging.DEBUG)
    number = 0
    async with pipeline_to(out, directory, failing, when) as pipeline:
        while True:
            for _ in range(random.randrange(60)):
                log.info("%d", start + number)
                number += 1
            await asyncio.sleep(random.random() * 0.002)
            counts = pipeline.stats().sinks["crash"]
            assert counts.balanced
            assert not counts.lost
            tell(out, "stored", counts.spooled + counts.delivered - counts.recovered)
            tell(out, "offered", number)


async def recover(out: int, directory: Path) -> None:
    """Deliver what was left."""
    async with pipeline_to(out, directory, 0.0) as pipeline:
        while not pipeline.stats().sinks["crash"].recovered and list(directory.glob("*.spool")):
            await asyncio.sleep(0.001)
    tell(out, "lost", pipeline.stats().sinks["crash"].lost)


def forked(run: object, out: int) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(run(out))  # type: ignore[operator]
            code = 0
        finally:
            os._exit(code)
    os.close(out)
    return child


def lines_of(source: int) -> list[list[str]]:
    data = b""
    while chunk := os.read(source, 65_536):
        data += chunk
    os.close(source)
    return [line.split() for line in data.decode().split("\n")[:-1]]


def crash(directory: Path) -> dict[str, int]:
    """One to three lives that each end in a kill, and a recovery; gives what was seen, or raises."""
    directory.mkdir()
    when: When = random.choice(["always", "always", "outage"])
    lives: list[list[list[str]]] = []
    away = 0
    for life in range(random.choice([1, 1, 2, 3])):
        failing = random.choice([0.0, 0.3, 1.0])
        away += failing == 1.0
        source, out = os.pipe()
        # A pipe holds so much that nobody need read while the process lives.
        child = forked(lambda out: load(out, directory, failing, when, life * LIFE), out)  # noqa: B023 - called at once
        if random.random() < 0.9:
            select.select([source], [], [])  # it runs; otherwise it may still begin
        time.sleep(random.random() * 0.2)
        os.kill(child, signal.SIGKILL)
        lives.append(lines_of(source))
        os.waitpid(child, 0)
    source, out = os.pipe()
    child = forked(lambda out: recover(out, directory), out)
    lives.append(lines_of(source))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [line[1] for line in lives[-1] if line[0] == "lost"] == ["0"]
    assert list(directory.iterdir()) == [], list(directory.iterdir())
    directory.rmdir()
    return seen_in(lives, when) | {"away": away}


def seen_in(lives: list[list[list[str]]], when: When) -> dict[str, int]:
    """Check what came to the sink against what was told as stored."""
    got = [[int(word) for line in lines if line[0] == "got" for word in line[1:]] for lines in lives]
    for numbers in got:
        assert numbers == sorted(set(numbers)), "order, or twice in one life"
    came = {number for numbers in got for number in numbers}
    stored = 0
    for life, lines in enumerate(lives[:-1]):
        own = {number - life * LIFE for number in came if number // LIFE == life}
        offered = max([int(line[1]) for line in lines if line[0] == "offered"], default=0)
        acknowledged = max([int(line[1]) for line in lines if line[0] == "stored"], default=0)
        # In an outage's spool the newest are on disk while older ones are in memory.
        kept = len(own) >= acknowledged if when == "outage" else set(range(acknowledged)) <= own
        assert kept, "a record that was stored is missing"
        assert max([-1, *own]) < offered + 60, "a record was invented"
        stored += acknowledged
    assert all(number // LIFE < len(lives) - 1 for number in came), "a record was invented"
    twice = sum(map(len, got)) - len(came)
    assert twice <= BATCH * (len(lives) - 1), f"{twice} records twice"
    return {"kills": len(lives) - 1, "stored": stored, "recovered": len(got[-1]), "twice": twice}


def main() -> None:
    base, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    random.seed(seed)
    seen = [crash(base / str(index)) for index in range(count)]
    print(json.dumps({key: sum(one[key] for one in seen) for key in seen[0]}))


if __name__ == "__main__":
    main()
