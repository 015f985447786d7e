"""`offloop demo`: the same application under three ways to log, measured, and every record accounted for.

This process starts the others, shows how far they are and puts their figures together; it does none of the
measured work.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

from offloop.cli import _mail
from offloop.cli._child import Child, DemoError, child
from offloop.cli._plan import Plan
from offloop.cli._workload import errors_expected

__all__ = ["COMPARED", "Account", "DemoError", "Progress", "Results", "Round", "Settings", "account", "compare"]

COMPARED = ("standard", "queue", "offloop")
"""The rounds that log, in their order."""

_START = 20.0  # seconds a process may take to start, on a busy machine
_SETTLE = 10.0  # seconds a server may take to read what a round that ended has sent

Step = Callable[[str, float], None]
Progress = Callable[[str, float], AbstractContextManager[Step]]
"""Shows a round: given its kind and seconds; what it yields is told `running` or `draining`, and the seconds so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the user asks for.

    Attributes:
        seconds: How long each round runs.
        rate: Records a second.
        mail_delay: Seconds the mail server takes for a mail.
        mail_port: Where it listens; 0 takes a free port.
        collector_port: Where the collector listens; 0 takes a free port.
    """

    seconds: float = 5.0
    rate: float = 300.0
    mail_delay: float = 0.3
    mail_port: int = 0
    collector_port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What became of the records that were for one destination: `logged = delivered + lost`.

    Attributes:
        logged: Records the application logged for it.
        delivered: Different records that it counted itself.
        messages: Messages it got them in: lines, pickles, or mails.
        duplicates: Records that came more than once.
        lost: Records that it never got, though every process and connection has ended.
        reported: Those of the lost that the logging library itself reports, by reason.
    """

    logged: int
    delivered: int
    messages: int
    duplicates: int
    lost: int
    reported: dict[str, int]

    @property
    def unreported(self) -> int:
        """Lost without a word."""
        return self.lost - sum(self.reported.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round's figures.

    Attributes:
        loop_delay_ms: How late heartbeats were: `p50`, `p99`, `max` and their `count`.
        request_ms: From a request's intended start to its end, in the same form.
        logged: Records logged, errors included.
        errors: Of these, records of level ERROR.
        collector: All records' account; None in the idle round.
        mail: The errors' account; None in the idle round.
        cpu_seconds: CPU time of the application's process.
        cpu_us_per_record: Microseconds of it for each record, above an idle application's; None in the idle round.
        drained_after_seconds: From the intended end of the load until the last record was handed over.
        said: What the logging library itself says of its work.
        stderr: The last lines the application's process wrote to stderr.
    """

    loop_delay_ms: dict[str, float]
    request_ms: dict[str, float]
    logged: int
    errors: int
    collector: Account | None
    mail: Account | None
    cpu_seconds: float
    cpu_us_per_record: float | None
    drained_after_seconds: float
    said: dict[str, Any]
    stderr: list[str]

    @property
    def lost(self) -> int:
        """Records that a destination never got."""
        return sum(account.lost for account in (self.collector, self.mail) if account is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What the demo found."""

    settings: Settings
    rounds: dict[str, Round]

    def above_idle_ms(self, kind: str) -> float:
        """A round's p99 loop delay above the idle loop's."""
        return self.rounds[kind].loop_delay_ms["p99"] - self.rounds["idle"].loop_delay_ms["p99"]

    def document(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "settings": asdict(self.settings),
            "rounds": {kind: asdict(each) for kind, each in self.rounds.items()},
            "p99_above_idle_ms": {kind: self.above_idle_ms(kind) for kind in COMPARED},
            "lost": {kind: self.rounds[kind].lost for kind in COMPARED},
        }


async def compare(settings: Settings, progress: Progress) -> Results:
    """Run the idle round and the three that log.

    On cancellation every process that was started is ended before this returns.

    Raises:
        DemoError: A port can't be had, or a process fails.
    """
    async with (
        child("the mail server", _mail.__name__, str(settings.mail_port), str(settings.mail_delay)) as mail,
        child("the collector", f"{__package__}._collector", str(settings.collector_port)) as collector,
    ):
        stage = _Stage(settings, progress, mail, collector)
        await stage.open()
        # As long as the others: its CPU time is what theirs is compared with.
        idle = await stage.play("idle", None)
        rounds = {"idle": idle} | {kind: await stage.play(kind, idle.cpu_seconds) for kind in COMPARED}
    return Results(settings=settings, rounds=rounds)


class _Stage:
    """The servers, and the rounds that are played before them."""

    def __init__(self, settings: Settings, progress: Progress, mail: Child, collector: Child) -> None:
        self._settings = settings
        self._progress = progress
        self._mail = mail
        self._collector = collector
        self._ports: dict[str, int] = {}

    async def open(self) -> None:
        """Wait until the servers listen."""
        for name, server in (("mail_port", self._mail), ("collector_port", self._collector)):
            self._ports[name] = (await server.read(_START))["port"]

    async def play(self, kind: str, idle_cpu: float | None) -> Round:
        """Play one round and settle its accounts.

        Args:
            kind: Which.
            idle_cpu: CPU seconds an idle application takes in that time; None: this is the idle round.
        """
        settings = self._settings
        plan = Plan(
            kind=kind,
            seconds=settings.seconds,
            rate=settings.rate,
            shutdown_timeout=10.0 + 4 * settings.mail_delay,
            **self._ports,
        )
        async with child(f"the {kind} round", f"{__package__}._round", json.dumps(asdict(plan))) as played:
            with self._progress(kind, settings.seconds) as step:
                result = await self._follow(played, plan, step)
            stderr = played.stderr_lines()
        if idle_cpu is None:
            return Round(collector=None, mail=None, cpu_us_per_record=None, stderr=stderr, **result)
        sinks: dict[str, dict[str, Any]] = result["said"].get("sinks", {})
        return Round(
            collector=account(kind, result["logged"], await _settled(self._collector), sinks.get("collector", {})),
            mail=account(kind, result["errors"], await _settled(self._mail), sinks.get("mail", {})),
            cpu_us_per_record=1e6 * (result["cpu_seconds"] - idle_cpu) / max(1, result["logged"]),
            stderr=stderr,
            **result,
        )

    async def _follow(self, played: Child, plan: Plan, step: Step) -> dict[str, Any]:
        """Show how far the round is until it is done, and return its figures."""
        await played.read(_START)
        mails = errors_expected(plan.seconds, plan.rate) * (self._settings.mail_delay + 1)
        show = asyncio.create_task(_show("running", step))
        try:
            await played.read(plan.seconds + mails + _START)
            show.cancel()
            show = asyncio.create_task(_show("draining", step))
            done = await played.read(mails + plan.shutdown_timeout + _START)
        finally:
            show.cancel()
        return dict(done["result"])


async def _show(phase: str, step: Step) -> None:
    start = time.monotonic()
    while True:
        step(phase, time.monotonic() - start)
        await asyncio.sleep(0.2)


async def _settled(server: Child) -> dict[str, Any]:
    """The server's counts once it has read all connections to their end."""
    deadline = time.monotonic() + _SETTLE
    while True:
        counts = await server.ask(_START)
        if not counts["open"] or time.monotonic() > deadline:
            return counts
        await asyncio.sleep(0.02)


def account(kind: str, logged: int, counts: dict[str, Any], said: dict[str, Any]) -> Account:
    """Compare what was logged with what the destination counted.

    Args:
        kind: The round.
        logged: How many records were logged for the destination.
        counts: What it counted, by round.
        said: What offloop's ledger says of the sink; empty for others.
    """
    came = counts["rounds"].get(kind, {"records": 0, "messages": 0, "duplicates": 0})
    reported = {reason: sum(levels.values()) for reason, levels in said.get("dropped", {}).items()}
    if said.get("pending"):
        reported["not sent in time"] = said["pending"]
    return Account(
        logged=logged,
        delivered=came["records"],
        messages=came["messages"],
        duplicates=came["duplicates"],
        lost=logged - came["records"],
        reported=reported,
    )
