"""From a batch to envelopes: who gets which mail under which identity, and what is refused when a sink is made."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Sequence
from typing import Any, Unpack

import pytest

from mails import NOON, bodies, failed, group, over, record
from mailservers import parsed
from offloop import diagnostics
from offloop.capture import Record
from offloop.digest import Gathered, Group, Preceding
from offloop.errors import ConfigError
from offloop.mailing.outcome import Outcome
from offloop.mailing.sink import MailOptions, MailSink, Recipient
from offloop.mailing.wire import Envelope
from offloop.pipeline import Pipeline
from offloop.policies import Batching
from offloop.sink import Batch


class Box(MailSink):
    """Keeps the mails it is given."""

    def __init__(self, to: Any = "ops@b.example", **mail: Unpack[MailOptions]) -> None:
        super().__init__(sender="app@a.example", to=to, **mail)
        self.taken: list[Envelope] = []

    async def ready(self) -> int | None:
        """Take any."""
        return None

    async def deliver(self, envelope: Envelope) -> Outcome:
        """Keep it."""
        self.taken.append(envelope)
        return Outcome()

    def raw(self, index: int = -1) -> bytes:
        """Give a mail as it was before it went over the wire."""
        return b"".join(self.taken[index].mail.pieces).replace(b"\r\n..", b"\r\n.")


def batch_of(sink: MailSink, *groups: Group, **more: Any) -> Batch:
    """Give a batch as a lane gives it to a sink with a digest."""
    records = [one for kind in groups for one in kind.records]
    batch = Batch(records, sink)
    batch.gathered = Gathered(groups=groups, **more)
    return batch


async def sent(sink: Box, batch: Batch) -> list[tuple[str, Sequence[str], str]]:
    """Send a batch; gives identity, recipients and subject of each mail."""
    sink.taken.clear()
    try:
        await sink.send(batch)
    finally:
        await sink.aclose()
    return [
        (envelope.key.removeprefix(batch.key), envelope.recipients, str(parsed(sink.raw(index))["Subject"]))
        for index, envelope in enumerate(sink.taken)
    ]


async def test_digest_is_one_mail() -> None:
    """All who get everything share one mail with the batch's identity."""
    sink = Box(["ops@b.example", "boss@b.example"], app="shop", release="2.14")
    batch = batch_of(sink, group(failed(), more=3))
    assert await sent(sink, batch) == [
        ("", ("ops@b.example", "boss@b.example"), "[shop] KeyError in mails.py: 'sku-17' (4 times)")
    ]
    mail = parsed(sink.raw())
    assert mail["Message-ID"] == f"<{batch.key}@a.example>"
    assert mail["To"] == "ops@b.example, boss@b.example"
    assert "shop 2.14 on " in bodies(sink.raw())[0]


async def test_recipients_get_what_is_theirs() -> None:
    """Each group of recipients has a mail of its own, with its own counts, subject and identity."""
    sink = Box(["ops@b.example", Recipient("boss@b.example", level="CRITICAL")], app="shop")
    kinds = group(record(level=50, name="db")), group(record("x"), more=9, kind="b" * 16)
    assert await sent(sink, batch_of(sink, *kinds)) == [
        (".1", ("ops@b.example",), "[shop] 2 kinds, 11 errors: CRITICAL db: broken"),
        (".2", ("boss@b.example",), "[shop] CRITICAL db: broken"),
    ]


async def test_second_attempt_builds_the_same() -> None:
    """Mails have the same bytes in each attempt."""
    sink = Box(["ops@b.example", Recipient("boss@b.example", level="CRITICAL")])
    batch = batch_of(sink, group(failed("z" * 99_000, level=50)), group(record(), kind="b"))
    envelopes = sink.composed(batch)
    assert sink.composed(batch) == envelopes
    await sink.aclose()


async def test_what_is_over_is_called_as_before() -> None:
    """A kind that is over is named as in the mails that told of it, and goes to those who got them."""
    sink = Box(["ops@b.example", Recipient("cart@b.example", logger="shop.cart")], app="shop")
    await sent(sink, batch_of(sink, group(failed(name="shop.cart"))))
    gone = over(total=26_113, last=NOON + 300)
    other = over(total=3, kind="f" * 16)
    assert await sent(sink, batch_of(sink, gone, other)) == [
        (".1", ("ops@b.example",), "[shop] 2 kinds over: KeyError in mails.py, 26,116 in all"),
        (".2", ("cart@b.example",), "[shop] over since 12:05: KeyError in mails.py, 26,113 in all"),
    ]


