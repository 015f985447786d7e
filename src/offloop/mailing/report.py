"""What a digest mail says, before it is text or HTML: frozen values, all of them printable and without secrets.

Pure but for the source lines of tracebacks. These values are also what a user's own templates are given: their names
are public.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from offloop.capture import Record, extras, message_of
from offloop.digest import DIGEST_LOGGER, Gathered, Group
from offloop.losses import LOSS_LOGGER
from offloop.mailing.letter import Letter
from offloop.mailing.shown import Shown, counted, day_of, moment, span
from offloop.mailing.sparkline import sparkline
from offloop.mailing.traces import Failure, cause_of, failures_of, trail_of

__all__ = [
    "LIMITS",
    "Entry",
    "Known",
    "Limits",
    "Report",
    "Section",
    "formatted",
    "is_notice",
    "known_of",
    "noun_of",
    "report_of",
    "what_of",
]

_FIRST = 10  # kinds that are shown in more detail where there are many
_NOTICES = (LOSS_LOGGER, DIGEST_LOGGER)
_TRACE = ("trace_id", "otelTraceID", "span_id", "otelSpanID", "request_id", "correlation_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A record in short.

    Attributes:
        text: What the sink's formatter makes of it, without its traceback.
        failure: Its exception's type and text, where they are not those of the section's first record.
        level: The level's name,
        levelno: and its number.
    """

    text: str
    failure: str
    level: str
    levelno: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One kind of record.

    Attributes:
        kind: 16 hexadecimal digits.
        what: In a line: exception, file and text, or level, logger and message.
        short: As `what`, without the exception's text.
        state: "new", "ongoing" or "over"; "" for a notice of offloop's own.
        said: The same in words, with numbers and times.
        level: Of the most severe record, its name,
        levelno: and number.
        logger: Of the first record.
        count: How many there are since the last mail.
        total: How many there were since it began.
        counted: As in "ERROR, 400 times", or "12 CRITICAL, 400 ERROR"; empty for none.
        when: From when to when these were logged.
        since: When the first was logged since it began.
        sparkline: The rate as block characters; may be empty.
        rate: The rate as numbers.
        text: The first record, as the sink's formatter has it, without its traceback.
        failures: Its exception, and those it has to do with.
        others: Further records.
        preceding: Records of lower levels from before the first.
        context: Names and values: where it comes from, what was given as `extra`.
        folded: How many more there were of which only the number was kept.
        missing: What of this kind is not shown; may be empty.
    """

    kind: str
    what: str
    short: str
    state: str
    said: str
    level: str
    levelno: int
    logger: str
    count: int
    total: int
    counted: str
    when: str
    since: str
    sparkline: str
    rate: tuple[int, ...]
    text: str
    failures: tuple[Failure, ...]
    others: tuple[Entry, ...]
    preceding: tuple[Entry, ...]
    context: tuple[tuple[str, str], ...]
    folded: int
    missing: str

    @property
    def bare(self) -> bool:
        """Whether there is no more to show of it than what it is and how often."""
        return not (self.text or self.failures or self.others or self.preceding)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A digest mail.

    Attributes:
        subject: The line that the mail has as its subject; empty while it is made.
        app: What the application is called,
        release: which one it is; may be empty,
        host: and where it runs.
        heading: As in "412 errors of 3 kinds".
        source: As in "shop 2.14 on web-1".
        when: From when to when.
        count: How many records it tells of.
        kinds: Of how many kinds.
        total: How many there were of these since they began.
        sections: A kind each, the most severe first; perhaps not all.
        more: What is said of those that have no section; may be empty.
        notes: What is to be said of the mail itself.
        complete: Nothing that is held is left out.
    """

    subject: str = ""
    app: str
    release: str
    host: str
    heading: str
    source: str
    when: str
    count: int
    kinds: int
    total: int
    sections: tuple[Section, ...]
    more: str
    notes: tuple[str, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is shown. Texts in characters, the rest in numbers.

    Attributes:
        sections: Kinds.
        text: Of a kind's first record.
        calls: Of each of its exceptions; 0: no exception.
        others: Further records.
        preceding: Those of lower levels.
        line: Of each of these.
        context: Names and values.
    """

    sections: int
    text: int
    calls: int
    others: int
    preceding: int
    line: int
    context: int


LIMITS = (
    Limits(200, 16_384, 60, 20, 20, 1_000, 40),
    Limits(200, 4_096, 30, 10, 10, 300, 20),
    Limits(100, 1_024, 16, 3, 10, 200, 16),
    Limits(60, 512, 8, 1, 5, 120, 8),
    Limits(60, 256, 4, 0, 0, 0, 0),
    Limits(40, 120, 0, 0, 0, 0, 0),
    Limits(12, 0, 0, 0, 0, 0, 0),
    Limits(4, 0, 0, 0, 0, 0, 0),
    Limits(1, 0, 0, 0, 0, 0, 0),
    Limits(0, 0, 0, 0, 0, 0, 0),
)
"""From all that a person may want to read to what fits anywhere."""


@dataclass(frozen=True, slots=True)
class Known:
    """What mails said of a kind, for the one that says it is over."""

    what: str
    short: str
    level: str
    levelno: int
    logger: str


def is_notice(record: Record) -> bool:
    """Whether offloop itself says something: records were lost, or a kind is over."""
    return record.name in _NOTICES


def known_of(group: Group, shown: Shown, known: Mapping[str, Known]) -> Known:
    """What the kind is called; of one that is only said to be over, what it was called before."""
    record = group.records[0]
    if is_notice(record) and group.kind in known:
        return known[group.kind]
    record = max(group.records, key=lambda record: record.levelno)
    what, short = what_of(record, shown)
    return Known(what, short, shown.line(record.levelname, 30), group.levelno, shown.line(record.name))


def what_of(record: Record, shown: Shown) -> tuple[str, str]:
    """What happened, in a line; and shorter."""
    message = shown.first_line(message_of(record))
    if is_notice(record):
        return message, message
    cause = cause_of(record)
    if cause is None:
        line = f"{shown.line(record.levelname, 30)} {shown.line(record.name, 60)}: {message}"
        return line, line
    name, file, text = cause
    short = shown.line(f"{name} in {file}" if file else name)
    return f"{short}: {shown.first_line(text) or message}".removesuffix(": "), short


def noun_of(groups: Sequence[Group]) -> str:
    """What the records are called together."""
    levels = [level for group in groups for level in group.counts]
    if levels and min(levels) >= logging.ERROR:
        return "error"
    return "warning" if levels and all(logging.WARNING <= level < logging.ERROR for level in levels) else "record"


def formatted(record: Record, formatter: logging.Formatter, *, failure: bool = True) -> str:
    """What the formatter makes of a record, with or without its exception. Never raises."""
    # A copy: formatters write into records (asctime in their own format), and other sinks' threads have this one too.
    twin = copy.copy(record)
    if not failure and twin.exception is not None:
        twin.exception = twin.exc_text = twin.exc_info = None
    elif twin.exception is not None and twin.exc_text is None:
        twin.exc_text = twin.exception.text()
    try:
        return str.__str__(formatter.format(twin))
    except Exception as error:  # noqa: BLE001 - the mail says so
        return f"{record.levelname} {record.name}: {message_of(record)} [not formatted: {type(error).__name__}]"


def report_of(
    gathered: Gathered,
    letter: Letter,
    limits: Limits,
    *,
    formatter: logging.Formatter,
    known: Mapping[str, Known],
    shown: Shown,
    notes: Sequence[str] = (),
    rest: Limits | None = None,
) -> Report:
    """What a mail says.

    Args:
        gathered: What there is to tell.
        letter: What all mails of the sink have in common.
        limits: How much of it is shown.
        formatter: Gives each record's text.
        known: What earlier mails said, by kind.
        shown: How texts are shown.
        notes: What is to be said beside that.
        rest: How much is shown of all kinds but the first ten, the most severe ones. None: as much.
    """
    groups = gathered.groups
    writers = [_Writer(letter, some, formatter, known, shown) for some in (limits, rest or limits)]
    sections = tuple(writers[index >= _FIRST].section(group) for index, group in enumerate(groups[: limits.sections]))
    left = groups[limits.sections :]
    app, release, host = (shown.line(name, 60) for name in (letter.app, letter.release, letter.host))
    name = " ".join(part for part in (app, release) if part)
    noun = noun_of(groups)
    return Report(
        app=app,
        release=release,
        host=host,
        heading=_heading(len(groups), gathered.count, noun),
        source=name if app == host else f"{name} on {host}",
        when=span(min(group.first for group in groups), max(group.last for group in groups)),
        count=gathered.count,
        kinds=len(groups),
        total=sum(group.total for group in groups),
        sections=sections,
        more=_more(left),
        notes=(*_notes(gathered), *notes),
        complete=not left and not any(section.missing for section in sections),
    )


def _heading(kinds: int, count: int, noun: str) -> str:
    if not count:
        return "Over" if kinds == 1 else f"{kinds:,} kinds over"
    return counted(count, noun) if kinds == 1 else f"{counted(count, noun)} of {kinds:,} kinds"


def _more(left: Sequence[Group]) -> str:
    if not left:
        return ""
    count = sum(group.count for group in left)
    return f"{counted(len(left), 'more kind')} with {counted(count, 'record')}, not shown here"


def _notes(gathered: Gathered) -> list[str]:
    notes: list[str] = []
    if gathered.held_since is not None:
        notes.append(
            f"The limit on mails held back what came since {moment(gathered.held_since)} UTC; this mail tells of it."
        )
    if gathered.cap is not None:
        cap = gathered.cap
        went = "1 mail" if cap.mails == 1 else f"{cap.mails:,} mails"
        per = "an hour" if cap.per == "hour" else f"a {cap.per}"
        notes.append(
            f"This is the last mail until {moment(cap.until)} UTC: {went} {per} is the limit. What comes until then is "
            "counted, and told of in the next one."
        )
    if gathered.closing:
        notes.append("The application is stopping: this is the last mail, with all that was held until now.")
    return notes


@dataclass(frozen=True, slots=True)
class _Writer:
    letter: Letter
    limits: Limits
    formatter: logging.Formatter
    known: Mapping[str, Known]
    shown: Shown

    def section(self, group: Group) -> Section:
        records, limits, shown = group.records, self.limits, self.shown
        known = known_of(group, shown, self.known)
        first = records[0]
        notice = is_notice(first)
        text, left = "", 0
        is_over = notice and not group.count  # all that it says is in `said`
        if limits.text and not is_over:
            text, left = shown.text(formatted(first, self.formatter, failure=False), limits.text)
        failures: tuple[Failure, ...] = ()
        calls = 0
        if first.exception is not None and limits.calls:
            failures, calls = failures_of(first.exception, shown, limits.calls)
        others, cut = self._others(records)
        missing = [
            counted(left, "character") + " of the first record" if left or limits.text else "all records' text",
            f"{calls:,} lines of its traceback" if limits.calls else "all tracebacks",
            counted(cut, "record") + ", in part or as a whole",
        ]
        gone = [left or not (limits.text or is_over), calls or (first.exception is not None and not limits.calls), cut]
        return Section(
            kind=group.kind,
            what=known.what,
            short=known.short,
            state="" if notice and group.count else _state(group),
            said="" if notice and group.count else _said(group),
            level=known.level,
            levelno=known.levelno,
            logger=known.logger,
            count=group.count,
            total=group.total,
            counted=_counted(group, known.level),
            when=span(group.first, group.last),
            since=f"{moment(group.since)} UTC",
            sparkline=sparkline(group.rate),
            rate=tuple(group.rate),
            text=text,
            failures=failures,
            others=others,
            preceding=self._preceding(group.preceding),
            context=() if notice else self._context(first),
            folded=0 if notice else max(0, group.count - len(group.records)),
            missing=", ".join(words for words, is_gone in zip(missing, gone, strict=True) if is_gone),
        )

    def _others(self, records: Sequence[Record]) -> tuple[tuple[Entry, ...], int]:
        """Further records, and of how many something is missing."""
        trail, text = trail_of(records[0]), _failure_of(records[0], self.shown)
        entries: list[Entry] = []
        missing = 0
        for number, record in enumerate(records[1:]):
            if number >= self.limits.others:
                missing += 1
                continue
            entry, left = self._entry(record)
            failure = _failure_of(record, self.shown)
            entries.append(entry if failure == text else replace(entry, failure=failure))
            # The same traceback is not shown twenty times; another one is in the file that goes with the mail.
            missing += bool(left or (record.exception is not None and trail_of(record) != trail))
        return tuple(entries), missing

    def _preceding(self, records: Sequence[Record]) -> tuple[Entry, ...]:
        kept = records[len(records) - min(self.limits.preceding, len(records)) :]
        return tuple(self._entry(record)[0] for record in kept)

    def _entry(self, record: Record) -> tuple[Entry, int]:
        text, left = self.shown.text(formatted(record, self.formatter, failure=False), self.limits.line)
        if left:
            text += f" [{counted(left, 'more character')}]"
        self.shown.breathe()
        return Entry(text=text, failure="", level=self.shown.line(record.levelname, 30), levelno=record.levelno), left

    def _context(self, record: Record) -> tuple[tuple[str, str], ...]:
        if not self.limits.context:
            return ()
        more = extras(record)
        place = f"{record.pathname}:{record.lineno}" + (f" in {record.funcName}" if record.funcName else "")
        process = " ".join(str(part) for part in (record.processName, record.process) if part is not None)
        standard: list[tuple[str, object]] = [
            ("logger", record.name),
            ("at", place if record.lineno else ""),
            ("host", self.letter.host),
            ("release", self.letter.release),
            ("process", process),
            ("thread", record.threadName),
            ("task", getattr(record, "taskName", None)),
        ]
        trace = [(name, more[name]) for name in _TRACE if name in more and more[name] != "0"]
        rest = [(name, value) for name, value in more.items() if name not in _TRACE]
        pairs = [pair for pair in chain(standard, trace) if pair[1] is not None and pair[1] != ""]
        return tuple(self.shown.pair(name, value) for name, value in [*pairs, *rest][: self.limits.context])


def _failure_of(record: Record, shown: Shown) -> str:
    if record.exception is None:
        return ""
    return shown.line(f"{record.exception.type_name}: {record.exception.message[:1_000]}", 200)


def _state(group: Group) -> str:
    if group.over and group.mails:
        return "over"
    return "ongoing" if group.mails else "new"


def _said(group: Group) -> str:
    state = _state(group)
    if state == "new":
        return "new"
    total = f"{group.total:,} in all since {_time(group.since, group.last)}"
    if state == "over":
        more = f", {group.count:,} of them since the last mail" if group.count else ""
        return f"over since {_time(group.last, group.last)}: {total}{more}"
    return f"goes on: {group.count:,} more since {_time(group.first, group.last)}, {total}"


def _time(seconds: float, now: float) -> str:
    """A time of the day, with the day where that is another one."""
    text = moment(seconds)
    return text.partition(" ")[2] or text if day_of(seconds) == day_of(now) else text


def _counted(group: Group, level: str) -> str:
    if len(group.counts) > 1:
        counts = sorted(group.counts.items(), reverse=True)
        return ", ".join(f"{count:,} {logging.getLevelName(number)}" for number, count in counts[:5])
    if group.count == 0:
        return ""
    return f"{level}, once" if group.count == 1 else f"{level}, {group.count:,} times"
