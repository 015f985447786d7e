"""`SMTPSink` against aiosmtpd, exim, and scripted servers for what no real one does on demand."""

from __future__ import annotations

import asyncio
import base64
import gc
import logging
import socket
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from helpers import until
from mailservers import DROP, HOLD, Certificates, Desk, Exim, aiosmtpd, certificates, exim, parsed, scripted
from offloop import diagnostics
from offloop.capture import capture, restore
from offloop.errors import ConfigError, DeliveryError, PermanentFailure, SinkFailure, TemporaryFailure
from offloop.pipeline import Pipeline
from offloop.policies import Retry
from offloop.sink import Batch
from offloop.sinks.smtp import SMTPSink

LOGIN = ("app-user", "s3cret-pass")
OPEN = {
    "EHLO": "250 fake",
    "MAIL": "250 ok",
    "RCPT": "250 ok",
    "DATA": "354 go on",
    "QUIT": "221 bye",
    ".": "250 taken",
}


def batch_for(sink: SMTPSink, *messages: str) -> Batch:
    """Make a batch of errors with these messages."""
    values = [
        {"msg": message, "levelno": 40, "levelname": "ERROR", "name": "app"} for message in messages or ("broken",)
    ]
    return Batch([restore(capture(logging.makeLogRecord(value))) for value in values], sink)


@asynccontextmanager
async def sink_to(port: int, **settings: Any) -> AsyncIterator[SMTPSink]:
    """Make a sink for a server on loopback, open it, and close it at the end."""
    settings = {
        "sender": "app@a.example",
        "to": "ops@b.example",
        "connect_timeout": 5.0,
        "send_timeout": 10.0,
        "digest": None,
    } | settings
    sink = SMTPSink("127.0.0.1", port, **settings)
    try:
        await sink.open()
        yield sink
    finally:
        await sink.aclose()


@pytest.fixture
def desk() -> Iterator[Desk]:
    """Run a plain server."""
    with aiosmtpd() as running:
        yield running


@pytest.fixture(scope="session")
def certified() -> Certificates:
    """Make a certificate for 127.0.0.1 that the client trusts."""
    return certificates("127.0.0.1")


async def test_batch_is_one_mail(desk: Desk) -> None:
    """A batch arrives as one mail with all its records, to each recipient, under the batch's identity."""
    async with sink_to(desk.port, to=["ops@b.example", "Boss <boss@b.example>"]) as sink:
        batch = batch_for(sink, "first", "second")
        await sink.send(batch)
    (mail,) = map(parsed, desk.mails)
    assert desk.envelopes[0].rcpt_tos == ["ops@b.example", "boss@b.example"]
    assert desk.envelopes[0].mail_from == "app@a.example"
    assert mail["Message-ID"] == f"<{batch.key}@a.example>"
    assert mail["Subject"] == f"[{socket.gethostname()}] ERROR: first (and 1 more)"
    body = mail.get_body(("plain",))
    assert body is not None
    assert "Z ERROR app: first\n" in body.get_content().replace("\r\n", "\n")


async def test_periods_come_through(desk: Desk) -> None:
    """Lines that begin with a period arrive as they were."""
    formatter = logging.Formatter("%(message)s")
    async with sink_to(desk.port, html=False, formatter=formatter) as sink:
        await sink.send(batch_for(sink, ".", "..two", ".three"))
    assert parsed(desk.mails[0]).get_content().splitlines()[2:5] == [".", "..two", ".three"]


async def test_large_mail_arrives_whole(desk: Desk) -> None:
    """A mail of many chunks arrives as it was built."""
    async with sink_to(desk.port, max_bytes=20_000_000, html=False) as sink:
        await sink.send(batch_for(sink, *("x" * 2_000_000 for _ in range(2))))
    assert parsed(desk.mails[0]).get_content().count("x" * 2_000_000) == 2


