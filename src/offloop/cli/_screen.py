"""What the demo shows a person."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from offloop.cli._workload import BEAT
from offloop.cli.demo import COMPARED, Account, Results, Round, Step
from offloop.errors import MissingExtra

try:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Table
except ImportError as missing:
    raise MissingExtra(what="offloop demo", package="rich", extra="cli") from missing

__all__ = ["Screen", "show"]

_TITLES = {
    "idle": "idle loop",
    "standard": "handlers on the logger",
    "queue": "standard queue pair",
    "offloop": "offloop",
}
_BUSY_MS = 3.0  # an idle loop that is later has a machine that it must share
_LONGEST = max(map(len, _TITLES.values()))


class Screen:
    """The progress on stderr: a bar on a terminal, a line a round elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        columns = (
            TextColumn(f"{{task.description:{_LONGEST}}}"),
            BarColumn(30),
            TextColumn("{task.completed:.0f} of {task.total:.0f} s{task.fields[note]}"),
        )
        self._bars = Progress(*columns, console=self._console, refresh_per_second=5)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    @contextmanager
    def round(self, kind: str, seconds: float) -> Iterator[Step]:
        """Show one round, as `demo.Progress` has it."""
        if not self._console.is_terminal:
            self._console.print(f"{_TITLES[kind]}: {seconds:g} s", soft_wrap=True)
            yield _ignore
            return
        bar = self._bars.add_task(_TITLES[kind], total=seconds, note="")

        def step(phase: str, elapsed: float) -> None:
            over = phase == "draining" or elapsed > seconds
            note = ", delivering what waits" if over else ""
            self._bars.update(bar, completed=seconds if over else elapsed, note=note)

        yield step
        self._bars.update(bar, completed=seconds, note="")


def _ignore(_phase: str, _elapsed: float) -> None:
    """Show nothing."""


def show(results: Results) -> None:
    """Print the table and what it says, to stdout."""
    console = Console(highlight=False)
    console.print()
    console.print(_table(results))
    settings = results.settings
    console.print(
        f"Loop delay: how late heartbeats were that were due every {1e3 * BEAT:g} ms. Load: {settings.rate:g} "
        f"records/s for {settings.seconds:g} s; the mail server took {1e3 * settings.mail_delay:g} ms for each mail.\n"
    )
    above = ", ".join(f"{_TITLES[kind]} {results.above_idle_ms(kind):+.1f} ms" for kind in COMPARED)
    console.print(f"p99 loop delay above the idle loop's: {above}.\n")
    for line in _accounts(results):
        console.print(line)
    console.print("\nMeasured just now, on this machine; the figures are its own.")
    if results.rounds["idle"].loop_delay_ms["p99"] > _BUSY_MS:
        console.print("It is busy with something else: even its idle loop was late. Try again when it is not.")
    _show_stderr(results)


def _table(results: Results) -> Table:
    rounds = [results.rounds[kind] for kind in ("idle", *COMPARED)]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for kind in ("idle", *COMPARED):
        table.add_column(_TITLES[kind], justify="right", vertical="bottom", max_width=13)
    for part in ("p50", "p99", "max"):
        table.add_row(f"loop delay {part}", *(f"{each.loop_delay_ms[part]:,.1f} ms" for each in rounds))
    table.add_row("request p99", *(f"{each.request_ms['p99']:,.1f} ms" for each in rounds), end_section=True)
    table.add_row("")
    table.add_row("records logged", *(_count(each.logged) for each in rounds))
    table.add_row("  came to the collector", *(_count(_of(each.collector, "delivered")) for each in rounds))
    table.add_row("errors logged", *(_count(each.errors) for each in rounds))
    table.add_row("  came by mail", *(_count(_of(each.mail, "delivered")) for each in rounds))
    table.add_row("  mails received", *(_count(_of(each.mail, "messages")) for each in rounds))
    table.add_row("lost", *(_count(None if each.mail is None else each.lost) for each in rounds))
    table.add_row("")
    table.add_row("CPU per record", *(_cpu(each) for each in rounds))
    table.add_row(
        "drained after", *("-" if each.mail is None else f"{each.drained_after_seconds:.1f} s" for each in rounds)
    )
    table.add_row("")
    return table


def _of(account: Account | None, name: str) -> int | None:
    return None if account is None else getattr(account, name)


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _cpu(each: Round) -> str:
    if each.cpu_us_per_record is None:
        return "-"
    # With few records the difference to the idle round is within what CPU times vary by, and may be negative.
    return f"{each.cpu_us_per_record:,.0f} us" if each.cpu_us_per_record >= 1 else "under 1 us"


def _accounts(results: Results) -> Iterator[str]:
    """Where every record of the rounds that logged is."""
    total = sum(results.rounds[kind].logged for kind in COMPARED)
    if not any(results.rounds[kind].lost for kind in COMPARED):
        yield f"Every one of the {total:,} records is accounted for: all were delivered."
    for kind in COMPARED:
        each = results.rounds[kind]
        for name, account in (("the collector", each.collector), ("the mail server", each.mail)):
            if account is None:
                continue
            if account.lost:
                yield f"{_TITLES[kind]}: {_loss(account)} of {account.logged:,} records never came to {name}."
            if account.duplicates:
                yield f"{_TITLES[kind]}: {account.duplicates:,} records came to {name} more than once."
        if (held := each.drained_after_seconds) >= 0.1:  # noqa: PLR2004 - what the table shows
            yield f"{_TITLES[kind]}: {held:.1f} s after the load the last records were handed over."


def _loss(account: Account) -> str:
    parts = [f"{count:,} ({reason})" for reason, count in account.reported.items()]
    if account.unreported:
        parts.append(f"{account.unreported:,} (without a word)")
    return " and ".join(parts)


def _show_stderr(results: Results) -> None:
    for kind, each in results.rounds.items():
        for line in each.stderr:
            sys.stderr.write(f"{_TITLES[kind]}, on stderr: {line}\n")
