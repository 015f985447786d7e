"""All ways to end, fork and fail that are tried, in the order of the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Place = Literal["healthy", "away", "returns", "restarts", "closes", "black hole", "suspended"]
"""What the collector does.

`away`: nobody listens. `returns`: nobody listens for the first second. `restarts`: it breaks all connections amid the
stream, and is away for a while. `closes`: it accepts and closes. `black hole`: to connect is answered by nobody.
`suspended`: the kernel takes connections and a few KB, and nobody reads before the program has ended.
"""


@dataclass(frozen=True)
class Way:
    """A way to end, fork or fail.

    Attributes:
        name: For the reader.
        program: Which of `application.py`'s it is, or `gunicorn`.
        place: What the collector does.
        count: How many records the program is to log.
        capacity: Of the queue.
        gone: Systems for which no process could say what became of the last records: why is on the page.
        without: Systems that it says nothing about.
    """

    name: str
    program: str
    place: Place = "healthy"
    count: int = 200
    capacity: int = 10_000
    gone: frozenset[str] = field(default_factory=frozenset[str])
    without: frozenset[str] = field(default_factory=frozenset[str])

    @property
    def title(self) -> str:
        """The name, and what the collector does."""
        away = self.place == "away" and "collector" not in self.name
        return f"{self.name}, collector away" if away else self.name


_NOT_ALWAYS = frozenset({"offloop", "outage"})
_NO_DISK = frozenset({"offloop", "standard", "loguru"})
_ALL = frozenset({"offloop", "outage", "always"})

_ENDS = [
    ("leaving `async with`", "leave", frozenset[str]()),
    ("end of `asyncio.run`, nothing closed", "run_out", frozenset[str]()),
    ("Ctrl-C", "interrupt", frozenset[str]()),
    ("a second Ctrl-C", "interrupt_twice", frozenset[str]()),
    ("`sys.exit` in a task", "exit_in_task", frozenset[str]()),
    ("unhandled exception", "raise_error", frozenset[str]()),
    ("logged before and after the loop", "around_the_loop", frozenset[str]()),
    ("logged by tasks that are cancelled", "log_while_cancelled", frozenset[str]()),
    ("SIGTERM under uvicorn", "serve", frozenset[str]()),
    ("`os._exit`", "os_exit", _ALL),
    ("`kill -9` at once", "kill", _ALL),
    ("`kill -9` 0.2 s after the last record", "kill_later", _NOT_ALWAYS),
]

GROUPS: dict[str, list[Way]] = {
    "Ends": [Way(name, program, gone=gone) for name, program, gone in _ENDS],
    "Ends while the collector is away": [Way(name, program, "away", gone=gone) for name, program, gone in _ENDS],
    "Forks": [
        Way("`os.fork` beside the loop, both log", "fork"),
        Way("`multiprocessing`, fork", "process_fork"),
        Way("`multiprocessing`, spawn", "process_spawn"),
        Way("gunicorn `--preload`, two uvicorn workers, SIGTERM", "gunicorn"),
    ],
    "Failures": [
        Way("the collector restarts amid the stream", "slowly", "restarts"),
        Way("the collector is away all the time", "slowly", "away"),
        Way("the collector comes a second late", "slowly", "returns"),
        Way("the collector accepts and closes", "slowly", "closes"),
        Way("connecting is answered by nobody", "leave", "black hole"),
        Way("the collector is suspended, and goes on afterwards", "leave", "suspended", count=400),
        Way("a burst of ten times the queue", "burst", count=1_000, capacity=100),
        Way("`dictConfig` amid the stream", "configure"),
        Way("`logging.shutdown` amid the stream", "shut_logging_down"),
        Way("a full disk, collector away", "full_disk", "away", count=1_000, without=_NO_DISK),
    ],
}
