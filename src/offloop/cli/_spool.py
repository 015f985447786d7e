"""`offloop spool`: what lies in a spool's directory, shown, delivered elsewhere, or removed."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, get_args

from offloop.cli._replay import Progress, Replayed, StdoutSink, replay
from offloop.errors import MissingExtra, OffloopError
from offloop.formatters.json import JSONFormatter
from offloop.formatters.text import TextFormatter
from offloop.framing import Framing
from offloop.net import TLS
from offloop.policies import Retry
from offloop.sink import Sink
from offloop.sinks.tcp import TCPSink
from offloop.spooling.look import Found, SpoolError, find, look, records, sink_of, take_away

try:
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.table import Table
except ImportError as missing:
    _package = (missing.name or "typer").partition(".")[0]
    raise MissingExtra(what="offloop spool", package=_package, extra="cli") from missing

__all__ = ["app"]

LEFT = 1
FAILED = 2
INTERRUPTED = 130
_WIDE = 10_000
_MAX_PORT = 65_535

app = typer.Typer(
    help="Look at the records that spools keep on disk, deliver them elsewhere, remove them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Place = Annotated[Path, typer.Argument(metavar="PLACE", help="A spool's directory, or a .spool file in it.")]
OfSink = Annotated[str | None, typer.Option("--sink", metavar="NAME", help="Only the files of this sink.")]
AsJSON = Annotated[bool, typer.Option("--json", help="JSON, one object a line.")]


@contextmanager
def _told(command: str) -> Iterator[None]:
    """What goes wrong is one line on stderr and an exit code."""
    try:
        yield
    except OffloopError as error:
        sys.stderr.write(f"offloop spool {command}: {error}\n")
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt as error:
        sys.stderr.write(f"offloop spool {command}: interrupted\n")
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError as error:
        sys.stderr.close()  # of the interpreter's own complaint at its end
        raise typer.Exit(FAILED) from error


@app.command()
def ls(place: Place, sink: OfSink = None, *, as_json: AsJSON = False) -> None:
    """List a directory's files: sink, state, records, bytes, age of the oldest, damage.

    "in use": a process has it. "orphan": its process has ended; the next one that starts a sink of this name takes it
    over. "set aside": a damaged file, kept after all that could be read was taken out of it.

    Exit code: 0; 1 if something is damaged; 2 if the place can't be read.
    """
    with _told("ls"):
        found = [look(path) for path in find(place, sink)]
        if as_json:
            for one in found:
                typer.echo(json.dumps(asdict(one) | {"path": str(one.path)}))
        else:
            _print_table(found)
    raise typer.Exit(LEFT if any(one.damage for one in found) else 0)


@app.command()
def show(
    place: Place,
    sink: OfSink = None,
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, metavar="N", help="At most so many; 0: all.")] = 20,
    as_json: AsJSON = False,
) -> None:
    """Print records, oldest first; of a file in use, those that are there now.

    Exit code: 0; 1 if some could not be read; 2 if the place can't be read.
    """
    formatter = JSONFormatter() if as_json else TextFormatter()
    shown = broken = total = 0
    with _told("show"):
        for path in find(place, sink):
            for record in records(path):
                total += 1
                if record is None:
                    broken += 1
                elif not limit or shown < limit:
                    shown += 1
                    typer.echo(formatter.format(record))
        if total > shown + broken:
            sys.stderr.write(f"{total - shown - broken} more: --limit 0 shows all\n")
        if broken:
            sys.stderr.write(f"{broken} record(s) could not be read\n")
    raise typer.Exit(LEFT if broken else 0)


@app.command("replay")
def replay_(
    place: Place,
    sink: OfSink = None,
    *,
    tcp: Annotated[
        str | None, typer.Option("--tcp", metavar="HOST:PORT", help="A collector; an IPv6 address in brackets.")
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", help="With TLS, verified by the system's authorities.")] = False,
    ca: Annotated[Path | None, typer.Option("--ca", metavar="FILE", help="With TLS, and these authorities.")] = None,
    framing: Annotated[
        str, typer.Option("--framing", metavar="KIND", help=f"{', '.join(get_args(Framing))}.")
    ] = "newline",
    stdout: Annotated[bool, typer.Option("--stdout", help="To stdout, as lines of JSON.")] = False,
    patience: Annotated[
        float, typer.Option("--patience", min=0, metavar="SECONDS", help="Give up after so long without progress.")
    ] = 30.0,
) -> None:
    """Deliver what ended processes left, and remove what was delivered.

    A file that a process uses is left alone: it delivers by itself. Delivery is at least once: after an interruption
    the batch that was under way comes again.

    Exit code: 0; 1 if records are left or could not be read; 2 if it could not begin; 130 after Ctrl-C.
    """
    with _told("replay"):
        patience = 0.0 if stdout else patience  # whoever reads stdout does not come back
        paths = [path for path in find(place, sink) if path.suffix == ".spool"]
        _check_one_sink(paths)
        destination = _destination(tcp, framing, stdout=stdout, tls=tls, ca=ca)
        alone = not place.is_dir()
        results = asyncio.run(_replay_all(paths, destination, patience, alone=alone))
    left = 0
    for path, result in results:
        left += result.left + result.damaged
        sys.stderr.write(f"{path.name}: {_sentence(result)}\n")
    if not paths:
        sys.stderr.write("there is nothing to replay\n")
    if any(result.interrupted for _, result in results):
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(LEFT if left else 0)


@app.command()
def drop(
    place: Place,
    sink: OfSink = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove the files of ended processes with all records in them, and files that were set aside.

    Exit code: 0; 1 if it was not confirmed; 2 if a file is in use or can't be removed.
    """
    with _told("drop"):
        found = [look(path) for path in find(place, sink)]
        free = [one for one in found if one.state != "in use" or not place.is_dir()]
        count = sum(one.records for one in free)
        if not free:
            sys.stderr.write("there is nothing to drop\n")
            raise typer.Exit(0)
        if not yes:
            typer.confirm(
                f"Remove {len(free)} file(s) with {count} record(s) that nobody will get?", abort=True, err=True
            )
        for one in free:
            take_away(one.path)
        sys.stderr.write(f"{count} record(s) in {len(free)} file(s) removed")
        sys.stderr.write(f", {len(found) - len(free)} in use left\n" if len(free) < len(found) else "\n")


