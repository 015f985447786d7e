"""`offloop mail`: a digest as people would get it, made of a file; and one that is sent, with what the server said."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Annotated

from offloop.capture import Record
from offloop.cli._lines import NoRecords, parsed
from offloop.digest import Digest, Preceding
from offloop.errors import MissingExtra, OffloopError
from offloop.gathering import Gathering
from offloop.mailing.redaction import DEFAULT_PATTERNS
from offloop.mailing.sink import MailSink
from offloop.sink import Batch
from offloop.sinks.smtp import SMTPSink

try:
    import typer
except ImportError as missing:
    _package = (missing.name or "typer").partition(".")[0]
    raise MissingExtra(what="offloop mail", package=_package, extra="cli") from missing

__all__ = ["app", "digest_of"]

FAILED = 2

app = typer.Typer(help="See how a digest looks, and whether one arrives.", no_args_is_help=True, rich_markup_mode=None)


@contextmanager
def _told(command: str) -> Iterator[None]:
    """What goes wrong is one line on stderr and an exit code."""
    try:
        yield
    except (OffloopError, OSError, ValueError) as error:  # the last: a level of no such name
        sys.stderr.write(f"offloop mail {command}: {error}\n")
        raise typer.Exit(FAILED) from error


@app.command()
def preview(  # noqa: PLR0913 - the command's options
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Lines of JSON, as JSONFormatter writes; -: stdin.")],
    *,
    level: Annotated[
        str, typer.Option("--level", metavar="LEVEL", help="Records below it are shown as what led there.")
    ] = "ERROR",
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the HTML part there.")] = None,
    text: Annotated[Path | None, typer.Option("--text", metavar="FILE", help="Write the text part there.")] = None,
    mail: Annotated[Path | None, typer.Option("--mail", metavar="FILE", help="Write the whole mail there.")] = None,
    templates: Annotated[
        Path | None, typer.Option("--templates", metavar="DIR", help="Has any of mail.html, mail.txt, subject.txt.")
    ] = None,
    subject: Annotated[str | None, typer.Option("--subject", metavar="TEXT", help="As SMTPSink takes it.")] = None,
    name: Annotated[str | None, typer.Option("--app", metavar="NAME", help="What the application is called.")] = None,
    release: Annotated[str | None, typer.Option("--release", metavar="NAME", help="Which one of it ran.")] = None,
    show_secrets: Annotated[bool, typer.Option("--show-secrets", help="Hide nothing that looks like one.")] = False,
) -> None:
    """Make a digest of a file's records, as if all of them had come within one pause. Nothing is sent.

    Without --html, --text or --mail the subject and the text are printed. The file is one of dead letters, or whatever
    JSONFormatter wrote, with any of its vocabularies.

    Exit code: 0; 2 if there is nothing to show, or it can't be shown.
    """
    with _told("preview"):
        sink = SMTPSink(
            "localhost",
            sender="preview@localhost",
            to="you@localhost",
            level=level,
            subject=subject,
            app=name,
            release=release,
            templates=templates,
            redact=() if show_secrets else DEFAULT_PATTERNS,
        )
        (envelope,) = sink.composed(digest_of(_records(file), sink))
        data = b"".join(envelope.mail.lines())
        written = message_from_bytes(data, policy=policy.default)
        shown = {"html": _part(written, "html"), "plain": _part(written, "plain")}
        for path, content in ((html, shown["html"]), (text, shown["plain"]), (mail, data)):
            if path is not None:
                path.write_bytes(content)
        if html is text is mail is None:
            typer.echo(f"Subject: {written['Subject']}\n\n{shown['plain'].decode()}", nl=False)


def digest_of(records: Sequence[Record], sink: MailSink) -> Batch:
    """One digest of the records that are of the sink's level; those below it lead up to them.

    Raises:
        NoRecords: None is of this level.
    """
    last = max(record.created for record in records)
    gathering = Gathering(sink.digest or Digest(), sink.preceding or Preceding(), lambda: last, lambda: last)
    whole: list[Record] = []
    for record in records:
        if record.levelno < sink.level:
            gathering.overhear([record])
            continue
        gathering.classify(record)
        if gathering.enter(record):
            whole.append(record)
        gathering.forget_chunk()
    if not whole:
        levels = ", ".join(sorted({record.levelname for record in records}))
        msg = f"none of the {len(records):,} records is of the level asked for or above ({levels}): give a --level"
        raise NoRecords(msg)
    batch = Batch(whole, sink)
    batch.created = last
    batch.gathered = gathering.gather(whole, closing=False)
    return batch


def _records(path: Path) -> list[Record]:
    if str(path) == "-":
        records = list(parsed(sys.stdin.buffer, "stdin"))
    else:
        with path.open("rb") as lines:
            records = list(parsed(lines, path.name))
    if not records:
        msg = f"{path}: no records"
        raise NoRecords(msg)
    return records


def _part(written: EmailMessage, subtype: str) -> bytes:
    body = written.get_body((subtype,))
    return b"" if body is None else str(body.get_content()).encode()
