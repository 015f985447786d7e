"""Who gets what: recipients by level and logger. Pure."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from offloop.capture import Record
from offloop.digest import Gathered, Group
from offloop.errors import ConfigError
from offloop.mailing.headers import Mailbox
from offloop.mailing.report import Known, is_notice
from offloop.policies import level_number

__all__ = ["Recipient", "Recipients", "Route", "To", "part_of"]


@dataclass(frozen=True, slots=True)
class Recipient:
    """Somebody who wants some of the mails.

    Attributes:
        address: `boss@example.org`, or `Boss <boss@example.org>`.
        level: Records from this level on, by name or number.
        logger: Records of this logger and those below it. Empty: of any.
    """

    address: str
    level: int | str = logging.NOTSET
    logger: str = ""

    def __post_init__(self) -> None:
        level_number("Recipient.", "level", self.level)
        if not isinstance(self.logger, str):
            msg = f"Recipient.logger must be a logger's name, or '' for all of them, got {self.logger!r}"
            raise ConfigError(msg)
        Mailbox.parse("Recipient.", "address", self.address)

    @property
    def levelno(self) -> int:
        """The level as a number."""
        return level_number("Recipient.", "level", self.level)

    def wants(self, name: str, levelno: int) -> bool:
        """Whether a record of this logger and level is for them."""
        return levelno >= self.levelno and self.follows(name)

    def follows(self, name: str) -> bool:
        """Whether a logger is theirs."""
        return not self.logger or name == self.logger or name.startswith(f"{self.logger}.")


_ANYBODY = Recipient("anybody@localhost")  # of whom an address is all that is known

To = str | Recipient | Sequence[str | Recipient]
"""What `to` may be."""


@dataclass(frozen=True, slots=True)
class Route:
    """Recipients who get the same, and which of what there is to tell, by position."""

    to: tuple[Mailbox, ...]
    indices: tuple[int, ...]


class Recipients:
    """All recipients of a sink."""

    __slots__ = ("_all",)

    def __init__(self, owner: str, to: object) -> None:
        """Check them.

        Args:
            owner: What an error's message begins with.
            to: An address, a `Recipient`, or several of them.

        Raises:
            ConfigError: There is none, or one is no address.
        """
        self._all = tuple(
            (recipient, Mailbox.parse(owner, "to", recipient.address))
            if isinstance(recipient, Recipient)
            else (_ANYBODY, Mailbox.parse(owner, "to", recipient))
            for recipient in _several(owner, to)
        )

    @property
    def choosy(self) -> bool:
        """Whether there are records that none of them wants."""
        return not any(recipient.levelno <= logging.NOTSET and not recipient.logger for recipient, _ in self._all)

    def want(self, record: logging.LogRecord) -> bool:
        """Whether anybody wants the record."""
        return any(recipient.wants(record.name, record.levelno) for recipient, _ in self._all)

    def of_records(self, records: Sequence[Record]) -> list[Route]:
        """Who gets which of the records."""
        return self._routes([[_told(record, recipient) for record in records] for recipient, _ in self._all])

    def of_groups(self, groups: Sequence[Group], known: Mapping[str, Known]) -> list[Route]:
        """Who gets which of the kinds: each as a whole, if any of its records is for them."""
        return self._routes([[_wanted(group, recipient, known) for group in groups] for recipient, _ in self._all])

    def _routes(self, wanted: Sequence[Sequence[bool]]) -> list[Route]:
        count = len(wanted[0])
        # What nobody asked for, as a notice that is nobody's, is for all: it was taken, and must be told.
        nobodys = {index for index in range(count) if not any(row[index] for row in wanted)}
        routes: dict[tuple[int, ...], list[Mailbox]] = {}
        for row, (_, mailbox) in zip(wanted, self._all, strict=True):
            indices = tuple(index for index in range(count) if row[index] or index in nobodys)
            if indices:
                routes.setdefault(indices, []).append(mailbox)
        return [Route(tuple(mailboxes), indices) for indices, mailboxes in routes.items()]


def _told(record: Record, recipient: Recipient) -> bool:
    if is_notice(record):
        return not recipient.logger and recipient.levelno <= record.levelno
    return recipient.wants(record.name, record.levelno)


def _wanted(group: Group, recipient: Recipient, known: Mapping[str, Known]) -> bool:
    if all(map(is_notice, group.records)):
        before = known.get(group.kind)
        if before is not None:
            return recipient.wants(before.logger, before.levelno)
        return any(_told(record, recipient) for record in group.records)
    if any(_told(record, recipient) for record in group.records):
        return True
    # Those that are held as numbers alone have a level, and for a logger the kind's.
    follows = any(recipient.follows(record.name) for record in group.records)
    return follows and any(level >= recipient.levelno for level in group.counts)


def part_of(gathered: Gathered, indices: Sequence[int]) -> Gathered:
    """Some of the kinds as a digest of their own."""
    return replace(gathered, groups=tuple(gathered.groups[index] for index in indices))


def _several(owner: str, to: object) -> tuple[object, ...]:
    """What stands in `to`, one or several."""
    if isinstance(to, (str, Recipient)):
        return (to,)
    recipients = tuple(cast("Iterable[object]", to)) if isinstance(to, Iterable) and not isinstance(to, bytes) else None
    if recipients is None:
        msg = f"{owner}to: expected an address like ops@example.org, or a list of them, got {to!r}"
        raise ConfigError(msg)
    if not recipients:
        msg = f"{owner}to must have at least 1 address"
        raise ConfigError(msg)
    return recipients
