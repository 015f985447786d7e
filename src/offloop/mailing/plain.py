"""A digest mail as text that reads well in a terminal of 80 columns. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from offloop.mailing.report import Entry, Report, Section
from offloop.mailing.traces import Call, Failure

__all__ = ["plain"]

_WIDTH = 78
_NAME = 12


def plain(report: Report) -> Iterator[str]:
    """The text, piece by piece.

    Only what is ours begins at the margin: what was logged is indented, so that no line break in it can look like a
    heading.
    """
    yield f"{report.heading}\n{report.source}\n{report.when}\n\n"
    for note in report.notes:
        yield _wrapped(f"* {note}", "  ")
        yield "\n"
    if len(report.sections) > 1:
        for number, section in enumerate(report.sections, 1):
            yield _wrapped(f"{number:>3}. {section.what}", "     ")
            yield _wrapped(f"     {_status(section)}", "     ")
        yield "\n"
    alone = len(report.sections) == 1
    for number, section in enumerate(report.sections, 1):
        if alone or not section.bare:
            yield from _section(section, 0 if alone else number)
    if report.more:
        yield _wrapped(f"And {report.more}.")
        yield "\n"
    yield "Times are in UTC.\n"


def _section(section: Section, number: int) -> Iterator[str]:
    yield f"{'-' * _WIDTH}\n"
    yield _wrapped(f"{f'{number}. ' if number else ''}{section.what}", "   ")
    yield _wrapped(_status(section))
    yield f"{section.when}\n"
    if section.sparkline:
        yield f"{section.sparkline}\n"
    yield f"{'-' * _WIDTH}\n\n"
    if section.text:
        yield f"{_indented(section.text)}\n\n"
    for failure in section.failures:
        yield from _failure(failure)
    if section.preceding:
        yield "What led there:\n\n"
        yield from _entries(section.preceding)
    for name, value in section.context:
        yield f"  {name + ':':<{_NAME}} {value}\n"
    if section.context:
        yield "\n"
    if section.others:
        yield "More of them:\n\n"
        yield from _entries(section.others)
    if section.folded and section.others:
        yield f"  {section.folded:,} more were counted, and not kept.\n\n"
    if section.missing:
        yield _wrapped(f"[Not shown here: {section.missing}.]")
        yield "\n"


def _status(section: Section) -> str:
    return "; ".join(words for words in (section.counted, section.said) if words)


def _entries(entries: tuple[Entry, ...]) -> Iterator[str]:
    for entry in entries:
        yield f"{_indented(entry.text)}\n"
        if entry.failure:
            yield f"    {entry.failure}\n"
    yield "\n"


def _failure(failure: Failure) -> Iterator[str]:
    margin = "  " * (failure.depth + 1)
    if failure.heading:
        yield f"{margin}{failure.heading}\n\n"
    for call in failure.calls:
        yield from (f"{margin}{line}\n" for line in _call(call))
    yield f"{_indented(failure.message, margin)}\n\n"


def _call(call: Call) -> Iterator[str]:
    """Calls of the application have a mark at the margin."""
    if call.omitted:
        yield f"    [{call.omitted:,} calls left out]"
    mark = ">" if call.application else " "
    yield f"{mark} {call.file}:{call.line} in {call.function}"
    if call.source:
        yield f"{mark}     {call.source}"


def _indented(text: str, margin: str = "  ") -> str:
    return margin + text.replace("\n", f"\n{margin}")


def _wrapped(text: str, further: str = "") -> str:
    lines = textwrap.wrap(
        text, _WIDTH, subsequent_indent=further, drop_whitespace=True, break_on_hyphens=False, break_long_words=False
    )
    return "\n".join(lines) + "\n"
