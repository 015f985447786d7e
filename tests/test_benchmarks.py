"""The benchmarks run, each part in its shortest form with offloop alone, and their page is made of their results."""

from __future__ import annotations

import asyncio
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import page
from benchmarks.__main__ import PARTS, main
from benchmarks.measuring import Data
from benchmarks.tables import TABLES

pytestmark = pytest.mark.once


async def test_each_part_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody fails, offloop has a figure in each part, and each table can be made."""
    monkeypatch.setenv("OFFLOOP_BENCH_ALONE", "1")

    def quiet(_what: str) -> None: ...

    parts = [import_module(f"benchmarks.{name}") for name in PARTS]
    found = await asyncio.gather(*(asyncio.to_thread(part.measure, "smoke", quiet) for part in parts))

    results: Data = dict(zip(PARTS, found, strict=True))
    failed = {name: part["missing"] for name, part in results.items() if part["missing"].keys() - {"fast", "uvloop"}}
    assert not failed
    assert all(part["cells"] for part in results.values())
    for name in TABLES:
        assert page.table(name, results).count("\n") >= 2 or name == "delay-uvloop"


def test_page_is_made_of_the_results(tmp_path: Path) -> None:
    """The page, its figures and the results that are committed belong together."""
    results = page.load()
    assert list(results) == list(PARTS)
    assert page.rendered(page.PAGE.read_text("utf-8"), results) == page.PAGE.read_text("utf-8")
    assert page.drawn(results) == {name: (page.IMAGES / name).read_text("utf-8") for name in page.FIGURES}
    page.save(results, tmp_path / "again.json")
    assert page.load(tmp_path / "again.json") == results


def test_every_table_has_its_place() -> None:
    """No measurement is taken and not shown."""
    text = page.PAGE.read_text("utf-8")
    for name in (*TABLES, "machine"):
        assert text.count(f"<!-- measured: {name} -->") == 1
    for name in page.FIGURES:
        assert text.count(f"(../images/{name})") == 1


def test_results_go_where_they_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A part that is measured anew takes the place of the old one; the others and the page stay."""
    results = page.load() | {"rooms": {"cells": {}, "missing": {}}}
    page.save(results, tmp_path / "results.json")
    before = page.PAGE.read_bytes()

    main(["--only", "rooms", "--scale", "smoke", "--output", str(tmp_path / "results.json")])

    after = page.load(tmp_path / "results.json")
    assert after["rooms"]["cells"].keys() >= {"capture", "`JSONFormatter`"}
    assert {**after, "rooms": None} == {**results, "rooms": None}
    assert "`JSONFormatter`" in capsys.readouterr().out
    assert page.PAGE.read_bytes() == before
