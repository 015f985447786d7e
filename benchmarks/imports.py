"""What an import takes, in a fresh interpreter that has imported asyncio and anyio's backend already."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable

from benchmarks.contenders import present
from benchmarks.measuring import Data, spread

_ROUNDS = {"full": 15, "quick": 5, "smoke": 1}
_MODULES = {
    "offloop": "offloop",
    "logging.handlers": "pair",
    "structlog": "structlog",
    "loguru": "loguru",
    "logstash_async.handler": "logstash",
    "opentelemetry.sdk._logs.export": "opentelemetry",
    "aiologging": "aiologging",
    "picologging": "picologging",
}
_BASE = "import asyncio, anyio._backends._asyncio"
_TIMED = (
    _BASE
    + """, time, warnings
warnings.simplefilter("ignore")
cpu, wall = time.process_time(), time.perf_counter()
import {}
print(1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall))
"""
)
_LONGEST = 12
_LINE = re.compile(r"import time: +(\d+) \| +\d+ \| +(\S+)")


def measure(scale: str, tell: Callable[[str], None]) -> Data:
    """The part."""
    # Whatever the environment says of bytecode: an installed package has it.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return _measured(scale, tell, {**env, "PYTHONPYCACHEPREFIX": folder})


def _measured(scale: str, tell: Callable[[str], None], env: dict[str, str]) -> Data:
    names, missing = present([name for name in _MODULES.values() if name != "noop"])
    modules = [module for module, name in _MODULES.items() if name in names]
    taken: dict[str, list[tuple[float, float]]] = {module: [] for module in modules}
    for turn in range(_ROUNDS[scale] + 1):
        tell(f"round {turn} of {_ROUNDS[scale]}")
        for module in random.sample(modules, len(modules)):
            cpu, wall = map(float, _python(env, "-c", _TIMED.format(module)).stdout.split())
            if turn:  # the first one writes bytecode
                taken[module].append((cpu, wall))
    cells = {
        module: {"cpu_ms": spread(cpu for cpu, _ in times), "wall_ms": spread(wall for _, wall in times)}
        for module, times in taken.items()
    }
    return {"rounds": _ROUNDS[scale], "cells": cells, "profile": _profile(env), "missing": missing}


def _profile(env: dict[str, str]) -> list[tuple[str, float]]:
    """Which modules take longest by themselves, of those that are not there before: name and milliseconds."""
    before = {module for _, module in _LINE.findall(_python(env, "-X", "importtime", "-c", _BASE).stderr)}
    found = _LINE.findall(_python(env, "-X", "importtime", "-c", f"{_BASE}\nimport offloop").stderr)
    own = [(module, int(taken) / 1000) for taken, module in found if module not in before]
    return sorted(own, key=lambda each: -each[1])[:_LONGEST]


def _python(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, env=env)
