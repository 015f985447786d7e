"""What a spool has after its process was killed: at random times under load, and at its system calls."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from offloop.spool import Spool
from offloop.spooling.store import SpoolStore
from offloop.spooling.turn import Turn

pytestmark = pytest.mark.once

HERE = Path(__file__).parent.parent
COUNT = int(os.environ.get("OFFLOOP_CRASHES", "8"))
"""How many runs with kills at random times, and system calls of each sort of run; 0: 200, and all calls."""
CALLS = ",".join(
    f"?{name}"
    for name in (
        "pwrite64",
        "ftruncate",
        "fallocate",
        "fsync",
        "fdatasync",
        "unlink",
        "flock",
        "mkdir",
        "link",
        "rename",
    )
)


@pytest.mark.timeout(60 + 3 * (COUNT or 200))
def test_kill_at_random_times_under_load(tmp_path: Path) -> None:
    """What was told as stored arrives, nothing else does, in order, and at most one batch arrives twice."""
    count = COUNT or 200
    command = [sys.executable, "-W", "error", HERE / "spool_crashes.py", tmp_path, str(count), str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    seen = json.loads(done.stdout)
    print(seen)
    assert seen["kills"] >= count
    assert seen["stored"]
    assert seen["recovered"]


class Runs:
    """Runs of `spool_calls.py` under strace."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "trace"
        self._output = folder / "output"
        self._server = subprocess.Popen(
            [sys.executable, HERE / "spool_calls.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, directory: Path, mode: str, inject: str | None = None) -> list[list[str]]:
        """Run to the end, or to a call at which it is killed; gives its lines."""
        self._output.unlink(missing_ok=True)
        child = self._ask(f"{mode} {directory} {self._output}")
        command = ["strace", "-f", "-o", str(self.log), "-e", f"trace={CALLS}", "-p", child]
        command += [] if inject is None else ["-e", f"inject={inject}:signal=KILL"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            assert tracer.stderr is not None
            told = tracer.stderr.readline()
            ended = self._ask("go")
            if "attached" not in told:
                pytest.skip(f"strace may not trace here: {told}")
        assert ended == "ended"
        return [line.split() for line in self._output.read_text().split("\n")[:-1]]

    def close(self) -> None:
        self._server.communicate()

    def _ask(self, line: str) -> str:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{line}\n")
        self._server.stdin.flush()
        return self._server.stdout.readline().strip()


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    """The means to run it."""
    if shutil.which("strace") is None:
        if os.environ.get("OFFLOOP_REQUIRE_SERVERS") == "1":
            pytest.fail("strace is missing")
        pytest.skip("strace is missing")
    runs = Runs(tmp_path)
    yield runs
    runs.close()


def points(log: Path) -> list[str]:
    """The calls of the run that was traced, as strace names them for an injection; unless it is nightly, some."""
    names = re.findall(r"^\d+ +(\w+)\(", log.read_text(), re.MULTILINE)
    # By the order in which they come, so that every part of the run has its share.
    every = [f"{name}:when={names[: index + 1].count(name)}" for index, name in enumerate(names)]
    chosen = every[:: max(1, len(every) // COUNT)] if COUNT else every
    print(f"killed at {len(chosen)} of {len(every)} calls")
    assert chosen
    return chosen


@pytest.mark.timeout(120 if COUNT else 1_800)
@pytest.mark.parametrize("mode", ["normal", "durable"])
def test_kill_at_each_system_call(tmp_path: Path, runs: Runs, mode: str) -> None:
    """Wherever the kernel is asked for something: all that was told as stored is there, once, and in order."""
    runs.run(tmp_path / "whole", mode)
    for point in points(runs.log):
        directory = tmp_path / "killed"
        directory.mkdir()
        check(directory, runs.run(directory, mode, point), point)
        directory.rmdir()


@pytest.mark.timeout(120 if COUNT else 1_800)
@pytest.mark.parametrize("flip", [None, "file", "log"])
def test_kill_at_each_system_call_of_a_recovery(tmp_path: Path, runs: Runs, flip: str | None) -> None:
    """Whoever takes over a file, whole or broken, and is killed while it does: the next one finds the same."""
    left, copy = tmp_path / "left", tmp_path / "copy"
    runs.run(tmp_path / "whole", "normal")
    writes = [point for point in points(runs.log) if point.startswith("pwrite64")]
    runs.run(left, "normal", writes[len(writes) * 3 // 4])
    if flip is not None:
        (path,) = left.glob("*.spool" if flip == "file" else "*.spool-wal")
        data = bytearray(path.read_bytes())
        data[len(data) * 2 // 3] ^= 1
        path.write_bytes(data)
    shutil.copytree(left, copy)
    reference = runs.run(copy, "recover")
    print(reference[1])
    for point in points(runs.log):
        shutil.rmtree(copy)
        shutil.copytree(left, copy)
        runs.run(copy, "recover", point)
        again = runs.run(copy, "recover")
        assert again[0] == reference[0], point
        assert int(again[1][1]) <= int(reference[1][1]), point


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
