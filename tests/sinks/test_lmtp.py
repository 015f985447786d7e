"""`LMTPSink` against aiosmtpd's LMTP server, and scripted ones for what it does not do."""

from __future__ import annotations

import asyncio
import gc
import socket
from pathlib import Path
from typing import Any

import pytest

from helpers import batch_of
from mailservers import DROP, HOLD, lmtpd, parsed, scripted
from offloop import diagnostics
from offloop.errors import ConfigError, DeliveryError, PermanentFailure, SinkFailure, TemporaryFailure
from offloop.sinks.lmtp import LMTPSink

SETTINGS: dict[str, Any] = {"sender": "app@a.example", "to": ["ops@b.example", "boss@b.example"], "digest": None}


async def test_unix_socket(tmp_path: Path) -> None:
    """Mails go to a Unix socket, several over one connection, with the name that the server is told."""
    with lmtpd(tmp_path / "lmtp") as desk:
        sink = LMTPSink(tmp_path / "lmtp", **SETTINGS)
        await sink.open()
        first, second = batch_of(sink, "one"), batch_of(sink, "two")
        await sink.send(first)
        await sink.send(second)
        assert repr(sink) == f"<LMTPSink {tmp_path}/lmtp connected>"
        await sink.aclose()
    assert [name for name, _ in desk.delivered] == [
        f"<{batch.key}@a.example>" for batch in (first, first, second, second)
    ]
    assert desk.connections == 1
    assert not parsed(desk.mails[0]).defects


async def test_tcp() -> None:
    """With a port it is a host."""
    with lmtpd() as desk:
        sink = LMTPSink("127.0.0.1", desk.port, local_hostname="app.a.example", **SETTINGS)
        await sink.open()
        await sink.send(batch_of(sink, "one"))
        assert repr(sink) == f"<LMTPSink 127.0.0.1:{desk.port} connected>"
        await sink.aclose()
    assert len(desk.delivered) == 2


@pytest.mark.parametrize(
    ("replies", "failure", "match"),
    [
        ("550 no / 450 later", TemporaryFailure, "DATA for ops@b.example: .*550 no; .*DATA for boss@b.example: .*450"),
        ("550 no / 551 no", PermanentFailure, "550 no; .*551 no"),
        ("250 OK / 450 later", TemporaryFailure, "^[^;]*DATA for boss@b.example: the server said 450 later$"),
        (f"250 OK / {DROP}", TemporaryFailure, "^[^;]*DATA: the connection ended$"),
    ],
)
async def test_verdicts(replies: str, failure: type[DeliveryError], match: str) -> None:
    """What is said to each recipient decides; those who have the mail do not get it again."""
    with lmtpd() as desk:
        desk.answer("DATA", replies)
        sink = LMTPSink("127.0.0.1", desk.port, greylist_wait=9.0, **SETTINGS)
        await sink.open()
        batch = batch_of(sink, "broken")
        with pytest.raises(failure, match=match) as caught:
            await sink.send(batch)
        assert getattr(caught.value, "retry_after", None) == (9.0 if "450" in replies else None)
        taken = replies.count("250")
        assert len(desk.delivered) == taken
        await sink.send(batch)
        assert sorted(recipient for _, recipient in desk.delivered) == ["boss@b.example", "ops@b.example"]
        await sink.aclose()


async def test_one_refused_recipient_is_a_diagnostic(capsys: pytest.CaptureFixture[str]) -> None:
    """A mail that some recipients get is delivered; who does not get it is said on stderr."""
    with lmtpd() as desk:
        desk.answer("DATA", "250 OK / 550 mailbox is closed")
        sink = LMTPSink("127.0.0.1", desk.port, **SETTINGS)
        await sink.send(batch_of(sink, "broken"))
        await sink.aclose()
    diagnostics.flush(1.0)
    assert "DATA for boss@b.example: the server said 550 mailbox is closed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "greeting", "failure", "match"),
    [
        ({}, "421 busy", TemporaryFailure, "greeting: the server said 421 busy"),
        ({}, "554 no", SinkFailure, "greeting: the server said 554 no"),
        ({}, HOLD, TemporaryFailure, "greeting: Timed out: no answer for 0.2 s"),
        ({}, "nonsense", TemporaryFailure, "greeting: the server said what is no reply: nonsense"),
        ({}, "220 ok", TemporaryFailure, "LHLO: the connection ended"),
        ({"LHLO": HOLD}, "220 ok", TemporaryFailure, "LHLO: Timed out: no answer for 0.2 s"),
        ({"LHLO": "500 what"}, "220 ok", SinkFailure, "LHLO: the server said 500 what"),
        ({"LHLO": "250-" + "x" * 9_000}, "220 ok", TemporaryFailure, "LHLO: Timed out"),
        ({"LHLO": "250-" + "x" * 90_000}, "220 ok", TemporaryFailure, "LHLO: the server said too much at once"),
    ],
)
async def test_opening_fails_as_the_server_says(
    script: dict[str, str | bytes], greeting: str, failure: type[DeliveryError], match: str
) -> None:
    """What goes wrong before the first mail is the sink's failure where trying again would not help."""
    async with scripted(script, greeting) as port:
        sink = LMTPSink("127.0.0.1", port, send_timeout=0.2, **SETTINGS)
        with pytest.raises(failure, match=match):
            await sink.open()


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "."])
async def test_each_reply_has_a_timeout(step: str) -> None:
    """A server that does not answer fails the attempt at that step."""
    script: dict[str, str | bytes] = {"LHLO": "250 ok", "MAIL": "250 ok", "RCPT": "250 ok", "DATA": "354 go on"}
    script["."] = "250 only one answer"
    settings: dict[str, Any] = SETTINGS | ({} if step == "." else {"to": "ops@b.example"})
    async with scripted(script | ({} if step == "." else {step: HOLD})) as port:
        sink = LMTPSink("127.0.0.1", port, send_timeout=0.2, data_timeout=0.2, **settings)
        await sink.open()
        with pytest.raises(TemporaryFailure, match=f"{'DATA' if step == '.' else step}.*: Timed out: no answer"):
            await sink.send(batch_of(sink, "broken"))
        assert "not connected" in repr(sink)


