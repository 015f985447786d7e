from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import collecting, until
from offloop.errors import ConfigError
from offloop.names import Address, Endpoint, Names
from offloop.net import _close_late, _stream, connect, interleaved, open_connection, tls_context


def names_for(*hosts: str) -> Names:
    """A resolver that gives these addresses for any name."""

    def lookup(host: str) -> list[tuple[Any, ...]]:
        return [info for host in hosts for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]

    return Names(lookup)


def sockets_open() -> int:
    """How many sockets this process has."""
    return sum(entry.is_socket() for entry in Path("/proc/self/fd").iterdir())


@pytest.fixture
def silent() -> Iterator[Callable[[str], int]]:
    """Make ports whose queue of connections is full: who connects gets no answer, as behind a dropping firewall."""
    made: list[socket.socket] = []

    def make(host: str) -> int:
        listening = socket.create_server((host, 0), backlog=0)
        made.append(listening)
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
            made.append(filler)
        return int(listening.getsockname()[1])

    yield make
    for each in made:
        each.close()


async def test_connected_socket_is_ready_for_a_stream() -> None:
    """It does not block, sends small writes at once, and notices a peer that is gone."""
    async with collecting() as collector:
        connected = await connect("127.0.0.1", collector.port, timeout=5)
        with connected:
            assert connected.getblocking() is False
            assert connected.getpeername() == ("127.0.0.1", collector.port)
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_families_take_turns() -> None:
    """IPv6 first, then IPv4, and the rest of the longer list."""
    six = [Address(socket.AF_INET6, (f"::{number}", 1, 0, 0)) for number in range(3)]
    four = [Address(socket.AF_INET, ("192.0.2.1", 1))]
    assert interleaved([*four, *six]) == [six[0], four[0], six[1], six[2]]


async def test_refused_address_falls_back_at_once() -> None:
    """A host whose first address refuses is reached by its second."""
    async with collecting() as collector:
        with await connect("logs.example", collector.port, timeout=5, names=names_for("::1", "127.0.0.1")) as connected:
            assert connected.family == socket.AF_INET


async def test_silent_address_falls_back(silent: Callable[[str], int]) -> None:
    """A host whose first address does not answer is reached by its second, and the first attempt is closed."""
    port = silent("127.0.0.1")
    with socket.create_server(("127.0.0.2", port)):
        before = sockets_open()
        names = names_for("127.0.0.1", "127.0.0.2")
        with await connect("logs.example", port, timeout=5, names=names) as connected:
            assert connected.getpeername()[0] == "127.0.0.2"
        await until(lambda: sockets_open() == before)


async def test_refusal_names_all_addresses() -> None:
    """The error is of the kind the system gave, and says what became of each address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConnectionRefusedError) as caught:
        await connect("logs.example", port, timeout=5, names=names_for("127.0.0.1", "127.0.0.2"))
    assert f"logs.example:{port}: no connection (127.0.0.1: Connection refused" in str(caught.value)
    assert "; 127.0.0.2: Connection refused" in str(caught.value)


async def test_silence_times_out(silent: Callable[[str], int]) -> None:
    """No answer costs the timeout, names the address, and leaves no socket."""
    port = silent("127.0.0.1")
    before = sockets_open()
    with pytest.raises(TimeoutError, match=rf"127.0.0.1:{port}: no connection within 0.05 s \(127.0.0.1: no answer\)"):
        await connect("127.0.0.1", port, timeout=0.05)
    await until(lambda: sockets_open() == before)


async def test_silent_and_refused_addresses_are_told_apart(silent: Callable[[str], int]) -> None:
    """With all addresses tried it waits for those that have not answered yet, and says which is which."""
    port = silent("127.0.0.2")
    with pytest.raises(TimeoutError, match=r"\(127.0.0.1: Connection refused; 127.0.0.2: no answer\)"):
        await connect("logs.example", port, timeout=0.1, names=names_for("127.0.0.1", "127.0.0.2"))


async def test_attempt_that_connects_too_late_is_closed() -> None:
    """Where two addresses connect in one turn of the loop, the loser's socket is closed."""

    async def connect_late() -> socket.socket:
        return loser

    loser = socket.socket()
    attempt = asyncio.create_task(connect_late())
    await attempt
    _close_late(attempt)
    assert loser.fileno() == -1


