"""What sinks that speak with a mail server have in common: a connection that is kept, made anew, and let go of."""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Unpack

from offloop.errors import ConfigError, DeliveryError, SinkFailure, TemporaryFailure
from offloop.mailing.access import Access, Unauthorized
from offloop.mailing.client import Session
from offloop.mailing.outcome import Outcome
from offloop.mailing.routes import To
from offloop.mailing.sink import MailOptions, MailSink
from offloop.mailing.wire import Envelope
from offloop.policies import at_least

__all__ = ["DATA_TIMEOUT", "SEND_TIMEOUT", "ServedSink", "check_host", "check_port", "check_steps", "step_timeout"]

SEND_TIMEOUT = 60.0
DATA_TIMEOUT = 600.0  # RFC 5321, section 4.5.3.2.6
_MAX_PORT = 65_535


class ServedSink(MailSink):
    """Hands its mails to a server. A subclass says which, and how a conversation with it begins."""

    def __init__(
        self,
        accesses: Sequence[Access],
        *,
        sender: str,
        to: To,
        idle_timeout: float,
        **mail: Unpack[MailOptions],
    ) -> None:
        """Say where. Nothing is connected yet.

        Args:
            accesses: One or more servers, tried in order when the one in use fails. The one that last took a mail is
                tried first.
            sender: As for every `MailSink`.
            to: As for every `MailSink`.
            idle_timeout: Seconds after a mail at which the connection is dropped. 0: at once.
            **mail: As for every `MailSink`. `send_timeout` bounds each step by itself.

        Raises:
            ConfigError: A value can't be used.
        """
        # To the lane: each step has a limit of its own here, and an attempt must not be abandoned within it.
        mail["send_timeout"] = math.inf
        super().__init__(sender=sender, to=to, building_timeout=accesses[0].timeout, **mail)
        at_least(f"{type(self).__name__}: ", "idle_timeout", idle_timeout, 0, "seconds")
        self._accesses = tuple(accesses)
        self._idle_timeout = idle_timeout
        self._first = 0
        self._position = 0
        self._session: Session | None = None
        self._left: Session | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._openings = 0

    @abstractmethod
    async def begin(self, access: Access) -> Session:
        """Connect to a server and say hello. On any failure, and on cancellation, nothing stays open.

        Raises:
            TemporaryFailure: Not now; so does `OSError`.
            SinkFailure: It wants nothing of us.
        """

    async def open(self) -> None:
        """Connect and begin a conversation, in place of any connection there is.

        Raises:
            TemporaryFailure: The server can't be reached, or says "later"; so does `OSError`.
            SinkFailure: Password, certificate or TLS mode are not what the server wants.
        """
        await self._connect()

    async def ready(self) -> int | None:
        """Connect, unless a kept connection stands; gives the largest mail that the server says it takes."""
        session = self._kept() or await self._connect()
        return session.max_bytes

    async def deliver(self, envelope: Envelope) -> Outcome:
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
                outcome = await session.deliver(envelope)
            except TemporaryFailure:
                # Nor if we were given up, and what stands now belongs to another attempt.
                if not kept or session.is_connected or session.data_sent or opening != self._openings:
                    raise
                session = await self._connect()
                outcome = await session.deliver(envelope)
        except BaseException:
            # One that refuses this mail may take the next.
            if session.is_ready:
                self._keep(session)
            else:
                self._drop(session)
            raise
        self._keep(session)
        return outcome

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
        connected = self._session is not None and self._session.is_connected
        access = self._accesses[self._position if connected else self._first]
        return f"<{type(self).__name__} {access.where} {'connected' if connected else 'not connected'}>"

    async def _connect(self) -> Session:
        if self._session is not None:
            self._drop(self._session)
        self._openings += 1
        opening = self._openings
        failures: list[Exception] = []
        for _ in self._accesses:
            position = self._first
            # Moved on before it is tried: one that hangs or takes connections and no mails is not tried for ever.
            self._first = (position + 1) % len(self._accesses)
            session = None
            try:
                session = await self.begin(self._accesses[position])
            except Unauthorized:
                raise  # the next server knows the same passwords, and some lock those out who try them all
            except (DeliveryError, OSError) as error:
                failures.append(error)
            if opening != self._openings:
                # This attempt was given up meanwhile, and another has the place.
                if session is not None:
                    session.abort()
                msg = f"{self!r}: the attempt was given up"
                raise TemporaryFailure(msg)
            if session is not None:
                self._session, self._position = session, position
                return session
        raise _of_all(failures)

    def _kept(self) -> Session | None:
        """Give the connection, if it stands; it is no longer idle."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._session is not None and not self._session.is_ready:
            self._drop(self._session)
        return self._session

    def _keep(self, session: Session) -> None:
        """Leave the connection for the next batch, if that comes soon."""
        if session is self._session:
            self._first = self._position
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


def _of_all(failures: Sequence[Exception]) -> Exception:
    """What it means that no server could be used."""
    first = failures[0]
    if len(failures) == 1:
        return first
    said = "; ".join(getattr(failure, "strerror", None) or str(failure) for failure in failures)
    lasting = all(isinstance(failure, SinkFailure) for failure in failures)
    failure = SinkFailure(said) if lasting else TemporaryFailure(said)
    failure.__cause__ = first
    return failure


def step_timeout(owner: str, mail: MailOptions) -> float:
    """The seconds that each step may take.

    Raises:
        ConfigError: It is no such number.
    """
    timeout = mail.get("send_timeout", SEND_TIMEOUT)
    at_least(owner, "send_timeout", timeout, 0.001, "seconds")
    return timeout


def check_steps(
    owner: str, local_hostname: object, connect_timeout: float, data_timeout: float, greylist_wait: float
) -> None:
    """Refuse what can't be said of a conversation, whatever the server.

    Raises:
        ConfigError: With the value.
    """
    if local_hostname is not None:
        check_host(owner, "local_hostname", local_hostname)
    at_least(owner, "connect_timeout", connect_timeout, 0.001, "seconds")
    at_least(owner, "data_timeout", data_timeout, 0.001, "seconds")
    at_least(owner, "greylist_wait", greylist_wait, 0, "seconds")


def check_host(owner: str, name: str, value: object) -> None:
    """Refuse what is no host name or address.

    Raises:
        ConfigError: With the value.
    """
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable() or " " in value:
        msg = f"{owner}{name}: expected a host name or an address, got {value!r}"
        raise ConfigError(msg)


def check_port(owner: str, port: object) -> None:
    """Refuse what is no port.

    Raises:
        ConfigError: With the value.
    """
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= _MAX_PORT:
        msg = f"{owner}port must be between 1 and {_MAX_PORT}, got {port!r}"
        raise ConfigError(msg)
