"""What became of mails: who got one, who gets it later, who never will. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from offloop.errors import DeliveryError, PermanentFailure, SinkFailure, TemporaryFailure
from offloop.mailing.wire import Envelope

__all__ = ["Interrupted", "Outcome", "Progress", "all_failed", "settled"]


class Interrupted(TemporaryFailure):
    """Nobody has got a mail yet, but it is known of some recipients that they never will.

    Args:
        message: What happened.
        refused: Those recipients, with what was said.
    """

    def __init__(self, message: str, refused: Mapping[str, str]) -> None:
        super().__init__(message)
        self.refused = refused


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mail that was taken for at least one recipient; nobody else is in it.

    Attributes:
        refused: Recipients who never get it, with what was said.
        owed: Recipients who may get it later, with what was said.
        retry_after: Seconds until then, None if nothing is known of it.
    """

    refused: Mapping[str, str] = field(default_factory=dict[str, str])
    owed: Mapping[str, str] = field(default_factory=dict[str, str])
    retry_after: float | None = None


def settled(envelope: Envelope, failures: Mapping[str, DeliveryError]) -> Outcome:
    """What became of a mail that some recipients failed to get.

    Raises:
        DeliveryError: All of them did.
    """
    if len(failures) == len(envelope.recipients):
        raise all_failed(failures)
    refused = {name: str(why) for name, why in failures.items() if not isinstance(why, TemporaryFailure)}
    owed = {name: str(why) for name, why in failures.items() if name not in refused}
    return Outcome(refused, owed, _wait(failures))


def all_failed(failures: Mapping[str, DeliveryError]) -> DeliveryError:
    """What it means that no recipient gets a mail. That one may get it later is reason enough to come again for all."""
    said = "; ".join(dict.fromkeys(map(str, failures.values())))
    kinds = {type(failure) for failure in failures.values()}
    if TemporaryFailure in kinds:
        return TemporaryFailure(said, retry_after=_wait(failures))
    return PermanentFailure(said) if kinds == {PermanentFailure} else SinkFailure(said)


def _wait(failures: Mapping[str, DeliveryError]) -> float | None:
    waits = [failure.retry_after for failure in failures.values() if isinstance(failure, TemporaryFailure)]
    return max((wait for wait in waits if wait is not None), default=None)


class Progress:
    """How far the mails of a batch have come, over all attempts.

    Attributes:
        key: Of the batch.
        taken: Whether somebody has got one of them.
        refused: What was said to those mails that nobody gets.
    """

    def __init__(self, key: str = "") -> None:
        """Begin with nothing."""
        self.key = key
        self.taken = False
        self.refused: list[tuple[Envelope, PermanentFailure]] = []
        self._owed: dict[str, tuple[str, ...]] = {}

    def left(self, envelope: Envelope) -> Envelope | None:
        """The envelope with those who are still to get the mail, None if there are none."""
        owed = self._owed.get(envelope.key, envelope.recipients)
        return replace(envelope, recipients=owed) if owed else None

    def take(self, envelope: Envelope, outcome: Outcome) -> None:
        """The mail was taken for some."""
        self.taken = True
        self._owed[envelope.key] = tuple(outcome.owed)

    def interrupt(self, envelope: Envelope, failure: Interrupted) -> None:
        """The mail was taken for nobody yet."""
        self._owed[envelope.key] = tuple(name for name in envelope.recipients if name not in failure.refused)

    def refuse(self, envelope: Envelope, failure: PermanentFailure) -> None:
        """None of those who were left gets the mail."""
        self._owed[envelope.key] = ()
        self.refused.append((envelope, failure))
