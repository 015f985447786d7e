"""Records, kinds and digests made by hand, and mails made of them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from typing import Any, cast

from mailservers import parsed
from offloop.capture import Record, capture, restore
from offloop.digest import Gathered, Group
from offloop.mailing.composing import composed
from offloop.mailing.headers import Mailbox, Subject
from offloop.mailing.letter import Letter
from offloop.mailing.redaction import DEFAULT_PATTERNS, Redactor

KEY = "0123456789abcdef" * 2
KIND = "00112233aabbccdd"
NOON = 1_763_812_800.0  # 2025-11-22 12:00:00 UTC


def record(message: str = "broken", level: int = logging.ERROR, name: str = "app", **attributes: Any) -> Record:
    """Give a record as a sink sees it."""
    values = {"msg": message, "levelno": level, "levelname": logging.getLevelName(level), "name": name, "created": NOON}
    return restore(capture(logging.makeLogRecord(values | attributes)))


def failed(message: str = "broken", error: BaseException | None = None, **attributes: Any) -> Record:
    """Give a record with a traceback."""
    try:
        raise error if error is not None else KeyError("sku-17")
    except BaseException as raised:
        return record(message, exc_info=(type(raised), raised, raised.__traceback__), **attributes)


def caught(function: Callable[[], object]) -> Any:
    """Give what a function raises, as `exc_info` wants it."""
    try:
        function()
    except BaseException as error:
        assert error.__traceback__ is not None
        return type(error), error.with_traceback(error.__traceback__.tb_next), error.__traceback__
    raise AssertionError(function)


def group(*records: Record, kind: str = KIND, more: int = 0, **values: Any) -> Group:
    """Give a kind of these records, and so many of the first's level that are held as a number alone."""
    counts = Counter(one.levelno for one in records)
    counts[records[0].levelno] += more
    moments = [one.created for one in records]
    settings: dict[str, Any] = {
        "kind": kind,
        "records": records,
        "counts": dict(counts),
        "first": min(moments),
        "last": max(moments),
        "since": min(moments),
        "total": counts.total(),
    }
    return Group(**(settings | values))


def over(message: str = "over: none since the last mail", kind: str = KIND, **values: Any) -> Group:
    """Give a kind that is over, and of which nothing more came."""
    notice = record(message, logging.INFO, "offloop.digest")
    settings: dict[str, Any] = {"counts": {}, "over": True, "mails": 2} | values
    return group(notice, kind=kind, **settings)


def letter(**values: Any) -> Letter:
    """Give a letter with plain addresses."""
    settings: dict[str, Any] = {
        "sender": Mailbox.parse("", "sender", "App <app@a.example>"),
        "host": "web-1",
        "app": "shop",
        "release": "2.14",
        "html": True,
        "redact": Redactor("", DEFAULT_PATTERNS),
    }
    return Letter(**(settings | values))


def boxes(*addresses: str) -> tuple[Mailbox, ...]:
    """Give recipients."""
    return tuple(Mailbox.parse("", "to", address) for address in addresses or ("ops@b.example",))


def digest(gathered: Gathered | Sequence[Group], *, max_bytes: int = 1_000_000, **settings: Any) -> bytes:
    """Give the mail of a digest."""
    if not isinstance(gathered, Gathered):
        gathered = Gathered(groups=tuple(gathered))
    subject = settings.pop("subject", None)
    own: dict[str, Any] = {
        "to": settings.pop("to", boxes()),
        "key": KEY,
        "created": NOON,
        "formatter": settings.pop("formatter", logging.Formatter("%(levelname)s %(name)s: %(message)s")),
        "max_bytes": max_bytes,
        "known": settings.pop("known", {}),
        "subject": None if subject is None else Subject("", subject),
        "look": settings.pop("look", None),
        "breathe": settings.pop("breathe", bool),
    }
    pieces, _ = composed(gathered, letter(**settings), **own)
    assert all(piece.endswith(b"\r\n") for piece in pieces)
    return b"".join(pieces)


def subject_of(*groups: Group, **settings: Any) -> str:
    """Give the subject of a digest."""
    return str(parsed(digest(groups, **settings))["Subject"])


def bodies(raw: bytes) -> tuple[str, str]:
    """Give the text and the HTML of a mail."""
    mail = parsed(raw)
    plain, html = (mail.get_body((kind,)) for kind in ("plain", "html"))
    return tuple(cast("EmailMessage", part).get_content().replace("\r\n", "\n") for part in (plain, html))  # type: ignore[return-value]