async def test_mail_for_nobody_is_not_begun() -> None:
    """A server that wants a mail for nobody would answer to it as often as it has recipients, which is never."""
    offer = "250-fake\r\n250 PIPELINING"
    async with scripted({"LHLO": offer, "MAIL": "250 ok", "RCPT": "550 no", "DATA": "354 go on"}) as port:
        sink = LMTPSink("127.0.0.1", port, **SETTINGS)
        await sink.open()
        with pytest.raises(PermanentFailure, match="550 no"):
            await sink.send(batch_of(sink, "broken"))
        assert "not connected" in repr(sink)


async def test_nobody_listens(tmp_path: Path) -> None:
    """A socket that is not there, or on which nobody accepts, is a failure that is tried again, and says which."""
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/s: no connection .No such file or directory"):
        await LMTPSink(tmp_path / "s", **SETTINGS).open()
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(tmp_path / "s"))
        busy.listen(0)
        waiting: list[socket.socket] = []
        with pytest.raises(TimeoutError, match=r"no connection within 0\.2 s \(nobody accepts it\)"):
            while True:
                sink = LMTPSink(tmp_path / "s", connect_timeout=0.2, send_timeout=0.01, **SETTINGS)
                try:
                    await sink.open()
                except TemporaryFailure:
                    waiting.append(busy)
    assert waiting


async def test_open_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    """A server that accepts and says nothing sees the connection end at the deadline."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await LMTPSink(tmp_path / "s", **SETTINGS).open()
        accepted, _ = silent.accept()
        with accepted:
            assert await asyncio.to_thread(accepted.recv, 1) == b""
    gc.collect()


@pytest.mark.parametrize(
    ("where", "settings", "match"),
    [
        (
            ("mail.example",),
            {},
            "path_or_host: expected the path of a Unix socket, or a host with a port, got '",
        ),
        ((b"/run/lmtp",), {}, "path_or_host: expected the path of a Unix socket, .* got b'/run/lmtp'"),
        ((None,), {}, "path_or_host: expected the path of a Unix socket, .* got None"),
        (("/" + "x" * 107,), {}, "path_or_host: a Unix socket's path has at most 107 bytes"),
        (("a b", 24), {}, "path_or_host: expected a host name or an address, got 'a b'"),
        (("mail.example", 0), {}, "port must be between 1 and 65535, got 0"),
        (("/run/lmtp",), {"local_hostname": ""}, "local_hostname: expected a host name"),
        (("/run/lmtp",), {"connect_timeout": 0}, "connect_timeout must be at least 0.001 seconds"),
        (("/run/lmtp",), {"data_timeout": 0}, "data_timeout must be at least 0.001 seconds"),
        (("/run/lmtp",), {"send_timeout": 0}, "send_timeout must be at least 0.001 seconds"),
        (("/run/lmtp",), {"idle_timeout": -1}, "idle_timeout must be at least 0 seconds"),
        (("/run/lmtp",), {"greylist_wait": -1}, "greylist_wait must be at least 0 seconds"),
    ],
)
def test_settings_are_checked(where: tuple[Any, ...], settings: dict[str, Any], match: str) -> None:
    """What can't be used is refused at construction, by name and value."""
    with pytest.raises(ConfigError, match=f"LMTPSink: {match}"):
        LMTPSink(*where, **(SETTINGS | settings))
