"""A fixed run of a spool, for a tracer that kills it at a system call.

Usage: spool_calls.py DIRECTORY. Rounds of storing and reading, each removing what the last one had read.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from offloop.capture import capture, restore
from offloop.spool import Spool
from offloop.spool_store import SpoolStore
from offloop.spool_turn import Turn

ROUNDS = 12
ROWS = 15
READ = 10


def main() -> None:
    store = SpoolStore(Spool(Path(sys.argv[1])), "calls")
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


if __name__ == "__main__":
    main()
