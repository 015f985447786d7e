"""One conversation with a mail server: TLS, AUTH, and one mail after another. The only room that imports aiosmtplib.

Every failure leaves here as one of offloop's own, with what the server said and without anything secret. aiosmtplib is
given a connected socket, a TLS context and our name: it would look for each of them itself.

Formats: RFC 5321 (SMTP), RFC 3207 (STARTTLS), RFC 4954 (AUTH), RFC 1870 (SIZE).
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal, cast

import aiosmtplib

from offloop.errors import DeliveryError, PermanentFailure, SinkFailure, TemporaryFailure
from offloop.mailing.wire import Envelope, Mail

__all__ = ["TLS", "Access", "Session"]

TLS = Literal["auto", "starttls", "implicit", "off"]

_REST = 0.001  # seconds until we look again whether a piece is through
_MAX_REPLY = 300  # characters of a reply that are repeated in a message
_TRANSPORT_CLOSES = 0.1  # seconds, generously: it takes a turn or two of the loop
_GOODBYE = 1.0  # seconds for the answer to QUIT

# Replies that speak of us and not of a mail: AUTH is needed, is too weak, failed, or wants TLS (RFC 4954, section 6).
_ABOUT_US = frozenset({530, 534, 535, 538})
_UNKNOWN = frozenset({500, 501, 502, 504})  # a command that the server does not have
_TOO_LARGE = 552
_CLOSING = 421
_START_INPUT = 354
_DONE = 250


@dataclass(frozen=True, slots=True)
class Access:
    """How a server is reached.

    Attributes:
        host: What its certificate must name.
        port: For messages.
        tls: When TLS begins.
        context: How its certificate is verified; None only where TLS is off.
        local_hostname: What we call ourselves; None: the address the connection comes from (RFC 5321, section 4.1.3).
        username: For AUTH, None for none.
        password: For AUTH.
        timeout: Seconds for each reply, and for the server to read on while a mail is written.
        data_timeout: Seconds for the reply to a whole mail.
    """

    host: str
    port: int
    tls: TLS
    context: ssl.SSLContext | None
    local_hostname: str | None
    username: str | None = field(repr=False)
    password: str | None = field(repr=False)
    timeout: float
    data_timeout: float

    def clean(self, text: object) -> str:
        """Make one short printable line of what a server said; some repeat the command, and so the password."""
        line = str(text)
        if self.username is not None and self.password is not None:
            plain = f"\0{self.username}\0{self.password}"
            for secret in (plain, self.password, self.username):
                line = line.replace(base64.b64encode(secret.encode()).decode(), "***")
            line = line.replace(self.password, "***")
        line = "".join(character if character.isprintable() else " " for character in line)
        return line if len(line) <= _MAX_REPLY else line[:_MAX_REPLY] + "..."


class Session:
    """A connection that is ready for mails; made by `start`."""

    def __init__(self, access: Access, smtp: aiosmtplib.SMTP, connected: socket.socket) -> None:
        """Take over a client whose connection stands."""
        self._access = access
        self._smtp = smtp
        self._socket = connected
        self._transport = cast("asyncio.WriteTransport", smtp.transport)
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self.delivered = 0
        """Mails that the server has taken."""
        self.data_sent = False
        """Whether the server may have taken the last mail without our knowing."""

    @classmethod
    async def start(cls, access: Access, connected: socket.socket) -> Session:
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
        session = None
        try:
            with _failures(access, "greeting", about_us=True):
                await smtp.connect()
            session = cls(access, smtp, connected)
            await session._secure()
            await session._authenticate()
        except BaseException:
            if session is None:
                _shut(connected)
            else:
                session.abort()
            raise
        return session

    @property
    def is_connected(self) -> bool:
        """Whether neither side has closed it, as far as is known. Never in a forked child: it is the parent's."""
        return self._pid == os.getpid() and not self._loop.is_closed() and self._smtp.is_connected

    @property
    def max_bytes(self) -> int | None:
        """The largest mail the server says it takes, None if it says nothing."""
        size = self._smtp.esmtp_extensions.get("size", "").strip()
        return int(size) if size.isascii() and size.isdecimal() and int(size) else None

    async def deliver(self, envelope: Envelope) -> dict[str, str]:
        """Hand over one mail.

        Args:
            envelope: All of it in ASCII.

        Returns:
            The recipients that were refused while others were taken, with what the server said.

        Raises:
            TemporaryFailure: No answer, a broken connection, or a reply of the 400s to the mail or to all recipients.
            PermanentFailure: A reply of the 500s to the mail, or to all its recipients.
            SinkFailure: The server wants no mail from us (the sender, AUTH).
        """
        self.data_sent = False
        options = [f"SIZE={envelope.mail.size}"] if self._smtp.supports_extension("size") else []
        with _failures(self._access, "MAIL", about_us=True):
            await self._smtp.mail(envelope.sender, options=options)
        refused = await self._name(envelope.recipients)
        with _failures(self._access, "DATA"):
            response = await self._smtp.execute_command(b"DATA")
            if response.code == _START_INPUT:
                response = await self._write(envelope.mail)
            if response.code != _DONE:
                raise aiosmtplib.SMTPDataError(response.code, response.message)
        self.delivered += 1
        return refused

    async def quit(self) -> None:
        """Say goodbye, for a second at most, and let go of the connection."""
        try:
            if self._loop is asyncio.get_running_loop():
                with suppress(aiosmtplib.SMTPException, OSError):
                    await self._smtp.quit(timeout=_GOODBYE)
        finally:
            self.abort()

    def leave(self) -> None:
        """Let go of the connection without waiting: QUIT is written, its answer not read."""
        if self.is_connected:
            self._transport.write(b"QUIT\r\n")
        if self._pid == os.getpid():
            self._transport.close()

    def abort(self) -> None:
        """Let go of the connection at once; also when its event loop is gone. In a forked child nothing is touched."""
        if self._pid != os.getpid():
            return
        if self._loop.is_closed():
            self._socket.close()
        else:
            self._transport.abort()

    async def _secure(self) -> None:
        with _failures(self._access, "EHLO", about_us=True):
            await self._greet()
        if self._access.tls not in {"auto", "starttls"}:
            return
        if self._smtp.supports_extension("starttls"):
            with _failures(self._access, "STARTTLS", about_us=True):
                await self._smtp.starttls()
                self._transport = cast("asyncio.WriteTransport", self._smtp.transport)
                await self._smtp.ehlo()
        elif self._access.tls == "starttls" or self._access.password is not None:
            wanted = "tls='starttls'" if self._access.tls == "starttls" else "a password does not go without TLS"
            msg = f"{self._access.host}:{self._access.port}: the server offers no STARTTLS, and {wanted}"
            raise SinkFailure(msg)

    async def _greet(self) -> None:
        try:
            await self._smtp.ehlo()
        except aiosmtplib.SMTPHeloError as error:
            # A server from before ESMTP: RFC 5321, section 3.2.
            if error.code not in _UNKNOWN:
                raise
            await self._smtp.helo()

    async def _authenticate(self) -> None:
        if self._access.username is not None and self._access.password is not None:
            with _failures(self._access, "AUTH", about_us=True):
                await self._smtp.login(self._access.username, self._access.password)

    async def _name(self, recipients: Sequence[str]) -> dict[str, str]:
        """Give the recipients; those that were refused, as long as one was taken."""
        failures: dict[str, DeliveryError] = {}
        for recipient in recipients:
            try:
                with _failures(self._access, f"RCPT {recipient}"):
                    await self._smtp.rcpt(recipient)
            except DeliveryError as failure:
                if not self.is_connected:
                    raise
                failures[recipient] = failure
        if len(failures) == len(recipients):
            # One that may be taken later is reason enough to come again: greylisting answers so.
            kinds = {type(failure) for failure in failures.values()}
            kind = next(kind for kind in (TemporaryFailure, SinkFailure, PermanentFailure) if kind in kinds)
            raise kind("; ".join(map(str, failures.values())))
        return {recipient: str(failure) for recipient, failure in failures.items()}

    async def _write(self, mail: Mail) -> aiosmtplib.SMTPResponse:
        """Write the mail piece by piece, and give the answer to it.

        Not with aiosmtplib's own `data`: its substitutions over the whole mail keep the loop for milliseconds.
        """
        protocol = self._smtp.protocol
        if protocol is None:
            msg = "Connection lost"
            raise aiosmtplib.SMTPServerDisconnected(msg)
        # Read from now on: a server may refuse while we still write. How long to wait for it depends on how far we are.
        answer = asyncio.ensure_future(protocol.read_response())
        # Nobody asks for it where writing failed first.
        answer.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            for piece in mail.pieces:
                await self._drained(answer)
                if answer.done():
                    return await answer
                protocol.write(piece)
            await self._drained(answer)
            if not answer.done():
                self.data_sent = True
                protocol.write(b".\r\n")
                await self._answered(answer)
            return await answer
        finally:
            answer.cancel()

    async def _drained(self, answer: asyncio.Future[aiosmtplib.SMTPResponse]) -> None:
        """Wait until what was written is on its way, as long as the server goes on reading."""
        await asyncio.sleep(0)
        before, limit = 0, 0.0
        # Asked again and again: aiosmtplib's protocol tells nobody when it may write on.
        while (left := self._transport.get_write_buffer_size()) and not answer.done():
            now = self._loop.time()
            if left != before:
                before, limit = left, now + self._access.timeout
            elif now >= limit:
                msg = f"Timed out: the server read nothing for {self._access.timeout:g} s"
                raise aiosmtplib.SMTPTimeoutError(msg)
            await asyncio.sleep(_REST)

    async def _answered(self, answer: asyncio.Future[aiosmtplib.SMTPResponse]) -> None:
        """Wait for the answer to a whole mail: a server may deliver it first (RFC 5321, section 4.5.3.2.6)."""
        await asyncio.wait([answer], timeout=self._access.data_timeout)
        if not answer.done():
            msg = f"Timed out: no answer to the mail for {self._access.data_timeout:g} s"
            raise aiosmtplib.SMTPReadTimeoutError(msg)


