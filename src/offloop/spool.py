"""What a user says of a spool: where it lies, how large and how old it may grow, and what is stored."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from offloop.policies import at_least, one_of, whole

__all__ = ["Spool", "When"]

When = Literal["outage", "always"]

_MiB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Spool:
    """Keeps a sink's records on disk while its destination is away: `Sink(..., spool=Spool("/var/spool/app"))`.

    Each process and sink has a SQLite file of its own in the directory; several processes may share the directory. What
    a process that has ended left there is taken over, and delivered first, by the next one that starts the sink of
    the same name. Records are delivered in order, oldest first. A record is removed once it is delivered: after a crash
    the batch that was under way may be delivered a second time.

    Attributes:
        directory: Where; it is made (mode 0700) if it is missing. The files have mode 0600.
        max_bytes: At most so many bytes of records for each sink of a process; the oldest go first, counted as dropped
            (`overflow`).
        max_age: Seconds after which a record that waits on disk is dropped (`expired`). None: never.
        when: `"outage"` stores what does not fit into the sink's buffer and what is left when a shutdown's deadline is
            near. `"always"` stores each record before it is sent: nothing but what was logged within the last
            milliseconds is lost when the process is killed. A sink with a digest, which holds records back, has it so
            in either mode.
        durable: Whether what is stored also outlives the loss of power (`synchronous=FULL`); each commit waits for the
            disk then.
    """

    directory: str | os.PathLike[str]
    max_bytes: int = 256 * _MiB
    max_age: float | None = None
    when: When = "outage"
    durable: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "directory", Path(self.directory))
        whole("Spool.", "max_bytes", self.max_bytes, "byte")
        if self.max_age is not None:
            at_least("Spool.", "max_age", self.max_age, 0, "seconds")
        one_of("Spool.", "when", self.when, get_args(When))

    @property
    def path(self) -> Path:
        """The directory."""
        return Path(self.directory)
