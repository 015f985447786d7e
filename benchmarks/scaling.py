"""CPU per record as sinks, threads and handlers grow.

Each record goes to all sinks, which have the same format; threads and handlers share a fixed number of records.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.contenders import present
from benchmarks.delivery import compared
from benchmarks.measuring import Data

STEPS = {"sinks": (1, 5, 20), "threads": (1, 2, 4, 8), "handlers": (1, 2, 5)}
_NAMES = ["noop", "offloop", "fast", "pair"]
_ROUNDS = {"full": 3, "quick": 1, "smoke": 1}
_RECORDS = {"full": 10_000, "quick": 2_000, "smoke": 200}


def measure(scale: str, tell: Callable[[str], None]) -> Data:
    """The part."""
    names, missing = present(_NAMES)
    cells: Data = {}
    for kind, steps in STEPS.items():
        for step in steps if scale != "smoke" else steps[1:2]:
            given = {"count": _RECORDS[scale], "turns": [100], kind: step}
            tell(f"{step} {kind}")
            found = compared("delivery.one", names, missing, _ROUNDS[scale], given)
            cells |= {f"{cell.partition('/')[0]}/{kind}/{step}": value for cell, value in found["cells"].items()}
            missing |= {f"{name}, {step} {kind}": why for name, why in found["missing"].items() if name not in missing}
    return {"rounds": _ROUNDS[scale], "records": _RECORDS[scale], "cells": cells, "missing": missing}
