"""What a round of the demo is told, as it goes from one process to the other."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One round.

    Attributes:
        kind: `idle`, `standard`, `queue` or `offloop`; also the name its records carry.
        seconds: How long the workload runs.
        rate: Records a second.
        collector_port: Where the collector listens.
        mail_port: Where the mail server listens.
        shutdown_timeout: Seconds offloop may take to deliver what waits at the end.
    """

    kind: str
    seconds: float
    rate: float
    collector_port: int
    mail_port: int
    shutdown_timeout: float
