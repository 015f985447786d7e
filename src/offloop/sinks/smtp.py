"""`SMTPSink`: mails over SMTP, on a connection that is kept."""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Unpack, cast, get_args

from offloop import net
from offloop.errors import ConfigError, DeliveryError, SinkFailure, TemporaryFailure
from offloop.mailing.access import TLS, Access
from offloop.mailing.client import Session
from offloop.mailing.opening import opened
from offloop.mailing.routes import To
from offloop.mailing.served import DATA_TIMEOUT, ServedSink, check_host, check_port, check_steps, step_timeout
from offloop.mailing.sink import MailOptions
from offloop.names import Endpoint
from offloop.policies import one_of

__all__ = ["SMTPSink"]

_IMPLICIT_PORT = 465  # RFC 8314, section 7.3


class SMTPSink(ServedSink):
    """Sends mails over a connection that is kept between them and dropped when idle.

    The first record of a kind goes out at once, more of the same as a digest (`Digest`). A mail has the same
    `Message-ID` in all attempts: a receiver that deduplicates shows one mail even where an answer was lost and the
    mail was sent again. Some recipients refused is a delivered mail and a line of diagnostics; one that is put off
    gets the mail later, and the others get it once.

    The subject shows a record's message as it was logged but for its secrets (`redact`), whatever the formatter does;
    where it must not, give a `subject` without `{message}` and `{what}`.
    """

    def __init__(
        self,
        host: str,
        port: int = 587,
        *,
        sender: str,
        to: To,
        username: str | None = None,
        password: str | None = None,
        token: Callable[[], str | Awaitable[str]] | None = None,
        tls: TLS = "auto",
        tls_context: ssl.SSLContext | None = None,
        endpoints: Iterable[tuple[str, int]] = (),
        local_hostname: str | None = None,
        connect_timeout: float = 5.0,
        data_timeout: float = DATA_TIMEOUT,
        idle_timeout: float = 30.0,
        greylist_wait: float = 60.0,
        **mail: Unpack[MailOptions],
    ) -> None:
        """Say which server, who writes to whom, and how. Nothing is connected yet.

        Args:
            host: The server; its certificate must name it.
            port: 587 for submission, 465 for implicit TLS, 25 for a relay.
            sender: `app@example.org`, or `App <app@example.org>`. What stands before the @ may be other than ASCII
                where the server offers SMTPUTF8.
            to: One such address, or several; a `Recipient` in place of one gets only what is of a level and a logger.
            username: For AUTH; goes with `password` or `token`.
            password: For AUTH. It never goes over a connection without TLS.
            token: A function, async or not, that gives an OAuth 2.0 access token, for AUTH by XOAUTH2 or OAUTHBEARER in
                place of a password. It is called for each new connection, one that is not async in a thread, and once
                more where the server refuses what it gave. A `DeliveryError` that it raises is the attempt's; anything
                else is tried again. The token never goes over a connection without TLS.
            tls: "auto": STARTTLS where it is offered, and implicit TLS on port 465. "starttls": or nothing is sent.
                "implicit": TLS from the first byte. "off": none.
            tls_context: For a certificate authority or a client certificate of one's own. None: the system's
                authorities. Certificate and name are verified in every mode, unless this context says otherwise.
            endpoints: Further servers as (host, port), tried in order when the one in use can't be reached, greets with
                a refusal, or fails at TLS or AUTH; but not where it refuses the password or token. The one that last
                answered to a mail is tried first; there is no way back to `host` before that one fails. A certificate
                must name the server that was reached.
            local_hostname: What the server is told as our name. None: the address that the connection comes from.
            connect_timeout: Seconds for name and connection together, for each server.
            data_timeout: Seconds for the answer to a whole mail. Less than the 600 that RFC 5321 (section 4.5.3.2.6)
                gives a server means that one which takes its time gets the mail again and again.
            idle_timeout: Seconds after a mail at which the connection is dropped. 0: at once.
            greylist_wait: Seconds after which a mail is tried again that the server put off, for all or some of its
                recipients: a reply of the 400s other than 421.
            **mail: As for every sink that sends mails (`MailSink`), and for every `Sink`. `formatter` gives each
                record's text. `send_timeout` is 60 s here and bounds each step by itself: building a mail, the TLS
                handshake, a token, each reply but the last, and how long the server reads nothing of a mail. An attempt
                as a whole has no other limit than the sum.

        Raises:
            ConfigError: A value can't be used.
        """
        owner = f"{type(self).__name__}: "
        timeout = step_timeout(owner, mail)
        servers = _endpoints(owner, host, port, endpoints)
        check_steps(owner, local_hostname, connect_timeout, data_timeout, greylist_wait)
        one_of(owner, "tls", tls, get_args(TLS))
        _check_login(owner, username, password, token, tls)
        if tls == "off" and tls_context is not None:
            msg = f"{owner}tls_context: nothing is verified with it while tls is 'off'"
            raise ConfigError(msg)
        self._connect_timeout = connect_timeout
        self._token = token
        context = None if tls == "off" else net.tls_context(tls_context or True)
        accesses = [
            Access(
                where=str(server),
                host=server.host,
                port=server.port,
                tls="implicit" if tls == "auto" and server.port == _IMPLICIT_PORT else tls,
                context=context,
                local_hostname=local_hostname,
                username=username,
                password=password,
                token=None if token is None else self._current_token,
                timeout=timeout,
                data_timeout=data_timeout,
                greylist_wait=greylist_wait,
            )
            for server in servers
        ]
        super().__init__(accesses, sender=sender, to=to, idle_timeout=idle_timeout, **mail)

    async def begin(self, access: Access) -> Session:
        """Connect, greet, begin TLS and authenticate."""
        assert access.port is not None  # noqa: S101 - each server has one here
        connected = await net.connect(access.host, access.port, timeout=self._connect_timeout)
        return Session(access, await opened(access, connected))

    async def _current_token(self) -> str:
        """Ask for a token."""
        assert self._token is not None  # noqa: S101 - nobody asks otherwise
        timeout = self._accesses[0].timeout
        try:
            async with asyncio.timeout(timeout):
                asked = inspect.iscoroutinefunction(self._token)
                given: Any = self._token() if asked else await self._worker.run(self._token)
                if inspect.isawaitable(given):
                    given = await given
        except DeliveryError:
            raise
        except TimeoutError as error:
            msg = f"{self!r}: token() gave nothing within {timeout:g} s"
            raise TemporaryFailure(msg) from error
        except Exception as error:
            # Its words may be about what it asked with.
            msg = f"{self!r}: token() raised {type(error).__name__}"
            raise TemporaryFailure(msg) from error
        if not isinstance(given, str) or not given.isascii() or not given.isprintable() or not given or " " in given:
            msg = f"{self!r}: token() must give a token as text, got an object of class {type(given).__name__}"
            raise SinkFailure(msg)
        return given


