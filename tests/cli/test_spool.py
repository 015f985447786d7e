"""`offloop spool` on what a killed process left."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from helpers import record_of, until
from offloop.cli._replay import replay
from offloop.cli.app import app
from offloop.errors import PermanentFailure, TemporaryFailure
from offloop.spool import Spool
from offloop.spooling.store import SpoolStore
from offloop.spooling.turn import Turn
from offloop.testing import FaultySink
from spool_files import leave_as_killed

Run = subprocess.CompletedProcess[str]


def stored(directory: Path, sink: str, count: int, start: int = 0) -> SpoolStore:
    """A process's store with so many records, in use."""
    store = SpoolStore(Spool(directory), sink)
    store.open(0)
    rows = [(number, record_of("n %d", start + number, name="shop")) for number in range(count)]
    assert store.exchange(Turn(rows=rows)).stored
    return store


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A directory with 30 records of one killed process and 20 of another, for one sink."""
    first = stored(tmp_path, "mail", 30)
    second = stored(tmp_path, "mail", 20, start=30)
    leave_as_killed(first)
    leave_as_killed(second)
    return tmp_path


def spool(*arguments: object, given: str | None = None) -> Result:
    return CliRunner().invoke(app, ["spool", *map(str, arguments)], input=given)


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.spool"))


def test_ls_tells_orphans_from_files_in_use(left: Path) -> None:
    """Sink, state, records, bytes and age of each file; JSON has the same."""
    store = stored(left, "collector", 5)
    done = spool("ls", left)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert "in use" in lines[1]
    assert lines[1].startswith("collector ")
    assert ["mail", "orphan", str(os.getpid()), "30"] == lines[2].split()[:4]
    rows = [json.loads(line) for line in spool("ls", left, "--json").stdout.splitlines()]
    assert [(row["sink"], row["state"], row["records"]) for row in rows] == [
        ("collector", "in use", 5),
        ("mail", "orphan", 30),
        ("mail", "orphan", 20),
    ]
    assert all(row["damage"] is None and row["oldest"] <= row["newest"] for row in rows)
    store.close()


def test_looking_changes_nothing(left: Path) -> None:
    """What was listed and shown is taken over as before."""
    spool("ls", left)
    spool("show", left)
    store = SpoolStore(Spool(left), "mail")
    out = store.open(0)
    assert (out.found, out.lost, out.error) == (50, [], None)
    store.close()


def test_show_prints_the_oldest_first(left: Path) -> None:
    """As text and as JSON, as many as are asked for, over all files."""
    done = spool("show", left, "--limit", 2)
    assert [line.partition("shop: ")[2] for line in done.stdout.splitlines()] == ["n 0", "n 1"]
    assert "48 more" in done.stderr
    done = spool("show", left, "--json", "-n", 0)
    assert [json.loads(line)["message"] for line in done.stdout.splitlines()] == [f"n {i}" for i in range(50)]
    assert done.exit_code == 0


def test_damage_is_listed_and_the_rest_is_shown(left: Path) -> None:
    """A file with a broken page has what is left; it can be dropped all the same."""
    path = files(left)[0]
    store = SpoolStore(Spool(left), "x", only=path.stem)
    store.open(0)
    store.close()  # writes the log into the file
    data = bytearray(path.read_bytes())
    data[data.index(b"n %d") + 2] ^= 0xFF
    path.write_bytes(data)
    done = spool("ls", left)
    assert done.exit_code == 1
    assert "1 record(s) can't be read" in done.stdout
    done = spool("show", path, "-n", 0)
    assert done.exit_code == 1
    assert len(done.stdout.splitlines()) == 29
    path.write_bytes(b"noise" * 2_000)
    assert "not a database" in spool("ls", path).stdout
    assert spool("drop", path, "--yes").exit_code == 0
    assert not path.exists()


@pytest.fixture
def collector() -> Iterator[tuple[int, Callable[[], list[str]]]]:
    """A port, and what has come there when the connection has ended."""
    server = socket.create_server(("127.0.0.1", 0))
    lines: list[str] = []

    def serve() -> None:
        peer, _ = server.accept()
        with peer, peer.makefile("r") as stream:
            lines.extend(json.loads(line)["message"] for line in stream)

    thread = threading.Thread(target=serve)
    thread.start()

    def came() -> list[str]:
        thread.join(10)
        return lines

    yield server.getsockname()[1], came
    socket.create_connection(server.getsockname()).close()
    server.close()


def test_replay_delivers_in_order_and_removes(left: Path, collector: tuple[int, Callable[[], list[str]]]) -> None:
    """All files of a directory, the oldest first, to a collector; nothing stays."""
    port, came = collector
    single = files(left)[0]
    done = spool("replay", single, "--tcp", f"127.0.0.1:{port}")
    assert done.exit_code == 0, done.output
    assert came() == [f"n {i}" for i in range(30)]
    assert not single.exists()
    done = spool("replay", left, "--stdout")
    assert [json.loads(line)["message"] for line in done.stdout.splitlines()] == [f"n {i}" for i in range(30, 50)]
    assert list(left.iterdir()) == []
    assert spool("replay", left, "--stdout").stderr == "there is nothing to replay\n"


def test_file_in_use_is_refused(tmp_path: Path) -> None:
    """A live process's file is neither delivered nor dropped, and it says why; in a directory it is passed over."""
    store = stored(tmp_path, "mail", 3)
    (path,) = files(tmp_path)
    for command in (["replay", path, "--stdout"], ["drop", path, "--yes"]):
        done = spool(*command)
        assert done.exit_code == 2
        assert f"is in use, by the process {os.getpid()}" in done.stderr
    done = spool("replay", tmp_path, "--stdout")
    assert done.stderr.startswith("skipped: ")
    assert done.stdout == ""
    assert spool("drop", tmp_path, "--yes").stderr == "there is nothing to drop\n"
    assert store.exchange(Turn(want=9, want_bytes=10**6)).unread == 0
    store.close()


