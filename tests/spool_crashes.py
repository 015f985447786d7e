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
import signal
import sys
import time
from pathlib import Path

from offloop import Batching, Breaker, Buffer, Pipeline, Retry, Spool, TemporaryFailure
from offloop.sink import Batch, Sink

BATCH = 20


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


def pipeline_to(out: int, directory: Path, failing: float) -> Pipeline:
    sink = Reporting(
        out,
        failing,
        name="crash",
        retry=Retry(initial=0.001, maximum=0.005),
        breaker=Breaker(probe=0.005),
        buffer=Buffer(max_records=200),
        batching=Batching(max_records=BATCH),
        spool=Spool(directory, when="always"),
    )
    return Pipeline(sink, logger="crash", shutdown_timeout=10)


async def load(out: int, directory: Path, failing: float) -> None:
    """Log for ever, in bursts, and say how many are known to be stored."""
    log = logging.getLogger("crash")
    log.propagate = False
    log.setLevel(logging.DEBUG)
    number = 0
    async with pipeline_to(out, directory, failing) as pipeline:
        while True:
            for _ in range(random.randrange(60)):
                log.info("%d", number)
                number += 1
            await asyncio.sleep(random.random() * 0.002)
            counts = pipeline.stats().sinks["crash"]
            assert counts.balanced
            tell(out, "stored", counts.spooled + counts.delivered)
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
    """One life, one death, one recovery; gives what was seen, or raises."""
    directory.mkdir()
    failing = random.choice([0.0, 0.3, 1.0])
    source, out = os.pipe()
    # A pipe holds so much that nobody need read while the process lives.
    child = forked(lambda out: load(out, directory, failing), out)
    time.sleep(0.01 + random.random() * 0.2)
    os.kill(child, signal.SIGKILL)
    before = lines_of(source)
    os.waitpid(child, 0)
    source, out = os.pipe()
    child = forked(lambda out: recover(out, directory), out)
    after = lines_of(source)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    stored = max([int(line[1]) for line in before if line[0] == "stored"], default=0)
    offered = max([int(line[1]) for line in before if line[0] == "offered"], default=0)
    first = [int(word) for line in before if line[0] == "got" for word in line[1:]]
    then = [int(word) for line in after if line[0] == "got" for word in line[1:]]
    assert [line[1] for line in after if line[0] == "lost"] == ["0"]
    assert first == list(range(len(first))), "order before the crash"
    assert then == list(range(then[0], then[0] + len(then))) if then else True, "order after the crash"
    assert set(range(stored)) <= {*first, *then}, "a record that was stored is missing"
    twice = len({*first} & {*then})
    assert twice <= BATCH, f"{twice} records twice"
    assert max([-1, *then]) < offered + 60, "a record was invented"
    assert list(directory.iterdir()) == [], list(directory.iterdir())
    directory.rmdir()
    return {"stored": stored, "recovered": len(then), "twice": twice, "away": int(failing == 1.0)}


def main() -> None:
    base, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    random.seed(seed)
    seen = [crash(base / str(index)) for index in range(count)]
    print(json.dumps({key: sum(one[key] for one in seen) for key in seen[0]}))


if __name__ == "__main__":
    main()
