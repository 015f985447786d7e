"""`python -m losses`: try all and write the page. `python -m losses WORD...`: try these programs, places or systems."""

from __future__ import annotations

import asyncio
import contextlib
import io
import signal
import sys
import tempfile
import time
from pathlib import Path

from losses.harness import Outcome, run_all
from losses.page import written
from losses.systems import SYSTEMS
from losses.ways import GROUPS, Way

# What may be tried at once: most of them wait.
_AT_A_TIME = 8
_OWN = frozenset({"offloop", "outage", "always"})
_PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "loss.md"


def main(words: list[str]) -> int:
    """Run, say how it goes, and write the page where all was tried and nothing is wrong with offloop."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # programs under test would inherit its absence
    chosen = [
        (way, system)
        for ways in GROUPS.values()
        for way in ways
        for system in SYSTEMS
        if system not in way.without and (not words or {way.program, way.place, system} & set(words))
    ]
    began = time.monotonic()

    def report(way: Way, system: str, outcome: Outcome) -> None:
        mark = "  <-- wrong" if is_wrong(way, system, outcome) else ""
        sys.stderr.write(f"{way.title}: {system}: {outcome.offered} offered, {outcome.unaccounted} unaccounted{mark}\n")
        if words or mark:
            sys.stderr.write(f"    {outcome}\n")

    # The programs' own output, which their runner shows.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        outcomes = dict(zip(chosen, asyncio.run(run_all(chosen, Path(folder), _AT_A_TIME, report)), strict=True))
    sys.stderr.write(f"{len(outcomes)} programs in {time.monotonic() - began:.0f} s\n")
    if any(is_wrong(way, system, outcome) for (way, system), outcome in outcomes.items()):
        return 1
    if not words:
        _PAGE.write_text(written(outcomes), "utf-8")
    return 0


def is_wrong(way: Way, system: str, outcome: Outcome) -> bool:
    """Whether offloop did not do what it promises."""
    if system not in _OWN:
        return False
    silent = outcome.unaccounted > 0 and system not in way.gone
    return silent or outcome.hung or outcome.balanced is False


sys.exit(main(sys.argv[1:]))
