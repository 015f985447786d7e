"""`SMTPSink` with what some servers offer: PIPELINING, SMTPUTF8, tokens; and with several servers."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from helpers import batch_of
from mailservers import HOLD, Certificates, Desk, Exim, TokenDesk, aiosmtpd, certificates, exim, parsed, scripted
from offloop import diagnostics
from offloop.errors import ConfigError, DeliveryError, PermanentFailure, SinkFailure, TemporaryFailure
from offloop.pipeline import Pipeline
from offloop.policies import Retry
from offloop.sinks.smtp import SMTPSink
from offloop.testing import FaultProxy

SETTINGS: dict[str, Any] = {"sender": "app@a.example", "to": "ops@b.example", "digest": None}
OFFER = "250-fake\r\n250 PIPELINING"


@asynccontextmanager
async def sink_to(port: int, **settings: Any) -> AsyncIterator[SMTPSink]:
    """Make a sink for a server on loopback, open it, and close it at the end."""
    sink = SMTPSink("127.0.0.1", port, **(SETTINGS | settings))
    try:
        await sink.open()
        yield sink
    finally:
        await sink.aclose()
        await gone()


async def gone() -> None:
    """Let go of what was aborted, which takes asyncio some turns: a server in a `with` is waited for by no turns."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
def certified() -> Certificates:
    """Make a certificate for 127.0.0.1 that the client trusts."""
    return certificates("127.0.0.1")


# -- PIPELINING ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def waiting(*answers: str) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answer nothing before DATA is there too, then all at once; gives the port, and what came after that."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            writer.write(b"220 fake\r\n")
            await reader.readline()
            writer.write(f"{OFFER}\r\n".encode())
            for answer in answers:
                seen.append(await reader.readuntil(b"\r\nDATA\r\n"))
                writer.write(answer.replace("\n", "\r\n").encode())
                if "354" in answer:
                    ended = b".\r\n" if "250 \n354" not in answer else b"\r\n.\r\n"
                    seen.append(await reader.readuntil(ended))
                    writer.write(b"250 taken\r\n" if ended != b".\r\n" else b"554 no valid recipients\r\n")
            await reader.readline()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], seen


async def test_commands_go_in_one_write() -> None:
    """MAIL, RCPT and DATA are there before the first of them is answered."""
    async with (
        waiting("250 \n250 \n250 \n354 \n") as (port, seen),
        sink_to(port, to=["a@b.example", "c@d.example"]) as sink,
    ):
        await sink.send(batch_of(sink, "broken"))
    commands = [line.partition(b":")[0] for line in seen[0].splitlines()]
    assert commands == [b"MAIL FROM", b"RCPT TO", b"RCPT TO", b"DATA"]
    assert seen[1].endswith(b"\r\n.\r\n")


@pytest.mark.parametrize(
    ("answer", "failure", "match"),
    [
        ("250 \n550 nobody\n550 nobody\n354 \n", PermanentFailure, "RCPT a@b.example: .*550.*; .*RCPT c@d.example"),
        ("250 \n450 later\n550 nobody\n354 \n", TemporaryFailure, "RCPT a@b.example: .*450"),
        ("550 not you\n503 what\n503 what\n354 \n", SinkFailure, "MAIL: .*550 not you"),
        ("250 \n550 nobody\n450 later\n503 no\n", TemporaryFailure, "450 later"),
        ("552 too large\n503 what\n503 what\n503 what\n", PermanentFailure, "MAIL: .*552"),
        ("250 \n250 \n250 \n451 no room\n", TemporaryFailure, "DATA: .*451"),
    ],
)
async def test_pipelined_refusal(answer: str, failure: type[DeliveryError], match: str) -> None:
    """Each refusal means what it means without pipelining; a mail for nobody is ended, and the connection goes on."""
    two = {"to": ["a@b.example", "c@d.example"]}
    async with waiting(answer, "250 \n250 \n250 \n250 \n354 \n") as (port, seen), sink_to(port, **two) as sink:
        with pytest.raises(failure, match=match):
            await sink.send(batch_of(sink, "broken"))
        await sink.send(batch_of(sink, "mended"))
    assert seen.count(b".\r\n") == ("354" in answer)
    assert seen[-2].startswith(b"RSET\r\nMAIL")
    assert b"mended" in seen[-1]


