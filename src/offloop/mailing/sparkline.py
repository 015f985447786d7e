"""A rate as a line of block characters. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

__all__ = ["sparkline"]

_BLOCKS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"


def sparkline(rate: Sequence[int], width: int = 40) -> str:
    """A block for each part of the time, as high as many were in it; a space for none; nothing where it tells nothing.

    Args:
        rate: How many there were in each of some equal parts of the time.
        width: At most so many characters: neighbours share one.
    """
    if len(rate) > width:
        edges = [index * len(rate) // width for index in range(width + 1)]
        rate = [sum(rate[start:stop]) for start, stop in pairwise(edges)]
    highest = max(rate, default=0)
    if highest <= 0 or len(rate) < 2:  # noqa: PLR2004 - one block has no shape
        return ""
    return "".join(_BLOCKS[(max(0, n) * len(_BLOCKS) - 1) // highest] if n > 0 else " " for n in rate)
