"""Mail servers on loopback: aiosmtpd in a thread, exim as a process, and a script where no real one shows the fault."""

from __future__ import annotations

import asyncio
import getpass
import os
import pwd
import ssl
import subprocess
import tempfile
import threading
import time
from base64 import b64decode
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from socket import create_connection
from typing import Any, cast

import pytest
import trustme
from aiosmtpd.controller import Controller, UnixSocketController
from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import MISSING, SMTP, AuthResult, LoginPassword

from servers import free_port, require_binary

DROP = "drop"
"""A reply that is none: the connection is reset."""
HOLD = "hold"
"""A reply that comes when `Desk.release` is set; from a script, never."""
LOST = "lost"
"""The mail is taken, and the connection reset in place of a reply."""


def parsed(raw: bytes) -> EmailMessage:
    """Read a mail as its reader's program does."""
    return message_from_bytes(raw, policy=policy.SMTP)


@dataclass
class Desk:
    """What an aiosmtpd server took, and what it shall answer."""

    mails: list[bytes] = field(default_factory=list)
    delivered: list[tuple[str, str]] = field(default_factory=list)
    envelopes: list[Any] = field(default_factory=list)
    logged_in: list[bool] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    connections: int = 0
    ended: int = 0
    lost: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    release: threading.Event = field(default_factory=threading.Event)
    script: defaultdict[str, deque[str]] = field(default_factory=lambda: defaultdict(deque))
    port: int = 0
    server: SMTP | None = None
    offers: tuple[str, ...] = ()

    def answer(self, command: str, *replies: str) -> None:
        """Answer the next such commands so, and further ones as ever."""
        self.script[command].extend(replies)

    def hang_up(self) -> None:
        """End the last connection from this side."""
        assert self.server is not None
        self.server.loop.call_soon_threadsafe(cast("asyncio.WriteTransport", self.server.transport).abort)

    async def _reply(self, server: SMTP, command: str) -> str | None:
        self.server = server
        self.commands.append(command)
        reply = self.script[command].popleft() if self.script[command] else None
        if reply == DROP:
            cast("asyncio.WriteTransport", server.transport).abort()
        if reply == HOLD:
            await asyncio.to_thread(self.release.wait, 30)
            return None
        return reply

    def _store(self, session: Any, envelope: Any, recipients: Sequence[str]) -> None:
        name = str(parsed(envelope.content)["Message-ID"])
        self.delivered += [(name, recipient) for recipient in recipients]
        self.mails.append(envelope.content)
        self.envelopes.append(envelope)
        self.logged_in.append(bool(session.authenticated))

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Any, _envelope: Any, hostname: str, replies: list[str]
    ) -> list[str]:
        """Answer an EHLO."""
        session.host_name = hostname
        reply = await self._reply(server, "EHLO")
        return [reply] if reply else [*replies[:-1], *(f"250-{offer}" for offer in self.offers), replies[-1]]

    async def handle_AUTH(self, server: SMTP, _session: Any, _envelope: Any, _args: list[str]) -> object:  # noqa: N802
        """Answer an AUTH, or leave that to whoever knows the passwords."""
        return await self._reply(server, "AUTH") or MISSING

    async def handle_QUIT(self, server: SMTP, _session: Any, _envelope: Any) -> str:  # noqa: N802
        """Answer a QUIT."""
        return await self._reply(server, "QUIT") or "221 Bye"

    async def handle_RSET(self, server: SMTP, _session: Any, _envelope: Any) -> str:  # noqa: N802
        """Answer a RSET."""
        return await self._reply(server, "RSET") or "250 OK"

    async def handle_NOOP(self, server: SMTP, _session: Any, _envelope: Any, _arg: Any) -> str:  # noqa: N802
        """Answer a NOOP."""
        return await self._reply(server, "NOOP") or "250 OK"

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, _session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        """Answer a MAIL."""
        reply = await self._reply(server, "MAIL")
        if reply is None:
            envelope.mail_from, envelope.mail_options = address, options
        return reply or "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, _session: Any, envelope: Any, address: str, _options: list[str]
    ) -> str:
        """Answer a RCPT."""
        reply = await self._reply(server, "RCPT")
        if reply is None or reply.startswith("25"):
            envelope.rcpt_tos.append(address)
        return reply or "250 OK"

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:  # noqa: N802
        """Answer the end of a mail."""
        reply = await self._reply(server, "DATA")
        if reply is None or reply == LOST:
            self._store(session, envelope, envelope.rcpt_tos)
        if reply == LOST:
            cast("asyncio.WriteTransport", server.transport).abort()
        return reply or "250 OK"


