"""The page: one matrix for who is in a hurry, one table a group for who wants to know."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from itertools import chain

from losses.harness import DEADLINE, Outcome
from losses.systems import SHUTDOWN_TIMEOUT, SYSTEMS
from losses.ways import GROUPS, Way

Outcomes = Mapping[tuple[Way, str], Outcome]

LABELS = {
    "offloop": "offloop",
    "outage": "offloop, spool on outage",
    "always": "offloop, spool always",
    "standard": "standard pair",
    "loguru": "loguru",
    "logstash": "logstash-async",
}
PACKAGES = ["loguru", "python-logstash-async", "uvicorn", "gunicorn", "uvicorn-worker", "fastapi"]

_HEAD = """\
# What is lost, and who says so

Programs that log, and then end, fork or fail in every way we know, each in a process of its own, with a collector on
loopback that takes lines of JSON over TCP. The same programs were run with the standard library's `QueueHandler` and
`QueueListener`, with loguru and with python-logstash-async. `nox -s loss` runs all of them again, in about three
minutes, and writes this page; the numbers of rows that are a race differ a little each time.

"""

_READING = """
## How to read it

A record that was offered is in one of these places:

- delivered: the collector had it when the program had ended. Which lines arrived is looked up at the collector,
  whatever the system says.
- on disk: it was not there, and arrived when the same program was started once more, with the collector healthy. Only
  systems that keep records on disk are started again.
- printed: it is on stderr, and nowhere else.
- dropped: the system says that it dropped it, and why. offloop counts by reason and level
  ([Failures](failures.md#the-counts)); the others keep no counts.
- unaccounted: the rest. Nobody will ever know that these were logged.

"Twice" is how many arrived more than once, which every system that sends again after a failure has to risk.

For offloop the unaccounted are 0 except where nothing can run in the process any more: what is in memory at `os._exit`
or `kill -9` is gone, and nobody is left to say so. A spool in `"always"` mode narrows that to what was logged in the
last milliseconds; one in `"outage"` mode writes when its buffer is full or the end is near, and who is killed has no
end.

What the rows don't say:

- A collector's kernel acknowledges what the collector may never read. Where one is killed with data unread, that data
  is lost for every system here, and offloop counts it as delivered
  ([TCP](../how-to/tcp.md#what-delivered-means-here)).
- The queues of the others have no bound, as their documentation has it. So a burst costs them memory instead of
  records. offloop's had room for a hundred in that row; by default it has it for ten thousand.
- A disk that is full is a limit on the size of files here (`RLIMIT_FSIZE`, 100 kB).

## What was run

{settings}
"""

_SETTINGS = """\
{count} programs on Python {python} ({system}); offloop {offloop}, {packages}.
A program that has not ended after {deadline:.0f} s is killed.

- offloop: `QueueHandler`, `QueueListener` and `TCPSink` with what they do by default, `shutdown_timeout={shutdown:g}`;
  under uvicorn and gunicorn a `Pipeline` as the lifespan. No spool, `Spool(when="outage")`, `Spool(when="always")`.
- standard pair: `queue.Queue(-1)`, `QueueListener` with a `SocketHandler` that sends JSON; stopped where the program
  has a proper end, in the lifespan of a web application, and by `atexit`. Between processes of `multiprocessing` the
  queue is a `multiprocessing.Queue`, as in the logging cookbook.
- loguru: `logger.add(handler, enqueue=True)` with the same handler; `logger.complete()` at a proper end and in the
  lifespan; children of `multiprocessing` are given the logger, and complete it.
- logstash-async: `AsynchronousLogstashHandler` with a database; closed at a proper end, in the lifespan and at the end
  of a child, and by `logging.shutdown` at exit. `SOCKET_CLOSE_WAIT_TIMEOUT` is {shutdown:g} s instead of 30, so that it
  gets as long to end as offloop: with 30 it was still at it in a dozen rows when it was killed. Forked processes share
  the database, since they inherit the handler.

Each program logs about 200 records, each tenth an ERROR. "Away" means that the connection is refused."""


def written(outcomes: Outcomes) -> str:
    """The page's text, with a seal: it is not to be edited by hand."""
    body = _HEAD + _matrix(outcomes)
    for group, ways in GROUPS.items():
        body += f"\n## {group}\n\n{_table(ways, outcomes)}"
    body += _READING.format(settings=_settings(len(outcomes)))
    return f"{_seal(body)}\n\n{body}"


def is_sealed(text: str) -> bool:
    """Whether a page is as it was written."""
    seal, _, body = text.partition("\n\n")
    return seal == _seal(body)


def rows(text: str) -> set[tuple[str, str]]:
    """Way and system of each row of a page's tables."""
    found: set[tuple[str, str]] = set()
    way = ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(" | ")]
        if line.startswith("| ") and len(cells) > len(LABELS) + 1 and cells[1] in LABELS.values():
            way = cells[0].removeprefix("|").strip() or way
            found.add((way, cells[1]))
    return found


def expected() -> set[tuple[str, str]]:
    """Those that a page is to have."""
    return {
        (way.title, LABELS[system])
        for way in chain.from_iterable(GROUPS.values())
        for system in SYSTEMS
        if system not in way.without
    }


def _seal(body: str) -> str:
    return f"<!-- written by `nox -s loss`: {hashlib.blake2s(body.encode(), digest_size=8).hexdigest()} -->"


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |\n"


def _matrix(outcomes: Outcomes) -> str:
    text = "Records of which nothing was heard again:\n\n"
    text += _line(["", *LABELS.values()]) + _line(["---", *["---:"] * len(LABELS)])
    for way in chain.from_iterable(GROUPS.values()):
        text += _line([way.title, *(_lost(outcomes.get((way, system))) for system in LABELS)])
    return text


def _lost(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    return f"{outcome.unaccounted} of {outcome.offered}" if outcome.unaccounted else "0"


def _table(ways: Iterable[Way], outcomes: Outcomes) -> str:
    heads = ["", "", "offered", "delivered", "on disk", "printed", "dropped", "unaccounted", "twice", "ended after"]
    text = _line(heads) + _line(["---", "---", *["---:"] * 4, "---", *["---:"] * 3])
    for way in ways:
        title = way.title
        for system, label in LABELS.items():
            outcome = outcomes.get((way, system))
            if outcome is not None:
                text += _line([title, label, *_cells(outcome)])
                title = ""
    return text


def _cells(outcome: Outcome) -> list[str]:
    ended = f"killed, {DEADLINE:.0f} s" if outcome.hung else f"{outcome.seconds:.1f} s"
    return [
        str(outcome.offered),
        str(outcome.delivered),
        _number(outcome.later),
        _number(outcome.printed),
        _dropped(outcome.dropped),
        str(outcome.unaccounted),
        _number(outcome.again),
        ended,
    ]


def _number(count: int) -> str:
    return str(count) if count else ""


def _dropped(dropped: Mapping[str, Mapping[str, int]]) -> str:
    return "; ".join(
        f"{reason}: " + ", ".join(f"{count} {level}" for level, count in sorted(levels.items()))
        for reason, levels in sorted(dropped.items())
    )


def _settings(count: int) -> str:
    return _SETTINGS.format(
        count=count,
        python=platform.python_version(),
        system=platform.system(),
        offloop=re.sub(r"\+.*", "", version("offloop")),
        packages=", ".join(f"{name} {version(name)}" for name in PACKAGES),
        deadline=DEADLINE,
        shutdown=SHUTDOWN_TIMEOUT,
    )
