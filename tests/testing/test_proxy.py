from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from helpers import Collector, collecting, until
from offloop.testing import FaultProxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


@pytest.fixture
async def proxy(collector: Collector) -> AsyncIterator[FaultProxy]:
    async with FaultProxy("127.0.0.1", collector.port) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: FaultProxy) -> AsyncIterator[Streams]:
    """A client whose connection goes through."""
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    yield reader, writer
    writer.transport.abort()


async def connected(proxy: FaultProxy) -> Streams:
    return await asyncio.open_connection(proxy.host, proxy.port)


async def test_forwards_and_counts(proxy: FaultProxy, collector: Collector, client: Streams) -> None:
    """Bytes go both ways and are counted, and an end on one side is one on the other."""
    reader, writer = client
    writer.write(b"up\n")
    await collector.wait_for(lambda: collector.lines == ["up"])
    collector.writers[0].write(b"down")
    assert await reader.readexactly(4) == b"down"
    writer.write_eof()
    assert await reader.read() == b""
    assert (proxy.connections, proxy.bytes_up, proxy.bytes_down) == (1, 3, 4)
    await until(lambda: not proxy.open_connections)


async def test_latency_delays_each_chunk(proxy: FaultProxy, collector: Collector, client: Streams) -> None:
    """It can be set while connections are open."""
    proxy.latency = 0.05
    start = asyncio.get_running_loop().time()
    client[1].write(b"late\n")
    await collector.wait_for(lambda: collector.lines)
    assert asyncio.get_running_loop().time() - start >= 0.05


async def test_reset_cuts_off_everyone(proxy: FaultProxy, client: Streams) -> None:
    """Clients that are connected get RST, and so do those who come, until all is well again."""
    await until(lambda: proxy.open_connections)
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        await client[0].read()
    client = await connected(proxy)
    with pytest.raises(ConnectionResetError):
        await client[0].read()
    assert proxy.connections == 2


async def test_black_hole_holds_until_told(proxy: FaultProxy, collector: Collector, client: Streams) -> None:
    """Nothing is forwarded, for new connections too, and on `forward` it goes on its way."""
    proxy.black_hole()
    client[1].write(b"old\n")
    _, writer = await connected(proxy)
    writer.write(b"new\n")
    await until(lambda: proxy.connections == 2)
    assert not collector.lines
    proxy.forward()
    await collector.wait_for(lambda: sorted(collector.lines) == ["new", "old"])
    writer.transport.abort()


async def test_refuses_until_told(proxy: FaultProxy, collector: Collector, client: Streams) -> None:
    """Nobody listens; those who are connected go on; the port stays the same."""
    await until(lambda: proxy.open_connections)
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await connected(proxy)
    client[1].write(b"still here\n")
    await collector.wait_for(lambda: collector.lines)
    proxy.forward()
    _, writer = await connected(proxy)
    writer.transport.abort()


async def test_accepts_then_closes(proxy: FaultProxy, client: Streams) -> None:
    """Open connections end, and new ones do at once."""
    await until(lambda: proxy.open_connections)
    proxy.accept_then_close()
    assert await client[0].read() == b""
    reader, writer = await connected(proxy)
    assert await reader.read() == b""
    writer.transport.abort()


async def test_half_close_keeps_the_other_half(proxy: FaultProxy, collector: Collector, client: Streams) -> None:
    """The client sees an end, and what it sends arrives."""
    await until(lambda: collector.streams)
    proxy.half_close()
    assert await client[0].read() == b""
    client[1].write(b"one more\n")
    await collector.wait_for(lambda: collector.lines == ["one more"])


async def test_cuts_at_a_byte(proxy: FaultProxy, collector: Collector) -> None:
    """Exactly so many bytes of each new connection arrive, in however many chunks they come."""
    proxy.cut_at(6)
    for _ in range(2):
        reader, writer = await connected(proxy)
        writer.write(b"one\n")
        await collector.wait_for(lambda: collector.streams and collector.streams[-1].endswith(b"one\n"))
        writer.write(b"two\n")
        with pytest.raises(ConnectionResetError):
            await reader.read()
    assert [bytes(stream) for stream in collector.streams] == [b"one\ntw"] * 2


async def test_server_that_is_away_is_a_reset(collector: Collector) -> None:
    """What the server's side does, the client sees."""
    async with FaultProxy("127.0.0.1", collector.port) as first:
        port = first.port
    async with FaultProxy("127.0.0.1", port) as proxy:
        reader, _ = await connected(proxy)
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_half_close_of_a_client_that_is_gone(proxy: FaultProxy) -> None:
    """It harms nobody."""
    client = socket.create_connection((proxy.host, proxy.port))
    await until(lambda: proxy.open_connections)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    proxy.half_close()
    await until(lambda: not proxy.open_connections)
