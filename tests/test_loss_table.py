"""The loss table: some of its rows, and that the page is the one that was written by the run of all."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from losses import page
from losses.harness import run
from losses.ways import GROUPS, Way

pytestmark = pytest.mark.once

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "loss.md"
WAYS = {(way.program, way.place): way for way in chain.from_iterable(GROUPS.values())}


@pytest.mark.parametrize(
    ("way", "system"),
    [
        (WAYS["log_while_cancelled", "healthy"], "offloop"),
        (WAYS["kill_later", "away"], "always"),
        (WAYS["interrupt_twice", "away"], "offloop"),
        (WAYS["around_the_loop", "away"], "outage"),
        (WAYS["fork", "healthy"], "always"),
        (WAYS["leave", "suspended"], "always"),
        (WAYS["slowly", "closes"], "offloop"),
        (WAYS["full_disk", "away"], "always"),
    ],
    ids=lambda value: f"{value.program}-{value.place}" if isinstance(value, Way) else value,
)
async def test_every_record_is_accounted_for(way: Way, system: str, tmp_path: Path) -> None:
    """What was offered is delivered, kept, printed or counted as dropped."""
    outcome = await run(way, system, tmp_path / "run")
    assert outcome.offered == way.count
    assert outcome.unaccounted == 0
    assert outcome.balanced is not False
    assert not outcome.hung


async def test_preloaded_by_gunicorn(tmp_path: Path) -> None:
    """What was logged before the fork is delivered once, and each worker delivers its own, until SIGTERM."""
    outcome = await run(WAYS["gunicorn", "healthy"], "offloop", tmp_path / "run")
    assert outcome.offered == outcome.delivered == 260  # while it is loaded, at each start, for the requests
    assert (outcome.again, outcome.balanced, outcome.hung) == (0, True, False)


def test_page_is_as_it_was_written() -> None:
    """Nobody has edited it, and it has each way with each system."""
    text = PAGE.read_text("utf-8")
    assert page.is_sealed(text)
    assert page.rows(text) == page.expected()