async def test_kinds_are_remembered_within_bounds() -> None:
    """Names of kinds are kept for ten thousand of them."""
    sink = Box(html=False)
    shown: list[Record] = [record(f"{number}") for number in range(3)]
    sink._known = dict.fromkeys(map(str, range(10_000)), sink._known.get("none"))  # type: ignore[arg-type]
    await sent(sink, batch_of(sink, *(group(one, kind=f"k{number}") for number, one in enumerate(shown))))
    assert len(sink._known) == 10_000
    assert "k2" in sink._known
    assert "2" not in sink._known


async def test_without_a_digest_records_are_routed() -> None:
    """A batch is a list for each group of recipients."""
    sink = Box(["ops@b.example", Recipient("cart@b.example", logger="shop.cart")], digest=None, app="shop")
    batch = Batch([record("one", name="shop.cart"), record("two")], sink)
    assert await sent(sink, batch) == [
        (".1", ("ops@b.example",), "[shop] ERROR: one (and 1 more)"),
        (".2", ("cart@b.example",), "[shop] ERROR: one"),
    ]


async def test_what_nobody_wants_is_filtered() -> None:
    """A record that no recipient asked for is turned away, and counted so."""
    logger = logging.Logger("shop")
    sink = Box(Recipient("boss@b.example", level="CRITICAL"), digest=None)
    async with Pipeline(sink, logger=logger) as pipeline:
        logger.error("not for the boss")
        logger.critical("for the boss")
    counts = pipeline.stats().sinks["Box"]
    assert (counts.filtered, counts.delivered) == (1, 1)
    assert "for the boss" in bodies(sink.raw())[0]


async def test_failed_template_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    """The mail goes out in its built-in form, and diagnostics say why."""
    sink = Box(templates={"mail.html": "{{ mail.nothing }}"})
    await sent(sink, batch_of(sink, group(record("disk full"))))
    assert "disk full" in bodies(sink.raw())[1]
    diagnostics.flush()
    assert "the template mail.html failed (UndefinedError" in capfd.readouterr().err


async def test_secrets_do_not_leave() -> None:
    """Subject, message, extra values, source lines, what led there and the file are without secrets."""
    error = ValueError("password=hunter2")  # its source line has it as well: password=hunter2
    kind = group(
        failed("token=hunter2", error, api_key="hunter2"), record("pwd=hunter2 " + "x" * 99_000),
        preceding=(record("secret: hunter2", logging.INFO),),
    )  # fmt: skip
    sink = Box()
    (_, _, subject), *_ = await sent(sink, batch_of(sink, kind))
    plain, html = bodies(sink.raw())
    assert "hunter2" not in plain + html + subject
    assert subject.endswith("ValueError in mails.py: password=[redacted] (2 times)")
    (file,) = parsed(sink.raw()).iter_attachments()
    assert b"hunter2" not in gzip.decompress(file.get_content())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"app": ""}, "app must be text, or left out, got ''"),
        ({"release": 5}, "release must be text, or left out, got 5"),
        ({"templates": {"mail.txt": "x"}, "digest": None}, "templates are of digests, and digest=None makes none"),
        ({"templates": {"subject.txt": "x"}, "subject": "y"}, "subject and templates with a subject.txt exclude"),
        ({"templates": {"mail.html": "x"}, "html": False}, "templates with a mail.html and html=False exclude"),
        ({"preceding": Preceding(), "digest": None}, "preceding goes with a digest, and digest=None makes none"),
        ({"batching": Batching(max_wait=5)}, "batching.max_wait: a digest has a schedule of its own"),
        ({"redact": "x"}, "redact: expected a list of regular expressions"),
        ({"subject": "{nothing}"}, "subject: expected text with any of "),
        ({"to": []}, "to must have at least 1 address"),
        ({"digest": 5}, "digest must be of class Digest"),
        ({"preceding": 5}, "preceding must be of class Preceding"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], said: str) -> None:
    """What can't be used is refused when the sink is made, by name."""
    with pytest.raises(ConfigError, match=f"^Box: {said}"):
        Box(**settings)
