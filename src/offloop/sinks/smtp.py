"""`SMTPSink`: mails over SMTP, on a connection that is kept."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Sequence
from typing import Unpack, get_args

from offloop import net
from offloop.errors import ConfigError, TemporaryFailure
from offloop.mailing.client import TLS, Access, Session
from offloop.mailing.sink import MailOptions, MailSink
from offloop.mailing.wire import Envelope
from offloop.names import Endpoint
from offloop.policies import at_least, one_of

__all__ = ["SMTPSink"]

_IMPLICIT_PORT = 465  # RFC 8314, section 7.3
_MAX_PORT = 65_535
_SEND_TIMEOUT = 60.0
_DATA_TIMEOUT = 600.0  # RFC 5321, section 4.5.3.2.6


class SMTPSink(MailSink):
    """Sends mails over a connection that is kept between them and dropped when idle.

    The first record of a kind goes out at once, more of the same as a digest (`Digest`). A mail has the same
    `Message-ID` in all attempts: a receiver that deduplicates shows one mail even where an answer was lost and the
    mail was sent again. Some recipients refused is a delivered mail and a line of diagnostics.

    The subject shows a record's message as it was logged, whatever the formatter does; where it must not, give a
    `subject` without `{message}`.
    """

    def __init__(
        self,
        host: str,
        port: int = 587,
        *,
        sender: str,
        to: str | Sequence[str],
        username: str | None = None,
        password: str | None = None,
        tls: TLS = "auto",
        tls_context: ssl.SSLContext | None = None,
        local_hostname: str | None = None,
        connect_timeout: float = 5.0,
        data_timeout: float = _DATA_TIMEOUT,
        idle_timeout: float = 30.0,
        **mail: Unpack[MailOptions],
    ) -> None:
        """Say which server, who writes to whom, and how. Nothing is connected yet.

        Args:
            host: The server; its certificate must name it.
            port: 587 for submission, 465 for implicit TLS, 25 for a relay.
            sender: `app@example.org`, or `App <app@example.org>`.
            to: One such address, or several.
            username: For AUTH; goes with `password`.
            password: For AUTH. It never goes over a connection without TLS.
            tls: "auto": STARTTLS where it is offered, and implicit TLS on port 465. "starttls": or nothing is sent.
                "implicit": TLS from the first byte. "off": none.
            tls_context: For a certificate authority or a client certificate of one's own. None: the system's
                authorities. Certificate and name are verified in every mode, unless this context says otherwise.
            local_hostname: What the server is told as our name. None: the address that the connection comes from.
            connect_timeout: Seconds for name and connection together.
            data_timeout: Seconds for the answer to a whole mail. Less than the 600 that RFC 5321 (section 4.5.3.2.6)
                gives a server means that one which takes its time gets the mail again and again.
            idle_timeout: Seconds after a mail at which the connection is dropped. 0: at once.
            **mail: As for every sink that sends mails (`MailSink`), and for every `Sink`. `formatter` gives each
                record's text. `send_timeout` is 60 s here and bounds each step by itself: building a mail, the TLS
                handshake, each reply but the last, and how long the server reads nothing of a mail. An attempt as a
                whole has no other limit than the sum.

        Raises:
            ConfigError: A value can't be used.
        """
        owner = f"{type(self).__name__}: "
        send_timeout = mail.get("send_timeout", _SEND_TIMEOUT)
        at_least(owner, "send_timeout", send_timeout, 0.001, "seconds")
        # To the lane: each step has a limit of its own here, and an attempt must not be abandoned within it.
        mail["send_timeout"] = math.inf
        super().__init__(sender=sender, to=to, building_timeout=send_timeout, **mail)
        _check(owner, host, port, local_hostname)
        at_least(owner, "connect_timeout", connect_timeout, 0.001, "seconds")
        at_least(owner, "data_timeout", data_timeout, 0.001, "seconds")
        at_least(owner, "idle_timeout", idle_timeout, 0, "seconds")
        one_of(owner, "tls", tls, get_args(TLS))
        _check_password(owner, username, password, tls)
        if tls == "off" and tls_context is not None:
            msg = f"{owner}tls_context: nothing is verified with it while tls is 'off'"
            raise ConfigError(msg)
        self._access = Access(
            host=host,
            port=port,
            tls="implicit" if tls == "auto" and port == _IMPLICIT_PORT else tls,
            context=None if tls == "off" else net.tls_context(tls_context or True),
            local_hostname=local_hostname,
            username=username,
            password=password,
            timeout=send_timeout,
            data_timeout=data_timeout,
        )
        self._connect_timeout = connect_timeout
        self._idle_timeout = idle_timeout
        self._session: Session | None = None
        self._left: Session | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._openings = 0

    async def open(self) -> None:
        """Connect, begin TLS and authenticate, in place of any connection there is.

        Raises:
            TemporaryFailure: The server can't be reached, or says "later"; so does `OSError`.
            SinkFailure: Password, certificate or TLS mode are not what the server wants.
        """
        await self._connect()

    async def ready(self) -> int | None:
        """Connect, unless a kept connection stands; gives the largest mail that the server says it takes."""
        session = self._kept() or await self._connect()
        return session.max_bytes

    async def deliver(self, envelope: Envelope) -> dict[str, str]:
        """Deliver one mail. Returns when the server has taken it for at least one recipient.

        A kept connection that turns out to be dead before it had the mail is made anew at once. On cancellation the
        connection is dropped; the server may have taken the mail, and gets it again with the same `Message-ID`.
        """
        session = self._kept()
        kept = session is not None and session.delivered > 0
        if session is None:
            session = await self._connect()
        opening = self._openings
        try:
            try:
                refused = await session.deliver(envelope)
            except TemporaryFailure:
                # Nor if we were given up, and what stands now belongs to another attempt.
                if not kept or session.is_connected or session.data_sent or opening != self._openings:
                    raise
                session = await self._connect()
                refused = await session.deliver(envelope)
        except BaseException:
            self._drop(session)
            raise
        self._keep(session)
        return refused

    async def aclose(self) -> None:
        """Say goodbye to the server, for at most a second. Idempotent; `open` may follow."""
        self._openings += 1
        session = self._kept()
        self._session = None
        await super().aclose()
        if self._left is not None:
            self._left.abort()
            self._left = None
        if session is not None:
            await session.quit()

    def __repr__(self) -> str:
        state = "connected" if self._session is not None and self._session.is_connected else "not connected"
        return f"<{type(self).__name__} {Endpoint(self._access.host, self._access.port)} {state}>"

    async def _connect(self) -> Session:
        if self._session is not None:
            self._drop(self._session)
        self._openings += 1
        opening = self._openings
        connected = await net.connect(self._access.host, self._access.port, timeout=self._connect_timeout)
        session = await Session.start(self._access, connected)
        if opening != self._openings:
            # This attempt was given up meanwhile, and another has the place.
            session.abort()
            msg = f"{self!r}: the attempt was given up"
            raise TemporaryFailure(msg)
        self._session = session
        return session

    def _kept(self) -> Session | None:
        """Give the connection, if it stands; it is no longer idle."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._session is not None and not self._session.is_connected:
            self._drop(self._session)
        return self._session

    def _keep(self, session: Session) -> None:
        """Leave the connection for the next batch, if that comes soon."""
        if session is self._session:
            self._idle = asyncio.get_running_loop().call_later(self._idle_timeout, self._leave, session)

    def _leave(self, session: Session) -> None:
        if session is self._session:
            # TLS closes in two steps: one that is not through by the next time, or by `aclose`, is aborted then.
            if self._left is not None:
                self._left.abort()
            self._session, self._left = None, session
            session.leave()

    def _drop(self, session: Session) -> None:
        """Abort a connection, and forget it if it is the one we have."""
        if session is self._session:
            self._session = None
        session.abort()


