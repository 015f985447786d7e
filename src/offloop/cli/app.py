"""The commands of `offloop`, their options and exit codes. `spool` and `mail` have modules of their own."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import math
import platform
import sys
from typing import Annotated

from offloop.errors import MissingExtra, OffloopError

try:
    import typer
except ImportError as missing:
    _package = (missing.name or "typer").partition(".")[0]
    raise MissingExtra(what="the offloop command", package=_package, extra="cli") from missing

from offloop.cli import _digests, _spool
from offloop.cli._spool import FAILED, INTERRUPTED

__all__ = ["app"]

LOST = 1

app = typer.Typer(
    help="Logging off the event loop: standard loggers, an asyncio.Queue, and sinks that are awaited.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # paragraphs are filled, and errors are lines
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's way to hand over a flag
    if wanted:
        typer.echo(f"offloop {importlib.metadata.version('offloop')}")
        raise typer.Exit


def _finite(value: float) -> float:
    # A range check lets "nan" pass.
    if not math.isfinite(value):
        msg = f"{value} is not a number that can be used."
        raise typer.BadParameter(msg)
    return value


app.add_typer(_spool.app, name="spool")
app.add_typer(_digests.app, name="mail")


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def demo(
    *,
    seconds: Annotated[
        float, typer.Option(min=1, max=60, callback=_finite, metavar="SECONDS", help="How long each round lasts.")
    ] = 5.0,
    rate: Annotated[
        float, typer.Option(min=10, max=5000, callback=_finite, metavar="RECORDS", help="Records logged a second.")
    ] = 300.0,
    mail_delay: Annotated[
        float,
        typer.Option(min=0, max=2, callback=_finite, metavar="SECONDS", help="What the mail server takes for a mail."),
    ] = 0.3,
    mail_port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="The mail server's port; 0: any free one.")
    ] = 0,
    collector_port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="The collector's port; 0: any free one.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the table.")] = False,
) -> None:
    """Compare three ways to log in one application.

    The standard handlers on the logger, the standard queue pair, and offloop: a loop with a heartbeat answers simulated
    requests, which log to a mail server that takes its time and to a collector. Each way gets the same load; a round
    without logging comes first. Everything listens on 127.0.0.1 only and ends with this command.

    Exit code: 0; 1 if offloop lost a record; 2 if the demo could not run.
    """
    try:
        # Late, so that --version and --help need neither.
        from offloop.cli import _screen
        from offloop.cli import demo as play

        settings = play.Settings(
            seconds=seconds, rate=rate, mail_delay=mail_delay, mail_port=mail_port, collector_port=collector_port
        )
        with _screen.Screen() as screen:
            results = asyncio.run(play.compare(settings, screen.round))
    except OffloopError as error:
        sys.stderr.write(f"offloop demo: {error}\n")
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt as error:
        sys.stderr.write("offloop demo: interrupted\n")
        raise typer.Exit(INTERRUPTED) from error
    if as_json:
        typer.echo(json.dumps(_about() | results.document(), indent=2))
    else:
        _screen.show(results)
    raise typer.Exit(LOST if results.rounds["offloop"].lost else 0)


def _about() -> dict[str, str]:
    return {
        "offloop": importlib.metadata.version("offloop"),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
