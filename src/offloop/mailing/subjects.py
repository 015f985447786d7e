"""What a mail's subject says: of a telephone's lock screen some forty characters are seen. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from offloop.capture import Record, message_of
from offloop.digest import Gathered
from offloop.mailing.letter import Letter
from offloop.mailing.report import Report, Section, what_of
from offloop.mailing.shown import Shown, counted, moment

__all__ = ["fields_of_batch", "fields_of_digest", "headline"]


def headline(report: Report, noun: str, last: float) -> str:
    """What a digest's subject says, where the user says nothing else.

    Args:
        report: What the mail says.
        noun: What its records are called together.
        last: When the last of them was logged.
    """
    name = f"[{report.app}] "
    if not report.sections:
        return f"{name}{report.heading}"
    first = report.sections[0]
    if report.kinds > 1:
        if not report.count:
            return f"{name}{report.kinds:,} kinds over: {first.short}, {report.total:,} in all"
        return f"{name}{report.kinds:,} kinds, {counted(report.count, noun)}: {first.short}"
    if first.state == "over":
        return f"{name}over since {moment(last)[11:16]}: {first.short}, {first.total:,} in all"
    return f"{name}{first.what}{_how_often(first)}"


def _how_often(section: Section) -> str:
    if section.state == "ongoing":
        return f" ({section.count:,} more)"
    return f" ({section.count:,} times)" if section.count > 1 else ""


def fields_of_digest(report: Report, gathered: Gathered, shown: Shown) -> Mapping[str, object]:
    """What a user's own template of a subject may name, of a digest."""
    first = report.sections[0] if report.sections else None
    group = gathered.groups[0]
    worst = max(group.records, key=lambda record: record.levelno)
    return _common(report.app, report.host, report.release) | {
        "level": shown.line(worst.levelname, 30) if first is None else first.level,
        "logger": shown.line(worst.name) if first is None else first.logger,
        "message": shown.first_line(message_of(worst)),
        "what": what_of(worst, shown)[0] if first is None else first.what,
        "count": report.count,
        "kinds": report.kinds,
        "total": report.total,
        "state": "" if first is None else first.state,
        "more": _more(report.count),
    }


def fields_of_batch(records: Sequence[Record], letter: Letter, shown: Shown) -> Mapping[str, object]:
    """The same, of records that are no digest."""
    worst = max(records, key=lambda record: record.levelno)
    app, host, release = (shown.line(name, 60) for name in (letter.app, letter.host, letter.release))
    return _common(app, host, release) | {
        "level": shown.line(worst.levelname),
        "logger": shown.line(worst.name),
        "message": shown.first_line(message_of(worst)),
        "what": what_of(worst, shown)[0],
        "count": len(records),
        "kinds": 1,
        "total": len(records),
        "state": "",
        "more": _more(len(records)),
    }


def _common(app: str, host: str, release: str) -> dict[str, object]:
    return {"app": app, "host": host, "release": release}


def _more(count: int) -> str:
    return f" (and {count - 1:,} more)" if count > 1 else ""
