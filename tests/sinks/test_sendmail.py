"""`SendmailSink` with a command that keeps what it is given, and with exim's own."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import batch_of, until
from mailservers import Exim, exim, parsed, sendmail, sent
from offloop import worker
from offloop.errors import ConfigError, DeliveryError, PermanentFailure, SinkFailure, TemporaryFailure
from offloop.sinks.sendmail import SendmailSink

SETTINGS: dict[str, Any] = {"sender": "App <app@a.example>", "to": ["ops@b.example", "boss@b.example"], "digest": None}


def children() -> list[int]:
    """Give the processes that are ours, dead or alive."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """Write the command."""
    return sendmail(tmp_path)


async def test_mail_as_it_was(command: Path) -> None:
    """The command is given sender and recipients, and the mail as text of this machine: no period is doubled."""
    sink = SendmailSink(str(command), html=False, formatter=logging.Formatter("%(message)s"), **SETTINGS)
    batch = batch_of(sink, ".", "..two", "x" * 300_000)
    await sink.open()
    await sink.send(batch)
    await sink.aclose()
    (path,) = sent(command.parent)
    mail = parsed(path.read_bytes())
    assert mail["Message-ID"] == f"<{batch.key}@a.example>"
    assert mail.get_content().splitlines()[2:4] == [".", "..two"]
    assert b"\r" not in path.read_bytes()
    args = (command.parent / "args").read_text().splitlines()
    assert args == ["-i", "-f", "app@a.example", "--", "ops@b.example", "boss@b.example"]


@pytest.mark.parametrize(
    ("fault", "failure", "match"),
    [
        ("echo >&2; echo queue full >&2; exit 75", TemporaryFailure, r"ended with 75 \(EX_TEMPFAIL\): queue full$"),
        ("exit 69", TemporaryFailure, r"ended with 69 \(EX_UNAVAILABLE\)$"),
        ("exit 1", TemporaryFailure, "ended with 1$"),
        ("exit 65", PermanentFailure, r"ended with 65 \(EX_DATAERR\)"),
        ("exit 67", PermanentFailure, r"ended with 67 \(EX_NOUSER\)"),
        ("exit 64", SinkFailure, r"ended with 64 \(EX_USAGE\)"),
        ("exit 77", SinkFailure, r"ended with 77 \(EX_NOPERM\)"),
        ("exit 78", SinkFailure, r"ended with 78 \(EX_CONFIG\)"),
        ("exit 127", SinkFailure, r"ended with 127 \(not found\)"),
        ("exit 0", TemporaryFailure, "did not read the whole mail"),
        ("kill -TERM $$", TemporaryFailure, "was ended by SIGTERM"),
        ("head -c 99999 /dev/zero | tr '\\0' x >&2; exit 1", TemporaryFailure, r": x{297}\.\.\.$"),
    ],
)
async def test_status_tells_whose_fault_it_is(
    command: Path, fault: str, failure: type[DeliveryError], match: str
) -> None:
    """Each exit status says whether to come again, give up the mail, or give up the sink; the next try works."""
    (command.parent / "fault").write_text(fault)
    sink = SendmailSink(str(command), formatter=logging.Formatter("%(message)s" + "x" * 200_000), **SETTINGS)
    with pytest.raises(failure, match=match):
        await sink.send(batch_of(sink, "broken"))
    assert not children()
    (command.parent / "fault").unlink()
    await sink.send(batch_of(sink, "mended"))
    await sink.aclose()
    assert len(sent(command.parent)) == 1


@pytest.mark.parametrize(
    ("name", "mode"), [("missing", None), ("plain", 0o644), ("sendmail/x", None), ("binary", 0o755)]
)
async def test_no_such_command(tmp_path: Path, command: Path, name: str, mode: int | None) -> None:
    """A command that can't be run is a wrong setting, by its name."""
    path = tmp_path / name
    if mode is not None:
        path.write_bytes(b"\x7fELF?")
        path.chmod(mode)
    sink = SendmailSink(str(path), **SETTINGS)
    with pytest.raises(SinkFailure, match=f"{path}: "):
        await sink.send(batch_of(sink, "broken"))


async def test_command_that_hangs_is_killed(command: Path) -> None:
    """After `send_timeout` the command is killed with its children, and leaves no zombie; the loop goes on."""
    (command.parent / "fault").write_text("sleep 60 & echo $! > child; wait")
    sink = SendmailSink(str(command), send_timeout=0.5, **SETTINGS)
    with pytest.raises(TemporaryFailure, match=r"the command was not done after 0\.5 s and was killed"):
        await sink.send(batch_of(sink, "broken"))
    await until(lambda: not children())
    child = int((command.parent / "child").read_text())
    await until(lambda: not Path(f"/proc/{child}").exists() or " Z " in Path(f"/proc/{child}/stat").read_text())


