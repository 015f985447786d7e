"""Measure, and make the page: `nox -s bench`, about a quarter of an hour; with `-- --quick` two minutes.

The results go to docs/explanation/performance.json, those of a part that is measured anew in place of the old ones, and
from there to performance.md and its figures. What is quick is printed only, unless it is told where to go.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

from benchmarks import page
from benchmarks.child import Failed
from benchmarks.machine import described
from benchmarks.measuring import SCALES, Data

PARTS = ("calls", "delivery", "delay", "burst", "scaling", "imports", "rooms", "spool")


def main(arguments: list[str] | None = None) -> None:
    """Do what was asked for."""
    options = _parsed(arguments)
    output = options.output or (page.RESULTS if options.scale == "full" else None)
    results = page.load(output) if output else {}
    failed = {} if options.render else measured(options.only or PARTS, options.scale, results, output)
    if output == page.RESULTS or options.render:
        page.write(results)
    if failed:
        sys.exit("\n".join(f"{name}: {why}" for name, why in failed.items()))


def measured(names: Iterable[str], scale: str, results: Data, output: Path | None) -> dict[str, str]:
    """Measure these parts, keep each as soon as there is a result, and show them; why some have none."""
    new: Data = {}
    failed: dict[str, str] = {}
    for name in names:
        try:
            results[name] = new[name] = part(name, scale)
        except Failed as error:
            failed[name] = str(error)
            continue
        if output:
            page.save({name: results[name] for name in PARTS if name in results}, output)
    sys.stdout.write(page.shown(new) + "\n")
    return failed


def part(name: str, scale: str) -> Data:
    """Measure one."""
    machine = described(scale)
    began = time.monotonic()
    measure = import_module(f"benchmarks.{name}").measure
    found: Data = measure(scale, _teller(name))
    _tell(f"{name}: {time.monotonic() - began:.0f} s\n")
    return {"machine": machine, **found}


def _teller(name: str) -> Callable[[str], None]:
    return lambda what: _tell(f"{name}: {what}")


def _tell(what: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{what}")
    elif what.endswith("\n"):
        sys.stderr.write(what)
    sys.stderr.flush()


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts")
    parser.add_argument("--quick", dest="scale", action="store_const", const="quick", default="full")
    parser.add_argument("--scale", choices=SCALES, default="full", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="where the results go; the page is made of performance.json alone")
    parser.add_argument("--render", action="store_true", help="make the page of what was measured before")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
