"""One digest sent to a mail server, told step by step with what the server said."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from offloop import net
from offloop.capture import Record, capture, restore
from offloop.errors import PermanentFailure, SinkFailure, TemporaryFailure
from offloop.mailing.access import Access, Unauthorized
from offloop.mailing.client import Session
from offloop.mailing.opening import opened
from offloop.sinks.smtp import SMTPSink

__all__ = ["Probe", "advice", "sample"]

Tell = Callable[[str, str], object]


class Probe(SMTPSink):
    """Sends as any `SMTPSink`, and tells of each step that it could take, and what was said to it."""

    def __init__(self, tell: Tell, host: str, port: int, **mail: Any) -> None:
        """As for `SMTPSink`.

        Args:
            tell: Is told of the steps.
            host: The server.
            port: Its port.
            mail: What an `SMTPSink` takes.
        """
        super().__init__(host, port, **mail)
        self._tell = tell

    async def begin(self, access: Access) -> Session:
        """Connect, greet, begin TLS and authenticate."""
        told = replace(access, tell=self._tell)
        assert told.port is not None  # noqa: S101 - a server has one
        connected = await net.connect(told.host, told.port, timeout=self._connect_timeout)
        self._tell("connect", _address(connected))
        return Session(told, await opened(told, connected))


def sample(now: float | None = None) -> list[Record]:
    """What the mail shows: an error, and what led there."""
    now = time.time() if now is None else now
    lines = (
        (logging.INFO, 1.0, "this record of a lower level came before the error"),
        (logging.ERROR, 0.0, "offloop mail test: this is how an error looks; nothing is wrong"),
    )
    records = [logging.LogRecord("offloop.test", level, "offloop", 0, text, (), None) for level, _, text in lines]
    for record, (_, before, _) in zip(records, lines, strict=True):
        record.created = now - before
    return [restore(capture(record)) for record in records]


def advice(error: Exception) -> str:
    """What a person may do about it."""
    words = str(error)
    if isinstance(error, Unauthorized):
        return "The server does not know this user name with this password. Many want one made for applications."
    if "no STARTTLS" in words:
        return "Try --tls implicit with port 465, or --tls off for a relay on this machine that needs no password."
    if "TLS failed" in words:
        return "Its certificate is not accepted: the host must be one that it names, and its authority known (--ca)."
    if isinstance(error, SinkFailure):
        return "The server wants no mail from us, whatever it says: look at the sender, and whether it wants a login."
    if isinstance(error, PermanentFailure):
        return "The server refuses this mail for good: look at the sender and the recipients."
    if isinstance(error, TemporaryFailure) and error.retry_after is not None:
        return "The server puts it off, as many do with senders that they don't know: a sink tries again by itself."
    return "The server can't be reached, or broke off: look at host, port and what lies between. A sink tries again."


def _address(connected: socket.socket) -> str:
    address, port = connected.getpeername()[:2]
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
