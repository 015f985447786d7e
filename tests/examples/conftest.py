from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from helpers import Collector, collecting, messages_of
from mailservers import Desk, aiosmtpd, parsed
from offloop.testing import FaultProxy


@dataclass
class Destinations:
    """A mail server behind a proxy that can hang, and a collector."""

    desk: Desk
    proxy: FaultProxy
    collector: Collector

    @property
    def environment(self) -> dict[str, object]:
        """What tells an example where they are."""
        return {
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": self.proxy.port,
            "LOG_HOST": "127.0.0.1",
            "LOG_PORT": self.collector.port,
        }

    @property
    def lines(self) -> list[str]:
        """The message of each line that the collector has."""
        return messages_of(self.collector.lines)

    @property
    def processes(self) -> set[int]:
        """The processes whose lines the collector has."""
        return {json.loads(line)["process"] for line in self.collector.lines}

    def mailed(self, pattern: str) -> list[str]:
        """What a pattern finds in the texts of all mails."""
        return [found for mail in [*self.desk.mails] for found in re.findall(pattern, text_of(mail))]


def text_of(mail: bytes) -> str:
    """The text part of a mail."""
    body = parsed(mail).get_body(("plain",))
    assert body is not None
    return str(body.get_content())


@pytest.fixture
def desk() -> Iterator[Desk]:
    with aiosmtpd() as running:
        yield running


@pytest.fixture
async def destinations(desk: Desk) -> AsyncIterator[Destinations]:
    async with collecting() as collector, FaultProxy("127.0.0.1", desk.port) as proxy:
        yield Destinations(desk, proxy, collector)
