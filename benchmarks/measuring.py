"""What every part needs: how much to do, medians and their spread, percentiles."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

SCALES = ("full", "quick", "smoke")
"""A quarter of an hour, two minutes, and seconds: the last one shows only that everything runs."""

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}

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


def curve(values: Iterable[float], points: int = 60) -> list[list[float]]:
    """Pairs of a share and its percentile, closer together towards 1: what a plot of percentiles shows."""
    ordered = sorted(values)
    nines = math.log10(len(ordered))
    shares = [1 - 10 ** (-nines * step / points) for step in range(points + 1)]
    return [[round(share, 6), _short(percentile(ordered, share))] for share in shares]


def _short(value: float) -> float:
    """Four significant digits: more would say what was not measured."""
    return float(f"{value:.4g}")