class LocalDesk(Desk):
    """Of an LMTP server: a reply to DATA is one for each recipient, with " / " between them; `DROP` may be the last."""

    async def handle_DATA(self, server: SMTP, session: Any, envelope: Any) -> str:  # noqa: N802
        """Answer the end of a mail, for each recipient."""
        told = await self._reply(server, "DATA")
        replies = told.split(" / ") if told else ["250 OK"] * len(envelope.rcpt_tos)
        taken = [name for name, reply in zip(envelope.rcpt_tos, replies, strict=False) if reply.startswith("250")]
        if taken:
            self._store(session, envelope, taken)
        if replies[-1] == DROP and server.transport is not None:
            transport = cast("asyncio.Transport", server.transport)
            transport.write("".join(f"{reply}\r\n" for reply in replies[:-1]).encode())
            transport.close()
        return "\r\n".join(replies)


@dataclass
class TokenDesk(Desk):
    """Takes OAuth 2.0 tokens; the first of `good` is good once, and so on."""

    good: tuple[str, ...] = ()
    shown: list[str] = field(default_factory=list)
    dismissed: list[bytes] = field(default_factory=list)
    mechanisms: list[str] = field(default_factory=list)

    async def auth_XOAUTH2(self, server: SMTP, args: list[str]) -> AuthResult:  # noqa: N802
        """Look at a token, and ask in vain for what is wrong with it."""
        self.mechanisms.append(args[0])
        token = b64decode(args[1]).decode().partition("auth=Bearer ")[2].partition("\1")[0]
        self.shown.append(token)
        if token in self.good:
            return AuthResult(success=True, auth_data=token)
        answer = await server.challenge_auth('{"status":"401","schemes":"bearer"}')
        self.dismissed.append(cast("bytes", answer))
        return AuthResult(success=False, handled=False)

    async def auth_OAUTHBEARER(self, server: SMTP, args: list[str]) -> AuthResult:  # noqa: N802
        """Do the same under its other name."""
        return await self.auth_XOAUTH2(server, args)


class _Server(SMTP):
    """Counts connections at its desk."""

    def connection_made(self, transport: Any) -> None:
        if self._original_transport is None:  # with STARTTLS it is made twice
            self.event_handler.connections += 1
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.event_handler.ended += 1
        self.event_handler.lost.release()


class _LocalServer(_Server, LMTP):
    pass


class _Controller(Controller):
    def factory(self) -> SMTP:
        return _Server(self.handler, **self.SMTP_kwargs)


class _LocalController(Controller):
    def factory(self) -> SMTP:
        return _LocalServer(self.handler, **self.SMTP_kwargs)


class _UnixController(UnixSocketController):
    def factory(self) -> SMTP:
        return _LocalServer(self.handler, **self.SMTP_kwargs)


@contextmanager
def aiosmtpd(desk: Desk | None = None, **server: Any) -> Iterator[Desk]:
    """Run a server; `ssl_context` for implicit TLS, `tls_context` for STARTTLS, `login` (user, password) for AUTH."""
    login = server.pop("login", None)
    if login is not None:
        server |= {"authenticator": _authenticator(login), "auth_require_tls": "ssl_context" not in server}
    desk = desk or Desk()
    desk.port = free_port()
    with _running(desk, _Controller(desk, hostname="127.0.0.1", port=desk.port, **server)):
        yield desk


@contextmanager
def lmtpd(path: Path | None = None) -> Iterator[LocalDesk]:
    """Run an LMTP server, on a Unix socket or on a free port."""
    desk = LocalDesk(port=free_port())
    if path is None:
        controller: Any = _LocalController(desk, hostname="127.0.0.1", port=desk.port)
    else:
        controller = _UnixController(desk, unix_socket=path)
    with _running(desk, controller):
        yield desk


@contextmanager
def _running(desk: Desk, controller: Any) -> Iterator[None]:
    controller.start()
    # The controller connects once itself, to see whether it is up.
    assert desk.lost.acquire(timeout=10)
    desk.connections = desk.ended = 0
    try:
        yield
    finally:
        desk.release.set()
        # What still stands when its loop is stopped is never closed.
        deadline = time.monotonic() + 10
        while desk.ended < desk.connections and time.monotonic() < deadline:
            time.sleep(0.001)
        controller.stop()