def _check(owner: str, host: object, port: object, local_hostname: object) -> None:
    for name, value in (("host", host), ("local_hostname", local_hostname)):
        if value is None and name == "local_hostname":
            continue
        if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable() or " " in value:
            msg = f"{owner}{name}: expected a host name or an address, got {value!r}"
            raise ConfigError(msg)
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= _MAX_PORT:
        msg = f"{owner}port must be between 1 and {_MAX_PORT}, got {port!r}"
        raise ConfigError(msg)


def _check_password(owner: str, username: object, password: object, tls: str) -> None:
    for name, value in (("username", username), ("password", password)):
        if value is not None and not isinstance(value, str):
            # Its class is all that may be told of a password.
            msg = f"{owner}{name} must be text, got an object of class {type(value).__name__}"
            msg += ": decode it" if isinstance(value, bytes) else ""
            raise ConfigError(msg)
    if (username is None) != (password is None):
        given = "username" if password is None else "password"
        msg = f"{owner}username and password go together, got only the {given}"
        raise ConfigError(msg)
    if password is not None and tls == "off":
        msg = (
            f"{owner}a password never goes over a connection without TLS, and tls is 'off': use 'starttls' or "
            "'implicit' (with a tls_context for a certificate of your own), or leave username and password out "
            "where the server takes mail without them"
        )
        raise ConfigError(msg)
