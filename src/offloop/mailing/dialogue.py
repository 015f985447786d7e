"""Commands to a mail server and its replies, in order, however many are under way. No meaning of any of them.

Formats: RFC 5321, section 4.2 (replies); RFC 2920 (several commands at once).
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, cast

__all__ = ["Dialogue", "Reply"]

_REPLY = re.compile(rb"([0-9]{3})(?:([ -])(.*))?", re.DOTALL)
_MAX_LINE = 8 * 1024  # bytes; RFC 5321 has 512
_MAX_UNREAD = 64 * 1024  # bytes of replies that nobody has read


class Reply(NamedTuple):
    """What a server said.

    Attributes:
        code: Three digits.
        text: The text of all its lines, each without its code.
    """

    code: int
    text: str


class Dialogue(asyncio.Protocol):
    """A connection to a server that answers each command with a reply.

    One task at a time waits here. Once the connection is lost, what was said before can still be read.
    """

    def __init__(self, connected: socket.socket) -> None:
        """Speak over a connected socket, as soon as it has a transport."""
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._lines: list[bytes] = []
        self._replies: deque[tuple[Reply, int]] = deque()  # with the bytes of each
        self._unread = 0  # bytes
        self._taken = 0  # bytes of the reply whose last line is not there
        self._full = False
        self._lost: OSError | None = None
        self._changed: asyncio.Future[None] | None = None

    def take_over(self, transport: asyncio.Transport | None) -> None:
        """Read from now on what another protocol read.

        Raises:
            ConnectionResetError: The connection is lost.
        """
        if transport is None or transport.is_closing():
            raise ConnectionResetError(_ENDED)
        transport.set_protocol(self)
        self.connection_made(transport)

    @property
    def is_connected(self) -> bool:
        """Whether neither side has closed it, as far as is known. Never in a forked child: it is the parent's."""
        if self._pid != os.getpid() or self._loop.is_closed() or self._lost is not None:
            return False
        return self._transport is not None and not self._transport.is_closing()

    @property
    def heard(self) -> Reply | None:
        """The next reply, if it is there."""
        return self._replies[0][0] if self._replies else None

    def write(self, data: bytes) -> None:
        """Send so much, now or soon.

        Raises:
            OSError: The connection is lost.
        """
        if self._lost is not None or self._transport is None or self._transport.is_closing():
            raise self._lost or ConnectionResetError(_ENDED)
        self._transport.write(data)

    async def flushed(self, timeout: float) -> None:
        """Wait until what was written is on its way; also ends when a reply is there, or the connection is lost.

        Raises:
            TimeoutError: The server read nothing for so many seconds.
        """
        await asyncio.sleep(0)  # a peer that reads quickly would keep the loop to us
        before = self._left
        while not await self._until(lambda: not self._full or self._has_news, timeout):
            if self._left == before:
                msg = f"Timed out: the server read nothing for {timeout:g} s"
                raise TimeoutError(msg)
            before = self._left

    async def reply(self, timeout: float) -> Reply:
        """The next reply.

        Raises:
            TimeoutError: It did not come within so many seconds.
            OSError: The connection was lost before; or what came is no reply.
        """
        if not await self._until(lambda: self._has_news, timeout):
            msg = f"Timed out: no answer for {timeout:g} s"
            raise TimeoutError(msg)
        if not self._replies:
            raise cast("OSError", self._lost)
        reply, size = self._replies.popleft()
        self._unread -= size
        return reply

    async def quit(self, timeout: float) -> None:
        """Say goodbye, and let go of the connection once that was heard, or after so many seconds."""
        try:
            if self.is_connected and self._transport is not None:
                with suppress(OSError):
                    self.write(b"QUIT\r\n")
                    await self.reply(timeout)
                self._transport.close()  # says so in TLS, which a peer may wait for
        finally:
            self.abort()

    def leave(self) -> None:
        """Let go of the connection without waiting: QUIT is written, its answer not read."""
        if self._transport is not None and self.is_connected:
            self._transport.write(b"QUIT\r\n")
        if self._transport is not None and self._pid == os.getpid():
            self._transport.close()

    def abort(self) -> None:
        """Let go of the connection at once; also when its event loop is gone. In a forked child nothing is touched."""
        if self._pid != os.getpid():
            return
        if self._loop.is_closed() or self._transport is None:
            self._socket.close()
        else:
            self._transport.abort()

    # -- what asyncio calls ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        # So that it is known when all is on its way. Not 0: asyncio's TLS would count nothing as too much.
        self._transport.set_write_buffer_limits(high=1, low=0)

    def data_received(self, data: bytes) -> None:
        """Take in replies, whole or in pieces."""
        self._buffer += data
        self._unread += len(data)
        while self._lost is None and (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._taken += end + 1
            self._take(line.rstrip(b"\r"))
        if len(self._buffer) > _MAX_LINE or self._unread > _MAX_UNREAD:
            self._fail("the server said too much at once")
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits is told why."""
        if self._lost is None:
            self._lost = exc if isinstance(exc, OSError) else ConnectionResetError(_ENDED)
        self._wake()

    def pause_writing(self) -> None:
        """The server does not read as fast as we write."""
        self._full = True

    def resume_writing(self) -> None:
        """It has read all."""
        self._full = False
        self._wake()

    # ----------------------------------------------------------------------------------------------------------------

    @property
    def _left(self) -> int:
        """Bytes that are not on their way."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def _has_news(self) -> bool:
        return bool(self._replies) or self._lost is not None

    def _take(self, line: bytes) -> None:
        match = _REPLY.fullmatch(line)
        if match is None:
            self._fail(f"the server said what is no reply: {line[:100].decode('utf-8', 'replace')}")
            return
        self._lines.append(match[3] or b"")
        if match[2] != b"-":
            text = b"\n".join(part.strip() for part in self._lines).decode("utf-8", "replace")
            self._lines.clear()
            self._replies.append((Reply(int(match[1]), text), self._taken))
            self._taken = 0

    def _fail(self, why: str) -> None:
        if self._lost is None:
            self._lost = ConnectionAbortedError(why)
        if self._transport is not None:
            self._transport.abort()

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    async def _until(self, ready: Callable[[], bool], timeout: float) -> bool:
        deadline = self._loop.time() + timeout
        while not ready():
            self._changed = self._loop.create_future()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._changed
            except TimeoutError:
                return ready()
        return True


_ENDED = "the connection ended"
