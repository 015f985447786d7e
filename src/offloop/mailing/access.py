"""How a mail server is reached, and what its refusals mean. Nothing that is secret leaves here in a message."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from offloop.errors import DeliveryError, PermanentFailure, SinkFailure, TemporaryFailure
from offloop.mailing.dialogue import Reply

__all__ = ["TLS", "Access", "Unauthorized"]

TLS = Literal["auto", "starttls", "implicit", "off"]

_MAX_REPLY = 300  # characters of a reply that are repeated in a message

# Replies that speak of us and not of a mail: AUTH is needed, is too weak, failed, or wants TLS (RFC 4954, section 6).
_ABOUT_US = frozenset({530, 534, 535, 538})
_BAD_CREDENTIALS = 535
_TOO_LARGE = 552
_CLOSING = 421


class Unauthorized(SinkFailure):
    """The server knows who we say we are, and does not believe it: another server would say the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a server is reached.

    Attributes:
        where: What messages call it.
        host: What its certificate must name.
        port: None for a Unix socket.
        tls: When TLS begins.
        context: How its certificate is verified; None only where TLS is off.
        local_hostname: What we call ourselves; None: the address the connection comes from (RFC 5321, section 4.1.3).
        username: For AUTH, None for none.
        password: For AUTH.
        token: Gives an OAuth 2.0 access token for AUTH, in place of a password.
        timeout: Seconds for each reply, and for the server to read on while a mail is written.
        data_timeout: Seconds for the reply to a whole mail.
        greylist_wait: Seconds until a mail that was put off is tried again.
    """

    where: str
    host: str
    port: int | None
    tls: TLS = "off"
    context: ssl.SSLContext | None = None
    local_hostname: str | None = None
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: Callable[[], Awaitable[str]] | None = field(default=None, repr=False)
    timeout: float
    data_timeout: float
    greylist_wait: float

    @property
    def has_secret(self) -> bool:
        """Whether there is something that must not go without TLS."""
        return self.password is not None or self.token is not None

    def clean(self, text: object, *tokens: str) -> str:
        """Make one short printable line of what a server said; some repeat the command, and so the password.

        Args:
            text: What it said.
            tokens: What else must not be in it.
        """
        line = str(text)
        secrets = list(tokens)
        if self.username is not None and self.password is not None:
            plain = f"\0{self.username}\0{self.password}"
            secrets += (_base64(secret) for secret in (plain, self.password, self.username))
            secrets.append(self.password)
        for secret in secrets:
            line = line.replace(secret, "***")
        line = "".join(character if character.isprintable() else " " for character in line)
        return line if len(line) <= _MAX_REPLY else line[:_MAX_REPLY] + "..."

    def refusal(self, step: str, reply: Reply, *, about_us: bool = False, mail: bool = False) -> DeliveryError:
        """What a reply that is none we hoped for means.

        Args:
            step: What we were doing.
            reply: What was said.
            about_us: Whether it concerns the sink and not a mail: nothing in this step depends on records.
            mail: Whether the server may put off this mail alone, to see whether we come again (RFC 6647).
        """
        said = f"{self.where}: {step}: the server said {reply.code} {self.clean(reply.text)}"
        if not 500 <= reply.code < 600:  # noqa: PLR2004 - what is no permanent failure may be better later
            greylisted = mail and 400 <= reply.code < 500 and reply.code != _CLOSING  # noqa: PLR2004
            return TemporaryFailure(said, retry_after=self.greylist_wait if greylisted else None)
        if reply.code == _BAD_CREDENTIALS:
            return Unauthorized(said)
        if reply.code in _ABOUT_US or (about_us and reply.code != _TOO_LARGE):
            return SinkFailure(said)
        return PermanentFailure(said)

    @contextmanager
    def failures(self, step: str) -> Iterator[None]:
        """Turn what the system raises into offloop's own errors.

        Args:
            step: What we were doing.
        """
        try:
            yield
        except ssl.SSLError as error:
            raise self._tls_failure(step, error) from error
        except OSError as error:
            if isinstance(error.__cause__, ssl.SSLError):
                raise self._tls_failure(step, error.__cause__) from error
            raise TemporaryFailure(f"{self.where}: {step}: {self.clean(error)}") from error

    def _tls_failure(self, step: str, error: ssl.SSLError) -> DeliveryError:
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError):
            return TemporaryFailure(f"{self.where}: {step}: the server broke off the TLS handshake")
        reason = getattr(error, "verify_message", None) or error.reason or str(error)
        return SinkFailure(f"{self.where}: {step}: TLS failed: {reason}")


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
