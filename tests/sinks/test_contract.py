"""Every sink keeps the contract: one class a sink says how it is reached and what can befall it."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import AsyncIterator, Iterator
from email import message_from_bytes, policy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from helpers import collecting, split_length_prefixed, split_newline, split_nul, split_octet_count, until
from mailservers import Certificates, Desk, aiosmtpd, certificates, lmtpd, sendmail, sent
from offloop.capture import Record
from offloop.errors import TemporaryFailure
from offloop.framing import Framing
from offloop.sink import Sink
from offloop.sinks import FunctionSink, HandlerSink
from offloop.sinks.lmtp import LMTPSink
from offloop.sinks.sendmail import SendmailSink
from offloop.sinks.smtp import SMTPSink
from offloop.sinks.tcp import TCPSink
from offloop.testing import HANG, FaultProxy, FaultySink, MemorySink, SinkContract

LOCAL = "127.0.0.1"


@cache
def certified() -> Certificates:
    return certificates(LOCAL)


class TestMemorySink(SinkContract):
    def make_sink(self, **options: Any) -> Sink:
        self.sinks = [*getattr(self, "sinks", []), MemorySink(**options)]
        return self.sinks[-1]

    def received(self) -> list[str]:
        return [data.decode() for sink in self.sinks for data in sink.encoded]


class TestFaultySink(SinkContract):
    def make_sink(self, **options: Any) -> Sink:
        self.sinks = [*getattr(self, "sinks", []), FaultySink(**options)]
        return self.sinks[-1]

    def received(self) -> list[str]:
        return [data.decode() for sink in self.sinks for data in sink.encoded]

    def break_down(self) -> None:
        self.sinks[-1].fail(always=TemporaryFailure("away"))

    def hang(self) -> None:
        self.sinks[-1].fail(always=HANG)

    def heal(self) -> None:
        self.sinks[-1].heal()


class Function:
    """What a function that is a sink does, and has seen."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.away = False
        self.well = threading.Event()
        self.well.set()

    def sync(self, records: list[Record]) -> None:
        self.well.wait(10)
        if self.away:
            raise ConnectionError("away")
        self.seen += [record.getMessage() for record in records]

    async def asynchronous(self, records: list[Record]) -> None:
        await until(self.well.is_set)
        self.sync(records)


class FunctionContract(SinkContract):
    formats = False

    @pytest.fixture(autouse=True)
    def function(self) -> Iterator[None]:
        self.peer = Function()
        yield
        self.peer.well.set()

    def received(self) -> list[str]:
        return self.peer.seen

    def break_down(self) -> None:
        self.peer.away = True

    def hang(self) -> None:
        self.peer.well.clear()

    def heal(self) -> None:
        self.peer.away = False
        self.peer.well.set()


class TestFunctionSink(FunctionContract):
    def make_sink(self, **options: Any) -> Sink:
        return FunctionSink(self.peer.sync, **options)


class TestFunctionSinkAsync(FunctionContract):
    def make_sink(self, **options: Any) -> Sink:
        return FunctionSink(self.peer.asynchronous, **options)


class ListHandler(logging.Handler):
    """Calls the function with one record."""

    def __init__(self, peer: Function) -> None:
        super().__init__()
        self.peer = peer

    def emit(self, record: logging.LogRecord) -> None:
        self.peer.sync([record])  # type: ignore[list-item]


class TestHandlerSink(FunctionContract):
    def make_sink(self, **options: Any) -> Sink:
        return HandlerSink(ListHandler(self.peer), **options)


class TestHandlerSinkWithFile(SinkContract):
    formats = False

    @pytest.fixture(autouse=True)
    def file(self, tmp_path: Path) -> Iterator[None]:
        self.folder = tmp_path / "logs"
        self.folder.mkdir()
        self.path = self.folder / "log"
        self.handlers: list[logging.FileHandler] = []
        yield
        for handler in self.handlers:
            handler.close()

    def make_sink(self, **options: Any) -> Sink:
        handler = logging.FileHandler(self.path, encoding="utf-8", errors="backslashreplace")
        handler.terminator = "\0end\n"
        self.handlers.append(handler)
        return HandlerSink(handler, **options)

    def received(self) -> list[str]:
        return self.path.read_bytes().decode().split("\0end\n")

    def break_down(self) -> None:
        """The folder is not there (a share that is not mounted), and the file must be opened anew."""
        handler = self.handlers[-1]
        handler.close()
        self.folder.rename(self.folder.with_name("away"))

    def heal(self) -> None:
        self.folder.with_name("away").rename(self.folder)


class TCPContract(SinkContract):
    framing: Framing = "newline"
    tls = False
    split = staticmethod(split_newline)

    @pytest.fixture(autouse=True)
    async def collector(self) -> AsyncIterator[None]:
        pair = certified() if self.tls else None
        self.context = pair and pair.client
        async with (
            collecting(tls=pair and pair.server) as self.peer,
            FaultProxy(LOCAL, self.peer.port) as self.proxy,
        ):
            yield

    def make_sink(self, **options: Any) -> Sink:
        return TCPSink(LOCAL, self.proxy.port, framing=self.framing, tls=self.context, **options)

    def received(self) -> list[str]:
        return [data.decode() for stream in self.peer.streams for data in self.split(bytes(stream))]

    async def disconnect(self) -> None:
        self.proxy.accept_then_close()
        await until(lambda: not self.proxy.open_connections)
        self.proxy.forward()

    async def break_down(self) -> None:
        await self.disconnect()
        self.proxy.refuse()

    def hang(self) -> None:
        self.proxy.black_hole()

    def heal(self) -> None:
        self.proxy.forward()


