"""A measurement in a fresh interpreter: no contender inherits another one's threads, heap or patched globals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.measuring import Data

ROOT = Path(__file__).parent.parent
_PATIENCE = 240.0  # seconds


class Failed(Exception):
    """A measurement ended with an error, whose last line is the message."""


def run(function: str, **arguments: Any) -> Data:
    """What a function of this package gives, called in a process of its own.

    Args:
        function: As in `"delivery.one"`.
        arguments: What JSON takes.

    Raises:
        Failed: It raised, or took four minutes.
    """
    command = [sys.executable, "-m", "benchmarks.child", function, json.dumps(arguments)]
    try:
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"{function}: no result after {_PATIENCE:g} s") from None
    if ended.returncode != 0:
        raise Failed(ended.stderr.strip().rpartition("\n")[2] or f"{function}: exit code {ended.returncode}")
    return json.loads(ended.stdout.rpartition("\n")[2])  # type: ignore[no-any-return]


def end(result: Data) -> NoReturn:
    """Print the result as the last line, and end the process without waiting for anybody's threads."""
    sys.stdout.write("\n" + json.dumps(result))
    sys.stdout.flush()
    os._exit(0)


def main() -> NoReturn:
    """Call, and end with the result."""
    module, _, name = sys.argv[1].partition(".")
    end(getattr(import_module(f"benchmarks.{module}"), name)(**json.loads(sys.argv[2])))


if __name__ == "__main__":
    main()
