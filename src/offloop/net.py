"""Sockets and TLS over anyio: the only module that opens a connection.

Nothing here waits on the loop's thread, and nothing is left open: an attempt that is cancelled closes what it opened.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
import ssl
from collections.abc import Sequence
from typing import Literal

import anyio
from anyio.abc import SocketStream
from anyio.streams.tls import TLSStream

from offloop import fork
from offloop.connection import Connection, failure, reason
from offloop.errors import ConfigError
from offloop.names import NAMES, Address, Endpoint, Names

__all__ = ["TLS", "connect", "connect_locally", "open_connection", "tls_context"]

TLS = ssl.SSLContext | Literal[True] | None
"""What `tls=` may be: None for none, True for the system's authorities, or a context of the user's own."""

_STAGGER = 0.25  # seconds before the next address is tried as well: RFC 8305, section 8
_FULL = 0.05  # seconds until a server that was busy is asked again
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}  # a silent peer is given up after two minutes


def tls_context(tls: TLS) -> ssl.SSLContext | None:
    """What `tls=` means: None for none, True for the system's authorities, or the user's own context.

    Takes 7 to 32 ms for True: call it once, at construction.

    Raises:
        ConfigError: It is something else, or a context for servers.
    """
    if tls is None:
        return None
    if tls is True:
        return ssl.create_default_context()
    if not isinstance(tls, ssl.SSLContext):
        msg = f"tls must be None (no TLS), True (the system's authorities) or an ssl.SSLContext, got {tls!r}"
        raise ConfigError(msg)
    if tls.protocol == ssl.PROTOCOL_TLS_SERVER:
        msg = "tls must be a context for clients, got one for servers: use ssl.create_default_context()"
        raise ConfigError(msg)
    return tls


async def connect(host: str, port: int, *, timeout: float, names: Names = NAMES) -> socket.socket:
    """A connected, non-blocking TCP socket, by whichever of the host's addresses answers first.

    IPv6 and IPv4 take turns, 250 ms apart, or as soon as an attempt fails (RFC 8305). Small writes go out at once, and
    keepalive finds a peer that is gone within two minutes. On cancellation nothing stays open.

    Args:
        host: A name, or an IPv4 or IPv6 address.
        port: 1 to 65535.
        timeout: Seconds for the name and the connection together.
        names: What resolves names.

    Raises:
        TimeoutError: No connection in time; names the addresses that were tried.
        OSError: No address could be connected to; says why for each.
    """
    endpoint = Endpoint(host, port)
    failures: dict[Address, OSError | None] = {}
    try:
        async with asyncio.timeout(timeout):
            addresses = await names.resolve(host, port, timeout=timeout)
            connected = await _race(interleaved(addresses), failures)
    except TimeoutError as error:
        msg = f"{endpoint}: no connection within {timeout:g} s{_told(failures) or ' (the name was not resolved)'}"
        raise TimeoutError(msg) from error
    if connected is None:
        first = next(error for error in failures.values() if error is not None)
        # With the number of the first, so that it is a ConnectionRefusedError where that is what it was.
        raise OSError(first.errno, f"{endpoint}: no connection{_told(failures)}") from first
    return connected


async def connect_locally(path: str, *, timeout: float) -> socket.socket:
    """A connected, non-blocking Unix socket. On cancellation nothing stays open.

    Args:
        path: Of the socket that a server on this machine listens on.
        timeout: Seconds that it may take: a server that is busy makes one wait.

    Raises:
        TimeoutError: No connection in time.
        OSError: Nobody listens there; says where.
    """
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fork.remember(connecting)
    try:
        connecting.settimeout(0)
        async with asyncio.timeout(timeout):
            while True:
                try:
                    connecting.connect(path)
                except BlockingIOError:  # its queue is full, and nothing tells when it is not (Linux)
                    await asyncio.sleep(_FULL)
                else:
                    return connecting
    except TimeoutError as error:
        connecting.close()
        msg = f"{path}: no connection within {timeout:g} s (nobody accepts it)"
        raise TimeoutError(msg) from error
    except OSError as error:
        connecting.close()
        raise OSError(error.errno, f"{path}: no connection ({_outcome(error)})") from error
    except BaseException:
        connecting.close()
        raise


def interleaved(addresses: Sequence[Address]) -> list[Address]:
    """The addresses, families taking turns, IPv6 first: RFC 8305, section 4."""
    six = [address for address in addresses if address.family == socket.AF_INET6]
    four = [address for address in addresses if address.family != socket.AF_INET6]
    pairs = itertools.zip_longest(six, four)
    return [address for address in itertools.chain.from_iterable(pairs) if address is not None]


async def _race(addresses: Sequence[Address], failures: dict[Address, OSError | None]) -> socket.socket | None:
    """The first socket that connects, None if none does; `failures` gets each address that was tried."""
    attempts: dict[asyncio.Task[socket.socket], Address] = {}
    waiting = list(reversed(addresses))
    try:
        while waiting or attempts:
            if waiting:
                address = waiting.pop()
                failures[address] = None
                attempts[asyncio.create_task(_connect_to(address))] = address
            done, _ = await asyncio.wait(
                attempts, timeout=_STAGGER if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for attempt in done:
                address = attempts[attempt]
                error = attempt.exception()
                if error is not None and not isinstance(error, OSError):
                    raise error
                del attempts[attempt]
                if error is None:
                    return attempt.result()
                failures[address] = error
        return None
    finally:
        for attempt in attempts:
            attempt.cancel()
            # Two may have connected in one turn of the loop: the loser is closed like one that was cancelled too late.
            attempt.add_done_callback(_close_late)


def _close_late(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


async def _connect_to(address: Address) -> socket.socket:
    connecting = socket.socket(address.family, socket.SOCK_STREAM)
    fork.remember(connecting)
    try:
        connecting.settimeout(0)
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connecting.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            if hasattr(socket, option):  # pragma: no branch
                connecting.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        await asyncio.get_running_loop().sock_connect(connecting, address.sockaddr)
        _refuse_self(connecting)
    except BaseException:
        connecting.close()
        raise
    return connecting


def _refuse_self(connected: socket.socket) -> None:
    """A port of the ephemeral range on which nobody listens can connect to itself, and would take what it sends."""
    if connected.getsockname() == connected.getpeername():
        raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself")


def _told(failures: dict[Address, OSError | None]) -> str:
    """What became of each address, for a message."""
    told = [f"{address.sockaddr[0]}: {_outcome(error)}" for address, error in failures.items()]
    return f" ({'; '.join(told)})" if told else ""


def _outcome(error: OSError | None) -> str:
    if error is None:
        return "no answer"
    # In the system's words: asyncio puts the address once more in their place.
    return os.strerror(error.errno) if error.errno else reason(error)


async def open_connection(
    endpoint: Endpoint, *, tls: ssl.SSLContext | None, connect_timeout: float, names: Names = NAMES
) -> Connection:
    """A connection to the endpoint; with TLS, one whose certificate and name were verified as the context says.

    Args:
        endpoint: The server; its host is what the certificate must name, and the server name it is asked for.
        tls: A context made by `tls_context`; None for no TLS.
        connect_timeout: Seconds for name, connection and handshake together.
        names: What resolves names.

    Raises:
        SinkFailure: A certificate was not accepted: the server's by us, or ours by the server.
        OSError: No connection, or no handshake; also `TimeoutError`.
    """
    deadline = asyncio.get_running_loop().time() + connect_timeout
    connected = await connect(endpoint.host, endpoint.port, timeout=connect_timeout, names=names)
    raw = await _stream(endpoint, connected)
    if tls is None:
        return Connection(endpoint, connected, raw)
    try:
        async with asyncio.timeout_at(deadline):
            hostname = endpoint.host.removesuffix(".")
            secured = await TLSStream.wrap(raw, server_side=False, hostname=hostname, ssl_context=tls)
            connection = Connection(endpoint, connected, raw, secured)
            await connection.accepted(secured)
    except BaseException as error:
        # The reader of a connection that was made already ends with its stream.
        await asyncio.wait({asyncio.create_task(raw.aclose())})
        if isinstance(error, TimeoutError):
            msg = f"{endpoint}: no TLS handshake within {connect_timeout:g} s"
            raise TimeoutError(msg) from error
        if isinstance(error, ssl.SSLError | anyio.BrokenResourceError | anyio.EndOfStream):
            raise failure(endpoint, error, "TLS handshake failed: ") from error
        raise
    return connection


async def _stream(endpoint: Endpoint, connected: socket.socket) -> SocketStream:
    try:
        return await SocketStream.from_socket(connected)
    except BaseException as error:
        connected.close()
        if isinstance(error, ValueError):  # it looks at the socket, and finds it not connected any more
            raise ConnectionResetError(errno.ECONNRESET, f"{endpoint}: reset by the peer") from error
        raise