async def test_connection_serves_two_batches(desk: Desk) -> None:
    """A connection is kept between batches, and `repr` says that it stands."""
    async with sink_to(desk.port) as sink:
        await sink.send(batch_for(sink))
        await sink.send(batch_for(sink))
        assert repr(sink) == f"<SMTPSink 127.0.0.1:{desk.port} connected>"
    assert repr(sink) == f"<SMTPSink 127.0.0.1:{desk.port} not connected>"
    assert (len(desk.mails), desk.connections) == (2, 1)


async def test_idle_connection_is_dropped(desk: Desk) -> None:
    """A connection that was idle for long enough is let go of, and the next batch makes a new one."""
    async with sink_to(desk.port, idle_timeout=0) as sink:
        await sink.send(batch_for(sink))
        assert await asyncio.to_thread(desk.lost.acquire, timeout=10)
        assert "not connected" in repr(sink)
        await sink.send(batch_for(sink))
    assert (len(desk.mails), desk.connections) == (2, 2)


async def test_connection_that_ended_meanwhile_is_made_anew(desk: Desk) -> None:
    """A server that hangs up between two batches costs no failure."""
    async with sink_to(desk.port) as sink:
        await sink.send(batch_for(sink))
        desk.hang_up()
        await until(lambda: "not connected" in repr(sink))
        await sink.send(batch_for(sink))
    assert (len(desk.mails), desk.connections) == (2, 2)


async def test_connection_that_ended_is_let_go_of_when_idle(desk: Desk) -> None:
    """A server that hangs up before the idle time is over harms nothing."""
    async with sink_to(desk.port, idle_timeout=0.2) as sink:
        await sink.send(batch_for(sink))
        desk.hang_up()
        await until(lambda: "not connected" in repr(sink))
        await until(lambda: sink._session is None)
    assert len(desk.mails) == 1


@pytest.mark.parametrize("reply", [DROP, "421 restarting"])
async def test_kept_connection_that_died_is_made_anew(desk: Desk, reply: str) -> None:
    """A kept connection that ends before it had the mail costs no failure."""
    async with sink_to(desk.port) as sink:
        await sink.send(batch_for(sink))
        desk.answer("MAIL", reply)
        await sink.send(batch_for(sink))
    assert (len(desk.mails), desk.connections) == (2, 2)


async def test_starttls_where_offered(certified: Certificates) -> None:
    """By default a mail goes encrypted where the server can do that."""
    with aiosmtpd(tls_context=certified.server, require_starttls=True) as desk:
        async with sink_to(desk.port, tls_context=certified.client) as sink:
            await sink.send(batch_for(sink))
            await sink.send(batch_for(sink))
    assert (len(desk.mails), desk.connections) == (2, 1)


async def test_implicit_tls_with_login(certified: Certificates) -> None:
    """TLS from the first byte, then AUTH."""
    with aiosmtpd(ssl_context=certified.server, login=LOGIN) as desk:
        desk_settings = {"tls": "implicit", "tls_context": certified.client}
        async with sink_to(desk.port, username=LOGIN[0], password=LOGIN[1], **desk_settings) as sink:
            await sink.send(batch_for(sink))
    assert desk.logged_in == [True]


async def test_starttls_with_login(certified: Certificates) -> None:
    """STARTTLS, then AUTH, over one connection."""
    with aiosmtpd(tls_context=certified.server, login=LOGIN, auth_required=True) as desk:
        async with sink_to(
            desk.port, username=LOGIN[0], password=LOGIN[1], tls="starttls", tls_context=certified.client
        ) as sink:
            await sink.send(batch_for(sink))
    assert desk.logged_in == [True]


async def test_idle_tls_connection_is_dropped(certified: Certificates) -> None:
    """A connection with TLS that is let go of leaves nothing behind, however far its closing is."""
    with aiosmtpd(tls_context=certified.server) as desk:
        async with sink_to(desk.port, tls_context=certified.client, idle_timeout=0) as sink:
            for _ in range(2):
                await sink.send(batch_for(sink))
                assert await asyncio.to_thread(desk.lost.acquire, timeout=10)
            await sink.send(batch_for(sink))
            await until(lambda: sink._session is None)
    assert (len(desk.mails), desk.connections) == (3, 3)


