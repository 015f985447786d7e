"""A TCP proxy that goes wrong when told: what real networks do, on loopback and on time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Literal, Self

__all__ = ["FaultProxy"]

_CHUNK_BYTES = 65_536
_BACKLOG = 128
_NO_LINGER = struct.pack("ii", 1, 0)

_Mode = Literal["forward", "reset", "black_hole", "close"]


class FaultProxy:
    """Stands between a client and a server, forwards, and injects faults at run time.

    ```python
    async with FaultProxy("127.0.0.1", server_port) as proxy:
        sink = TCPSink("127.0.0.1", proxy.port)
        ...
        proxy.reset()  # everyone is cut off, whoever connects too
        ...
        proxy.forward()  # all is well again
    ```

    Each of `forward`, `reset`, `black_hole`, `refuse`, `accept_then_close` and `cut_at` replaces the one before it.

    Attributes:
        host: The address it listens on, 127.0.0.1.
        port: The port it listens on; the same for its whole life.
        latency: Seconds by which each chunk is delayed, in both directions. May be set at any time.
        connections: How many connections were accepted, whatever became of them.
        bytes_up: How many bytes were forwarded from clients to the server.
        bytes_down: How many bytes were forwarded from the server to clients.
    """

    def __init__(self, host: str, port: int, *, latency: float = 0.0) -> None:
        """Describe the server. Nothing happens before `async with`.

        Args:
            host: The server's address.
            port: The server's port.
            latency: See the attribute.
        """
        self.host = "127.0.0.1"
        self.port = 0
        self.latency = latency
        self.connections = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._server = (host, port)
        self._mode: _Mode = "forward"
        self._cut_at: int | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._listening: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._links: dict[asyncio.Task[None], _Link] = {}

    async def __aenter__(self) -> Self:
        """Listen on a free port.

        Raises:
            OSError: No port is to be had.
        """
        self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop listening and close all connections."""
        stopped = [*self._links]
        if self._accepting is not None:
            stopped.append(self._accepting)
        self._stop_listening()
        self._end_links()
        await asyncio.gather(*stopped, return_exceptions=True)

    @property
    def open_connections(self) -> int:
        """How many accepted connections are open now."""
        return len(self._links)

    def forward(self) -> None:
        """Forward again. What a black hole held back goes on its way; a connection that was cut stays cut."""
        self._become("forward")

    def reset(self) -> None:
        """Send a reset (RST) to all clients now, and to whoever connects, right after it is accepted."""
        self._become("reset")
        self._end_links(linger=False)

    def black_hole(self) -> None:
        """Accept connections and forward nothing in either direction; nothing more is read, so that buffers fill up."""
        self._become("black_hole")

    def accept_then_close(self) -> None:
        """Close (FIN) all connections now, and each new one right after it is accepted."""
        self._become("close")
        self._end_links()

    def refuse(self) -> None:
        """Listen no more: new connections are refused. Those that are open go on."""
        self._become("forward")
        self._stop_listening()

    def cut_at(self, count: int) -> None:
        """Forward the first `count` bytes that a client sends, then reset the connection: for each new connection."""
        self._become("forward")
        self._cut_at = count

    def half_close(self) -> None:
        """Send FIN to all clients now, and go on forwarding what they send."""
        for link in self._links.values():
            link.half_close()

    def _become(self, mode: _Mode) -> None:
        self._mode = mode
        self._cut_at = None
        if mode == "black_hole":
            self._flowing.clear()
        else:
            self._flowing.set()
        if self._listening is None:
            self._listen()

    def _listen(self) -> None:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((self.host, self.port))
        listening.listen(_BACKLOG)
        listening.settimeout(0)
        self.port = listening.getsockname()[1]
        self._listening = listening
        self._accepting = asyncio.get_running_loop().create_task(self._accept(listening))

    def _stop_listening(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
        if self._listening is not None:
            # The loop watches the descriptor until the task has ended: it must not be closed, and reused, before that.
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
        self._listening = self._accepting = None

    def _end_links(self, *, linger: bool = True) -> None:
        for task, link in self._links.items():
            link.linger = linger
            task.cancel()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(listening)
            self.connections += 1
            link = _Link(self, client, cut_at=self._cut_at)
            if self._mode in ("reset", "close"):
                link.linger = self._mode == "close"
                link.close()
                continue
            task = loop.create_task(link.run(self._server))
            self._links[task] = link
            task.add_done_callback(self._links.pop)


class _Link:
    """One client's connection and its way to the server."""

    def __init__(self, proxy: FaultProxy, client: socket.socket, cut_at: int | None) -> None:
        client.settimeout(0)
        self.linger = True
        self._proxy = proxy
        self._client = client
        self._upstream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._upstream.settimeout(0)
        self._left = cut_at

    async def run(self, server: tuple[str, int]) -> None:
        """Forward both ways until both sides are through, or one fails."""
        try:
            await self._proxy._flowing.wait()  # noqa: SLF001 - the proxy's own half
            await asyncio.get_running_loop().sock_connect(self._upstream, server)
            # A group: the sockets are closed when nobody waits for them any more.
            async with asyncio.TaskGroup() as both:
                both.create_task(self._up())
                both.create_task(self._down())
        except* OSError:
            self.linger = False  # what one side did, the other sees
        finally:
            self.close()

    def half_close(self) -> None:
        """Send FIN to the client."""
        with contextlib.suppress(OSError):  # it has gone already
            self._client.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close both sides: with FIN, or with RST towards the client where `linger` is False."""
        if not self.linger:
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._client.close()
        self._upstream.close()

    async def _up(self) -> None:
        loop = asyncio.get_running_loop()
        while chunk := await self._chunk(self._client):
            if self._left is not None:
                chunk, self._left = chunk[: self._left], self._left - len(chunk)
            await loop.sock_sendall(self._upstream, chunk)
            self._proxy.bytes_up += len(chunk)
            if self._left is not None and self._left <= 0:
                raise ConnectionResetError
        self._upstream.shutdown(socket.SHUT_WR)

    async def _down(self) -> None:
        loop = asyncio.get_running_loop()
        while chunk := await self._chunk(self._upstream):
            await loop.sock_sendall(self._client, chunk)
            self._proxy.bytes_down += len(chunk)
        self.half_close()

    async def _chunk(self, source: socket.socket) -> bytes:
        flowing = self._proxy._flowing  # noqa: SLF001 - the proxy's own half
        await flowing.wait()
        chunk = await asyncio.get_running_loop().sock_recv(source, _CHUNK_BYTES)
        await flowing.wait()
        if self._proxy.latency:
            await asyncio.sleep(self._proxy.latency)
        return chunk
