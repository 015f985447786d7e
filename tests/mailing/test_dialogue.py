"""Replies of a server, however they are cut, and commands that it does not read."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.mailing.dialogue import Dialogue, Reply


@asynccontextmanager
async def dialogue() -> AsyncIterator[tuple[Dialogue, socket.socket]]:
    """Connect a dialogue to a socket that nobody reads."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        talk = Dialogue(ours)
        await asyncio.get_running_loop().create_unix_connection(lambda: talk, sock=ours)
        try:
            yield talk, theirs
        finally:
            talk.abort()
            await asyncio.sleep(0)


REPLY = st.builds(Reply, st.integers(200, 599), st.text("ab \u00fc-", max_size=9).map(str.strip))


@given(replies=st.lists(REPLY, max_size=6), cuts=st.lists(st.integers(0, 200)), multiline=st.booleans())
def test_replies_come_in_order_however_they_are_cut(replies: list[Reply], cuts: list[int], *, multiline: bool) -> None:
    """What arrives in one piece, or byte by byte, are the same replies."""
    more = "{0.code}-{0.text}\r\n" if multiline else ""
    data = "".join(f"{more}{{0.code}} {{0.text}}\r\n".format(reply) for reply in replies).encode()
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})

    async def read() -> list[Reply]:
        async with dialogue() as (talk, _):
            for start, end in pairwise(places):
                talk.data_received(data[start:end])
            return [await talk.reply(0.1) for _ in replies]

    texts = [f"{reply.text}\n{reply.text}" if multiline else reply.text for reply in replies]
    assert asyncio.run(read()) == [Reply(reply.code, text) for reply, text in zip(replies, texts, strict=True)]


@pytest.mark.parametrize("line", [b"hello\r\n", b"25 ok\r\n", b"250ok\r\n", b"\r\n", b"\xff50 ok\r\n"])
async def test_what_is_no_reply_ends_the_connection(line: bytes) -> None:
    """After it nothing could be told apart; what came before can still be read."""
    async with dialogue() as (talk, theirs):
        theirs.sendall(b"250 ok\r\n" + line + b"250 more\r\n")
        assert await talk.reply(5) == Reply(250, "ok")
        with pytest.raises(ConnectionAbortedError, match="said what is no reply"):
            await talk.reply(5)
        with pytest.raises(ConnectionAbortedError):
            talk.write(b"NOOP\r\n")
        assert not talk.is_connected


@pytest.mark.parametrize("flood", [b"x" * 10_000, b"250-go on\r\n" * 10_000, b"250 go on\r\n" * 10_000])
async def test_flood_ends_the_connection(flood: bytes) -> None:
    """A server that says too much before anybody reads it holds no memory."""
    async with dialogue() as (talk, _):
        for start in range(0, len(flood), 5_000):
            talk.data_received(flood[start : start + 5_000])
        assert not talk.is_connected


async def test_end_is_told_to_who_waits() -> None:
    """A connection that ends fails the reply that is waited for, and each further one."""
    async with dialogue() as (talk, theirs):
        waiting = asyncio.ensure_future(talk.reply(5))
        await asyncio.sleep(0)
        theirs.close()
        for reply in (waiting, talk.reply(5)):
            with pytest.raises(ConnectionResetError, match="the connection ended"):
                await reply


async def test_server_that_reads_slowly_is_waited_for() -> None:
    """As long as the server reads on, however little at a time, what is written goes on its way."""
    async with dialogue() as (talk, theirs):
        size = 600_000
        talk.write(b"x" * size)
        flushing = asyncio.ensure_future(talk.flushed(0.3))
        got = 0
        while got < size:
            got += len(await asyncio.to_thread(theirs.recv, 50_000))
            await asyncio.sleep(0.02)
        await flushing


async def test_server_that_reads_nothing_is_left() -> None:
    """A server that reads nothing for so long is left; so is one that answers before it has read all."""
    async with dialogue() as (talk, theirs):
        talk.write(b"x" * 10_000_000)
        with pytest.raises(TimeoutError, match=r"the server read nothing for 0\.05 s"):
            await talk.flushed(0.05)
        theirs.sendall(b"552 too much\r\n")
        await talk.flushed(5)
        assert talk.heard == Reply(552, "too much")


async def test_connection_that_is_gone_can_not_be_taken_over() -> None:
    """A connection that ended while another protocol read it has nothing to say."""
    async with dialogue() as (talk, _):
        other = Dialogue(talk._socket)
        assert talk._transport is not None
        talk.abort()
        for transport in (talk._transport, None):
            with pytest.raises(ConnectionResetError, match="the connection ended"):
                other.take_over(transport)
        other.leave()
        await other.quit(1)