async def test_wrong_password_is_the_sinks_failure(certified: Certificates) -> None:
    """A refused password keeps the records, and appears in no text."""
    with aiosmtpd(tls_context=certified.server, login=LOGIN) as desk:
        with pytest.raises(SinkFailure, match="AUTH: the server said 535") as caught:
            async with sink_to(desk.port, username="app-user", password="wr0ng-pass", tls_context=certified.client):
                pass
        assert await asyncio.to_thread(desk.lost.acquire, timeout=10)
    assert "wr0ng" not in repr(caught.value)


async def test_password_does_not_go_in_the_clear(desk: Desk) -> None:
    """Where no STARTTLS is offered, a password is not sent."""
    with pytest.raises(SinkFailure, match="offers no STARTTLS, and a password does not go without TLS"):
        async with sink_to(desk.port, username="u", password="p"):
            pass
    with pytest.raises(SinkFailure, match="offers no STARTTLS, and tls='starttls'"):
        async with sink_to(desk.port, tls="starttls"):
            pass


@pytest.mark.parametrize("tls", ["auto", "starttls", "implicit"])
async def test_unknown_certificate_is_the_sinks_failure(certified: Certificates, tls: str) -> None:
    """A certificate of an unknown authority is not accepted in any mode."""
    server: dict[str, Any] = (
        {"ssl_context": certified.server} if tls == "implicit" else {"tls_context": certified.server}
    )
    with aiosmtpd(**server) as desk, pytest.raises(SinkFailure, match=r"TLS failed: .*(certificate|issuer)"):
        async with sink_to(desk.port, tls=tls):
            pass


async def test_name_in_the_certificate_is_verified() -> None:
    """A certificate for another name is not accepted."""
    other = certificates("mail.b.example")
    with aiosmtpd(tls_context=other.server) as desk, pytest.raises(SinkFailure, match=r"TLS failed: .*127\.0\.0\.1"):
        async with sink_to(desk.port, tls_context=other.client):
            pass


async def test_tls_off_stays_in_the_clear(certified: Certificates) -> None:
    """With `tls="off"` an offered STARTTLS is left alone."""
    with aiosmtpd(tls_context=certified.server) as desk:
        async with sink_to(desk.port, tls="off") as sink:
            await sink.send(batch_for(sink))
    assert desk.envelopes


@pytest.mark.parametrize(
    ("command", "reply", "failure"),
    [
        ("MAIL", "450 later", TemporaryFailure),
        ("MAIL", "550 not you", SinkFailure),
        ("MAIL", "552 too large", PermanentFailure),
        ("MAIL", "530 authenticate first", SinkFailure),
        ("MAIL", "421 restarting", TemporaryFailure),
        ("RCPT", "450 greylisted", TemporaryFailure),
        ("RCPT", "550 no such user", PermanentFailure),
        ("RCPT", "530 authenticate first", SinkFailure),
        ("RCPT", "421 restarting", TemporaryFailure),
        ("DATA", "451 later", TemporaryFailure),
        ("DATA", "554 poison", PermanentFailure),
        ("DATA", "421 restarting", TemporaryFailure),
        ("MAIL", DROP, TemporaryFailure),
        ("RCPT", DROP, TemporaryFailure),
        ("DATA", DROP, TemporaryFailure),
    ],
)
async def test_refusal_tells_whose_fault_it_is(
    desk: Desk, command: str, reply: str, failure: type[DeliveryError]
) -> None:
    """Each reply at each step says whether to come again, give up the mail, or give up the sink; the next try works."""
    desk.answer(command, reply)
    async with sink_to(desk.port) as sink:
        batch = batch_for(sink)
        with pytest.raises(failure, match=f"{command}.*: {'' if reply == DROP else 'the server said ' + reply}"):
            await sink.send(batch)
        await sink.open()
        await sink.send(batch)
        assert parsed(desk.mails[-1])["Message-ID"] == f"<{batch.key}@a.example>"