async def test_server_that_refuses_and_hangs_up() -> None:
    """What was refused before the connection ended is refused, and the rest is tried again."""
    two = {"to": ["a@b.example", "c@d.example"]}
    async with scripted({"EHLO": OFFER, "MAIL": "250 ok", "RCPT": "550 gone"}) as port, sink_to(port, **two) as sink:
        with pytest.raises(PermanentFailure, match="RCPT a@b.example: .*550 gone"):
            await sink.send(batch_of(sink, "broken"))
    async with scripted({"EHLO": OFFER, "MAIL": "550 gone"}) as port, sink_to(port, **two) as sink:
        with pytest.raises(SinkFailure, match="MAIL: .*550 gone"):
            await sink.send(batch_of(sink, "broken"))


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA"])
async def test_each_pipelined_reply_has_a_timeout(step: str) -> None:
    """A server that leaves one of several commands unanswered fails the attempt at that step."""
    steps = ["MAIL", "RCPT", "DATA"]
    script: dict[str, str | bytes] = {"EHLO": OFFER}
    script |= {name: "250 ok" if steps.index(name) < steps.index(step) else HOLD for name in steps}
    async with scripted(script) as port, sink_to(port, send_timeout=0.2) as sink:
        with pytest.raises(TemporaryFailure, match=f"{step}.*: Timed out: no answer for 0.2 s"):
            await sink.send(batch_of(sink, "broken"))
        assert "not connected" in repr(sink)


async def test_unasked_reply_ends_the_connection() -> None:
    """What a server says while nobody asked, it says before it leaves: another connection is made."""
    with aiosmtpd() as desk:
        async with sink_to(desk.port) as sink:
            await sink.send(batch_of(sink, "first"))
            assert sink._session is not None
            sink._session._line.data_received(b"421 4.4.2 idle for too long\r\n")
            await sink.send(batch_of(sink, "second"))
    assert (len(desk.mails), desk.connections) == (2, 2)


@pytest.fixture(scope="module")
def server() -> Iterator[Exim]:
    """Run a real exim."""
    with exim() as running:
        yield running


async def test_exim_takes_pipelined_mails(server: Exim) -> None:
    """A real server takes one mail after another in few writes, refusals and all, over one connection."""
    async with sink_to(server.port, to=["ops@exim.test", "nobody@exim.test"]) as sink:
        assert sink._session is not None
        assert "pipelining" in sink._session._extensions
        first = sink._session
        for number in range(3):
            await sink.send(batch_of(sink, f"mail {number}"))
        assert sink._session is first
    assert len(await asyncio.to_thread(server.mails, 3)) == 3


# -- SMTPUTF8 --------------------------------------------------------------------------------------------------------


async def test_address_in_any_script() -> None:
    """Where the server offers SMTPUTF8, what stands before an @ may be in any script, in header and envelope."""
    with aiosmtpd() as desk:
        async with sink_to(desk.port, to=["J\u00fcrgen <j\u00fcrgen@b\u00fccher.example>", "c@d.example"]) as sink:
            await sink.send(batch_of(sink, "broken"))
    assert desk.envelopes[0].rcpt_tos == ["j\u00fcrgen@xn--bcher-kva.example", "c@d.example"]
    assert desk.envelopes[0].smtp_utf8
    assert desk.envelopes[0].mail_options[1:] == ["SMTPUTF8", "BODY=8BITMIME"]
    assert "j\u00fcrgen@xn--bcher-kva.example".encode() in desk.mails[0]
    assert not parsed(desk.mails[0]).defects


async def test_address_that_the_server_can_not_take() -> None:
    """Where it offers none, the sink says so and keeps the records; a plain address needs none, and asks for none."""
    with aiosmtpd(enable_SMTPUTF8=False) as desk:
        async with sink_to(desk.port, sender="\u00fc@a.example") as sink:
            with pytest.raises(SinkFailure, match="not ASCII needs SMTPUTF8, which the server does not offer"):
                await sink.send(batch_of(sink, "broken"))
        async with sink_to(desk.port) as sink:
            await sink.send(batch_of(sink, "gr\u00fc\u00dfe"))
    assert "SMTPUTF8" not in str(desk.envelopes[0].mail_options)


