from __future__ import annotations

import json
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from offloop.cli._servers import HOST
from offloop.cli.app import _finite, app

Offloop = Callable[..., subprocess.CompletedProcess[str]]


def test_demo_balances(offloop: Offloop) -> None:
    """Every record of a round is delivered or lost, offloop loses none, and its ledger agrees with the servers."""
    done = offloop("demo", "--seconds", "1", "--mail-delay", "0.05", "--json")

    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == "idle loop: 1 s"
    document = json.loads(done.stdout)
    rounds = document["rounds"]
    assert set(rounds) == {"idle", "standard", "queue", "offloop"}
    assert rounds["idle"]["logged"] == 0
    for kind in ("standard", "queue", "offloop"):
        collector, mail = rounds[kind]["collector"], rounds[kind]["mail"]
        assert rounds[kind]["logged"] == 300 == collector["delivered"] + collector["lost"]
        assert 1 <= rounds[kind]["errors"] == mail["delivered"] + mail["lost"]
    assert document["lost"]["offloop"] == 0
    said = rounds["offloop"]["said"]["sinks"]
    assert {name: said[name]["delivered"] for name in said} == {"collector": 300, "mail": rounds["offloop"]["errors"]}


@pytest.mark.once
def test_table_without_a_terminal(offloop: Offloop) -> None:
    """Piped, the table is plain text of at most 80 columns."""
    done = offloop("demo", "--seconds", "1", "--mail-delay", "0", "--rate", "30")

    assert done.returncode == 0, done.stderr
    assert "loop delay p99" in done.stdout
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--seconds", "0"),
        ("--seconds", "61"),
        ("--seconds", "nan"),
        ("--rate", "5"),
        ("--rate", "many"),
        ("--mail-delay", "-1"),
        ("--mail-delay", "2.5"),
        ("--mail-port", "70000"),
    ],
)
def test_bad_option_is_named(option: str, value: str) -> None:
    """A value out of its limits is refused with the option's name, and nothing is started."""
    done = CliRunner().invoke(app, ["demo", option, value])

    assert done.exit_code == 2
    assert option in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_number_must_be_finite(value: float) -> None:
    """A range check alone may let these pass."""
    with pytest.raises(typer.BadParameter, match=f"{value} is not a number that can be used"):
        _finite(value)


@pytest.mark.parametrize(("package", "extra"), [("typer", "cli"), ("rich", "cli"), ("aiosmtpd", "demo")])
def test_missing_extra_is_one_line(offloop: Offloop, package: str, extra: str) -> None:
    """Without a package of the extra there is one line that says what to install."""
    done = offloop("demo", "--seconds", "1", before=f"sys.modules['{package}'] = None")

    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert package in done.stderr
    assert f"pip install 'offloop[{extra}]'" in done.stderr


def test_port_in_use_is_one_line(offloop: Offloop) -> None:
    """A port that can't be had ends the demo with one line."""
    with socket.create_server((HOST, 0)) as taken:
        done = offloop("demo", "--mail-port", str(taken.getsockname()[1]))

    assert done.returncode == 2
    assert done.stderr.startswith("offloop demo: the mail server can't listen on 127.0.0.1:")
    assert done.stderr.count("\n") == 1


def test_version_and_help(offloop: Offloop) -> None:
    """The version and the commands are told without the demo's packages."""
    before = "sys.modules['aiosmtpd'] = None"

    assert offloop("--version", before=before).stdout.startswith("offloop 0.")
    assert "demo" in offloop("--help", before=before).stdout
    assert "--mail-delay" in offloop("demo", "--help", before=before).stdout


def test_module_is_the_command() -> None:
    """`python -m offloop.cli` is the `offloop` command."""
    done = subprocess.run(
        [sys.executable, "-m", "offloop.cli", "--version"], capture_output=True, text=True, timeout=50, check=True
    )

    assert done.stdout.startswith("offloop 0.")


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    if not listed.exists():
        pytest.skip("needs /proc with the list of a process's children")
    return [int(child) for child in listed.read_text().split()]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_every_process_ends_with_the_demo(sent: signal.Signals, code: int) -> None:
    """Interrupted or killed in the middle of a round, the demo leaves no process behind."""
    command = [sys.executable, "-u", "-m", "offloop.cli", "demo", "--seconds", "20"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        assert demo.stderr.readline() == "idle loop: 20 s\n"
        children = [os.pidfd_open(child) for child in _children(demo.pid)]
        demo.send_signal(sent)
        said = demo.stderr.read()
        assert demo.wait() == code

    assert len(children) == 3
    assert all(map(_ends, children))
    assert said == ("offloop demo: interrupted\n" if sent == signal.SIGINT else "")


def _ends(pidfd: int) -> bool:
    # Readable when the process has ended, also while nobody has collected it.
    with selectors.DefaultSelector() as selector:
        selector.register(pidfd, selectors.EVENT_READ)
        ended = bool(selector.select(10))
    os.close(pidfd)
    return ended
