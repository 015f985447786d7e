"""Thousands of examples of the state machines, in processes side by side: `nox -s machine`, `nox -s nightly`.

Says how often each thing occurred: rules, faults, reasons for a loss, awaits at which a task was cancelled. A rule, a
fault or a reason that never occurred fails the run. A run is repeated by its seed, but for what threads do.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, core, settings
from hypothesis.stateful import run_state_machine_as_test

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent)]

import test_gathered_machine as gathered  # noqa: E402 - found by the path above
import test_ledger_machine as machines  # noqa: E402
from interleaving import awaits  # noqa: E402

KINDS = (
    *(machines.PipelineMachine, machines.AloneMachine, machines.RefusedMachine, machines.SpooledMachine),
    *(gathered.GatheredMachine, gathered.SpooledGatheredMachine),
)
MACHINES = {machine.name: machine for machine in KINDS}
STEPS = 16
PIECE = 500  # examples
Counts = Counter[tuple[str, str]]


def run(name: str, examples: int, seed: int, seconds: float) -> Counts:
    """Run examples of one machine in this process, no further ones once the time is up."""
    until = time.monotonic() + seconds
    machine = MACHINES[name]
    left = examples
    while left > 0 and time.monotonic() < until:
        # In pieces: what hypothesis remembers of one run grows, and so does what a further example costs.
        core.global_force_seed = seed + left
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=min(PIECE, left),
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
            ),
        )
        left -= PIECE
    return machines.tally.counts


def child(given: argparse.Namespace) -> int:
    """One process: its counts go into a file, its failure to stdout."""
    try:
        counts = run(given.machine, given.examples, given.seed, given.seconds)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
        return 1
    given.child.write_text(json.dumps([[kind, name, count] for (kind, name), count in counts.items()]))
    return 0


def side_by_side(jobs: Iterable[tuple[str, int, int]], seconds: float) -> tuple[Counts, list[str]]:
    """Run all jobs (machine, examples, seed) at once; gives the counts of all, and what failed."""
    total = Counts()
    failed = list[str]()
    with tempfile.TemporaryDirectory(prefix="offloop-machine-") as folder:
        started = [start(Path(folder), number, *job, seconds) for number, job in enumerate(jobs)]
        for process, path in started:
            if process.wait():
                failed.append(" ".join(process.args))
                continue
            for kind, name, count in json.loads(path.read_text()):
                total[kind, name] += count
    return total, failed


def start(folder: Path, number: int, machine: str, examples: int, seed: int, seconds: float) -> Any:
    path = folder / f"{number}.json"
    options = {"machine": machine, "examples": examples, "seed": seed, "seconds": seconds, "child": path}
    arguments = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-W", "error", str(FOLDER / "machine.py"), *arguments]
    # Diagnostics, and records that are printed, are what is to be expected here.
    environment = {**os.environ, "TMPDIR": "/dev/shm"} if os.access("/dev/shm", os.W_OK) else None
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
    return process, path


def missing(counts: Counts) -> list[str]:
    """What should have occurred and did not."""
    wanted = {("example", name) for name in MACHINES}
    wanted |= {("send", step) for step in (*machines.STEPS, "works")}
    wanted |= {("open", step) for step in (*machines.OPENING, "works")}
    wanted |= {("aclose", step) for step in (*machines.CLOSING, "works")}
    wanted |= {("filter", step) for step in ("raises", "interrupts", "slow")}
    wanted |= {("loop", what) for what in ("Ctrl-C", "abandoned while records were in flight")}
    wanted |= {("dropped by the intake", reason) for reason in ("overflow", "shed", "rejected", "own")}
    wanted |= {("dropped by the sink", reason) for reason in ("overflow", "shed", "rejected", "expired")}
    wanted |= {
        ("at the sink", fate) for fate in ("delivered", "filtered", "printed", "diverted", "dead_lettered", "notices")
    }
    wanted |= {("breaker", what) for what in ("opened", "probing", "closed")}
    wanted |= {("waits as", "a record"), ("waits as", "a snapshot"), ("notices", "told all"), ("disk", "mended")}
    wanted |= {("digest", what) for what in gathered.WANTED}
    wanted |= {("rule", name) for name in machines.RULES}
    return [f"{kind}: {name}" for kind, name in sorted(wanted) if not counts[kind, name]]


def table(counts: Counts) -> str:
    """All counts, and the awaits that are out of reach."""
    lines = [f"{count:10,} {kind}: {name}" for (kind, name), count in sorted(counts.items())]
    lines += [
        f"{'-':>10} await: {place} ({machines.out_of_reach(place) or 'not in this run'})"
        for place in awaits(*machines.ROOMS)
        if not counts["await", place]
    ]
    reached = sum(counts["await", place] > 0 for place in awaits(*machines.ROOMS))
    lines.append(f"cancelled at {reached} of {len(awaits(*machines.ROOMS))} awaits")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000, help="without a spool, of all processes together")
    parser.add_argument("--spooled", type=int, default=1_000, help="with a spool")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no further examples after this time")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--machine", choices=MACHINES, help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        return child(given)
    seed = random.randrange(2**31) if given.seed is None else given.seed
    started = time.monotonic()
    total, failed = Counts(), list[str]()
    few, digests, on_disk = given.examples // 8, given.examples // 10, given.spooled // 5
    pieces = (
        ("memory", given.examples - 2 * few - digests),
        ("alone", few),
        ("refused", few),
        ("gathered", digests),
        ("spool", given.spooled - on_disk),
        ("spooled digests", on_disk),
    )
    for machine, examples in pieces:
        each = -(-examples // given.processes)
        jobs = [(machine, each, seed + number * 1_000_003) for number in range(given.processes)]
        counts, wrong = side_by_side(jobs if examples else (), given.seconds)
        total += counts
        failed += wrong
    print(table(total))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{time.monotonic() - started:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of CPU, seed {seed}")
    absent = missing(total)
    if absent:
        print("never occurred:", *absent, sep="\n  ")
    for command in failed:
        print(f"FAILED, for the reason told above: {command}")
    return int(bool(absent or failed))


if __name__ == "__main__":
    sys.exit(main())