async def test_cancelled_connect_leaves_nothing(silent: Callable[[str], int]) -> None:
    """Cancellation closes every attempt."""
    port = silent("127.0.0.1")
    before = sockets_open()
    task = asyncio.create_task(connect("127.0.0.1", port, timeout=5))
    await until(lambda: sockets_open() > before)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: sockets_open() == before)


async def test_unresolved_name_is_told() -> None:
    """A name that does not resolve is an OSError with the name."""
    with pytest.raises(OSError, match=r"^nowhere.example: the name was not resolved"):
        await connect("nowhere.example", 25, timeout=5, names=names_for())


async def test_hung_name_is_told() -> None:
    """Where it is the name that takes too long, the error says so."""
    release = threading.Event()

    def hang(host: str) -> list[tuple[Any, ...]]:
        release.wait(30)
        return []

    names = Names(hang)
    with pytest.raises(TimeoutError, match=r"hung.example:25: no connection within .* \(the name was not"):
        await connect("hung.example", 25, timeout=0.02, names=names)
    release.set()


async def test_socket_connected_to_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port on which nobody listens can be its own peer: nobody is there."""
    loop = asyncio.get_running_loop()

    async def connect_to_itself(sock: socket.socket, address: tuple[str, int]) -> None:
        sock.bind(("127.0.0.1", 0))
        sock.connect_ex(sock.getsockname())

    monkeypatch.setattr(loop, "sock_connect", connect_to_itself)
    with pytest.raises(ConnectionRefusedError, match=r"127.0.0.1: Connection refused"):
        await connect("127.0.0.1", 9, timeout=5)


async def test_defect_in_connecting_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is no OSError comes through as it is."""

    async def break_down(sock: socket.socket, address: tuple[str, int]) -> None:
        raise LookupError("not a matter of networks")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", break_down)
    with pytest.raises(LookupError):
        await connect("127.0.0.1", 9, timeout=5)


def test_tls_context_verifies() -> None:
    """True is the system's authorities, with certificate and host name verified; None is none; a context is itself."""
    context = tls_context(True)
    assert context is not None
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert tls_context(context) is context
    assert tls_context(None) is None


@pytest.mark.parametrize("wrong", [False, "yes", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)])
def test_wrong_tls_is_refused(wrong: Any) -> None:
    """What can't be meant is refused with what can be."""
    with pytest.raises(ConfigError, match=r"^tls must be"):
        tls_context(wrong)


async def test_handshake_times_out() -> None:
    """A server that accepts and never answers the handshake costs the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        endpoint = Endpoint("127.0.0.1", listening.getsockname()[1])
        with pytest.raises(TimeoutError, match=f"{endpoint}: no TLS handshake within 0.1 s"):
            await open_connection(endpoint, tls=ssl.create_default_context(), connect_timeout=0.1)


async def test_server_without_tls_is_told() -> None:
    """A server that speaks something else is a broken handshake, tried again."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        endpoint = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
        with pytest.raises(ConnectionResetError, match=f"{endpoint}: TLS handshake failed: .*(?i:wrong)"):
            await open_connection(endpoint, tls=ssl.create_default_context(), connect_timeout=5)


async def test_cancelled_handshake_leaves_nothing() -> None:
    """Cancellation in mid-handshake closes the socket."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        endpoint = Endpoint("127.0.0.1", listening.getsockname()[1])
        context = ssl.create_default_context()
        before = sockets_open()
        task = asyncio.create_task(open_connection(endpoint, tls=context, connect_timeout=5))
        listening.settimeout(0)
        peer, _ = await asyncio.get_running_loop().sock_accept(listening)
        with peer:
            assert await asyncio.get_running_loop().sock_recv(peer, 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: sockets_open() == before)


async def test_connection_reset_before_it_is_used() -> None:
    """A socket that is not connected any more when its stream is made is closed, and told as a reset."""
    gone = socket.socket()
    with pytest.raises(ConnectionResetError, match=r"logs.example:9020: reset by the peer"):
        await _stream(Endpoint("logs.example", 9020), gone)
    assert gone.fileno() == -1


async def test_stream_cancelled_while_it_is_made() -> None:
    """The socket is closed."""
    async with collecting() as collector:
        connected = await connect("127.0.0.1", collector.port, timeout=5)
        task = asyncio.create_task(_stream(Endpoint("127.0.0.1", collector.port), connected))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert connected.fileno() == -1
