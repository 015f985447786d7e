"""What every part needs: how much to do, medians and their spread, percentiles."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

SCALES = ("full", "quick", "smoke")
"""A quarter of an hour, two minutes, and seconds: the last one shows only that everything runs."""

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}

_STEPS = 60
_SHARES = [1 - 10 ** (-3 * step / _STEPS) for step in range(_STEPS + 1)]

Data = dict[str, Any]


def spread(values: Iterable[float]) -> Data:
    """Median and quartiles."""
    ordered = sorted(values)
    if len(ordered) > 1:
        low, median, high = statistics.quantiles(ordered, n=4, method="inclusive")
    else:
        low = median = high = ordered[0]
    return {"median": _short(median), "low": _short(low), "high": _short(high), "rounds": len(ordered)}


def percentile(ordered: Sequence[float], share: float) -> float:
    """Of sorted values, the smallest that this share of them does not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def percentiles(values: Iterable[float]) -> Data:
    """The usual ones, by name."""
    ordered = sorted(values)
    return {name: _short(percentile(ordered, share)) for name, share in PERCENTILES.items()}


def delays(rounds: Sequence[Sequence[float]]) -> Data:
    """What rounds of delays have in common: per percentile the median of the rounds and its spread, and a curve.

    The curve is pairs of a share and its percentile, closer together towards 99.9%. One round in which the machine did
    something else does not make it; it is in the maximum, which is that of all rounds.
    """
    found = [percentiles(late) for late in rounds]
    late = {name: spread(one[name] for one in found) for name in PERCENTILES}
    late["max"]["most"] = max(one["max"] for one in found)
    ordered = [sorted(late) for late in rounds]
    points = [
        [round(share, 6), _short(statistics.median(percentile(late, share) for late in ordered))] for share in _SHARES
    ]
    return {"late_us": late, "curve": points, "beats": sum(map(len, rounds))}


def _short(value: float) -> float:
    """Four significant digits: more would say what was not measured."""
    return float(f"{value:.4g}")
