"""From a connected socket to a server that takes mails: greeting, TLS, AUTH. The only room that imports aiosmtplib.

aiosmtplib is given a connected socket, a TLS context and our name: it would look for each of them itself. Mails are
another room's: it reads one reply at a time and drops what comes in between, so that nothing can be pipelined.

Formats: RFC 5321 (SMTP), RFC 3207 (STARTTLS), RFC 4954 (AUTH), RFC 7628 (OAUTHBEARER), RFC 2033 (LMTP).
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, cast

import aiosmtplib

from offloop.errors import DeliveryError, SinkFailure, TemporaryFailure
from offloop.mailing.access import Access, Unauthorized
from offloop.mailing.dialogue import Dialogue, Reply

__all__ = ["Opened", "opened", "opened_locally"]

_TRANSPORT_CLOSES = 0.1  # seconds, generously: it takes a turn or two of the loop

_UNKNOWN = frozenset({500, 501, 502, 504})  # a command that the server does not have
_READY = 220
_AUTHENTICATED = 235
_DONE = 250
_CHALLENGE = 334


class Opened(NamedTuple):
    """A server that takes mails.

    Attributes:
        dialogue: With it.
        extensions: What it offers, in small letters, with its parameters.
    """

    dialogue: Dialogue
    extensions: Mapping[str, str]


async def opened(access: Access, connected: socket.socket) -> Opened:
    """Greet, begin TLS, authenticate. On any failure the socket is closed.

    Raises:
        TemporaryFailure: No answer, a broken connection, or a reply of the 400s.
        SinkFailure: The server refuses us, its certificate is not accepted, or it has no TLS where that is needed.
    """
    smtp = aiosmtplib.SMTP(
        hostname=access.host.removesuffix("."),
        sock=connected,
        local_hostname=access.local_hostname or _literal(connected),
        timeout=access.timeout,
        use_tls=access.tls == "implicit",
        start_tls=False,
        tls_context=access.context,
    )
    transport = None
    try:
        with _failures(access, "greeting"):
            await smtp.connect()
        transport = smtp.transport
        await _secure(access, smtp)
        if access.username is not None and access.password is not None:
            with _failures(access, "AUTH"):
                await smtp.login(access.username, access.password)
        server = Opened(Dialogue(connected), dict(smtp.esmtp_extensions))
        with access.failures("AUTH" if access.has_secret else "EHLO"):
            server.dialogue.take_over(cast("asyncio.Transport | None", smtp.transport))
        if access.username is not None and access.token is not None:
            await _authorize(access, server, access.username)
    except BaseException:
        if transport is None:
            _shut(connected)
        else:
            cast("asyncio.Transport", smtp.transport or transport).abort()
        raise
    return server


async def opened_locally(access: Access, connected: socket.socket) -> Opened:
    """Greet an LMTP server. On any failure the socket is closed.

    Raises:
        TemporaryFailure: No answer, a broken connection, or a reply of the 400s.
        SinkFailure: The server refuses us.
    """
    dialogue = Dialogue(connected)
    loop = asyncio.get_running_loop()
    try:
        with access.failures("greeting"):
            if access.port is None:
                await loop.create_unix_connection(lambda: dialogue, sock=connected)
            else:
                await loop.create_connection(lambda: dialogue, sock=connected)
            _check(access, "greeting", await dialogue.reply(access.timeout), _READY)
        with access.failures("LHLO"):
            dialogue.write(f"LHLO {access.local_hostname or _literal(connected)}\r\n".encode("ascii"))
            reply = _check(access, "LHLO", await dialogue.reply(access.timeout), _DONE)
    except BaseException:
        dialogue.abort()
        raise
    offers = (line.partition(" ") for line in reply.text.split("\n")[1:])
    return Opened(dialogue, {keyword.lower(): parameters for keyword, _, parameters in offers})


async def _secure(access: Access, smtp: aiosmtplib.SMTP) -> None:
    with _failures(access, "EHLO"):
        await _greet(smtp)
    if access.tls not in {"auto", "starttls"}:
        return
    if smtp.supports_extension("starttls"):
        with _failures(access, "STARTTLS"):
            await smtp.starttls()
            await smtp.ehlo()
    elif access.tls == "starttls" or access.has_secret:
        secret = "token" if access.password is None else "password"
        wanted = "tls='starttls'" if access.tls == "starttls" else f"a {secret} does not go without TLS"
        msg = f"{access.where}: the server offers no STARTTLS, and {wanted}"
        raise SinkFailure(msg)


async def _greet(smtp: aiosmtplib.SMTP) -> None:
    try:
        await smtp.ehlo()
    except aiosmtplib.SMTPHeloError as error:
        # A server from before ESMTP: RFC 5321, section 3.2.
        if error.code not in _UNKNOWN:
            raise
        await smtp.helo()


async def _authorize(access: Access, server: Opened, username: str) -> None:
    """Show a token, and where it is refused a fresh one: what was kept may have expired."""
    offered = server.extensions.get("auth", "").upper().split()
    mechanism = next((name for name in ("XOAUTH2", "OAUTHBEARER") if name in offered), None)
    if mechanism is None:
        msg = (
            f"{access.where}: AUTH: a token needs XOAUTH2 or OAUTHBEARER; the server offers {' '.join(offered) or '-'}"
        )
        raise SinkFailure(access.clean(msg))
    assert access.token is not None  # noqa: S101 - the caller looked
    token = await access.token()
    refused = await _shown(access, server.dialogue, mechanism, username, token)
    if refused is None:
        return
    if not isinstance(refused, Unauthorized) or (fresh := await access.token()) == token:
        raise refused
    try:
        again = await _shown(access, server.dialogue, mechanism, username, fresh)
    except TemporaryFailure as error:  # a server may hang up after a refusal, which is what it said
        raise refused from error
    if again is not None:
        raise again


async def _shown(access: Access, dialogue: Dialogue, mechanism: str, username: str, token: str) -> DeliveryError | None:
    """Authenticate with a token; gives the refusal, if it is one."""
    if mechanism == "XOAUTH2":
        response, dismissed = f"user={username}\1auth=Bearer {token}\1\1", b""
    else:
        # The name with what separates the parts written out: RFC 5801, section 4.
        name = username.replace("=", "=3D").replace(",", "=2C")
        response = f"n,a={name},\1host={access.host}\1port={access.port}\1auth=Bearer {token}\1\1"
        dismissed = b"AQ=="  # a single ^A: RFC 7628, section 3.2.3
    shown = base64.b64encode(response.encode()).decode()
    with access.failures("AUTH"):
        dialogue.write(f"AUTH {mechanism} {shown}\r\n".encode("ascii"))
        reply = await dialogue.reply(access.timeout)
        why = ""
        if reply.code == _CHALLENGE:
            # Not a question but an error, which the server tells before it refuses.
            why = _status(reply.text)
            dialogue.write(dismissed + b"\r\n")
            reply = await dialogue.reply(access.timeout)
    if reply.code == _AUTHENTICATED:
        return None
    said = access.clean(f"{reply.text}{why}", shown, token)
    return access.refusal(f"AUTH {mechanism}", Reply(reply.code, said), about_us=True)


def _status(challenge: str) -> str:
    """What stands in the error that goes before a refusal; nothing else of it is repeated."""
    with suppress(ValueError, TypeError, KeyError):  # no such error, whatever it is
        told: Any = json.loads(base64.b64decode(challenge, validate=True))
        return f" (status {told['status']})"
    return ""


def _check(access: Access, step: str, reply: Reply, code: int) -> Reply:
    if reply.code != code:
        raise access.refusal(step, reply, about_us=True)
    return reply


@contextmanager
def _failures(access: Access, step: str) -> Iterator[None]:
    """Turn what aiosmtplib and the system raise into offloop's own errors; a refusal concerns us, and no mail."""
    with access.failures(step):
        try:
            yield
        except aiosmtplib.SMTPResponseException as error:
            # The cause would show the reply as it came, perhaps with our AUTH in it.
            raise access.refusal(step, Reply(error.code, error.message), about_us=True) from None
        except OSError:  # also the disconnections and timeouts of aiosmtplib
            raise
        except aiosmtplib.SMTPException as error:
            msg = f"{access.where}: {step}: {access.clean(error)}"
            raise SinkFailure(msg) from error


def _shut(connected: socket.socket) -> None:
    """End a connection that a transport may have by now, which aiosmtplib does not tell after a failure.

    To close a socket under a transport would leave its loop watching a descriptor that the next one gets.
    """
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)  # a transport sees the end, and closes
    asyncio.get_running_loop().call_later(_TRANSPORT_CLOSES, connected.close)


def _literal(connected: socket.socket) -> str:
    """Our address as a name: a host's own name need not be a full one, and asking for that blocks."""
    if connected.family not in {socket.AF_INET, socket.AF_INET6}:
        return "localhost"
    address = str(connected.getsockname()[0]).partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