# -- tokens ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def authorized(
    certified: Certificates, token: Callable[[], Any], *good: str, exclude: tuple[str, ...] = (), **settings: Any
) -> AsyncIterator[tuple[SMTPSink, TokenDesk]]:
    """Open a sink with a token function at a server that takes the `good` ones."""
    desk = TokenDesk(good=good)
    server = {"ssl_context": certified.server, "auth_require_tls": False, "auth_exclude_mechanism": exclude}
    with aiosmtpd(desk, **server):
        settings = {"username": "app=user", "tls": "implicit", "tls_context": certified.client} | settings
        sink = SMTPSink("127.0.0.1", desk.port, token=token, **(SETTINGS | settings))
        try:
            yield sink, desk
        finally:
            await sink.aclose()
            await gone()


async def given_later() -> str:
    await asyncio.sleep(0)
    return "t0ken-1"


@pytest.mark.parametrize("token", [lambda: "t0ken-1", given_later, lambda: given_later()])
@pytest.mark.parametrize("exclude", [(), ("XOAUTH2",)])
async def test_token_opens(certified: Certificates, token: Callable[[], Any], exclude: tuple[str, ...]) -> None:
    """A token is asked for and shown for each connection, by XOAUTH2 where it is offered, else by OAUTHBEARER."""
    async with authorized(certified, token, "t0ken-1", exclude=exclude) as (sink, desk):
        await sink.open()
        await sink.open()
        await sink.send(batch_of(sink, "broken"))
    assert desk.logged_in == [True]
    assert desk.shown == ["t0ken-1"] * 2
    assert set(desk.mechanisms) == {"OAUTHBEARER" if exclude else "XOAUTH2"}


async def test_function_for_tokens_runs_in_a_thread(certified: Certificates) -> None:
    """One that is not async may take its time: it is not called on the loop's thread."""
    threads: list[int] = []

    def token() -> str:
        threads.append(threading.get_ident())
        return "t0ken-1"

    async with authorized(certified, token, "t0ken-1") as (sink, _):
        await sink.open()
    assert threading.get_ident() not in threads


async def test_fresh_token_is_asked_for_once(certified: Certificates) -> None:
    """A token that is refused may have expired: a second one is shown, and no third."""
    tokens = iter(["t0ken-old", "t0ken-new", "t0ken-a", "t0ken-b", "t0ken-c"])
    async with authorized(certified, lambda: next(tokens), "t0ken-new") as (sink, desk):
        await sink.open()
        assert desk.shown == ["t0ken-old", "t0ken-new"]
        with pytest.raises(SinkFailure, match="AUTH XOAUTH2: the server said 535"):
            await sink.open()
        assert desk.shown[2:] == ["t0ken-a", "t0ken-b"]


