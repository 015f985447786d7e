"""A digest mail as HTML that reads well on a telephone and a desktop, light and dark. Pure.

Styles stand in the elements, as mail programs drop style sheets. No colour of text or ground is set, so that a dark
program stays dark: what is quiet is transparent, what is loud has a tone that both grounds carry. No image, no script,
nothing from elsewhere.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator

from offloop.mailing.report import Entry, Report, Section
from offloop.mailing.traces import Call, Failure

__all__ = ["END", "MONOSPACE", "START", "colour_of", "escaped", "markup"]

_SLICE = 4096
_COLOURS = ((logging.ERROR, "#d64545"), (logging.WARNING, "#c07f00"), (logging.INFO, "#3f7fbf"), (0, "#8a8a8a"))

MONOSPACE = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
START = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
    '<meta name="color-scheme" content="light dark">\n'
    '<meta name="supported-color-schemes" content="light dark">\n'
    "<style>:root{color-scheme:light dark}</style></head>\n"
    '<body style="margin:0 auto;max-width:60em;padding:12px;'
    "font:16px/1.45 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif\">\n"
)
END = "</body></html>\n"

_QUIET = "opacity:.7"
_BOX = "border:1px solid rgba(128,128,128,.35);border-radius:6px"
_PRE = f"margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.5 {MONOSPACE}"


def markup(report: Report) -> Iterator[str]:
    """The HTML, piece by piece."""
    yield START
    yield (
        f'<h1 style="font-size:20px;line-height:1.3;margin:0">{escaped(report.heading)}</h1>\n'
        f'<p style="margin:2px 0 14px;{_QUIET}">{escaped(report.source)}<br>{escaped(report.when)}</p>\n'
    )
    for note in report.notes:
        yield (
            f'<p style="margin:0 0 12px;padding:8px 12px;border-left:4px solid #c07f00;'
            f'background:rgba(192,127,0,.12)">{escaped(note)}</p>\n'
        )
    if len(report.sections) > 1:
        yield from _contents(report.sections)
    for section in report.sections:
        if len(report.sections) == 1 or not section.bare:
            yield from _section(section)
    if report.more:
        yield f'<p style="margin:0 0 14px">And {escaped(report.more)}.</p>\n'
    yield f'<p style="margin:0;font-size:13px;{_QUIET}">Times are in UTC.</p>\n'
    yield END


def _contents(sections: tuple[Section, ...]) -> Iterator[str]:
    yield '<ol style="margin:0 0 18px;padding-left:1.6em">\n'
    for section in sections:
        yield (
            f'<li style="margin:0 0 6px;overflow-wrap:anywhere"><b>{escaped(section.what)}</b><br>'
            f'<span style="font-size:14px;{_QUIET}">{escaped(_status(section))}</span></li>\n'
        )
    yield "</ol>\n"


def _status(section: Section) -> str:
    return "; ".join(words for words in (section.counted, section.said) if words)


def _section(section: Section) -> Iterator[str]:
    tone = colour_of(section.levelno)
    yield (
        f'<div style="margin:0 0 18px;{_BOX};border-top:4px solid {tone};overflow:hidden">\n'
        f'<div style="padding:10px 12px;background:rgba(128,128,128,.1)">\n'
        f'<h2 style="font-size:17px;line-height:1.35;margin:0;overflow-wrap:anywhere">{escaped(section.what)}</h2>\n'
        f'<p style="margin:4px 0 0"><b style="color:{tone}">{escaped(section.counted)}</b>'
        f"{'; ' if section.counted and section.said else ''}{escaped(section.said)}</p>\n"
        f'<p style="margin:2px 0 0;font-size:14px;{_QUIET}">{escaped(section.when)}</p>\n'
    )
    if section.sparkline:
        yield (
            f'<p style="margin:4px 0 0;font:17px/1.2 {MONOSPACE};color:{tone};white-space:pre" '
            f'aria-label="how many over time">{escaped(section.sparkline)}</p>\n'
        )
    yield "</div>\n"
    if section.bare and not section.missing:
        yield "</div>\n"
        return
    yield '<div style="padding:10px 12px">\n'
    if section.text:
        yield from _preformatted(section.text)
    for failure in section.failures:
        yield from _failure(failure)
    yield from _entries("What led there", section.preceding)
    yield from _context(section.context)
    yield from _entries("More of them", section.others)
    if section.folded and section.others:
        yield _remark(f"{section.folded:,} more were counted, and not kept.")
    if section.missing:
        yield _remark(f"Not shown here: {section.missing}.")
    yield "</div></div>\n"


def _remark(text: str) -> str:
    return f'<p style="margin:8px 0 0;font-size:14px;{_QUIET}">{escaped(text)}</p>\n'


def _preformatted(text: str) -> Iterator[str]:
    yield f'<pre style="{_PRE}">'
    for start in range(0, len(text), _SLICE):
        yield escaped(text[start : start + _SLICE])
    yield "</pre>\n"


def _failure(failure: Failure) -> Iterator[str]:
    margin = min(failure.depth, 4) * 12
    yield f'<div style="margin:12px 0 0 {margin}px">\n'
    if failure.heading:
        yield f'<p style="margin:0 0 6px;font-size:14px;{_QUIET}">{escaped(failure.heading)}</p>\n'
    for call in failure.calls:
        yield from _call(call)
    yield f'<pre style="{_PRE};font-weight:bold;margin-top:6px">{escaped(failure.message)}</pre></div>\n'


def _call(call: Call) -> Iterator[str]:
    place = f"{escaped(call.file)}:{call.line} in {escaped(call.function)}"
    if call.omitted:
        yield f'<p style="margin:0;padding:2px 10px;font-size:13px;{_QUIET}">{call.omitted:,} calls left out</p>\n'
    if not call.application:
        source = f"<br>&nbsp;&nbsp;{escaped(call.source)}" if call.source else ""
        yield (
            f'<div style="padding:1px 10px 1px 12px;font:12px/1.5 {MONOSPACE};overflow-wrap:anywhere;opacity:.62">'
            f"{place}{source}</div>\n"
        )
        return
    yield (
        f'<div style="margin:3px 0;padding:4px 10px;border-left:3px solid #3f7fbf;background:rgba(63,127,191,.12);'
        f'font:13px/1.5 {MONOSPACE};overflow-wrap:anywhere">{place}'
    )
    yield f"<br><b>{escaped(call.source)}</b></div>\n" if call.source else "</div>\n"


def _entries(heading: str, entries: tuple[Entry, ...]) -> Iterator[str]:
    if not entries:
        return
    yield f'<h3 style="font-size:14px;margin:14px 0 4px">{heading}</h3>\n'
    for entry in entries:
        tone = colour_of(entry.levelno)
        yield f'<pre style="{_PRE};margin-bottom:3px;padding-left:8px;border-left:3px solid {tone}">'
        yield escaped(entry.text)
        if entry.failure:
            yield f"\n  {escaped(entry.failure)}"
        yield "</pre>\n"


def _context(context: tuple[tuple[str, str], ...]) -> Iterator[str]:
    if not context:
        return
    yield '<table role="presentation" style="margin:14px 0 0;border-collapse:collapse;font-size:14px">\n'
    for name, value in context:
        yield (
            f'<tr><td style="padding:1px 12px 1px 0;vertical-align:top;{_QUIET}">{escaped(name)}</td>'
            f'<td style="padding:1px 0;overflow-wrap:anywhere;word-break:break-word">{escaped(value)}</td></tr>\n'
        )
    yield "</table>\n"


def colour_of(levelno: int) -> str:
    """A tone that can be told from others on light and on dark ground."""
    return next(colour for level, colour in _COLOURS if levelno >= level or level == 0)


def escaped(text: str) -> str:
    """Text that is no markup, nor the end of an attribute."""
    return html.escape(text)
