"""What became of mails, over several attempts and several envelopes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from helpers import batch_of
from offloop import diagnostics
from offloop.errors import DeliveryError, PermanentFailure, SinkFailure, TemporaryFailure
from offloop.mailing.outcome import Interrupted, Outcome, settled
from offloop.mailing.sink import MailSink
from offloop.mailing.wire import Envelope, Mail
from offloop.sink import Batch

MAIL = Mail.of([b"Subject: x\r\n\r\n"])


def envelope(key: str, *recipients: str) -> Envelope:
    return Envelope(key, "app@a.example", recipients, MAIL)


class Scripted(MailSink):
    """Has two mails for each batch, and is told what becomes of each delivery."""

    def __init__(self, *outcomes: Outcome | DeliveryError) -> None:
        super().__init__(sender="app@a.example", to="ops@b.example", digest=None)
        self.outcomes = list(outcomes)
        self.handed: list[str] = []

    async def ready(self) -> None:
        pass

    async def deliver(self, envelope: Envelope) -> Outcome:
        self.handed.append(f"{envelope.key}: {' '.join(envelope.recipients)}")
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, DeliveryError):
            raise outcome
        return outcome

    async def _composed(self, batch: Batch, server_max: int | None) -> Sequence[Envelope]:
        return [envelope("one", "a", "b"), envelope("two", "c")]


async def attempts(sink: Scripted) -> list[str]:
    """Send a batch until it is settled; gives what each attempt raised."""
    batch, raised = batch_of(sink, "broken"), []
    while True:
        try:
            await sink.send(batch)
        except TemporaryFailure as failure:
            raised.append(f"{failure} {failure.retry_after}")
        except DeliveryError as failure:
            return [*raised, repr(failure)]
        else:
            return raised


@pytest.mark.parametrize(
    ("outcomes", "handed", "raised"),
    [
        ([Outcome(), Outcome()], ["one: a b", "two: c"], []),
        (
            [Outcome(owed={"b": "later"}, retry_after=5.0), Outcome(), Outcome()],
            ["one: a b", "two: c", "one: b"],
            ["later 5.0"],
        ),
        (
            [TemporaryFailure("busy", retry_after=5.0), Outcome(), Outcome()],
            ["one: a b", "two: c", "one: a b"],
            ["busy 5.0"],
        ),
        ([TemporaryFailure("gone"), Outcome(), Outcome()], ["one: a b", "one: a b", "two: c"], ["gone None"]),
        ([Interrupted("gone", {"a": "no"}), Outcome(), Outcome()], ["one: a b", "one: b", "two: c"], ["gone None"]),
        ([PermanentFailure("never"), Outcome()], ["one: a b", "two: c"], []),
        (
            [PermanentFailure("never"), TemporaryFailure("busy", retry_after=1.0), PermanentFailure("nor this")],
            ["one: a b", "two: c", "two: c"],
            ["busy 1.0", "PermanentFailure('never')"],
        ),
        (
            [
                Outcome(owed={"a": "later"}),
                TemporaryFailure("busy", retry_after=1.0),
                PermanentFailure("never"),
                Outcome(),
            ],
            ["one: a b", "two: c", "one: a", "two: c"],
            ["busy 1.0"],
        ),
    ],
)
async def test_each_recipient_gets_each_mail_once(
    outcomes: list[Outcome | DeliveryError], handed: list[str], raised: list[str]
) -> None:
    """A mail that is put off holds up no other; whoever has one, or is refused for good, is not tried again."""
    sink = Scripted(*outcomes)
    assert await attempts(sink) == raised
    assert sink.handed == handed
    assert not sink.outcomes


async def test_refused_mail_is_said_when_another_was_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """A mail that nobody gets, beside one that somebody got, is a line on stderr that names who was to get it."""
    sink = Scripted(PermanentFailure("never"), Outcome(refused={"c": "nor you"}, owed={}))
    await attempts(sink)
    diagnostics.flush(1.0)
    said = capsys.readouterr().err
    assert "a recipient was refused: never" in said
    assert "a recipient was refused: nor you" in said


@pytest.mark.parametrize(
    ("failures", "kind", "wait"),
    [
        ((PermanentFailure("a"), PermanentFailure("b")), PermanentFailure, None),
        ((PermanentFailure("a"), SinkFailure("b")), SinkFailure, None),
        ((PermanentFailure("a"), TemporaryFailure("b")), TemporaryFailure, None),
        ((TemporaryFailure("a", retry_after=1.0), TemporaryFailure("b", retry_after=2.0)), TemporaryFailure, 2.0),
    ],
)
def test_nobody_got_it(failures: Sequence[DeliveryError], kind: type[DeliveryError], wait: float | None) -> None:
    """Where one recipient may get it later, it is tried again; else it is the sink's failure, or the mail's."""
    with pytest.raises(kind, match="^a; b$") as caught:
        settled(envelope("one", "a", "b"), dict(zip("ab", failures, strict=True)))
    assert getattr(caught.value, "retry_after", None) == wait


def test_mail_for_a_program() -> None:
    """A mail whose periods were doubled is as it was, with lines that end as this machine's do."""
    pieces = [b".a\r\n.\r\n..b\r\n", b"c\r\n", b".\r\n"]
    assert b"".join(Mail.of(pieces).lines()) == b".a\n.\n..b\nc\n.\n"
