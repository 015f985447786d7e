from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from offloop.cli.demo import Account, Results, Round, Settings

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
def results() -> Callable[..., Results]:
    """Makes the results of a demo in which offloop's round lost some mails."""

    def make(
        lost: int = 0,
        reported: dict[str, int] | None = None,
        *,
        drained: float = 0.0,
        idle_p99: float = 1.25,
        cpu: float = 90.0,
    ) -> Results:
        delays = {"p50": 0.5, "p99": idle_p99, "max": 40.0, "count": 200}
        came = Account(logged=300, delivered=300, messages=300, duplicates=0, lost=0, reported={})
        mail = Account(logged=5, delivered=5, messages=2, duplicates=0, lost=0, reported={})
        idle = Round(
            loop_delay_ms=delays,
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
        fine = replace(idle, logged=300, errors=5, collector=came, mail=mail, cpu_us_per_record=cpu)
        lossy = replace(mail, delivered=5 - lost, duplicates=lost, lost=lost, reported=reported or {})
        rounds = {
            "idle": idle,
            "standard": replace(fine, stderr=["a line of its own"]),
            "queue": fine,
            "offloop": replace(fine, mail=lossy, drained_after_seconds=drained),
        }
        return Results(settings=Settings(), rounds=rounds)

    return make


@pytest.fixture
def pickled() -> Callable[[Any], bytes]:
    """Frames a value as the standard SocketHandler does."""

    def frame(value: Any) -> bytes:
        data = pickle.dumps(value, 1)
        return len(data).to_bytes(4, "big") + data

    return frame


@pytest.fixture
def line() -> Callable[[Any], bytes]:
    """Frames a value as a line of JSON."""
    return lambda value: json.dumps(value).encode() + b"\n"
