from __future__ import annotations

import asyncio
import gc
import logging
import pickle
import select
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from helpers import (
    Collector,
    batch_of,
    collecting,
    messages_of,
    record_of,
    split_length_prefixed,
    split_nul,
    split_octet_count,
    until,
)
from offloop.errors import ConfigError, SinkFailure, TemporaryFailure
from offloop.sinks.tcp import TCPSink
from offloop.testing.proxy import FaultProxy
from servers import Rsyslog, running_rsyslog

LOCAL = "127.0.0.1"
TEXT = logging.Formatter("%(levelname)s %(message)s")


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


@pytest.fixture
async def proxy(collector: Collector) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(LOCAL, collector.port) as proxy:
        yield proxy


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[Rsyslog]:
    with running_rsyslog(tmp_path) as server:
        yield server


def slow_collector() -> socket.socket:
    """A listening socket whose connections take little before they are read."""
    listening = socket.create_server((LOCAL, 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listening.settimeout(0)
    return listening


def read_all(peer: socket.socket, count: int) -> None:
    """Read so many bytes in one step of the loop."""
    peer.settimeout(5)
    while count > 0:
        count -= len(peer.recv(65_536))


class TestDelivery:
    async def test_records_arrive_as_lines_of_json(self, collector: Collector) -> None:
        """One JSON object a line, oldest first, over one connection for all batches."""
        sink = TCPSink(LOCAL, collector.port)
        await sink.open()
        await sink.send(batch_of(sink, "one\ntwo", "three"))
        await sink.send(batch_of(sink, "four"))
        await sink.aclose()
        await collector.wait_for(lambda: len(collector.lines) == 3)
        assert messages_of(collector.lines) == ["one\ntwo", "three", "four"]
        assert len(collector.streams) == 1

    async def test_text_cannot_forge_a_line(self, collector: Collector) -> None:
        """A record of many lines is one line, its line feeds two characters each."""
        sink = TCPSink(LOCAL, collector.port, formatter=TEXT)
        await sink.send(batch_of(sink, "user=x\nERROR forged"))
        await sink.aclose()
        await collector.wait_for(lambda: collector.lines)
        assert collector.lines == ["INFO user=x\\nERROR forged"]

    @pytest.mark.parametrize(("framing", "split"), [("nul", split_nul), ("octet-count", split_octet_count)])
    async def test_other_framings(self, collector: Collector, framing: Any, split: Any) -> None:
        """NUL and octet-counted messages may hold line feeds."""
        sink = TCPSink(LOCAL, collector.port, framing=framing, formatter=TEXT)
        await sink.send(batch_of(sink, "one\ntwo", "three"))
        await sink.aclose()
        assert list(split(bytes(collector.streams[0]))) == [b"INFO one\ntwo", b"INFO three"]

    async def test_pickle_for_receivers_of_the_standard_handler(self, collector: Collector) -> None:
        """What the standard library's documentation has as a receiver rebuilds the records."""
        sink = TCPSink(LOCAL, collector.port, framing="pickle")
        await sink.send(batch_of(sink, record_of("took %d ms", 12, name="app.db", request="r1")))
        await sink.aclose()
        (chunk,) = split_length_prefixed(bytes(collector.streams[0]))
        record = logging.makeLogRecord(pickle.loads(chunk))
        assert (record.name, record.getMessage(), record.__dict__["request"]) == ("app.db", "took 12 ms", "r1")

    async def test_large_batch_arrives_whole(self, collector: Collector) -> None:
        """More than the kernels' buffers hold is waited for."""
        sink = TCPSink(LOCAL, collector.port, formatter=TEXT)
        await sink.send(batch_of(sink, *["x" * 100_000] * 100))
        await sink.aclose()
        assert sum(map(len, collector.streams)) == 100 * 100_006

    @pytest.mark.parametrize("framing", ["newline", "octet-count"])
    async def test_rsyslog_takes_both_framings(self, rsyslog: Rsyslog, framing: Any) -> None:
        """A real collector finds each message."""
        sink = TCPSink(LOCAL, rsyslog.port, framing=framing, formatter=logging.Formatter("<14>app: %(message)s"))
        await sink.send(batch_of(sink, *[f"message {number}" for number in range(200)]))
        await sink.aclose()
        await until(lambda: len(rsyslog.messages) == 200)
        assert rsyslog.messages == [f"<14>app: message {number}" for number in range(200)]


class TestReconnect:
    async def test_collector_restarted_while_idle(self, collector: Collector) -> None:
        """An end that was seen between batches leads to a new connection before the next one, and nothing is lost."""
        sink = TCPSink(LOCAL, collector.port)
        await sink.send(batch_of(sink, "before"))
        await collector.wait_for(lambda: collector.lines)
        collector.writers[0].close()
        await until(lambda: "not connected" in repr(sink))
        await sink.send(batch_of(sink, "after"))
        await sink.aclose()
        assert messages_of(collector.lines) == ["before", "after"]

    async def test_collector_gone_in_this_turn_of_the_loop(self, proxy: FaultProxy, collector: Collector) -> None:
        """An end that the loop has not seen yet is asked of the kernel."""
        sink = TCPSink(LOCAL, proxy.port)
        await sink.send(batch_of(sink, "before"))
        proxy.half_close()
        await sink.send(batch_of(sink, "after"))
        assert proxy.connections == 2
        await collector.wait_for(lambda: len(collector.lines) == 2)
        await sink.aclose()

    async def test_reset_while_sending(self, proxy: FaultProxy) -> None:
        """A reset in the middle of a batch fails the batch, and the next attempt connects anew."""
        proxy.cut_at(1000)
        sink = TCPSink(LOCAL, proxy.port)
        batch = batch_of(sink, *["x" * 100_000] * 100)
        with pytest.raises(TemporaryFailure, match=f"127.0.0.1:{proxy.port}: "):
            await sink.send(batch)
        assert "not connected" in repr(sink)
        proxy.forward()
        await sink.send(batch)
        await sink.aclose()

    async def test_end_while_sending(self, proxy: FaultProxy) -> None:
        """A collector that closes its side before it has everything fails the batch."""
        sink = TCPSink(LOCAL, proxy.port)
        await sink.open()
        proxy.black_hole()
        task = asyncio.create_task(sink.send(batch_of(sink, *["x" * 100_000] * 200)))
        await asyncio.wait({task}, timeout=0.05)
        proxy.half_close()
        with pytest.raises(TemporaryFailure, match="closed by the peer"):
            await task
        await sink.aclose()

    async def test_end_after_everything_was_taken(self) -> None:
        """A collector that acknowledges the batch and closes has taken it: it is not sent twice."""
        with slow_collector() as listening:
            sink = TCPSink(LOCAL, listening.getsockname()[1])
            await sink.open()
            peer, _ = await asyncio.get_running_loop().sock_accept(listening)
            task = asyncio.create_task(sink.send(batch_of(sink, "x" * 100_000)))
            await asyncio.wait({task}, timeout=0.05)
            assert not task.done()
            with peer:
                peer.shutdown(socket.SHUT_WR)
                read_all(peer, 100_000)
                await task
            assert "not connected" in repr(sink)

    async def test_collector_that_accepts_and_closes(self) -> None:
        """What its kernel acknowledged for a collector that closes the connection unread is not delivered."""
        with socket.create_server((LOCAL, 0)) as listening:
            listening.settimeout(0)
            sink = TCPSink(LOCAL, listening.getsockname()[1])
            await sink.open()
            task = asyncio.create_task(sink.send(batch_of(sink, "one")))
            peer, _ = await asyncio.get_running_loop().sock_accept(listening)
            with peer:
                await until(lambda: select.select([peer], [], [], 0)[0])  # it is acknowledged
                assert not task.done()
            with pytest.raises(TemporaryFailure, match=r"reset by|connection lost"):
                await task

    async def test_cancelled_while_a_young_connection_is_watched(self, collector: Collector) -> None:
        """At the end of `asyncio.run` a batch that the collector has is not sent a second time."""
        sink = TCPSink(LOCAL, collector.port)
        await sink.open()
        task = asyncio.create_task(sink.send(batch_of(sink, "one")))
        await collector.wait_for(lambda: collector.lines)
        task.cancel()
        await task
        await sink.aclose()

    async def test_young_connection_costs_no_timeout(self, collector: Collector) -> None:
        """However short `send_timeout` is, a collector that takes the batch has taken it."""
        sink = TCPSink(LOCAL, collector.port, send_timeout=0.08)
        await sink.open()
        await sink.send(batch_of(sink, "one"))
        await collector.wait_for(lambda: collector.lines)
        await sink.aclose()

    async def test_end_before_everything_was_taken(self) -> None:
        """A collector that closes its side with part of the batch on the way fails it."""
        with slow_collector() as listening:
            sink = TCPSink(LOCAL, listening.getsockname()[1])
            await sink.open()
            peer, _ = await asyncio.get_running_loop().sock_accept(listening)
            task = asyncio.create_task(sink.send(batch_of(sink, "x" * 100_000)))
            await asyncio.wait({task}, timeout=0.05)
            with peer:
                peer.shutdown(socket.SHUT_WR)
                with pytest.raises(TemporaryFailure, match="closed by the peer"):
                    await task

    async def test_reset_with_everything_unread(self) -> None:
        """A collector that resets the connection with the batch on the way fails it."""
        with slow_collector() as listening:
            sink = TCPSink(LOCAL, listening.getsockname()[1])
            await sink.open()
            peer, _ = await asyncio.get_running_loop().sock_accept(listening)
            task = asyncio.create_task(sink.send(batch_of(sink, "x" * 100_000)))
            await asyncio.wait({task}, timeout=0.05)
            peer.close()
            with pytest.raises(TemporaryFailure, match=r"reset by|connection lost"):
                await task

    async def test_black_hole_times_out(self, proxy: FaultProxy) -> None:
        """A collector that acknowledges nothing more costs `send_timeout`, and the connection."""
        sink = TCPSink(LOCAL, proxy.port, send_timeout=0.1)
        await sink.open()
        proxy.black_hole()
        with pytest.raises(TemporaryFailure, match=r"\d+ bytes were not taken within 0.1 s"):
            await sink.send(batch_of(sink, *["x" * 100_000] * 100))
        assert "not connected" in repr(sink)
        await sink.aclose()

    async def test_cancelled_send_leaves_no_connection(self, proxy: FaultProxy) -> None:
        """What may have been sent in part is never continued."""
        sink = TCPSink(LOCAL, proxy.port)
        await sink.open()
        proxy.black_hole()
        task = asyncio.create_task(sink.send(batch_of(sink, *["x" * 100_000] * 100)))
        await asyncio.wait({task}, timeout=0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert "not connected" in repr(sink)
        proxy.forward()
        await until(lambda: not proxy.open_connections)

    async def test_open_again_drops_the_old_connection(self, collector: Collector) -> None:
        """There is one connection at a time."""
        sink = TCPSink(LOCAL, collector.port)
        await sink.open()
        await sink.open()
        await until(lambda: [writer.is_closing() for writer in collector.writers] == [True, False])
        await sink.aclose()

    async def test_overtaken_open_does_not_touch_the_newer_connection(self, proxy: FaultProxy) -> None:
        """An attempt that was given up and comes through late closes what it opened."""
        sink = TCPSink(LOCAL, proxy.port)
        late = asyncio.create_task(sink.open())
        await asyncio.sleep(0)
        await sink.open()
        with pytest.raises(TemporaryFailure, match="too late"):
            await late
        await until(lambda: proxy.connections == 2 and proxy.open_connections == 1)
        await sink.send(batch_of(sink, "one"))
        await sink.aclose()

    async def test_overtaken_send_does_not_touch_the_newer_connection(self, proxy: FaultProxy) -> None:
        """A send that was given up and fails late leaves the connection of its successor alone."""
        sink = TCPSink(LOCAL, proxy.port)
        await sink.open()
        proxy.black_hole()
        late = asyncio.create_task(sink.send(batch_of(sink, *["x" * 100_000] * 100)))
        await asyncio.wait({late}, timeout=0.02)
        proxy.forward()
        await sink.open()
        with pytest.raises(TemporaryFailure):
            await late
        assert "not connected" not in repr(sink)
        await sink.aclose()

    async def test_loop_that_ends_cancels_the_watch_only(self, collector: Collector) -> None:
        """At its end `asyncio.run` cancels all tasks, and what is still in a lane goes over the open connection."""
        sink = TCPSink(LOCAL, collector.port)
        await sink.send(batch_of(sink, "before"))
        for task in asyncio.all_tasks():
            if task.get_name().startswith("offloop-watch"):
                task.cancel()
        await sink.send(batch_of(sink, "after"))
        await sink.aclose()
        assert messages_of(collector.lines) == ["before", "after"]
        assert len(collector.streams) == 1

    async def test_close_twice_and_open_again(self, collector: Collector) -> None:
        """`aclose` is idempotent, before a connection too, and `send` after it connects."""
        sink = TCPSink(LOCAL, collector.port)
        await sink.aclose()
        await sink.send(batch_of(sink, "one"))
        connection = sink._connection
        await sink.aclose()
        await sink.aclose()
        assert connection is not None
        await connection.aclose()
        await until(collector.writers[0].is_closing)
        await sink.send(batch_of(sink, "two"))
        await sink.aclose()
        assert messages_of(collector.lines) == ["one", "two"]

    def test_new_loop_without_close(self) -> None:
        """A sink that a loop left open connects in the next one, and can be closed in a third."""

        def use(sink: TCPSink) -> None:
            for _ in range(2):
                asyncio.run(sink.open())
                asyncio.run(sink.send(batch_of(sink, "one")))
            asyncio.run(sink.aclose())
            gc.collect()

        with slow_collector() as listening:
            sink = TCPSink(LOCAL, listening.getsockname()[1])
            with pytest.warns(ResourceWarning, match="unclosed transport"):
                use(sink)
        assert "not connected" in repr(sink)


class TestFailover:
    async def test_next_endpoint_when_first_refuses(self, proxy: FaultProxy, collector: Collector) -> None:
        """An endpoint that can't be reached is passed over, and the one that works is kept."""
        proxy.refuse()
        sink = TCPSink(LOCAL, proxy.port, endpoints=[(LOCAL, collector.port)])
        await sink.send(batch_of(sink, "one"))
        assert repr(sink) == f"<TCPSink 127.0.0.1:{collector.port} connected>"
        proxy.forward()
        await sink.open()
        assert repr(sink) == f"<TCPSink 127.0.0.1:{collector.port} connected>"
        await sink.aclose()

    async def test_next_endpoint_when_first_takes_no_records(self, proxy: FaultProxy, collector: Collector) -> None:
        """An endpoint that accepts connections and takes nothing is not tried for ever."""
        proxy.black_hole()
        sink = TCPSink(LOCAL, proxy.port, endpoints=[(LOCAL, collector.port)], send_timeout=0.2, formatter=TEXT)
        batch = batch_of(sink, *["x" * 100_000] * 100)
        with pytest.raises(TemporaryFailure):
            await sink.send(batch)
        await sink.open()
        await sink.send(batch)
        await sink.aclose()
        assert len(collector.lines) == 100

    async def test_all_refuse(self, proxy: FaultProxy) -> None:
        """The failure names each endpoint with its reason."""
        proxy.refuse()
        sink = TCPSink(LOCAL, proxy.port, endpoints=[("localhost", proxy.port)])
        with pytest.raises(TemporaryFailure, match=rf"127.0.0.1:{proxy.port}: .*refused.*; localhost:{proxy.port}: "):
            await sink.open()


class Tls:
    """A certificate authority, a collector with its certificate for localhost, and contexts for clients."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert("localhost").configure_cert(self.server)
        self.authority.configure_trust(self.server)
        self.client = ssl.create_default_context()
        self.authority.configure_trust(self.client)


@pytest.fixture(scope="module")
def certificates() -> Tls:
    return Tls()


@pytest.fixture
def tls(certificates: Tls) -> Tls:
    certificates.server.verify_mode = ssl.CERT_NONE
    return certificates


class TestTls:
    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    async def test_records_arrive_encrypted(self, tls: Tls, version: ssl.TLSVersion) -> None:
        """A large batch, a second one, and a farewell, with both versions of TLS."""
        client = ssl.create_default_context()
        client.maximum_version = version
        tls.authority.configure_trust(client)
        async with collecting(tls=tls.server) as collector:
            sink = TCPSink("localhost", collector.port, tls=client, formatter=TEXT)
            await sink.send(batch_of(sink, *["x" * 100_000] * 20))
            await sink.send(batch_of(sink, "last"))
            await sink.aclose()
            await collector.wait_for(lambda: len(collector.lines) == 21)
            assert collector.lines[-1] == "INFO last"

    async def test_server_name_is_told(self, tls: Tls) -> None:
        """The host of the endpoint is the name that the server is asked for."""
        names: list[str | None] = []
        tls.server.sni_callback = lambda _connection, name, _context: names.append(name)
        try:
            async with collecting(tls=tls.server) as collector:
                sink = TCPSink("localhost", collector.port, tls=tls.client)
                await sink.send(batch_of(sink, "one"))
                await sink.aclose()
        finally:
            tls.server.sni_callback = None
        assert names == ["localhost"]

    async def test_unknown_authority_is_the_sinks_failure(self, tls: Tls) -> None:
        """A certificate that nobody vouches for stops the sink, not the batch."""
        async with collecting(tls=tls.server) as collector:
            sink = TCPSink("localhost", collector.port, tls=True)
            with pytest.raises(SinkFailure, match=f"^localhost:{collector.port}: .*certificate not accepted"):
                await sink.open()

    async def test_wrong_host_name_is_the_sinks_failure(self, tls: Tls) -> None:
        """A certificate for another host is refused."""
        async with collecting(tls=tls.server) as collector:
            sink = TCPSink(LOCAL, collector.port, tls=tls.client)
            with pytest.raises(SinkFailure, match=r"certificate not accepted: .*IP address mismatch"):
                await sink.open()

    async def test_bad_certificate_and_no_connection_is_temporary(self, tls: Tls) -> None:
        """With one endpoint merely away there is hope: the records are tried again."""
        async with collecting(tls=tls.server) as collector, FaultProxy(LOCAL, collector.port) as proxy:
            proxy.refuse()
            sink = TCPSink(LOCAL, collector.port, tls=tls.client, endpoints=[(LOCAL, proxy.port)])
            with pytest.raises(TemporaryFailure, match=r"certificate not accepted.*refused"):
                await sink.open()

    async def test_client_certificate(self, tls: Tls) -> None:
        """A server that asks for the client's certificate gets it from the context."""
        tls.server.verify_mode = ssl.CERT_REQUIRED
        client = ssl.create_default_context()
        tls.authority.configure_trust(client)
        tls.authority.issue_cert("client.example").configure_cert(client)
        async with collecting(tls=tls.server) as collector:
            sink = TCPSink("localhost", collector.port, tls=client)
            await sink.send(batch_of(sink, "one"))
            await sink.aclose()
            assert messages_of(collector.lines) == ["one"]

    async def test_refused_client_is_noticed_before_records_are_sent(self, tls: Tls) -> None:
        """With TLS 1.3 a client is through before the server has looked; nothing counts as delivered to it."""
        tls.server.verify_mode = ssl.CERT_REQUIRED
        async with collecting(tls=tls.server) as collector:
            sink = TCPSink("localhost", collector.port, tls=tls.client)
            with pytest.raises(TemporaryFailure, match="TLS handshake"):
                await sink.send(batch_of(sink, "one"))
            assert not collector.lines

    async def test_alert_about_the_client_certificate_is_the_sinks_failure(self, tls: Tls) -> None:
        """A server that says what is wrong with the certificate stops the sink, not the batch."""
        tls.server.verify_mode = ssl.CERT_REQUIRED

        def refuse() -> None:
            peer, _ = listening.accept()
            with peer, pytest.raises(ssl.SSLError):
                tls.server.wrap_socket(peer, server_side=True)

        with socket.create_server((LOCAL, 0)) as listening:
            server = asyncio.create_task(asyncio.to_thread(refuse))
            sink = TCPSink("localhost", listening.getsockname()[1], tls=tls.client)
            with pytest.raises(SinkFailure, match=r"certificate not accepted: .*alert certificate required"):
                await sink.open()
            await server

    async def test_rsyslog_with_client_certificates(self, tls: Tls, tmp_path: Path) -> None:
        """A real collector takes octet-counted records over TLS from a client it knows, and none from others."""
        client = ssl.create_default_context()
        tls.authority.configure_trust(client)
        tls.authority.issue_cert("client.example").configure_cert(client)
        with running_rsyslog(tmp_path, tls.authority) as rsyslog:
            known = TCPSink("localhost", rsyslog.port, tls=client, framing="octet-count", formatter=TEXT)
            await known.send(batch_of(known, *[f"message {number}" for number in range(200)]))
            await known.aclose()
            await until(lambda: len(rsyslog.messages) == 200)
            stranger = TCPSink("localhost", rsyslog.port, tls=tls.client, formatter=TEXT)
            with pytest.raises((SinkFailure, TemporaryFailure)):
                await stranger.send(batch_of(stranger, "forged"))
        assert rsyslog.messages == [f"INFO message {number}" for number in range(200)]

    async def test_server_without_tickets_costs_a_moment(self, tls: Tls) -> None:
        """A server that issues no session tickets is taken to have accepted the client."""
        tls.server.num_tickets = 0
        try:
            async with collecting(tls=tls.server) as collector:
                sink = TCPSink("localhost", collector.port, tls=tls.client)
                await sink.send(batch_of(sink, "one"))
                await sink.aclose()
                assert messages_of(collector.lines) == ["one"]
        finally:
            tls.server.num_tickets = 2

    async def test_end_is_noticed(self, tls: Tls) -> None:
        """A server that says goodbye between batches is connected to anew."""
        async with collecting(tls=tls.server) as collector:
            sink = TCPSink("localhost", collector.port, tls=tls.client)
            await sink.send(batch_of(sink, "before"))
            await collector.wait_for(lambda: collector.lines)
            collector.writers[0].close()
            await until(lambda: "not connected" in repr(sink))
            await sink.send(batch_of(sink, "after"))
            await sink.aclose()
            assert messages_of(collector.lines) == ["before", "after"]


class TestConfiguration:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"host": ""}, "host must be a name or an address, got ''"),
            ({"host": "."}, "host must be a name or an address, got '.'"),
            ({"host": ".example"}, "host must be a name or an address, got '.example'"),
            ({"host": "logs example"}, "host must be a name or an address, got 'logs example'"),
            ({"port": 0}, "port must be an integer from 1 to 65535, got 0"),
            ({"port": "9020"}, "port must be an integer from 1 to 65535, got '9020'"),
            ({"framing": "crlf"}, "framing must be one of 'newline', 'octet-count', 'nul', 'pickle', got 'crlf'"),
            ({"framing": "pickle", "formatter": TEXT}, 'framing="pickle" sends the record itself'),
            ({"endpoints": ["b.example"]}, "endpoints must be .host, port. pairs"),
            ({"endpoints": [("b.example", -1)]}, "port must be an integer from 1 to 65535, got -1"),
            ({"connect_timeout": 0}, "connect_timeout must be at least 0.001 seconds, got 0"),
            ({"tls": False}, "tls must be None"),
            ({"send_timeout": 0}, "send_timeout must be at least"),
        ],
    )
    def test_wrong_argument_is_refused(self, arguments: dict[str, Any], message: str) -> None:
        """The error names the value, the limit and the way out."""
        complete: dict[str, Any] = {"host": "logs.example", "port": 9020, **arguments}
        with pytest.raises(ConfigError, match=message):
            TCPSink(**complete)

    def test_pickle_keeps_its_formatter(self) -> None:
        """`dictConfig` sets formatters on handlers: receivers of pickles could not read them."""
        sink = TCPSink("logs.example", 9020, framing="pickle")
        with pytest.raises(ConfigError, match="sends the record itself"):
            sink.setFormatter(TEXT)
        sink.setFormatter(None)
        assert pickle.loads(sink.encode(record_of("one")))["msg"] == "one"

    def test_formatter_can_be_changed(self) -> None:
        """As for any handler."""
        sink = TCPSink("logs.example", 9020)
        sink.setFormatter(TEXT)
        assert sink.encode(record_of("one")) == b"INFO one"

    def test_repr_tells_the_endpoint(self) -> None:
        """Before it is connected too."""
        assert repr(TCPSink("::1", 9020, tls=None)) == "<TCPSink [::1]:9020 not connected>"
