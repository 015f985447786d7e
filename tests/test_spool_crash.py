"""What a spool has after its process was killed: at random times under load, and at its system calls."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from offloop.spool import Spool
from offloop.spool_store import SpoolStore
from offloop.spool_turn import Turn

HERE = Path(__file__).parent
COUNT = int(os.environ.get("OFFLOOP_CRASHES", "20"))
"""How many kills of each sort; 200 and more in a nightly run."""
CALLS = "pwrite64,ftruncate,fsync,fdatasync,unlink,flock,mkdir,link"


@pytest.mark.timeout(60 + COUNT)
def test_kill_at_random_times_under_load(tmp_path: Path) -> None:
    """What was told as stored arrives, nothing else does, in order, and at most one batch arrives twice."""
    command = [sys.executable, "-W", "error", HERE / "spool_crashes.py", tmp_path, str(COUNT), "1"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    seen = json.loads(done.stdout)
    assert seen["stored"] > COUNT
    assert seen["recovered"] > COUNT


def traced(directory: Path, inject: str | None, log: Path) -> list[list[str]]:
    """Run the fixed run under strace; gives its lines."""
    command = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", log, "-e", f"trace={CALLS}"]
    command += [] if inject is None else ["-e", f"inject={inject}:signal=KILL"]
    command += [sys.executable, HERE / "spool_calls.py", directory]  # type: ignore[list-item]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    return [line.split() for line in done.stdout.decode().split("\n")[:-1]]


@pytest.mark.timeout(120 + 2 * COUNT)
def test_kill_at_each_system_call(tmp_path: Path) -> None:
    """Wherever the kernel is asked for something: all that was told as stored is there, once, and in order."""
    if shutil.which("strace") is None:
        if os.environ.get("OFFLOOP_REQUIRE_SERVERS") == "1":
            pytest.fail("strace is missing")
        pytest.skip("strace is missing")
    log = tmp_path / "trace"
    if not traced(tmp_path / "whole", None, log):
        pytest.skip("strace may not trace here")
    names = re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE)
    points = [(name, number + 1) for name in sorted(set(names)) for number in range(names.count(name))]
    assert len(points) > 100
    step = max(1, len(points) // COUNT)
    for index, (name, number) in enumerate(points[COUNT % step :: step]):
        directory = tmp_path / str(index)
        directory.mkdir()
        lines = traced(directory, f"{name}:when={number}", log)
        check(directory, lines, f"{name} {number}")


def check(directory: Path, lines: list[list[str]], where: str) -> None:
    stored = max([int(line[1]) for line in lines if line[0] == "stored"], default=0)
    reads = [[int(word) for word in line[1:]] for line in lines if line[0] == "read"]
    store = SpoolStore(Spool(directory), "calls")
    opening = store.open(0)
    out = store.exchange(Turn(want=1_000, want_bytes=100_000_000))
    store.exchange(Turn(settled=[number for number, _ in out.read]))
    store.close()
    then = [int(record.getMessage().split()[0]) for _, record in out.read]
    assert opening.error is None, where
    assert out.error is None, where
    assert not opening.lost, where
    assert not out.lost, where
    assert then == list(range(then[0], then[0] + len(then))) if then else True, where
    # What a turn had read is removed by the next one: that one may have been cut short, or gone unheard.
    gone = [number for read in reads[:-1] for number in read]
    assert set(range(stored)) <= {*then, *gone, *(reads[-1] if reads else [])}, where
    assert not {*then} & {*gone}, where
    assert max([-1, *then]) < stored + 15, where
    assert list(directory.iterdir()) == [], where
