"""One open connection: what is sent over it, who has taken it, and when the peer has gone.

The kernel knows more than a stream says: which bytes the peer's kernel has acknowledged, and the connection's state at
this moment. Here it is asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import struct
import sys
from collections.abc import Iterator

import anyio
from anyio.abc import SocketStream
from anyio.streams.tls import TLSAttribute, TLSStream

from offloop.errors import SinkFailure
from offloop.names import Endpoint

if sys.platform == "linux":  # pragma: no branch
    import fcntl
    import termios

__all__ = ["Connection", "failure", "reason"]

_GOODBYE = 0.5  # seconds for the peer to close its side
_VERDICT = 0.25  # seconds for a TLS 1.3 server to say what it thinks of us
_YOUNG = 0.05  # seconds in which a peer that accepts for nobody has closed the connection
_FIRST_NAP, _LONGEST_NAP = 0.0002, 0.02  # seconds between two looks
_CHUNK_BYTES = 128 * 1024  # what the kernel takes, or TLS encrypts, in less than half a millisecond
_MUCH_BYTES = 16 * 1024  # where so much is sent the loop is busy, and its next turn is time enough for the peer
_READ_BYTES = 4096
_REFUSALS = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")  # in the names of TLS alerts
_NO_LINGER = struct.pack("ii", 1, 0)
_ESTABLISHED, _RESET = 1, 7  # TCP_ESTABLISHED and TCP_CLOSE, as the kernel counts its states


class Connection:
    """A connection that knows when its peer has gone; it belongs to the loop it was made in.

    Made by `net.open_connection`. What the peer says is read in small pieces and thrown away, so that its end is seen
    as it comes.

    Attributes:
        endpoint: The peer.
    """

    def __init__(
        self, endpoint: Endpoint, connected: socket.socket, raw: SocketStream, secured: TLSStream | None = None
    ) -> None:
        """Watch a connected stream.

        Args:
            endpoint: The peer.
            connected: The socket below `raw`.
            raw: The stream of bytes.
            secured: The TLS stream above `raw`, if any.
        """
        self.endpoint = endpoint
        self._socket = connected
        self._raw = raw
        self._secured = secured
        self._acknowledging = False
        self._lost: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._young_until = self._loop.time() + _YOUNG
        self._pid = os.getpid()
        self._reader = self._loop.create_task(self._watch(), name=f"offloop-watch-{endpoint}")
        self._ending: asyncio.Task[None] | None = None

    @property
    def closed(self) -> bool:
        """Whether it is of no more use: closed by us, or the peer has closed or reset it."""
        return self._lost is not None or _state(self._socket) != _ESTABLISHED

    async def send_all(self, data: bytes, *, timeout: float) -> None:
        """Hand all of the data to the peer.

        On Linux it returns when the peer's kernel has acknowledged every byte, and not within the first twentieth of a
        second of the connection; elsewhere when the own kernel has taken it. On any error and on cancellation the
        connection is aborted, and part of the data may have arrived.

        Args:
            data: The bytes.
            timeout: Seconds to wait.

        Raises:
            TimeoutError: The peer did not take it in time.
            SinkFailure: The peer refused our certificate.
            OSError: The connection is broken, or the peer closed it before it had everything.
        """
        until = self._loop.time() + timeout
        try:
            start = self._write_at_once(data) if self._secured is None else 0
            if start < len(data):
                async with asyncio.timeout(timeout):
                    await self._write(data, start)
            if len(data) >= _MUCH_BYTES:
                await asyncio.sleep(0)
            await self._acknowledged(until, timeout / 2)
        except BaseException as error:
            lost = self._lost
            self.abort()
            if isinstance(error, TimeoutError):
                msg = f"{self.endpoint}: {len(data)} bytes were not taken within {timeout:g} s"
                raise TimeoutError(msg) from error
            if isinstance(error, anyio.BrokenResourceError | anyio.ClosedResourceError | OSError | EOFError):
                raise failure(self.endpoint, lost or error) from error
            raise
        if self._lost is not None:
            await self._ended()

    async def accepted(self, secured: TLSStream) -> None:
        """After a handshake of TLS 1.3: wait for the server's session ticket, or for its refusal.

        There a client is through with the handshake before the server has looked at the client's certificate; what it
        sends to a server that refuses it would be acknowledged by the kernel and read by nobody. Servers that issue no
        tickets cost a quarter of a second, once a connection.

        Args:
            secured: The stream that this connection reads.

        Raises:
            SinkFailure: Our certificate was refused.
            OSError: The connection was closed.
        """
        tls = secured.extra(TLSAttribute.ssl_object)  # noqa: S610 - anyio's, not Django's
        if tls.version() != "TLSv1.3":
            return
        deadline = self._loop.time() + _VERDICT
        naps = _naps()
        while self._lost is None:
            if (tls.session is not None and tls.session.has_ticket) or self._loop.time() >= deadline:
                return
            await asyncio.sleep(next(naps))
        raise failure(self.endpoint, self._lost, "closed after the TLS handshake: ")

    def abort(self) -> None:
        """Reset the connection at once; what was not sent is thrown away. Idempotent, and harmless in another loop.

        In a forked child, where the connection is the parent's, nothing is touched.
        """
        if self._lost is None:
            self._lost = ConnectionAbortedError(errno.ECONNABORTED, "aborted")
        if self._pid != os.getpid():
            return
        with contextlib.suppress(OSError):  # it is closed already
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        if self._loop.is_closed():
            self._socket.close()
        elif self._loop.is_running():
            self._reader.cancel()
            self._end()
        else:  # left standing: the transport is that loop's to close, and it will not
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    async def aclose(self, timeout: float = _GOODBYE) -> None:
        """Say goodbye and close. Idempotent; never raises for what the peer does.

        Args:
            timeout: Seconds for the peer to close its side as well; so it is known to have read everything.
        """
        if self._loop is not asyncio.get_running_loop():
            self.abort()
            return
        try:
            if self._lost is None:
                self._lost = ConnectionAbortedError(errno.ECONNABORTED, "closed")
                with contextlib.suppress(OSError, anyio.BrokenResourceError, anyio.EndOfStream):
                    async with asyncio.timeout(timeout):
                        await self._say_goodbye()
        finally:
            self._reader.cancel()
            await self._ended()

    def _end(self) -> asyncio.Task[None]:
        if self._ending is None:
            self._ending = self._loop.create_task(self._raw.aclose())
        return self._ending

    async def _ended(self) -> None:
        # In a task of its own: a cancellation of the caller must not stop it half-way, with data left to be sent.
        await asyncio.wait({self._end()})

    async def _say_goodbye(self) -> None:
        if self._secured is None:
            await self._raw.send_eof()
            await asyncio.wait({self._reader})
        else:
            self._reader.cancel()
            await asyncio.wait({self._reader})
            await self._secured.unwrap()

    def _write_at_once(self, data: bytes) -> int:
        """Give the kernel what it takes without a wait: nothing waits in front of it; tells how much that was."""
        if self._lost is not None:
            raise self._lost
        try:
            return self._socket.send(data if len(data) <= _CHUNK_BYTES else memoryview(data)[:_CHUNK_BYTES])
        except BlockingIOError:
            return 0

    async def _write(self, data: bytes, begin: int) -> None:
        stream = self._raw if self._secured is None else self._secured
        for start in range(begin, len(data), _CHUNK_BYTES):
            await stream.send(data[start : start + _CHUNK_BYTES])

    async def _acknowledged(self, until: float, patience: float) -> None:
        """Wait until nothing is left in the send queue; a reset means that what was in the peer's is lost too.

        A peer that accepts and closes acknowledges what comes in between, and resets the connection afterwards: one
        that is young is watched for a moment longer, at most for so many seconds.

        Args:
            until: The loop's time at which to give up.
            patience: Seconds.

        Raises:
            TimeoutError: It was given up.
            OSError: The connection is lost.
        """
        self._acknowledging = True
        try:
            naps = _naps()
            while self._unacknowledged():
                if self._lost is not None:
                    raise self._lost
                now = self._loop.time()
                if now >= until:
                    raise TimeoutError
                await asyncio.sleep(min(next(naps), until - now))
            if (now := self._loop.time()) < self._young_until:
                await self._watched(min(self._young_until, now + patience))
        finally:
            self._acknowledging = False

    async def _watched(self, until: float) -> None:
        # It has been taken: whoever has no time for more is not told that it was not.
        naps = _naps()
        with contextlib.suppress(asyncio.CancelledError):
            while self._loop.time() < until:
                self._unacknowledged()
                await asyncio.sleep(next(naps))

    def _unacknowledged(self) -> int:
        if _state(self._socket) == _RESET:
            raise self._lost or ConnectionResetError(errno.ECONNRESET, "reset by the peer")
        return _unacknowledged_bytes(self._socket)

    async def _watch(self) -> None:
        """Read until there is an end. Cancelled by others (a loop that ends), it only ceases to look."""
        stream = self._raw if self._secured is None else self._secured
        lost: Exception
        try:
            while True:
                await stream.receive(_READ_BYTES)
        except anyio.EndOfStream:
            lost = EOFError("closed by the peer")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.BusyResourceError, OSError) as error:
            lost = error
        self._lost = self._lost or lost
        # The peer may have acknowledged everything before it closed its side: the send that waits for that finds out.
        if not (self._acknowledging and isinstance(lost, EOFError)):
            self._end()


def _unacknowledged_bytes(connected: socket.socket) -> int:
    """How many bytes the peer's kernel has not acknowledged; 0 where the system can't tell."""
    if sys.platform != "linux":
        return 0  # pragma: no cover
    return int(struct.unpack("i", fcntl.ioctl(connected, termios.TIOCOUTQ, bytes(4)))[0])


def _state(connected: socket.socket) -> int:
    """The kernel's view of the connection, which is newer than the loop's."""
    if sys.platform != "linux":
        return _ESTABLISHED  # pragma: no cover
    try:
        return connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:  # it is closed
        return _RESET


def _naps() -> Iterator[float]:
    """Seconds until the next look; each is twice the one before it."""
    nap = _FIRST_NAP
    while True:
        yield nap
        nap = min(nap * 2, _LONGEST_NAP)


def failure(endpoint: Endpoint, error: Exception, what: str = "") -> Exception:
    """What a broken connection means for those who used it."""
    why = reason(error)
    if isinstance(error, anyio.BrokenResourceError | anyio.ClosedResourceError):
        why = reason(error.__cause__) if error.__cause__ else "connection lost"
    refused = isinstance(error, ssl.SSLError) and any(word in (error.reason or "") for word in _REFUSALS)
    if refused or isinstance(error, ssl.SSLCertVerificationError):
        return SinkFailure(f"{endpoint}: {what}certificate not accepted: {why}")
    return ConnectionResetError(errno.ECONNRESET, f"{endpoint}: {what}{why}")


def reason(error: BaseException) -> str:
    """Why, in the system's words, without the number."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