@contextmanager
def _failures(access: Access, step: str, *, about_us: bool = False) -> Iterator[None]:
    """Turn what aiosmtplib and the system raise into offloop's own errors.

    Args:
        access: Says where, and what is secret.
        step: What we were doing.
        about_us: Whether a refusal concerns the sink and not a mail: nothing in this step depends on records.
    """
    where = f"{access.host}:{access.port}: {step}: "
    try:
        yield
    except aiosmtplib.SMTPResponseException as error:
        said = f"{where}the server said {error.code} {access.clean(error.message)}"
        # The cause would show the reply as it came, perhaps with our AUTH in it.
        raise _refusal(error.code, said, about_us=about_us) from None
    except ssl.SSLError as error:
        raise _tls_failure(where, error) from error
    except OSError as error:  # also the disconnections and timeouts of aiosmtplib
        cause = error.__cause__
        if isinstance(cause, ssl.SSLError):
            raise _tls_failure(where, cause) from error
        raise TemporaryFailure(where + access.clean(error)) from error
    except aiosmtplib.SMTPException as error:
        raise SinkFailure(where + access.clean(error)) from error


def _refusal(code: int, said: str, *, about_us: bool) -> DeliveryError:
    if not 500 <= code < 600:  # noqa: PLR2004 - what is no permanent failure, or no reply at all, may be better later
        return TemporaryFailure(said)
    if code in _ABOUT_US or (about_us and code != _TOO_LARGE):
        return SinkFailure(said)
    return PermanentFailure(said)


def _tls_failure(where: str, error: ssl.SSLError) -> DeliveryError:
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
        return TemporaryFailure(f"{where}the server broke off the TLS handshake")
    reason = getattr(error, "verify_message", None) or error.reason or str(error)
    return SinkFailure(f"{where}TLS failed: {reason}")


def _shut(connected: socket.socket) -> None:
    """End a connection that a transport may have by now, which aiosmtplib does not tell after a failure.

    To close a socket under a transport would leave its loop watching a descriptor that the next one gets.
    """
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)  # a transport sees the end, and closes
    asyncio.get_running_loop().call_later(_TRANSPORT_CLOSES, connected.close)


def _literal(connected: socket.socket) -> str:
    """Our address as a name: a host's own name need not be a full one, and asking for that blocks."""
    address = str(connected.getsockname()[0]).partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