def _authenticator(login: tuple[str, str]) -> Callable[..., AuthResult]:
    def check(_server: Any, _session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        wanted = LoginPassword(*(part.encode() for part in login))
        return AuthResult(success=given == wanted, handled=False)

    return check


@dataclass(frozen=True)
class Certificates:
    """Contexts with one authority of their own, and its certificate in PEM."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    authority: str


def certificates(*names: str) -> Certificates:
    """Make an authority that a client trusts, and a certificate of its own for a server with these names."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Certificates(server, client, authority.cert_pem.bytes().decode())


@asynccontextmanager
async def scripted(
    replies: Mapping[str, str | bytes], greeting: str = "220 fake", context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Answer each command by its first word as told, and close where nothing was told; gives the port.

    `HOLD`: no answer; for ".": the mail is not read either. "*": whatever else comes.
    """
    open_ones: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.add(writer)
        if greeting != HOLD:
            writer.write(f"{greeting}\r\n".encode())
        while line := await reader.readline():
            words = line.decode("latin-1").split()
            reply = replies.get(words[0].upper() if words else "", replies.get("*"))
            if reply is None:
                break
            if reply == HOLD:
                continue
            text = reply if isinstance(reply, bytes) else reply.format(line=line.decode("latin-1").strip()).encode()
            writer.write(text + b"\r\n")
            if text.startswith(b"354"):
                await _take_mail(replies, reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in open_ones:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()


async def _take_mail(
    replies: Mapping[str, str | bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    if replies.get(".") == HOLD:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        with suppress(OSError):
            await writer.wait_closed()
    elif "early" in replies:
        await reader.read(1)
        writer.write(f"{replies['early']!s}\r\n".encode())
        while await reader.read(65_536):
            pass
    elif "." in replies:
        await reader.readuntil(b"\r\n.\r\n")
        writer.write(f"{replies['.']!s}\r\n".encode())


@dataclass(frozen=True)
class Exim:
    """A running exim that delivers everything into one Maildir."""

    port: int
    folder: Path

    def count(self) -> int:
        """How many mails the Maildir has."""
        new = self.folder / "mail" / "new"
        return len(list(new.iterdir())) if new.is_dir() else 0

    def mails(self, count: int, timeout: float = 10.0) -> list[EmailMessage]:
        """Read the Maildir once it has so many mails; blocks."""
        new = self.folder / "mail" / "new"
        deadline = time.monotonic() + timeout
        while not new.is_dir() or len(found := list(new.iterdir())) < count:
            if time.monotonic() > deadline:
                log = self.folder / "mainlog"
                pytest.fail(f"exim delivered no {count} mails: {log.read_text() if log.exists() else 'no log'}")
            time.sleep(0.01)
        return [parsed(path.read_bytes()) for path in sorted(found)]


_EXIM_CONFIG = """
primary_hostname = exim.test
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
spool_directory = {folder}/spool
log_file_path = {folder}/%slog
tls_advertise_hosts =
message_size_limit = 200K
acl_smtp_rcpt = on_rcpt
acl_smtp_data = on_data
begin acl
on_rcpt:
  defer local_parts = later
    message = come later
  deny local_parts = nobody
    message = no such user
  drop local_parts = dropped
    message = go away
  accept
on_data:
  deny condition = ${{if match{{$rh_subject:}}{{poison}}}}
    message = not this
  defer condition = ${{if match{{$rh_subject:}}{{busy}}}}
    message = not now
  drop condition = ${{if match{{$rh_subject:}}{{enough}}}}
    message = that is enough
  accept
begin routers
all:
  driver = accept
  transport = maildir
begin transports
maildir:
  driver = appendfile
  envelope_to_add
  batch_max = 10
  maildir_format
  directory = {folder}/mail
  user = {user}
"""


@contextmanager
def exim() -> Iterator[Exim]:
    """Run a real exim: `later@`, `nobody@` and `dropped@` are refused, and subjects with poison, busy and enough."""
    binary = require_binary("exim4")
    root = os.geteuid() == 0
    user = "Debian-exim" if root else getpass.getuser()
    # Not in pytest's folder, which only its owner may enter: exim gives up being root.
    with tempfile.TemporaryDirectory(prefix="offloop-exim-", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        if root:
            entry = pwd.getpwnam(user)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        config = folder / "exim.conf"
        config.write_text(_EXIM_CONFIG.format(port=port, folder=folder, user=user))
        config.chmod(0o644)
        process = subprocess.Popen([binary, "-C", str(config), "-bdf", "-oP", str(folder / "pid")])
        try:
            _wait_until_up(port, process)
            yield Exim(port, folder)
        finally:
            process.terminate()
            process.wait(10)


def _wait_until_up(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        # A free port that is polled can connect to itself.
        with suppress(OSError), create_connection(("127.0.0.1", port), 1) as probe:
            if probe.getsockname() != probe.getpeername() and probe.recv(3) == b"220":
                probe.sendall(b"QUIT\r\n")
                return
        time.sleep(0.01)
    pytest.fail("exim did not start")


def sendmail(folder: Path) -> Path:
    """Write a `sendmail` command that keeps mails as files, and before that runs the folder's script `fault`."""
    command = folder / "sendmail"
    command.write_text(
        f"""#!/bin/sh
cd '{folder}'
[ ! -e fault ] || . ./fault
printf '%s\\n' "$@" > args
cat > $$.part
mv $$.part "$(date +%s%N).mail"
"""
    )
    command.chmod(0o755)
    return command


def sent(folder: Path) -> list[Path]:
    """List the mails that the command has kept, oldest first."""
    return sorted(folder.glob("*.mail"))
