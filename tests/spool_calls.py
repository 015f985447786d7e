"""A fixed run of a spool, for a tracer that kills it at a system call.

Rounds of storing and reading, each removing what the last one had read; or the reading of what is there, whatever state
it is in. Each run is a forked child, which waits until the tracer has it: importing would take longer than the run.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from offloop.capture import capture, restore
from offloop.spool import Spool
from offloop.spooling.store import SpoolStore
from offloop.spooling.turn import Turn

ROUNDS = 12
ROWS = 15
READ = 10


def recover(directory: Path) -> None:
    store = SpoolStore(Spool(directory), "calls")
    opening = store.open(0)
    out = store.exchange(Turn(want=1_000, want_bytes=100_000_000))
    assert opening.error is None, opening
    assert out.error is None, out
    numbers = [str(record.getMessage().split()[0]) for _, record in out.read]
    os.write(1, f"read {' '.join(numbers)}\nlost {len(opening.lost + out.lost)}\n".encode())
    store.close()


def rounds(directory: Path, *, durable: bool) -> None:
    store = SpoolStore(Spool(directory, durable=durable), "calls")
    store.open(0)
    settled: list[int] = []
    for start in range(0, ROUNDS * ROWS, ROWS):
        text = "x" * (start * 40)
        records = [
            (
                number,
                restore(
                    capture(
                        logging.makeLogRecord({"msg": "%d " + text, "args": (number,), "levelno": 20, "name": "app"})
                    )
                ),
            )
            for number in range(start, start + ROWS)
        ]
        out = store.exchange(Turn(settled=settled, rows=records, want=READ, want_bytes=10_000_000))
        assert out.stored, out
        settled = [number for number, _ in out.read]
        os.write(1, f"stored {start + ROWS}\nread {' '.join(map(str, settled))}\n".encode())
    store.exchange(Turn(settled=settled))
    os.write(1, b"read\n")
    store.close()


def serve() -> None:
    """For each line `MODE DIRECTORY OUTPUT` fork a child that waits for a line on stdin, and tell when it has ended."""
    for line in sys.stdin:
        mode, directory, output = line.split()
        source, go = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT, 0o600), 1)
            os.read(source, 1)
            if mode == "recover":
                recover(Path(directory))
            else:
                rounds(Path(directory), durable=mode == "durable")
            os._exit(0)
        print(child, flush=True)
        sys.stdin.readline()
        os.write(go, b"x")
        os.waitpid(child, 0)
        os.close(source)
        os.close(go)
        print("ended", flush=True)


if __name__ == "__main__":
    serve()