class TestTCPSink(TCPContract):
    pass


class TestTCPSinkOctetCount(TCPContract):
    framing = "octet-count"
    split = staticmethod(split_octet_count)


class TestTCPSinkNul(TCPContract):
    framing = "nul"
    split = staticmethod(split_nul)


class TestTCPSinkPickle(TCPContract):
    framing = "pickle"
    formats = False

    def received(self) -> list[str]:
        return [
            pickle.loads(data)["msg"] for stream in self.peer.streams for data in split_length_prefixed(bytes(stream))
        ]


class TestTCPSinkTLS(TCPContract):
    tls = True
    hang_timeout = 0.5


class TestTCPSinkWithTwoEndpoints(TCPContract):
    @pytest.fixture(autouse=True)
    async def second(self, collector: None) -> AsyncIterator[None]:
        async with FaultProxy(LOCAL, self.peer.port) as self.other:
            yield

    def make_sink(self, **options: Any) -> Sink:
        return TCPSink(LOCAL, self.proxy.port, endpoints=[(LOCAL, self.other.port)], **options)

    async def disconnect(self) -> None:
        """The one that was in use is gone for good, the other one is there."""
        await super().disconnect()
        self.proxy.refuse()

    async def break_down(self) -> None:
        await super().break_down()
        self.other.refuse()

    def hang(self) -> None:
        self.proxy.black_hole()
        self.other.black_hole()

    def heal(self) -> None:
        self.proxy.forward()
        self.other.forward()


class TestSMTPSink(SinkContract):
    secrets = ("s3cret-pass",)
    hang_timeout = 0.5

    @pytest.fixture(autouse=True)
    async def server(self) -> AsyncIterator[None]:
        with aiosmtpd(tls_context=certified().server, login=("app-user", "s3cret-pass")) as self.desk:
            async with FaultProxy(LOCAL, self.desk.port) as self.proxy:
                yield

    def make_sink(self, **options: Any) -> Sink:
        return SMTPSink(
            LOCAL,
            self.proxy.port,
            sender="app@a.example",
            to="ops@b.example",
            username="app-user",
            password="s3cret-pass",
            tls="starttls",
            tls_context=certified().client,
            html=False,
            max_bytes=20_000_000,
            data_timeout=options.get("send_timeout", 10.0),
            digest=None,
            **options,
        )

    def received(self) -> list[str]:
        """The lines at the margin of each mail: further lines of a record are indented."""
        mails = [message_from_bytes(mail, policy=policy.SMTP) for mail in self.desk.mails]
        lines = [line for mail in mails for line in mail.get_content().split("\n")]
        return [line.rstrip("\r") for line in lines if not line.startswith((" ", "\t"))]

    disconnect = TCPContract.disconnect
    break_down = TCPContract.break_down
    hang = TCPContract.hang
    heal = TCPContract.heal


@pytest.mark.once
class TestSMTPSinkPipelined(TestSMTPSink):
    @pytest.fixture(autouse=True)
    async def server(self) -> AsyncIterator[None]:
        desk = Desk(offers=("PIPELINING",))
        with aiosmtpd(desk, tls_context=certified().server, login=("app-user", "s3cret-pass")) as self.desk:
            async with FaultProxy(LOCAL, self.desk.port) as self.proxy:
                yield


@pytest.mark.once
class TestLMTPSink(SinkContract):
    @pytest.fixture(autouse=True)
    async def server(self) -> AsyncIterator[None]:
        with lmtpd() as self.desk:
            async with FaultProxy(LOCAL, self.desk.port) as self.proxy:
                yield

    def make_sink(self, **options: Any) -> Sink:
        return LMTPSink(
            LOCAL,
            self.proxy.port,
            sender="app@a.example",
            to="ops@b.example",
            digest=None,
            html=False,
            max_bytes=20_000_000,
            data_timeout=options.get("send_timeout", 10.0),
            **options,
        )

    received = TestSMTPSink.received
    disconnect = TCPContract.disconnect
    break_down = TCPContract.break_down
    hang = TCPContract.hang
    heal = TCPContract.heal


class TestSendmailSink(SinkContract):
    hang_timeout = 0.5

    @pytest.fixture(autouse=True)
    def command(self, tmp_path: Path) -> None:
        self.command_line = sendmail(tmp_path)
        self.folder = tmp_path

    def make_sink(self, **options: Any) -> Sink:
        return SendmailSink(
            str(self.command_line),
            sender="app@a.example",
            to="ops@b.example",
            html=False,
            max_bytes=20_000_000,
            digest=None,
            **options,
        )

    def received(self) -> list[str]:
        mails = [message_from_bytes(path.read_bytes(), policy=policy.SMTP) for path in sent(self.folder)]
        lines = [line for mail in mails for line in mail.get_content().split("\n")]
        return [line.rstrip("\r") for line in lines if not line.startswith((" ", "\t"))]

    def break_down(self) -> None:
        (self.folder / "fault").write_text("echo queue is full >&2; exit 75")

    def hang(self) -> None:
        (self.folder / "fault").write_text("exec sleep 60")

    def heal(self) -> None:
        (self.folder / "fault").unlink()
