from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

Run = subprocess.CompletedProcess[str]


@pytest.fixture
def offloop() -> Callable[..., Run]:
    """Runs the command as a user does, in a process of its own."""

    def run(*arguments: str, before: str = "pass") -> Run:
        # `before` is Python that runs first; the rest is what the installed script does.
        script = f"import sys; {before}; from offloop.cli import main; main()"
        command = [sys.executable, "-c", script, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)

    return run


@pytest.fixture
def results() -> Callable[..., Any]:
    """Makes the results of a demo in which offloop lost some mails."""
    from offloop.cli.demo import Account, Results, Round, Settings

    delays = {"p50": 0.5, "p99": 1.25, "max": 3.0, "count": 200}

    def make(
        lost: int = 0, reported: dict[str, int] | None = None, *, drained: float = 0.0, idle_p99: float = 1.25
    ) -> Results:
        account = Account(logged=300, delivered=300, messages=300, duplicates=0, lost=0, reported={})
        mail = Account(logged=5, delivered=5 - lost, messages=2, duplicates=lost, lost=lost, reported=reported or {})
        idle = Round(
            loop_delay_ms=delays | {"p99": idle_p99},
            request_ms=delays,
            logged=0,
            errors=0,
            collector=None,
            mail=None,
            cpu_seconds=0.1,
            cpu_us_per_record=None,
            drained_after_seconds=0.0,
            said={},
            stderr=[],
        )
        logging = {"logged": 300, "errors": 5, "collector": account, "cpu_us_per_record": 90.0}
        fields = dict[str, Any]({name: getattr(idle, name) for name in Round.__slots__} | logging)
        standard = Round(**fields | dict[str, Any](mail=account, stderr=["a line of its own"]))
        offloop = Round(**fields | dict[str, Any](mail=mail, drained_after_seconds=drained))
        rounds = {"idle": idle, "standard": standard, "queue": standard, "offloop": offloop}
        return Results(settings=Settings(), rounds=rounds)

    return make


@pytest.fixture
def pickled() -> Callable[[Any], bytes]:
    """Frames a value as the standard SocketHandler does."""
    import pickle

    def frame(value: Any) -> bytes:
        data = pickle.dumps(value, 1)
        return len(data).to_bytes(4, "big") + data

    return frame


@pytest.fixture
def line() -> Callable[[Any], bytes]:
    """Frames a value as a line of JSON."""
    return lambda value: json.dumps(value).encode() + b"\n"
