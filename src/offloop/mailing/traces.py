"""A frozen exception as a mail shows it: its calls, those of the application set off from those of libraries.

Reads source files (linecache), so it belongs in a worker thread.
"""

from __future__ import annotations

import linecache
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from offloop.capture import Record
from offloop.fingerprint import is_library, within_library
from offloop.mailing.shown import Shown
from offloop.records import file_of
from offloop.tracebacks import Frame, FrozenException

__all__ = ["Call", "Failure", "cause_of", "failures_of", "trail_of"]

_MAX_FAILURES = 12
_MAX_DEPTH = 4
_MAX_MESSAGE = 2_000  # characters
_MAX_NOTES = 10
_CAUSE = "The above exception was the direct cause of the following exception:"
_CONTEXT = "During handling of the above exception, another exception occurred:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A line of a traceback.

    Attributes:
        file: Where it is; of a library without the folder that all libraries are in.
        line: Its number.
        function: In which it stands.
        source: It itself; empty if the file can't be read, and of most library calls.
        application: Whether it is the application's own, rather than Python's or an installed package's.
        omitted: How many calls before it are left out.
    """

    file: str
    line: int
    function: str
    source: str
    application: bool
    omitted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An exception of a chain or a group.

    Attributes:
        heading: What it has to do with the one before it; empty for the first.
        calls: Oldest first.
        message: Type and text, and its notes on further lines.
        depth: 0, or how deep in groups it is.
    """

    heading: str
    calls: tuple[Call, ...]
    message: str
    depth: int = 0


def cause_of(record: Record) -> tuple[str, str, str] | None:
    """The exception's class, the file it comes from (the application's innermost; may be empty), and its text."""
    exception = record.exception
    if exception is None:
        return None
    own: Frame | None = None
    link: FrozenException | None = exception
    for _ in range(_MAX_FAILURES):
        if link is None or own is not None:
            break
        own = next((frame for frame in reversed(link.frames) if not is_library(frame.filename)), None)
        link = link.cause or link.context
    innermost = own or (exception.frames[-1] if exception.frames else None)
    file = "" if innermost is None else file_of(innermost.filename)[0]
    return exception.qualname.rpartition(".")[2], file, exception.message


def trail_of(record: Record) -> Sequence[tuple[str, int]]:
    """Where the exception came along: the same for those whose traceback differs in nothing but its text."""
    exception = record.exception
    return [] if exception is None else [(frame.filename, frame.lineno) for frame in exception.frames]


def failures_of(exception: FrozenException, shown: Shown, calls: int) -> tuple[tuple[Failure, ...], int]:
    """The exception with its chain and its members, as a traceback shows them, and how many lines are left out.

    Args:
        exception: As it was frozen.
        shown: How texts are shown.
        calls: At most so many of each.
    """
    found: list[Failure] = []
    omitted = 0
    for failure, left in _walk(exception, shown, calls, 0, ""):
        if len(found) == _MAX_FAILURES:
            omitted += 1
            break
        found.append(failure)
        omitted += left
    return tuple(found), omitted


def _walk(
    exception: FrozenException, shown: Shown, calls: int, depth: int, heading: str
) -> Iterator[tuple[Failure, int]]:
    chain: list[tuple[FrozenException, str]] = []
    link: FrozenException | None = exception
    while link is not None and len(chain) < _MAX_FAILURES:
        before, how = (link.cause, _CAUSE) if link.cause is not None else (link.context, _CONTEXT)
        chain.append((link, how if before is not None else heading))
        link = before
    for number, (link, how) in enumerate(reversed(chain)):
        shown_calls, left = _calls(link, shown, calls)
        yield Failure(heading=how, calls=shown_calls, message=_message(link, shown), depth=depth), left
        last = number == len(chain) - 1
        if link.exceptions and depth < _MAX_DEPTH and last:
            for index, member in enumerate(link.exceptions[:_MAX_FAILURES], 1):
                yield from _walk(member, shown, calls, depth + 1, f"{index} of {len(link.exceptions)} in this group:")


def _message(exception: FrozenException, shown: Shown) -> str:
    head = f"{exception.type_name}: {exception.message}" if exception.message else exception.type_name
    if exception.syntax is not None:
        head += f" ({exception.syntax[0]}, line {exception.syntax[1]})\n  {exception.syntax[3] or ''}"
    lines = [head, *exception.notes[:_MAX_NOTES]]
    return "\n".join(shown.text(line, _MAX_MESSAGE)[0] for line in lines)


def _calls(exception: FrozenException, shown: Shown, limit: int) -> tuple[tuple[Call, ...], int]:
    frames = exception.frames
    left = max(0, len(frames) - limit)
    # The end tells most, and the beginning where it came from.
    head = limit // 4
    kept = frames if not left else (*frames[:head], *frames[len(frames) - limit + head :])
    calls: list[Call] = []
    for index, frame in enumerate(kept):
        omitted = left if left and index == head else 0
        if exception.omitted and frame is frames[len(frames) // 2]:
            omitted += exception.omitted
        calls.append(_call(frame, shown, omitted, innermost=index == len(kept) - 1))
        shown.breathe()
    return tuple(calls), left


def _call(frame: Frame, shown: Shown, omitted: int, *, innermost: bool) -> Call:
    library = is_library(frame.filename)
    source = linecache.getline(frame.filename, frame.lineno).strip() if innermost or not library else ""
    return Call(
        file=shown.line(within_library(frame.filename) if library else frame.filename, 200),
        line=frame.lineno,
        function=shown.line(frame.name, 80),
        source=shown.line(source, 200),
        application=not library,
        omitted=omitted,
    )
