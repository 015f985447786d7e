"""`LMTPSink`: mails to a delivery agent of this machine or network over LMTP, on a connection that is kept."""

from __future__ import annotations

import os
from typing import Unpack, cast

from offloop import net
from offloop.errors import ConfigError
from offloop.mailing.access import Access
from offloop.mailing.client import LocalSession, Session
from offloop.mailing.opening import opened_locally
from offloop.mailing.routes import To
from offloop.mailing.served import DATA_TIMEOUT, ServedSink, check_host, check_port, check_steps, step_timeout
from offloop.mailing.sink import MailOptions
from offloop.names import Endpoint

__all__ = ["LMTPSink"]

_MAX_PATH = 107  # bytes; the limit of Linux, others have a little less


class LMTPSink(ServedSink):
    """Sends mails to a server that delivers them itself, such as Dovecot's or Cyrus's, by RFC 2033.

    As `SMTPSink`, with an answer for each recipient: whoever was put off gets the mail later, and the others get it
    once, even where the connection broke between their answers. There is no TLS and no password.
    """

    def __init__(
        self,
        path_or_host: str | os.PathLike[str],
        port: int | None = None,
        *,
        sender: str,
        to: To,
        local_hostname: str | None = None,
        connect_timeout: float = 5.0,
        data_timeout: float = DATA_TIMEOUT,
        idle_timeout: float = 30.0,
        greylist_wait: float = 60.0,
        **mail: Unpack[MailOptions],
    ) -> None:
        """Say which server, and who writes to whom. Nothing is connected yet.

        Args:
            path_or_host: The path of a Unix socket; with a `port`, a host name or an address.
            port: None for a Unix socket. LMTP has none of its own, and never 25; 24 is usual.
            sender: `app@example.org`, or `App <app@example.org>`.
            to: One such address, or several; a `Recipient` in place of one gets only what is of a level and a logger.
            local_hostname: What the server is told as our name. None: the address that the connection comes from, or
                "localhost" on a Unix socket.
            connect_timeout: Seconds for name and connection together.
            data_timeout: Seconds for each answer to a whole mail.
            idle_timeout: Seconds after a mail at which the connection is dropped. 0: at once.
            greylist_wait: Seconds after which a mail is tried again for those recipients for whom the server put it
                off: a reply of the 400s other than 421.
            **mail: As for every sink that sends mails (`MailSink`), and for every `Sink`. `send_timeout` is 60 s here
                and bounds each step by itself: building a mail, each reply but the last, and how long the server reads
                nothing of a mail.

        Raises:
            ConfigError: A value can't be used.
        """
        owner = f"{type(self).__name__}: "
        timeout = step_timeout(owner, mail)
        where, host = _where(owner, path_or_host, port)
        check_steps(owner, local_hostname, connect_timeout, data_timeout, greylist_wait)
        self._connect_timeout = connect_timeout
        access = Access(
            where=where,
            host=host,
            port=port,
            local_hostname=local_hostname,
            timeout=timeout,
            data_timeout=data_timeout,
            greylist_wait=greylist_wait,
        )
        super().__init__([access], sender=sender, to=to, idle_timeout=idle_timeout, **mail)

    async def begin(self, access: Access) -> Session:
        """Connect and greet."""
        if access.port is None:
            connected = await net.connect_locally(access.host, timeout=self._connect_timeout)
        else:
            connected = await net.connect(access.host, access.port, timeout=self._connect_timeout)
        return LocalSession(access, await opened_locally(access, connected))


def _where(owner: str, path_or_host: object, port: object) -> tuple[str, str]:
    """What messages call the server, and its path or host."""
    if port is not None:
        check_host(owner, "path_or_host", path_or_host)
        check_port(owner, port)
        host = cast("str", path_or_host)
        return str(Endpoint(host, cast("int", port))), host
    path = cast("object", os.fspath(path_or_host)) if isinstance(path_or_host, str | os.PathLike) else None
    if not isinstance(path, str) or "/" not in path or "\0" in path:
        msg = f"{owner}path_or_host: expected the path of a Unix socket, or a host with a port, got {path_or_host!r}"
        raise ConfigError(msg)
    if len(os.fsencode(path)) > _MAX_PATH:
        msg = f"{owner}path_or_host: a Unix socket's path has at most {_MAX_PATH} bytes, got {path!r}"
        raise ConfigError(msg)
    return path, path
