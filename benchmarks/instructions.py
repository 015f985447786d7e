"""How many instructions a step takes, by callgrind: `nox -s instructions`, four minutes.

Times on a shared machine move by a tenth from run to run, these counts by a hundredth. So they tell what a change to
the hot path did. They depend on the build of Python, and are kept for each in benchmarks/instructions.json, where
`-- --write` puts those of now. Needs `valgrind` on PATH.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

from offloop import JSONFormatter, Pipeline, records
from offloop.capture import capture, restore
from offloop.sifting import sift
from offloop.testing import MemorySink

KEPT = Path(__file__).with_name("instructions.json")
FEW, MANY = 500, 2_500  # the difference has no start of the interpreter in it

log = logging.getLogger("bench")
Case = Callable[[int], None]


def main(arguments: list[str] | None = None) -> None:
    """Count, and compare."""
    parser = argparse.ArgumentParser(prog="nox -s instructions --", description=__doc__)
    parser.add_argument("--write", action="store_true", help="keep these figures")
    parser.add_argument("--run", nargs=2, metavar=("CASE", "TIMES"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.run:
        asyncio.run(_run(options.run[0], int(options.run[1])))
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        sys.exit("valgrind is not installed")
    kept: dict[str, dict[str, int]] = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}
    before = kept.get(_build(), {})
    sys.stdout.write(f"{_build()}\n{'instructions':38}{'before':>10}{'now':>10}{'change':>10}\n")
    now: dict[str, int] = {}
    for name in CASES:
        now[name] = _counted(valgrind, name)
        old = before.get(name)
        change = f"{100 * (now[name] - old) / old:+.1f}%" if old else "new"
        sys.stdout.write(f"{name:38}{old or '':>10}{now[name]:>10}{change:>10}\n")
        sys.stdout.flush()
    if options.write:
        KEPT.write_text(json.dumps({**kept, _build(): now}, indent=2, sort_keys=True) + "\n", "utf-8")


def _build() -> str:
    """What the counts depend on."""
    made = zlib.crc32(str(sysconfig.get_config_var("CONFIG_ARGS")).encode())
    optimised = "--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS"))
    kind = "profile-guided" if optimised else "plain"
    return f"{platform.python_implementation()} {platform.python_version()} {platform.machine()} {kind} {made:08x}"


def _counted(valgrind: str, name: str) -> int:
    """Instructions of one."""
    few, many = (_total(valgrind, name, times) for times in (FEW, MANY))
    return round((many - few) / (MANY - FEW))


def _total(valgrind: str, name: str, times: int) -> int:
    tool = [valgrind, "--tool=callgrind", f"--callgrind-out-file={os.devnull}"]
    script = [sys.executable, "-m", "benchmarks.instructions", "--run", name, str(times)]
    env = {**os.environ, "PYTHONHASHSEED": "0"}
    told = subprocess.run([*tool, *script], env=env, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", told.stderr)
    if found is None:
        sys.exit(f"{name}: {told.stderr}")
    return int(found[1])


async def _run(name: str, times: int) -> NoReturn:
    """In a process of its own: the case so often, and nothing after it."""
    gc.disable()
    log.propagate = False
    log.setLevel(logging.INFO)
    async with Pipeline(MemorySink(), logger="elsewhere", queue_size=10 * MANY) as pipeline:
        await asyncio.sleep(0.01)  # the listener sleeps
        log.handlers = [logging.NullHandler() if name.startswith("no-op") else pipeline.handler]
        CASES[name](times)
        os._exit(0)


def _plain(times: int) -> None:
    for _ in range(times):
        log.info("order placed")


def _arguments(times: int) -> None:
    for _ in range(times):
        log.info("order %d placed by %s", 4711, "Ann")


def _extra(times: int) -> None:
    for _ in range(times):
        log.info("order placed", extra={"order": 4711})


def _fast(times: int) -> None:
    records.install()
    _arguments(times)


def _in_thread(times: int) -> None:
    thread = threading.Thread(target=_arguments, args=(times,))
    thread.start()
    thread.join()


def _step(step: Callable[[logging.LogRecord], object], times: int) -> None:
    record = logging.LogRecord("bench", logging.INFO, __file__, 1, "order %d placed by %s", (4711, "Ann"), None)
    kept = [step(record) for _ in range(times)]
    del kept[:]


def _batches(times: int) -> None:
    record = logging.LogRecord("bench", logging.INFO, __file__, 1, "order %d placed by %s", (4711, "Ann"), None)
    encode = JSONFormatter().encode_all
    for _ in range(0, times, 64):
        held, *_ = sift([capture(record) for _ in range(64)], math.inf, vetted=True, with_levels=False)
        encode(held)


def _made(factory: Callable[..., logging.LogRecord], times: int) -> None:
    for _ in range(times):
        factory("bench", logging.INFO, __file__, 1, "order %d placed by %s", (4711, "Ann"), None, "made")


CASES: dict[str, Case] = {
    "a record": partial(_made, logging.LogRecord),
    "a fast record": partial(_made, records.make),
    "no-op, no arguments": _plain,
    "no-op, two arguments": _arguments,
    "call, no arguments": _plain,
    "call, two arguments": _arguments,
    "call, two arguments, fast record": _fast,
    "call, two arguments, in a thread": _in_thread,
    "call, extra": _extra,
    "capture": partial(_step, capture),
    "capture and restore": partial(_step, lambda record: restore(capture(record))),
    "JSON": partial(_step, JSONFormatter().encode),
    "routed, and JSON of 64 at once": _batches,
}


if __name__ == "__main__":
    main()