# --------------------------------------------------------------------------------------------------------------------


def _print_table(found: list[Found]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, justify in (("sink", "left"), ("state", "left"), ("process", "right"), ("records", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name in ("bytes", "oldest"):
        table.add_column(name, justify="right")
    table.add_column("file", no_wrap=True)
    table.add_column("damage")
    for one in found:
        oldest = "-" if one.oldest is None else _age(time.time() - one.oldest)
        cells = (one.sink, one.state, str(one.pid or "-"), f"{one.records:,}", f"{one.size_bytes:,}", oldest)
        table.add_row(*cells, one.path.name, one.damage or "")
    # A name that is cut can't be copied.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _WIDE)
    console.print(table if found else "no spool files", soft_wrap=True)


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _check_one_sink(paths: list[Path]) -> None:
    sinks = sorted({sink_of(path) for path in paths})
    if len(sinks) > 1:
        raise SpoolError(f"there are files of {len(sinks)} sinks ({', '.join(sinks)}): choose one with --sink NAME")


def _destination(tcp: str | None, framing: str, *, stdout: bool, tls: bool, ca: Path | None) -> Sink:
    if (tcp is None) == (not stdout):
        raise SpoolError("say where the records are to go: either --tcp HOST:PORT or --stdout")
    retry = Retry(initial=0.2, maximum=2.0)
    if tcp is None:
        return StdoutSink(retry=retry)
    host, colon, port = tcp.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) <= _MAX_PORT:
        raise SpoolError(f"--tcp must be HOST:PORT with a port from 1 to {_MAX_PORT}, got {tcp!r}")
    context: TLS = True if tls else None
    if ca is not None:
        try:
            context = ssl.create_default_context(cafile=ca)
        except OSError as error:  # ssl.SSLError is one
            raise SpoolError(f"--ca {ca} can't be used: {error.strerror or error}") from error
    kind: Any = framing  # checked by the sink
    return TCPSink(host.removeprefix("[").removesuffix("]"), int(port), framing=kind, tls=context, retry=retry)


async def _replay_all(paths: list[Path], sink: Sink, patience: float, *, alone: bool) -> list[tuple[Path, Replayed]]:
    results: list[tuple[Path, Replayed]] = []
    for path in paths:
        with _bar(sink_of(path)) as progress:
            try:
                result = await replay(path, sink, patience, progress)
            except SpoolError as error:
                if alone:
                    raise
                sys.stderr.write(f"skipped: {error}\n")
                continue
        results.append((path, result))
        if result.error is not None:
            break  # what is in the next file is newer
    return results


@contextmanager
def _bar(sink: str) -> Iterator[Progress]:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task(sink, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def _sentence(result: Replayed) -> str:
    parts = [f"{result.delivered} record(s) delivered"]
    if result.left:
        parts.append(f"{result.left} left")
    if result.refused:
        parts.append(f"{result.refused} of these refused by the destination")
    if result.damaged:
        parts.append(f"{result.damaged} could not be read")
    if result.error is not None:
        parts.append(f"given up: {result.error}")
    return ", ".join(parts)
