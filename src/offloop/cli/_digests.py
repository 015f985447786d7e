"""`offloop mail`: a digest as people would get it, made of a file; and one that is sent, with what the server said."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Annotated

from offloop.capture import Record
from offloop.cli._lines import NoRecords, parsed
from offloop.cli._probe import Probe, advice, sample
from offloop.digest import Digest, Preceding
from offloop.errors import ConfigError, MissingExtra, OffloopError
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

REFUSED = 1
FAILED = 2
INTERRUPTED = 130
_WIDE = 18
_VARIABLE = "MAIL_PASSWORD"

app = typer.Typer(help="See how a digest looks, and whether one arrives.", no_args_is_help=True, rich_markup_mode=None)


@contextmanager
def _told(command: str) -> Iterator[None]:
    """What goes wrong is one line on stderr and an exit code."""
    try:
        yield
    except (OffloopError, OSError, ValueError) as error:  # the last: a level of no such name
        sys.stderr.write(f"offloop mail {command}: {str(error).removeprefix('Probe: ')}\n")
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt as error:
        sys.stderr.write(f"offloop mail {command}: interrupted\n")
        raise typer.Exit(INTERRUPTED) from error


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


@app.command("test")
def send(  # noqa: PLR0913 - the command's options
    host: Annotated[str, typer.Argument(metavar="HOST", help="The mail server.")],
    port: Annotated[int, typer.Argument(metavar="PORT", min=1, max=65535, help="587, 465 or 25, as a rule.")] = 587,
    *,
    sender: Annotated[str, typer.Option("--from", metavar="ADDRESS", help="Who writes.")],
    to: Annotated[list[str], typer.Option("--to", metavar="ADDRESS", help="To whom; may be given several times.")],
    username: Annotated[str | None, typer.Option("--username", metavar="NAME", help="For AUTH.")] = None,
    password_variable: Annotated[
        str, typer.Option("--password-variable", metavar="NAME", help="The environment variable that has the password.")
    ] = _VARIABLE,
    tls: Annotated[str, typer.Option("--tls", metavar="MODE", help="auto, starttls, implicit or off.")] = "auto",
    ca: Annotated[Path | None, typer.Option("--ca", metavar="FILE", help="Trust these authorities.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="For each step.")] = 30.0,
) -> None:
    """Send one digest, and tell each step with what the server said to it.

    It goes the way an SMTPSink's mails go. No password is printed, and none goes without TLS.

    Exit code: 0; 1 if the server could not be reached or took no mail; 2 if something that was given can't be used.
    """
    with _told("test"):
        probe = Probe(
            _tell,
            host,
            port,
            sender=sender,
            to=to,
            username=username,
            password=_password(username, password_variable),
            tls=tls,
            tls_context=_trusting(ca),
            connect_timeout=timeout,
            send_timeout=timeout,
            level="ERROR",
        )
        failure = asyncio.run(_sent(probe))
    if failure is not None:
        sys.stderr.write(f"offloop mail test: {failure}\n{advice(failure)}\n")
        raise typer.Exit(REFUSED)


async def _sent(probe: Probe) -> Exception | None:
    batch = digest_of(sample(), probe)
    try:
        await probe.open()
        await probe.send(batch)
    except (OffloopError, OSError) as error:
        return error
    finally:
        await probe.aclose()
    _tell("Message-ID", f"<{batch.key}@{probe.sender.domain}>")
    return None


def _tell(step: str, said: str) -> None:
    # Each step as it happens: the next one may take its time.
    sys.stdout.write(f"{step:{_WIDE}} {said}\n")
    sys.stdout.flush()


def _password(username: str | None, variable: str) -> str | None:
    """What the environment has for the user; a command line can be read by others."""
    if username is None:
        return None
    password = os.environ.get(variable)
    if password is None:
        msg = f"--username needs a password in the environment variable {variable}, which is not set"
        raise ConfigError(msg)
    return password


def _trusting(ca: Path | None) -> ssl.SSLContext | None:
    return None if ca is None else ssl.create_default_context(cafile=str(ca))


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