@pytest.mark.parametrize("how", ["cancel", "open", "aclose"])
async def test_command_that_is_given_up_is_killed(command: Path, how: str) -> None:
    """Cancelled, closed or opened anew, a sink leaves no command behind."""
    (command.parent / "fault").write_text("echo > begun; exec sleep 60")
    sink = SendmailSink(str(command), **SETTINGS)
    sending = asyncio.ensure_future(sink.send(batch_of(sink, "broken")))
    await until((command.parent / "begun").exists)
    assert repr(sink) == f"<SendmailSink {command} running>"
    if how == "cancel":
        sending.cancel()
    else:
        await getattr(sink, how)()
    with pytest.raises((asyncio.CancelledError, TemporaryFailure)):
        await sending
    await until(lambda: not children())
    assert repr(sink) == f"<SendmailSink {command}>"
    await sink.aclose()


async def test_delivery_in_the_background_holds_nothing_up(command: Path) -> None:
    """A command that leaves a child behind, which holds its stderr open, is done when it has ended itself."""
    with command.open("a") as script:
        script.write("sleep 60 &\necho $! > child\n")
    sink = SendmailSink(str(command), **SETTINGS)
    await sink.send(batch_of(sink, "broken"))
    await sink.aclose()
    os.kill(int((command.parent / "child").read_text()), signal.SIGKILL)


async def test_loop_goes_on_meanwhile(command: Path) -> None:
    """The command is started, fed and waited for elsewhere."""
    (command.parent / "fault").write_text("while [ ! -e go ]; do sleep 0.01; done")
    sink = SendmailSink(str(command), **SETTINGS)
    sending = asyncio.ensure_future(sink.send(batch_of(sink, "x" * 900_000)))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not sending.done()
    assert threading.current_thread() is threading.main_thread()
    (command.parent / "go").touch()
    await sending
    await sink.aclose()


_AT_EXIT = """
import logging, sys
from offloop import Batching, Pipeline, SendmailSink
import asyncio
mail = {"sender": "app@a.example", "to": "ops@b.example", "digest": None}
sink = SendmailSink(sys.argv[1], batching=Batching(max_wait=60), **mail)
pipeline = Pipeline(sink, logger=logging.getLogger(), shutdown_timeout=float(sys.argv[2]))
async def main():
    await pipeline.__aenter__()
    logging.error("at the end")
asyncio.run(main())
"""


@pytest.mark.parametrize("fault", ["", "exec sleep 60"])
def test_at_exit(command: Path, fault: str) -> None:
    """At the end of the process a mail goes out, or the command is killed at the deadline and the record printed."""
    (command.parent / "fault").write_text(fault)
    timeout = "1" if fault else "10"
    done = subprocess.run(
        [sys.executable, "-c", _AT_EXIT, str(command), timeout], capture_output=True, text=True, timeout=30, check=True
    )
    assert len(sent(command.parent)) == (not fault)
    assert ("at the end" in done.stderr) == bool(fault)


async def test_no_thread_is_a_failure_for_now(command: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no thread, the mail is tried again."""

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    sink = SendmailSink(str(command), **SETTINGS)
    sink._worker.begin(bool)
    monkeypatch.setattr(worker.Thread, "start", no_thread)
    with pytest.raises(TemporaryFailure, match="the command can't be started: can't start new thread"):
        await sink.send(batch_of(sink, "broken"))


@pytest.fixture
def server() -> Iterator[Exim]:
    """Run a real exim."""
    with exim() as running:
        yield running


async def test_exim_delivers(server: Exim) -> None:
    """A real one takes a mail from its standard input and puts it into a mailbox as it was, and refuses another."""
    to = ["ops@exim.test", "boss@exim.test"]
    sink = SendmailSink(["exim4", "-C", str(server.folder / "exim.conf")], sender="app@a.example", to=to, digest=None)
    batch = batch_of(sink, "gr\u00fc\u00dfe\n.\n..")
    await sink.send(batch)
    (mail,) = await asyncio.to_thread(server.mails, 1)
    assert mail["Message-ID"] == f"<{batch.key}@a.example>"
    assert mail["Return-Path"] is None or "app@a.example" in mail["Return-Path"]
    assert not mail.defects
    await sink.aclose()


@pytest.mark.parametrize(
    ("command", "match"),
    [
        ("", "got ''"),
        ([], r"got \[\]"),
        (None, "got None"),
        (5, "got 5"),
        (b"/usr/sbin/sendmail", "got b'/usr/sbin/sendmail'"),
        (["sendmail", 1], r"got \['sendmail', 1\]"),
        ("a\0b", r"got 'a\\x00b'"),
    ],
)
def test_command_is_checked(command: Any, match: str) -> None:
    """What can't be a command is refused at construction."""
    with pytest.raises(ConfigError, match=f"SendmailSink: command: expected a program like .*, {match}"):
        SendmailSink(command, **SETTINGS)


@pytest.mark.parametrize("settings", [{"send_timeout": 0}, {"send_timeout": None}])
def test_timeout_is_checked(settings: dict[str, Any]) -> None:
    """The time for a step is some."""
    with pytest.raises(ConfigError, match=r"SendmailSink: send_timeout must be at least 0\.001 seconds"):
        SendmailSink(**(SETTINGS | settings))