def test_replay_to_nobody_keeps_all(left: Path) -> None:
    """A destination that is away costs the patience and no record."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    done = spool("replay", left, "--tcp", f"127.0.0.1:{port}", "--patience", "0.1")
    assert done.exit_code == 1
    assert "0 record(s) delivered, 30 left, given up: " in done.stderr
    assert spool("ls", left).stdout.count("orphan") == 2


async def test_refused_records_stay(left: Path) -> None:
    """What the destination never takes is kept, the rest goes; a pause in between ends well."""
    sink = FaultySink(TemporaryFailure("soon"), poison=lambda record: record.getMessage() in {"n 3", "n 7"})
    seen: list[tuple[int, int]] = []
    result = await replay(files(left)[0], sink, 10.0, lambda done, total: seen.append((done, total)))
    assert (result.delivered, result.refused, result.left, result.error) == (28, 2, 2, None)
    assert seen[-1] == (30, 30)
    assert [line[-3:] for line in spool("show", files(left)[0]).stdout.splitlines()] == ["n 3", "n 7"]
    sink = FaultySink(always=PermanentFailure("no"))
    result = await replay(files(left)[0], sink, 0.1, lambda done, total: None)
    assert (result.refused, result.left) == (2, 2)


async def test_interrupted_replay_keeps_what_was_not_taken(left: Path) -> None:
    """A cancellation, as Ctrl-C is, ends it at once and is told."""
    sink = FaultySink(always=TemporaryFailure("away"))
    task = asyncio.create_task(replay(files(left)[0], sink, 60.0, lambda done, total: None))
    await until(lambda: sink.attempts)
    task.cancel()
    result = await task
    assert (result.interrupted, result.left) == (True, 30)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ls", "missing"], "is not there: name a spool's directory"),
        (["show", "other.txt"], "is no spool file"),
        (["replay", "."], "either --tcp HOST:PORT or --stdout"),
        (["replay", ".", "--stdout", "--tcp", "a:1"], "either --tcp HOST:PORT or --stdout"),
        (["replay", ".", "--tcp", "host"], "--tcp must be HOST:PORT with a port from 1 to 65535, got 'host'"),
        (["replay", ".", "--tcp", "host:0"], "got 'host:0'"),
        (["replay", ".", "--tcp", "h:1", "--framing", "xml"], "framing must be one of"),
        (["replay", ".", "--tcp", "h:1", "--ca", "missing"], "--ca missing can't be used: No such file"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str) -> None:
    """What is wrong, its limit and the way out, and exit code 2."""
    monkeypatch.chdir(tmp_path)
    Path("other.txt").touch()
    done = spool(*arguments)
    assert done.exit_code == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_files_of_several_sinks_are_not_mixed(left: Path) -> None:
    """One destination is for one sink's records; which, is chosen by name."""
    leave_as_killed(stored(left, "audit", 2))
    done = spool("replay", left, "--stdout")
    assert "files of 2 sinks (audit, mail): choose one with --sink NAME" in done.stderr
    done = spool("replay", left, "--stdout", "--sink", "audit")
    assert len(done.stdout.splitlines()) == 2
    assert len(files(left)) == 2


def test_drop_asks(left: Path) -> None:
    """Nothing goes without a yes; then everything of ended processes does."""
    done = spool("drop", left, given="n\n")
    assert done.exit_code == 1
    assert "Remove 2 file(s) with 50 record(s)" in done.stderr
    assert len(files(left)) == 2
    done = spool("drop", left, given="y\n")
    assert done.stderr.endswith("50 record(s) in 2 file(s) removed\n")
    assert list(left.iterdir()) == []


def test_reader_of_stdout_that_goes_away_is_quiet(left: Path) -> None:
    """`| head` costs a line on stderr at most, and no record that was not printed."""
    command = f"{sys.executable} -m offloop.cli spool"
    run = subprocess.run(
        ["bash", "-c", f"{command} show {left} -n 0 | true; {command} replay {left} --stdout | true"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert "Traceback" not in run.stderr
    assert "Exception ignored" not in run.stderr