async def test_one_refused_recipient_is_a_diagnostic(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """A mail that some recipients get is delivered; who does not get it is said on stderr."""
    async with sink_to(desk.port, to=["a@b.example", "gone@b.example", "c@b.example"]) as sink:
        desk.answer("RCPT", "250 ok", "550 no such user")
        await sink.send(batch_for(sink))
    diagnostics.flush(1.0)
    assert len(desk.mails) == 1
    assert "a recipient was refused: " in (said := capsys.readouterr().err)
    assert "RCPT gone@b.example: the server said 550 no such user" in said


async def test_all_refused_but_one_for_now_is_temporary(desk: Desk) -> None:
    """Where nobody gets the mail and one of them may later, it is tried again."""
    async with sink_to(desk.port, to=["a@b.example", "c@b.example"]) as sink:
        desk.answer("RCPT", "550 no such user", "450 greylisted")
        with pytest.raises(TemporaryFailure, match=r"550 no such user.*; .*450 greylisted"):
            await sink.send(batch_for(sink))


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
async def test_slow_server_is_left_at_the_deadline(desk: Desk, command: str) -> None:
    """A send that is cancelled drops its connection, and the next `open` works though the server still thinks."""
    desk.answer(command, HOLD)
    async with sink_to(desk.port) as sink:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await sink.send(batch_for(sink))
        assert "not connected" in repr(sink)
        assert await asyncio.to_thread(desk.lost.acquire, timeout=10)
        await sink.open()
        await sink.send(batch_for(sink))
    assert desk.mails


@pytest.mark.parametrize(
    ("step", "script"),
    [
        ("greeting", {}),
        ("EHLO", {"EHLO": HOLD}),
        ("STARTTLS", {"EHLO": "250-fake\r\n250 STARTTLS", "STARTTLS": HOLD}),
        ("STARTTLS", {"EHLO": "250-fake\r\n250 STARTTLS", "STARTTLS": "220 go", "*": HOLD}),  # and then no handshake
        ("MAIL", {"MAIL": HOLD}),
        ("RCPT", {"RCPT": HOLD}),
        ("DATA", {"DATA": HOLD}),
    ],
)
async def test_each_reply_has_the_sinks_timeout(step: str, script: dict[str, str | bytes]) -> None:
    """A server that does not answer within `send_timeout` fails the attempt at that step."""
    greeting = HOLD if step == "greeting" else "220 fake"
    with pytest.raises(TemporaryFailure, match=f"{step}.*: .*([Tt]imed out|aborted while upgrading)"):
        async with scripted(OPEN | script, greeting) as port, sink_to(port, send_timeout=0.2) as sink:
            await sink.send(batch_for(sink))


async def test_server_that_stops_reading_is_left() -> None:
    """A server that reads no more of a mail for `send_timeout` fails the attempt."""
    async with (
        scripted(OPEN | {".": HOLD}) as port,
        sink_to(port, send_timeout=3.0, max_bytes=20_000_000, html=False) as sink,
    ):
        with pytest.raises(TemporaryFailure, match="DATA: Timed out: the server read nothing for 3 s"):
            await sink.send(batch_for(sink, *("x" * 1_000_000 for _ in range(6))))


async def test_answer_to_the_mail_has_a_timeout_of_its_own(desk: Desk) -> None:
    """A server that does not answer to a whole mail within `data_timeout` fails the attempt."""
    desk.answer("DATA", HOLD)
    async with sink_to(desk.port, data_timeout=0.1) as sink:
        with pytest.raises(TemporaryFailure, match=r"DATA: Timed out: no answer to the mail for 0\.1 s"):
            await sink.send(batch_for(sink))


async def test_late_answer_is_one_mail(desk: Desk) -> None:
    """Behind a pipeline a server that takes longer than `send_timeout` over a whole mail gets it once."""
    logger = logging.Logger("test.smtp.late")
    desk.answer("DATA", HOLD)
    settings: dict[str, Any] = {"sender": "a@b.example", "to": "c@d.example", "retry": Retry(0, 0), "name": "mail"}
    sink = SMTPSink("127.0.0.1", desk.port, send_timeout=0.2, **settings)
    async with Pipeline(sink, logger=logger) as pipeline:
        logger.error("broken")
        await until(lambda: "DATA" in desk.commands)
        asyncio.get_running_loop().call_later(0.5, desk.release.set)
        report = await pipeline.flush(timeout=10)
    assert report.sinks["mail"].delivered == 1
    assert desk.commands.count("DATA") == len(desk.mails) == 1


async def test_formatter_that_hangs_is_left(desk: Desk) -> None:
    """A mail that is not built within `send_timeout` fails the attempt."""
    go = threading.Event()

    class Hung(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            go.wait(10)
            return super().format(record)

    async with sink_to(desk.port, formatter=Hung(), send_timeout=0.2) as sink:
        with pytest.raises(TemporaryFailure, match=r"the mail was not built in 0\.2 s"):
            await sink.send(batch_for(sink))
        go.set()


async def test_open_that_is_cancelled_leaves_nothing() -> None:
    """A server that accepts and says nothing sees the connection end at the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), sink_to(silent.getsockname()[1]):
                pass
        accepted, _ = silent.accept()
        with accepted:
            assert await asyncio.to_thread(accepted.recv, 1) == b""
    gc.collect()


async def test_open_that_is_cancelled_after_the_handshake_leaves_nothing(certified: Certificates) -> None:
    """A server that says nothing after the TLS handshake sees the connection end at the deadline."""
    ended = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read()
        writer.transport.abort()
        ended.set()

    async with await asyncio.start_server(wait, "127.0.0.1", 0, ssl=certified.server) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                port = server.sockets[0].getsockname()[1]
                async with sink_to(port, tls="implicit", tls_context=certified.client):
                    pass
        await ended.wait()
        await asyncio.sleep(0)
    gc.collect()


async def test_late_attempt_does_not_touch_a_newer_one(desk: Desk) -> None:
    """Two openings at once leave one connection: that of the later one."""
    async with sink_to(desk.port) as sink:
        first, second = await asyncio.gather(sink.open(), sink.open(), return_exceptions=True)
        assert isinstance(first, TemporaryFailure)
        assert second is None
        await sink.send(batch_for(sink))
    assert len(desk.mails) == 1


async def test_given_up_send_does_not_make_a_connection(desk: Desk) -> None:
    """A send whose kept connection is replaced under it fails, and leaves the new connection alone."""
    async with sink_to(desk.port) as sink:
        await sink.send(batch_for(sink))
        desk.answer("MAIL", HOLD)
        stale = asyncio.ensure_future(sink.send(batch_for(sink)))
        await until(lambda: desk.commands.count("MAIL") == 2)
        await sink.open()
        with pytest.raises(TemporaryFailure, match="MAIL: "):
            await stale
        await sink.send(batch_for(sink))
    assert (len(desk.mails), desk.connections) == (2, 2)


@pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning")
def test_works_in_another_loop(desk: Desk) -> None:
    """A sink that was not closed in its first loop opens in the next."""
    sink = SMTPSink("127.0.0.1", desk.port, sender="app@a.example", to="ops@b.example")

    async def deliver(*, close: bool) -> None:
        await sink.open()
        await sink.send(batch_for(sink))
        if close:
            await sink.aclose()
            await sink.aclose()

    asyncio.run(deliver(close=False))
    assert "not connected" in repr(sink)
    asyncio.run(deliver(close=True))
    gc.collect()  # the transport of the first loop, which nobody could close
    assert (len(desk.mails), desk.connections) == (2, 2)


def test_closes_in_another_loop(desk: Desk) -> None:
    """A sink may be closed while the loop it was opened in stands still."""
    sink = SMTPSink("127.0.0.1", desk.port, sender="app@a.example", to="ops@b.example")
    with asyncio.Runner() as first:
        first.run(sink.open())
        with asyncio.Runner() as second:
            second.run(sink.aclose())
    assert desk.lost.acquire(timeout=10)


async def test_limit_of_the_server_counts() -> None:
    """A mail is cut to the SIZE that a server announces, and says so."""
    with aiosmtpd(data_size_limit=30_000) as desk:
        async with sink_to(desk.port) as sink:
            await sink.send(batch_for(sink, *("x" * 1_000 for _ in range(100))))
    assert 20_000 < len(desk.mails[0]) <= 30_000
    assert b"left out here, the mail is full" in desk.mails[0]
    assert desk.envelopes[0].mail_options == [f"SIZE={len(desk.mails[0])}"]


async def test_names_are_not_looked_up_on_the_loop(desk: Desk) -> None:
    """From construction to the mail no name is looked up on the loop's thread."""
    asked: list[tuple[bool, object]] = []
    watching, loop_thread = True, threading.get_ident()

    def watch(event: str, args: tuple[object, ...]) -> None:
        if watching and event in {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}:
            asked.append((threading.get_ident() == loop_thread, args[0]))

    sys.addaudithook(watch)
    sink = SMTPSink("localhost", desk.port, sender="app@a.example", to="ops@b.example")
    await sink.open()
    await sink.send(batch_for(sink))
    await sink.aclose()
    watching = False
    assert len(desk.mails) == 1
    assert (False, "localhost") in asked
    # As bytes: whether it is an address in numbers, which asks nobody.
    assert {host for on_loop, host in asked if on_loop} <= {b"localhost"}


@pytest.mark.parametrize(
    ("replies", "failure", "match"),
    [
        ({"EHLO": "500 what", "HELO": "502 no"}, SinkFailure, "EHLO: the server said 502"),
        ({"EHLO": "250-fake\r\n250 STARTTLS", "STARTTLS": "454 not now"}, TemporaryFailure, "STARTTLS: .* 454"),
        ({"EHLO": "250-fake\r\n250 STARTTLS", "STARTTLS": "501 no"}, SinkFailure, "STARTTLS: the server said 501"),
        ({"EHLO": "250-fake\r\n250 STARTTLS", "STARTTLS": "220 go"}, TemporaryFailure, "STARTTLS: "),
        ({"EHLO": "550 not you"}, SinkFailure, "EHLO: the server said 550"),
        ({}, TemporaryFailure, "EHLO: "),
        ({"EHLO": "nonsense"}, TemporaryFailure, "EHLO: the server said -1 Malformed"),
    ],
)
async def test_opening_fails_as_the_server_says(
    replies: dict[str, str | bytes], failure: type[DeliveryError], match: str
) -> None:
    """What goes wrong before the first mail is the sink's failure where trying again would not help."""
    async with scripted(replies) as port:
        with pytest.raises(failure, match=match):
            async with sink_to(port):
                pass


@pytest.mark.parametrize(("greeting", "failure"), [("554 no", SinkFailure), ("421 busy", TemporaryFailure)])
async def test_greeting_may_refuse(greeting: str, failure: type[DeliveryError]) -> None:
    """A server may refuse us for now or for good before anything was said."""
    async with scripted(OPEN, greeting) as port:
        with pytest.raises(failure, match=f"greeting: the server said {greeting}"):
            async with sink_to(port):
                pass


async def test_implicit_tls_to_a_plain_server(desk: Desk) -> None:
    """TLS with a server that has none is a failure of the sink's settings."""
    with pytest.raises(SinkFailure, match="greeting: TLS failed"):
        async with sink_to(desk.port, tls="implicit"):
            pass


async def test_peer_that_hangs_up_in_the_handshake() -> None:
    """A connection that ends during the handshake is tried again."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        with pytest.raises(TemporaryFailure, match="greeting: "):
            async with sink_to(server.sockets[0].getsockname()[1], tls="implicit"):
                pass


async def test_data_refused_before_the_mail() -> None:
    """A server that refuses DATA refuses the mail, and it is not written."""
    async with scripted(OPEN | {"DATA": "554 no valid mail"}) as port, sink_to(port) as sink:
        with pytest.raises(PermanentFailure, match="DATA: the server said 554 no valid mail"):
            await sink.send(batch_for(sink))


async def test_refusal_while_the_mail_is_written() -> None:
    """A server that refuses before it read the mail is heard."""
    async with scripted(OPEN | {"early": "552 enough"}) as port, sink_to(port) as sink:
        with pytest.raises(PermanentFailure, match="DATA: the server said 552 enough"):
            await sink.send(batch_for(sink, *("x" * 2_000 for _ in range(300))))


async def test_password_in_a_reply_is_masked(certified: Certificates) -> None:
    """A server that repeats the AUTH command does not bring the password into an error."""
    offer = "250-fake\r\n250 AUTH PLAIN LOGIN"
    plain = base64.b64encode(b"\0app-user\0s3cret-pass").decode()
    replies: dict[str, str | bytes] = {"EHLO": offer, "AUTH": "535 no such: {line} s3cret-pass" + "!" * 500}
    async with scripted(replies, context=certified.server) as port:
        settings = {"tls": "implicit", "tls_context": certified.client}
        with pytest.raises(SinkFailure, match=r"AUTH: the server said 535 no such: AUTH \S+ \*\*\* \*\*\*") as caught:
            async with sink_to(port, username=LOGIN[0], password=LOGIN[1], **settings):
                pass
    assert caught.value.__cause__ is None
    assert plain not in str(caught.value)
    assert LOGIN[1] not in str(caught.value)
    assert len(str(caught.value)) < 400


async def test_server_without_auth_is_the_sinks_failure(certified: Certificates) -> None:
    """A password for a server that has no AUTH is a wrong setting."""
    settings: dict[str, Any] = {"tls": "implicit", "tls_context": certified.client}
    with aiosmtpd(ssl_context=certified.server, auth_exclude_mechanism=["LOGIN", "PLAIN"], login=LOGIN) as desk:
        with pytest.raises(SinkFailure, match="AUTH: "):
            async with sink_to(desk.port, username="u", password="p", **settings):
                pass
        assert await asyncio.to_thread(desk.lost.acquire, timeout=10)


async def test_nobody_listens() -> None:
    """A server that is away is a failure that is tried again."""
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        async with sink_to(port):
            pass


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"host": ""}, "host: expected a host name"),
        ({"host": "a\r\nb"}, "host: expected a host name"),
        ({"port": 0}, "port must be between 1 and 65535, got 0"),
        ({"port": "25"}, "port must be between 1 and 65535, got '25'"),
        ({"sender": "app"}, "sender: expected an address"),
        ({"sender": None}, "sender: expected an address like .*, got None"),
        ({"to": None}, "to: expected an address like .*, or a list of them, got None"),
        ({"to": b"ops@b.example"}, "to: expected an address like .*, got b'ops@b.example'"),
        ({"to": [None]}, "to: expected an address like .*, got None"),
        ({"username": 1, "password": "s3cret"}, "username must be text, got an object of class int"),
        ({"username": "u", "password": b"s3cret"}, "password must be text, got an object of class bytes: decode it"),
        ({"batching": None}, r"batching must be of class Batching, as in batching=Batching\(\.\.\.\), .* got None"),
        ({"to": []}, "to must have at least 1 address"),
        ({"to": ["a@b.example", "x\n@b.example"]}, "to: expected an address"),
        ({"subject": "{x}"}, "subject: expected text"),
        ({"tls": "maybe"}, "tls must be one of 'auto', 'starttls', 'implicit', 'off', got 'maybe'"),
        ({"username": "u"}, "username and password go together, got only the username"),
        ({"password": "s3cret"}, "username and password go together, got only the password"),
        ({"username": "u", "password": "s3cret", "tls": "off"}, "a password never goes over a connection without TLS"),
        ({"tls_context": ssl.create_default_context(), "tls": "off"}, "tls_context: nothing is verified"),
        ({"local_hostname": "a b"}, "local_hostname: expected a host name"),
        ({"connect_timeout": 0}, "connect_timeout must be at least 0.001 seconds"),
        ({"send_timeout": 0}, "send_timeout must be at least 0.001 seconds"),
        ({"data_timeout": None}, "data_timeout must be at least 0.001 seconds, got None"),
        ({"idle_timeout": -1}, "idle_timeout must be at least 0 seconds"),
        ({"max_bytes": 10}, "max_bytes must be at least 16384 bytes"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], match: str) -> None:
    """What can't be used is refused at construction, by name and value, and without the password."""
    settings = {"host": "mail.example", "sender": "a@b.example", "to": "c@d.example"} | settings
    with pytest.raises(ConfigError, match=f"SMTPSink: {match}") as caught:
        SMTPSink(**settings)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("context", ["ca.pem", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)])
def test_context_for_tls_is_checked(context: Any) -> None:
    """Only a client's context can verify a server."""
    with pytest.raises(ConfigError, match="tls must be"):
        SMTPSink("mail.example", sender="a@b.example", to="c@d.example", tls_context=context)


def test_repr_and_fields_keep_the_secret() -> None:
    """Neither `repr` nor what it is made of shows who logs in."""
    settings: dict[str, Any] = {
        "sender": "a@b.example",
        "to": "c@d.example",
        "username": LOGIN[0],
        "password": LOGIN[1],
    }
    sink = SMTPSink("mail.example", 465, local_hostname="app.example", **settings)
    assert repr(sink) == "<SMTPSink mail.example:465 not connected>"
    assert not any(secret in repr(vars(sink)) for secret in LOGIN)


async def test_pipeline_mails_until_it_is_taken(desk: Desk) -> None:
    """Behind a pipeline a mail that is refused for now, or cut off, comes again until it is taken."""
    logger = logging.getLogger("test.smtp.pipeline")
    logger.propagate = False
    desk.answer("DATA", "451 later", DROP)
    sink = SMTPSink(
        "127.0.0.1",
        desk.port,
        sender="a@b.example",
        to="c@d.example",
        level="ERROR",
        retry=Retry(0, 0),
        name="mail",
        greylist_wait=0,
    )
    async with Pipeline(sink, logger=logger) as pipeline:
        logger.warning("not for a mailbox")
        try:
            _ = {}["missing"]
        except KeyError:
            logger.exception("broken")
        report = await pipeline.flush(timeout=10)
    (mail,) = map(parsed, desk.mails)
    body = mail.get_body(("plain",))
    assert body is not None
    assert "KeyError: 'missing'" in body.get_content()
    assert "KeyError in test_smtp.py: 'missing'" in mail["Subject"]
    assert report.sinks["mail"].delivered == 1


@pytest.fixture(scope="module")
def server() -> Iterator[Exim]:
    """Run a real exim."""
    with exim() as running:
        yield running


async def test_exim_delivers(server: Exim) -> None:
    """A real server takes a mail and puts it into a mailbox as it was."""
    async with sink_to(server.port, to=["ops@exim.test", "nobody@exim.test"], subject="{message}") as sink:
        batch = batch_for(sink, "gr\u00fc\u00dfe", "b")
        await sink.send(batch)
    (mail,) = await asyncio.to_thread(server.mails, 1)
    assert mail["Message-ID"] == f"<{batch.key}@a.example>"
    assert mail["Subject"] == "gr\u00fc\u00dfe"
    assert not mail.defects


@pytest.mark.parametrize(
    ("to", "message", "failure"),
    [
        ("later@exim.test", "x", TemporaryFailure),
        ("nobody@exim.test", "x", PermanentFailure),
        ("dropped@exim.test", "x", PermanentFailure),
        ("ops@exim.test", "poison", PermanentFailure),
        ("ops@exim.test", "busy", TemporaryFailure),
        ("ops@exim.test", "enough", PermanentFailure),
    ],
)
async def test_exim_refuses(server: Exim, to: str, message: str, failure: type[DeliveryError]) -> None:
    """What a real server's rules refuse, for now or for good, is told apart, also where it hangs up with it."""
    async with sink_to(server.port, to=to, subject="{message}") as sink:
        with pytest.raises(failure):
            await sink.send(batch_for(sink, message))
        await sink.open()
