from __future__ import annotations

from collections.abc import Callable

import pytest

from offloop.cli._screen import Screen, show
from offloop.cli.demo import Results


def test_all_delivered_is_said(capsys: pytest.CaptureFixture[str], results: Callable[..., Results]) -> None:
    """Without a loss the text says that all records were delivered, and which round held its last ones longer."""
    show(results(drained=3.04))

    out = " ".join(capsys.readouterr().out.split())
    assert "Every one of the 900 records is accounted for: all were delivered." in out
    assert "offloop: 3.0 s after the load the last records were handed over." in out


@pytest.mark.parametrize(
    ("reported", "said"),
    [
        ({}, "2 (without a word)"),
        ({"overflow": 2}, "2 (overflow)"),
        ({"shed": 1}, "1 (shed) and 1 (without a word)"),
    ],
)
def test_loss_is_said_with_its_reason(
    capsys: pytest.CaptureFixture[str], results: Callable[..., Results], reported: dict[str, int], said: str
) -> None:
    """A loss says how many, where, and what the library says of it; duplicates are said too."""
    show(results(2, reported))

    out = " ".join(capsys.readouterr().out.split())
    assert f"offloop: {said} of 5 records never came to the mail server." in out
    assert "offloop: 2 records came to the mail server more than once." in out
    assert "all were delivered" not in out


def test_what_a_round_wrote_to_stderr_is_shown(
    capsys: pytest.CaptureFixture[str], results: Callable[..., Results]
) -> None:
    """The application's own complaints are not hidden."""
    show(results())

    assert "handlers on the logger, on stderr: a line of its own" in capsys.readouterr().err


@pytest.mark.parametrize(("p99", "said"), [(1.0, False), (30.0, True)])
def test_busy_machine_is_said(
    capsys: pytest.CaptureFixture[str], results: Callable[..., Results], p99: float, said: bool
) -> None:
    """Figures from a machine that is busy with something else come with a warning."""
    show(results(idle_p99=p99))

    assert ("It is busy with something else" in capsys.readouterr().out) is said


def test_terminal_gets_a_bar_a_round(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal each round is one line with a bar, also when it takes longer than it was to."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    with Screen() as screen:
        for kind, phase in (("idle", "running"), ("offloop", "draining")):
            with screen.round(kind, 2.0) as step:
                step("running", 1.0)
                step(phase, 3.0)

    err = capsys.readouterr().err
    assert err.count("2 of 2 s") >= 2
    assert "idle loop" in err
    assert "offloop" in err


def test_elsewhere_a_round_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Piped, each round is announced once."""
    with Screen() as screen, screen.round("queue", 2.5) as step:
        step("running", 1.0)

    assert capsys.readouterr().err == "standard queue pair: 2.5 s\n"


def test_cpu_below_the_idle_round_is_no_figure(
    capsys: pytest.CaptureFixture[str], results: Callable[..., Results]
) -> None:
    """A negative CPU time a record is not shown as one."""
    show(results(cpu=-3.0))

    assert "under 1 us" in " ".join(capsys.readouterr().out.split())
