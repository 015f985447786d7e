"""What befalls mails between us and a server: none is lost, none is taken twice, and nobody else waits for it.

Each fault is met behind a pipeline, with another sink beside it, by a sink that meets it once and then a server that
works. Each mail is a digest. What a server has is counted by `Message-ID` and recipient.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from helpers import until
from mailservers import (
    DROP,
    HOLD,
    LOST,
    Certificates,
    Desk,
    Exim,
    LocalDesk,
    aiosmtpd,
    certificates,
    exim,
    lmtpd,
    parsed,
    sendmail,
    sent,
)
from offloop.digest import Digest
from offloop.mailing.sink import MailSink
from offloop.pipeline import Pipeline
from offloop.policies import Breaker, Retry
from offloop.sinks.lmtp import LMTPSink
from offloop.sinks.sendmail import SendmailSink
from offloop.sinks.smtp import SMTPSink
from offloop.testing import FaultProxy, MemorySink

LOGIN = ("app-user", "s3cret-pass")
OPS = ("ops@b.example", "boss@b.example", "night@b.example")
SETTINGS: dict[str, Any] = {
    "sender": "app@a.example",
    "to": OPS,
    "name": "mail",
    "digest": Digest(gather=0.0, hourly=None, daily=None),
    "retry": Retry(0.01, 0.01),
    "breaker": Breaker(1_000, 0.01),
}


@pytest.fixture(scope="module")
def certified() -> Certificates:
    """Make a certificate for 127.0.0.1 that the client trusts."""
    return certificates("127.0.0.1")


@asynccontextmanager
async def in_trouble(
    sink: MailSink, seen: Callable[[], object], heal: Callable[[], object] = bool
) -> AsyncIterator[None]:
    """Log one error into the fault, see that the sink beside has it meanwhile, and that the mail arrives after it."""
    logger = logging.Logger("test.mail.faults")
    beside = MemorySink(name="beside")
    async with Pipeline(sink, beside, logger=logger) as pipeline:
        logger.error("broken")
        await beside.wait_for(1)
        await until(seen)
        logger.info("and on it goes")
        await beside.wait_for(2)
        heal()
        report = await pipeline.flush(timeout=20)
        yield
    assert report.sinks["mail"].delivered == 2
    assert report.complete
    assert report.sinks["mail"].lost == 0


def taken(desk: Desk) -> Counter[str]:
    """How many different mails each recipient has, and that none of them has one twice."""
    assert max(Counter(desk.delivered).values()) == 1
    return Counter(recipient for _, recipient in desk.delivered)


@pytest.mark.parametrize("offers", [(), ("PIPELINING",)], ids=["", "pipelined"])
@pytest.mark.parametrize(
    ("command", "replies"),
    [
        ("EHLO", ["421 busy"]),
        ("EHLO", [DROP]),
        ("MAIL", ["450 later"]),
        ("MAIL", ["451 later"]),
        ("MAIL", ["421 restarting"]),
        ("MAIL", ["550 not you"]),
        ("MAIL", [DROP]),
        ("RCPT", ["450 greylisted"] * 3),
        ("RCPT", ["250 ok", "421 restarting"]),
        ("RCPT", [DROP]),
        ("DATA", ["451 later"]),
        ("DATA", ["421 restarting"]),
        ("DATA", [DROP]),
        ("QUIT", [DROP]),
    ],
)
async def test_fault_of_a_reply(command: str, replies: list[str], offers: tuple[str, ...]) -> None:
    """A server that says later, or hangs up, gets each mail once for each recipient in the end."""
    with aiosmtpd(Desk(offers=offers)) as desk:
        desk.answer(command, *replies)
        sink = SMTPSink("127.0.0.1", desk.port, greylist_wait=0.01, idle_timeout=0, **SETTINGS)
        async with in_trouble(sink, lambda: command in desk.commands):
            await until(lambda: len(desk.delivered) == 6)
    assert taken(desk) == dict.fromkeys(OPS, 2)
    assert not desk.script[command]


@pytest.mark.parametrize("offers", [(), ("PIPELINING",)], ids=["", "pipelined"])
@pytest.mark.parametrize("command", ["EHLO", "MAIL", "RCPT", "DATA"])
async def test_slow_reply(command: str, offers: tuple[str, ...]) -> None:
    """A server that takes its time gets the mail once, and nobody waits for it but the mail."""
    with aiosmtpd(Desk(offers=offers)) as desk:
        desk.answer(command, HOLD)
        sink = SMTPSink("127.0.0.1", desk.port, **SETTINGS)
        async with in_trouble(sink, lambda: command in desk.commands, desk.release.set):
            pass
    assert taken(desk) == dict.fromkeys(OPS, 2)
    assert desk.connections == 1


async def test_lost_answer_is_the_same_mail() -> None:
    """A mail whose answer was lost comes again under the same `Message-ID`."""
    with aiosmtpd() as desk:
        desk.answer("DATA", LOST)
        async with in_trouble(SMTPSink("127.0.0.1", desk.port, **SETTINGS), lambda: "DATA" in desk.commands):
            pass
    names = [name for name, recipient in desk.delivered if recipient == OPS[0]]
    assert (len(names), len(set(names)), names[0]) == (3, 2, names[1])


@pytest.mark.parametrize("offers", [(), ("PIPELINING",)], ids=["", "pipelined"])
@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        (["250 ok", "450 greylisted"], (2, 2, 2)),
        (["450 greylisted", "250 ok", "452 too many"], (2, 2, 2)),
        (["250 ok", "550 no such user"], (2, 1, 2)),
        (["550 no such user", "450 greylisted"], (1, 2, 2)),
    ],
)
async def test_some_recipients(replies: list[str], expected: tuple[int, ...], offers: tuple[str, ...]) -> None:
    """Who was put off gets the mail later, once, and alone; who was refused does not; the others got it once."""
    with aiosmtpd(Desk(offers=offers)) as desk:
        desk.answer("RCPT", *replies)
        sink = SMTPSink("127.0.0.1", desk.port, greylist_wait=0.01, **SETTINGS)
        async with in_trouble(sink, lambda: desk.delivered):
            pass
    assert taken(desk) == dict(zip(OPS, expected, strict=True))


@pytest.mark.parametrize(("fault", "seen"), [("refuse", 0), ("accept_then_close", 0), ("reset", 0), ("black_hole", 1)])
async def test_fault_of_the_connection(fault: str, seen: int) -> None:
    """A server that is not there, hangs up before it greets, or says nothing, gets the mails when it is back."""
    with aiosmtpd() as desk:
        async with FaultProxy("127.0.0.1", desk.port) as proxy:
            getattr(proxy, fault)()
            sink = SMTPSink("127.0.0.1", proxy.port, send_timeout=0.3, data_timeout=10, **SETTINGS)
            failed = lambda: sink._first == 0 and proxy.open_connections >= seen  # noqa: E731
            async with in_trouble(sink, failed, proxy.forward):
                pass
    assert taken(desk) == dict.fromkeys(OPS, 2)


@pytest.mark.once
@pytest.mark.parametrize("at", [1, *range(18, 200, 13), 1_000, 30_000])
async def test_cut_in_the_midst(at: int) -> None:
    """A connection that breaks after so many bytes, in or after any command or the mail, costs and doubles no mail."""
    with aiosmtpd() as desk:
        async with FaultProxy("127.0.0.1", desk.port) as proxy:
            proxy.cut_at(at)
            sink = SMTPSink("127.0.0.1", proxy.port, **SETTINGS)
            sink.setFormatter(logging.Formatter("%(message)s" + "x" * 50_000))
            async with in_trouble(sink, lambda: desk.ended, proxy.forward):
                pass
    assert taken(desk) == dict.fromkeys(OPS, 2)


@pytest.mark.parametrize("command", ["STARTTLS", "AUTH"])
async def test_cut_in_the_opening(certified: Certificates, command: str) -> None:
    """A connection that breaks while TLS begins, or at AUTH, costs no mail."""
    with aiosmtpd(tls_context=certified.server, login=LOGIN) as desk:
        async with FaultProxy("127.0.0.1", desk.port) as proxy:
            if command == "STARTTLS":
                proxy.cut_at(len("EHLO [127.0.0.1]\r\nSTARTTLS\r\n"))
            desk.answer("AUTH", DROP)
            settings: dict[str, Any] = SETTINGS | {"tls": "starttls", "tls_context": certified.client}
            sink = SMTPSink("127.0.0.1", proxy.port, username=LOGIN[0], password=LOGIN[1], **settings)
            async with in_trouble(sink, lambda: desk.ended, proxy.forward):
                pass
    assert taken(desk) == dict.fromkeys(OPS, 2)


@pytest.mark.parametrize("fault", ["STARTTLS", "certificate", "password"])
async def test_fault_of_the_opening(certified: Certificates, fault: str) -> None:
    """What only somebody at the server can mend is tried again, and no mail is lost."""
    wrong = certificates("mail.b.example")
    first: dict[str, dict[str, Any]] = {
        "STARTTLS": {},
        "certificate": {"tls_context": wrong.server, "login": LOGIN},
        "password": {"tls_context": certified.server, "login": ("app-user", "other")},
    }
    with aiosmtpd(**first[fault]) as bad, aiosmtpd(tls_context=certified.server, login=LOGIN) as good:
        async with FaultProxy("127.0.0.1", bad.port) as proxy:
            settings: dict[str, Any] = SETTINGS | {"tls": "starttls", "tls_context": certified.client}
            sink = SMTPSink("127.0.0.1", proxy.port, username=LOGIN[0], password=LOGIN[1], **settings)

            def heal() -> None:
                proxy._server = ("127.0.0.1", good.port)

            async with in_trouble(sink, lambda: bad.ended, heal):
                pass
    assert not bad.mails
    assert taken(good) == dict.fromkeys(OPS, 2)


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ("250 OK / 450 later / 250 OK", (2, 2, 2)),
        ("250 OK / 550 mailbox full for good / 450 later", (2, 1, 2)),
        (f"250 OK / 250 OK / {DROP}", (2, 2, 2)),
        (f"450 later / 250 OK / {DROP}", (2, 2, 2)),
        ("451 later / 452 later / 450 later", (2, 2, 2)),
        (DROP, (2, 2, 2)),
    ],
)
async def test_local_recipients(tmp_path: Path, replies: str, expected: tuple[int, ...]) -> None:
    """By LMTP each recipient is answered for by itself, also where the connection breaks between two answers."""
    with lmtpd(tmp_path / "s") as desk:
        desk.answer("DATA", replies)
        async with in_trouble(
            LMTPSink(tmp_path / "s", greylist_wait=0.01, **SETTINGS), lambda: "DATA" in desk.commands
        ):
            pass
    assert isinstance(desk, LocalDesk)
    assert taken(desk) == dict(zip(OPS, expected, strict=True))


@pytest.mark.parametrize("fault", ["exit 75", "exit 78", "cat >/dev/null; exit 69", "kill -9 $$", "exit 0"])
async def test_fault_of_the_command(tmp_path: Path, fault: str) -> None:
    """A command that fails, for whatever reason, or does not read its mail, gets it again."""
    # A mail that is larger than what a pipe holds: a digest would be cut.
    settings: dict[str, Any] = SETTINGS | {"digest": None}
    sink = SendmailSink(str(sendmail(tmp_path)), **settings)
    sink.setFormatter(logging.Formatter("%(message)s" + "x" * 200_000))
    (tmp_path / "fault").write_text(f"echo >> runs\n{fault}")
    async with in_trouble(sink, (tmp_path / "runs").exists, (tmp_path / "fault").unlink):
        pass
    assert len({parsed(path.read_bytes())["Message-ID"] for path in sent(tmp_path)}) == len(sent(tmp_path)) == 2


@pytest.fixture(scope="module")
def server() -> Iterator[Exim]:
    """Run a real exim."""
    with exim() as running:
        yield running


@pytest.mark.parametrize(
    ("local", "expected"), [("nobody", {"ops", "boss"}), ("later", {"ops", "boss"}), ("dropped", {"ops", "boss"})]
)
async def test_exim_has_some_recipients(server: Exim, local: str, expected: set[str]) -> None:
    """A real server, which takes pipelined commands, gets the mail once for those it will have."""
    to = ["ops@exim.test", f"{local}@exim.test", "boss@exim.test"]
    settings: dict[str, Any] = SETTINGS | {"to": to}
    before = server.count()
    sink = SMTPSink("127.0.0.1", server.port, greylist_wait=0.01, **settings)
    logger = logging.Logger("test.mail.exim")
    async with Pipeline(sink, logger=logger, shutdown_timeout=0.5) as pipeline:
        logger.error("broken %s", local)
        await until(lambda: server.count() > before)
        if local != "later":
            assert (await pipeline.flush(timeout=10)).sinks["mail"].delivered == 1
    mails = await asyncio.to_thread(server.mails, before + 1)
    ours = [mail for mail in mails if local in str(mail["Subject"])]
    assert len(ours) == 1
    assert set(str(ours[0]["Envelope-To"]).replace("@exim.test", "").split(", ")) == expected
