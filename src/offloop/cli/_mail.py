"""The demo's mail server: takes every mail, but takes its time; counts mails and the records in them.

Run as `python -m offloop.cli._mail PORT DELAY`. The only module that imports aiosmtpd.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import sys
from typing import Any

from offloop.cli._servers import Tally, serve
from offloop.errors import MissingExtra

try:
    from aiosmtpd.smtp import SMTP, Envelope, Session
except ImportError as missing:
    raise MissingExtra(what="offloop demo", package="aiosmtpd", extra="demo") from missing

__all__ = ["MailServer", "text_of_mail"]


def text_of_mail(content: bytes) -> str:
    """The mail's plain text, empty if it has none."""
    part = email.message_from_bytes(content, policy=email.policy.default).get_body(("plain",))
    return "" if part is None else str(part.get_content())


class _Inbox:
    """What aiosmtpd asks when a mail has come."""

    def __init__(self, tally: Tally, delay: float) -> None:
        self._tally = tally
        self._delay = delay

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's
        """Take the mail after the delay."""
        await asyncio.sleep(self._delay)
        content = envelope.content
        self._tally.add(text_of_mail(content if isinstance(content, bytes) else (content or "").encode()))
        return "250 OK"


class MailServer(SMTP):
    """One connection to a mail server that waits before it takes a mail, as one that greylists or scans does."""

    def __init__(self, tally: Tally, delay: float) -> None:
        """Wait for commands.

        Args:
            tally: Where mails are counted.
            delay: Seconds between the end of a mail's data and the answer.
        """
        # Without a host name aiosmtpd would ask the resolver for one.
        super().__init__(_Inbox(tally, delay), hostname="localhost", enable_SMTPUTF8=True)
        self._tally = tally

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection."""
        self._tally.open += 1
        super().connection_made(transport)

    def connection_lost(self, error: Any) -> None:
        """Count it out."""
        self._tally.open -= 1
        super().connection_lost(error)


def main() -> int:
    """Serve until stdin ends."""
    tally = Tally()
    delay = float(sys.argv[2])
    return asyncio.run(serve(lambda: MailServer(tally, delay), int(sys.argv[1]), tally))


if __name__ == "__main__":
    sys.exit(main())
