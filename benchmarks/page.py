"""From the results to the page: its tables stand between markers and are made anew, the text around them is by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks.figures import FIGURES
from benchmarks.measuring import Data
from benchmarks.tables import TABLES, machine_table

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "explanation" / "performance.md"
IMAGES = DOCS / "images"
RESULTS = DOCS / "explanation" / "performance.json"

_PLACE = re.compile(r"(?P<begin><!-- measured: (?P<name>[a-z0-9-]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)


def load(path: Path = RESULTS) -> Data:
    """The results so far, by part."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def save(results: Data, path: Path = RESULTS) -> None:
    """Keep them, one cell a line, so that a change can be read."""
    parts = [f"{json.dumps(name)}: {_part(part)}" for name, part in results.items()]
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", "utf-8")


def _part(part: Data) -> str:
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in part.items() if key != "cells"]
    cells = ",\n".join(f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in part["cells"].items())
    return "{\n" + ",\n".join([*lines, '  "cells": {\n' + cells + "\n  }"]) + "\n}"


def table(name: str, results: Data) -> str:
    """The table for one place on the page."""
    if name == "machine":
        return machine_table(results)
    part, make = TABLES[name]
    return make(results[part]) if part in results else "Not measured yet."


def rendered(text: str, results: Data) -> str:
    """The page with the tables of these results."""
    return _PLACE.sub(lambda place: f"{place['begin']}\n{table(place['name'], results)}\n\n{place['end']}", text)


def shown(results: Data) -> str:
    """All tables, for a terminal."""
    names = [name for name, (part, _) in TABLES.items() if part in results]
    return "\n\n".join(f"{name}\n{table(name, results)}" for name in [*names, "machine"])


def drawn(results: Data) -> dict[str, str]:
    """The figures by file name."""
    return {name: draw(results[part]) for name, (part, draw) in FIGURES.items() if part in results}


def write(results: Data) -> None:
    """The page and its figures."""
    PAGE.write_text(rendered(PAGE.read_text("utf-8"), results), "utf-8")
    for name, text in drawn(results).items():
        (IMAGES / name).write_text(text, "utf-8")