def _endpoints(owner: str, host: object, port: object, endpoints: Iterable[tuple[str, int]]) -> list[Endpoint]:
    check_host(owner, "host", host)
    check_port(owner, port)
    try:
        pairs: list[tuple[Any, Any]] = [(one, other) for one, other in endpoints]
    except (TypeError, ValueError) as error:
        msg = f"{owner}endpoints must be (host, port) pairs, got {endpoints!r}"
        raise ConfigError(msg) from error
    for one, other in pairs:
        check_host(f"{owner}endpoints: ", "host", one)
        check_port(f"{owner}endpoints: ", other)
    return [Endpoint(one, other) for one, other in [(cast("Any", host), cast("Any", port)), *pairs]]


def _check_login(owner: str, username: object, password: object, token: object, tls: str) -> None:
    for name, value in (("username", username), ("password", password)):
        if value is not None and not isinstance(value, str):
            # Its class is all that may be told of a password.
            msg = f"{owner}{name} must be text, got an object of class {type(value).__name__}"
            msg += ": decode it" if isinstance(value, bytes) else ""
            raise ConfigError(msg)
    if token is not None and not callable(token):
        msg = f"{owner}token must be a function that gives a token, got an object of class {type(token).__name__}"
        raise ConfigError(msg)
    if token is not None and password is not None:
        msg = f"{owner}token goes in place of a password: leave one of them out"
        raise ConfigError(msg)
    if token is not None and username is None:
        msg = f"{owner}token goes with a username, which is missing"
        raise ConfigError(msg)
    if (username is None) != (password is None and token is None):
        given = "username" if password is None else "password"
        msg = f"{owner}username and password go together, got only the {given}"
        raise ConfigError(msg)
    if username is not None and tls == "off":
        secret = "password" if token is None else "token"
        msg = (
            f"{owner}a {secret} never goes over a connection without TLS, and tls is 'off': use 'starttls' or "
            "'implicit' (with a tls_context for a certificate of your own), or leave "
            f"username and {secret} out where the server takes mail without them"
        )
        raise ConfigError(msg)