@pytest.mark.parametrize(("exclude", "dismissed"), [((), b""), (("XOAUTH2",), b"\1")])
async def test_refused_token_stays_secret(
    certified: Certificates, exclude: tuple[str, ...], dismissed: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """The status that a server tells is reported, and the token appears in no text; the challenge is answered."""
    logger = logging.Logger("test.smtp.token")
    settings: dict[str, Any] = {"retry": Retry(0.01, 0.01), "name": "mail"}
    async with authorized(certified, lambda: "t0ken-1", exclude=exclude, **settings) as (sink, desk):
        with pytest.raises(SinkFailure, match=r"535 .* \(status 401\)") as caught:
            await sink.open()
        async with Pipeline(sink, logger=logger, shutdown_timeout=0.2) as pipeline:
            logger.error("broken")
            assert not (await pipeline.flush(timeout=0.1)).complete
        told = f"{sink!r} {sink._accesses} {caught.value!r} {pipeline.stats()}"
    diagnostics.flush(1.0)
    assert desk.dismissed[0] == dismissed
    assert "t0ken" not in told + capsys.readouterr().err


async def test_token_in_a_reply_is_masked(certified: Certificates) -> None:
    """A server that repeats the AUTH command, or tells no error that can be read, brings no token into an error."""
    replies: dict[str, str | bytes] = {"EHLO": "250-fake\r\n250 AUTH XOAUTH2", "AUTH": "334 what", "": "535 no t0ken-1"}
    settings: dict[str, Any] = {"username": "u", "tls": "implicit", "tls_context": certified.client}
    async with scripted(replies, context=certified.server) as port:
        with pytest.raises(SinkFailure, match=r"AUTH XOAUTH2: the server said 535 no \*\*\*$"):
            async with sink_to(port, token=lambda: "t0ken-1", **settings):
                pass
    replies["AUTH"] = "535 {line}"
    del replies[""]
    async with scripted(replies, context=certified.server) as port:
        tokens = iter(["t0ken-1", "t0ken-2"])
        with pytest.raises(SinkFailure, match=r"535 AUTH XOAUTH2 \*\*\*$"):
            async with sink_to(port, token=lambda: next(tokens), **settings):
                pass


async def never() -> str:
    await asyncio.Event().wait()
    return ""


def broken() -> str:
    raise KeyError("t0ken-secret")


def revoked() -> str:
    raise SinkFailure("somebody revoked it")


@pytest.mark.parametrize(
    ("token", "failure", "match"),
    [
        (never, TemporaryFailure, r"token\(\) gave nothing within 0.2 s"),
        (broken, TemporaryFailure, r"token\(\) raised KeyError$"),
        (revoked, SinkFailure, "somebody revoked it"),
        (lambda: None, SinkFailure, "must give a token as text, got an object of class NoneType"),
        (lambda: "a b", SinkFailure, "must give a token as text, got an object of class str"),
    ],
)
async def test_no_token(
    certified: Certificates, token: Callable[[], Any], failure: type[DeliveryError], match: str
) -> None:
    """A function that gives no token in time is tried again; one that gives something else is a wrong setting."""
    async with authorized(certified, token, send_timeout=0.2) as (sink, _):
        with pytest.raises(failure, match=match):
            await sink.open()


async def test_token_goes_with_tls_alone_and_where_it_is_taken(certified: Certificates) -> None:
    """A token is not shown without TLS, nor to a server that takes none."""
    settings: dict[str, Any] = {"username": "u", "token": lambda: "t0ken-1"}
    with aiosmtpd() as desk, pytest.raises(SinkFailure, match="no STARTTLS, and a token does not go without TLS"):
        async with sink_to(desk.port, **settings):
            pass
    settings["tls_context"] = certified.client
    match = "needs XOAUTH2 or OAUTHBEARER; the server offers LOGIN PLAIN"
    with aiosmtpd(tls_context=certified.server) as desk, pytest.raises(SinkFailure, match=match):
        async with sink_to(desk.port, **settings):
            pass


# -- several servers -------------------------------------------------------------------------------------------------


@pytest.fixture
def desks() -> Iterator[tuple[Desk, Desk]]:
    """Run two servers."""
    with aiosmtpd() as first, aiosmtpd() as second:
        yield first, second


def ports(sink: SMTPSink) -> str:
    return repr(sink).split()[1]


async def test_next_server_where_one_is_away(desks: tuple[Desk, Desk]) -> None:
    """The servers are tried in order; the one that took a mail is kept until it fails, then the next is tried."""
    first, second = desks
    async with FaultProxy("127.0.0.1", first.port) as proxy:
        proxy.refuse()
        async with sink_to(proxy.port, endpoints=[("127.0.0.1", second.port)]) as sink:
            assert ports(sink) == f"127.0.0.1:{second.port}"
            await sink.send(batch_of(sink, "one"))
            proxy.forward()
            await sink.open()
            await sink.send(batch_of(sink, "two"))
            assert len(second.mails) == 2
            second.answer("EHLO", "421 restarting")
            await sink.open()
            await sink.send(batch_of(sink, "three"))
            assert ports(sink) == f"127.0.0.1:{proxy.port}"
    assert (len(first.mails), len(second.mails)) == (1, 2)


@pytest.mark.parametrize("greeting", ["421 busy", "554 no"])
async def test_next_server_where_one_does_not_greet(desks: tuple[Desk, Desk], greeting: str) -> None:
    """A server that greets with a refusal is passed over."""
    async with (
        scripted({}, greeting) as port,
        sink_to(port, endpoints=[("127.0.0.1", desks[0].port)]) as sink,
    ):
        await sink.send(batch_of(sink, "broken"))
    assert len(desks[0].mails) == 1


async def test_next_server_where_one_leaves(desks: tuple[Desk, Desk]) -> None:
    """A server that takes connections and no mails is not tried for ever."""
    first, second = desks
    first.answer("MAIL", "421 restarting", "421 restarting")
    async with sink_to(first.port, endpoints=[("127.0.0.1", second.port)]) as sink:
        batch = batch_of(sink, "broken")
        with pytest.raises(TemporaryFailure, match="421 restarting"):
            await sink.send(batch)
        await sink.open()
        await sink.send(batch)
    assert (len(first.mails), len(second.mails)) == (0, 1)


async def test_greylisting_is_met_at_the_same_server(desks: tuple[Desk, Desk]) -> None:
    """A server that puts a mail off is asked again after `greylist_wait`, and no other: it would put it off too."""
    first, second = desks
    first.answer("RCPT", "450 greylisted")
    async with sink_to(first.port, endpoints=[("127.0.0.1", second.port)], greylist_wait=7.0) as sink:
        batch = batch_of(sink, "broken")
        with pytest.raises(TemporaryFailure, match="450 greylisted") as caught:
            await sink.send(batch)
        assert caught.value.retry_after == 7.0
        await sink.open()
        await sink.send(batch)
    assert (len(first.mails), len(second.mails)) == (1, 0)


async def test_certificate_names_the_server_that_was_reached(certified: Certificates) -> None:
    """Another server's certificate is not accepted, and the next server is tried; with none left it is the sink's."""
    wrong = certificates("mail.b.example")
    trusting = ssl.create_default_context()
    for pair in (certified, wrong):
        trusting.load_verify_locations(cadata=pair.authority)
    settings = {"tls": "starttls", "tls_context": trusting}
    with aiosmtpd(tls_context=wrong.server) as first, aiosmtpd(tls_context=certified.server) as second:
        async with sink_to(first.port, endpoints=[("127.0.0.1", second.port)], **settings) as sink:
            await sink.send(batch_of(sink, "broken"))
        with pytest.raises(SinkFailure, match=f"{first.port}: STARTTLS: TLS failed: .*; .*{first.port}: STARTTLS"):
            async with sink_to(first.port, endpoints=[("127.0.0.1", first.port)], **settings):
                pass
    assert len(second.mails) == 1


async def test_refused_password_goes_to_no_other_server(certified: Certificates) -> None:
    """The next server knows the same passwords, and may lock out who tries."""
    pair: dict[str, Any] = {"tls_context": certified.server, "login": ("app-user", "s3cret-pass")}
    settings = {"username": "app-user", "password": "wr0ng", "tls_context": certified.client}
    with aiosmtpd(**pair) as first, aiosmtpd(**pair) as second:
        with pytest.raises(SinkFailure, match="AUTH: the server said 535"):
            async with sink_to(first.port, endpoints=[("127.0.0.1", second.port)], **settings):
                pass
        assert second.connections == 0


async def test_no_server_is_there() -> None:
    """Where none can be reached, it is said of each, and tried again."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        first, second = (server.getsockname()[1] for server in (one, other))
    with pytest.raises(TemporaryFailure, match=f"{first}: no connection .*; 127.0.0.1:{second}: no connection"):
        async with sink_to(first, endpoints=[("127.0.0.1", second)]):
            pass


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"token": "t0ken"}, "token must be a function that gives a token, got an object of class str"),
        ({"token": str}, "token goes with a username, which is missing"),
        ({"token": str, "username": "u", "password": "p"}, "token goes in place of a password"),
        ({"token": str, "username": "u", "tls": "off"}, "a token never goes over a connection without TLS"),
        ({"endpoints": ["b.example"]}, r"endpoints must be \(host, port\) pairs, got \['b.example'\]"),
        ({"endpoints": None}, r"endpoints must be \(host, port\) pairs, got None"),
        ({"endpoints": [("", 25)]}, "endpoints: host: expected a host name or an address, got ''"),
        ({"endpoints": [("b.example", 0)]}, "endpoints: port must be between 1 and 65535, got 0"),
        ({"greylist_wait": -1}, "greylist_wait must be at least 0 seconds, got -1"),
        ({"greylist_wait": "1"}, "greylist_wait must be at least 0 seconds, got '1'"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], match: str) -> None:
    """What can't be used is refused at construction, by name and value, and without a token."""
    with pytest.raises(ConfigError, match=f"SMTPSink: {match}") as caught:
        SMTPSink("mail.example", **(SETTINGS | settings))
    assert "t0ken" not in str(caught.value)
