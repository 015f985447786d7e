"""Runs a program against a collector, again where something may be on disk, and counts what became of its records."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from helpers import Collector, until
from losses.ways import Place, Way
from programs import Program, python

FOLDER = Path(__file__).parent
DEADLINE = 25.0  # seconds, for a program
ON_DISK = frozenset({"outage", "always", "logstash"})
_RECORD = re.compile(r"record (\d+\.\d+)\b")


@dataclass(frozen=True)
class Outcome:
    """What became of the records of one program.

    Attributes:
        offered: Log calls that were made, in all its processes.
        delivered: Records that the collector had when the program had ended.
        again: Those that it got more than once, the second start included.
        later: Those that it got when the program was started once more.
        printed: Those that are on stderr and nowhere else.
        dropped: What the system itself says that it dropped, by reason and level.
        seconds: How long the program took.
        hung: It was killed at the deadline.
        balanced: The system's own counts balance, and nothing is pending; None where it has none.
        complaints: What is on stderr, without the records.
    """

    offered: int
    delivered: int
    again: int
    later: int
    printed: int
    dropped: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    seconds: float = 0.0
    hung: bool = False
    balanced: bool | None = None
    complaints: str = ""

    @property
    def unaccounted(self) -> int:
        """Records that are nowhere, and of which nothing was said."""
        said = sum(sum(levels.values()) for levels in self.dropped.values())
        return max(0, self.offered - self.delivered - self.later - self.printed - said)


class Destination(Collector):
    """A collector on one port of loopback, that can be away and come back."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._place = place
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._held: list[socket.socket] = []

    async def begin(self) -> None:
        """Be what was asked for."""
        kept = socket.socket()
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._place == "suspended":
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        kept.bind(("127.0.0.1", 0))
        self.port = kept.getsockname()[1]
        self._kept = kept
        if self._place in {"healthy", "restarts", "closes"}:
            await self.listen()
        elif self._place == "suspended":
            kept.listen(128)
        elif self._place == "black hole":
            kept.listen(0)
            for _ in range(4):  # more than the kernel queues: who comes after them gets no answer
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", self.port))
                self._held.append(one)

    async def listen(self) -> None:
        """Take connections, those too that wait."""
        for one in self._held:
            one.close()
        self._server = await asyncio.start_server(self._connected, sock=self._kept, backlog=128)

    async def heal(self) -> None:
        """Be healthy."""
        self._place = "healthy"
        if self._server is None:
            await self.listen()

    async def misbehave(self) -> None:
        """Do amid the stream what was asked for."""
        if self._place == "returns":
            await asyncio.sleep(1.0)
            await self.listen()
        elif self._place == "restarts":
            await until(lambda: sum(map(len, self.streams)) > 3_000)
            assert self._server is not None
            self._kept = socket.socket()
            self._server.close()
            for writer in self.writers:
                _break(writer)
            await asyncio.sleep(0.4)
            self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._kept.bind(("127.0.0.1", self.port))
            await self.listen()

    async def settle(self) -> None:
        """Wait until all that was sent to us is read: the program has ended, and so have its connections."""
        if self._place in {"suspended", "returns"} and self._server is None:
            await self.heal()
            await asyncio.sleep(0.2)
        await asyncio.sleep(0.05)
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await until(lambda: not self._serving)

    async def close(self) -> None:
        """Be gone."""
        if self._server is not None:
            self._server.close()
        else:
            self._kept.close()
        for one in self._held:
            one.close()
        for writer in self.writers:
            writer.transport.abort()
        await asyncio.gather(*self._serving, return_exceptions=True)

    @property
    def identities(self) -> Counter[str]:
        """How often each record arrived."""
        texts = (bytes(stream).decode(errors="replace") for stream in self.streams)
        return Counter(
            identity for text in texts for line in text.splitlines() for identity in _RECORD.findall(line)[:1]
        )

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._place == "closes":
            writer.close()
            return
        task = asyncio.ensure_future(self.serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)


def _break(writer: asyncio.StreamWriter) -> None:
    """Read what has arrived, and reset the connection."""
    transport: Any = writer.transport
    if transport.is_closing():
        return
    inner = transport.get_extra_info("socket")._sock
    try:
        while data := inner.recv(65_536):
            transport.get_protocol().data_received(data)
    except BlockingIOError:
        pass  # that was all
    transport.abort()


@asynccontextmanager
async def destination(place: Place) -> AsyncIterator[Destination]:
    """A collector that does what is asked for."""
    collector = Destination(place)
    await collector.begin()
    try:
        yield collector
    finally:
        await collector.close()


async def run(way: Way, system: str, folder: Path) -> Outcome:
    """Try a way with a system."""
    folder.mkdir(parents=True)
    async with destination(way.place) as collector:
        environment: dict[str, object] = {
            "LOSS_SYSTEM": system,
            "LOSS_PORT": collector.port,
            "LOSS_FOLDER": folder,
            "LOSS_COUNT": way.count,
            "LOSS_CAPACITY": way.capacity,
            "PYTHONPATH": FOLDER.parent,
        }
        began = monotonic()
        program, hung = await _ended(way, collector, environment)
        seconds = monotonic() - began
        await collector.settle()
        before = collector.identities
        await collector.heal()
        if system in ON_DISK:
            await _ended(_AGAIN, collector, environment)
            await collector.settle()
        after = collector.identities
    told = _told(folder)
    return Outcome(
        offered=(folder / "offered").stat().st_size,
        delivered=len(before),
        again=sum(count > 1 for count in after.values()),
        later=len(after) - len(before),
        printed=len(set(_RECORD.findall(program.trouble)) - after.keys()),
        dropped=_dropped(told),
        seconds=seconds,
        hung=hung,
        balanced=all(one["balanced"] and not _pending(one) for one in told) if told else None,
        complaints="\n".join(line for line in program.trouble.splitlines() if not _RECORD.search(line)),
    )


_AGAIN = Way("once more", "again")


async def _ended(way: Way, collector: Destination, environment: dict[str, object]) -> tuple[Program, bool]:
    """Run a program to its end; tells whether it had to be killed."""
    if way.program == "gunicorn":
        arguments = ["-m", "gunicorn", "--preload", "-w", "2", "-k", "uvicorn_worker.UvicornWorker"]
        arguments += ["--bind", "127.0.0.1:0", "losses.web:app"]
    else:
        arguments = [str(FOLDER / "application.py"), way.program]
    async with AsyncExitStack() as stack:
        program = await stack.enter_async_context(python("-W", "ignore", *arguments, **environment))
        ending = asyncio.ensure_future(program.end())
        doing = [asyncio.ensure_future(collector.misbehave())] if way is not _AGAIN else []
        if way.program in {"serve", "gunicorn"}:
            doing.append(asyncio.ensure_future(_use(program, 2 if way.program == "gunicorn" else 1, way.count)))
        done, _ = await asyncio.wait([ending], timeout=DEADLINE)
        for task in doing:
            if not task.done():
                task.cancel()
        await asyncio.gather(*doing, return_exceptions=True)
        hung = not done
        if hung:
            await stack.aclose()  # kills it
        await ending
    return program, hung


async def _use(program: Program, workers: int, count: int) -> None:
    """Ask a web application to log, then tell it to end."""
    await until(lambda: program.trouble.count("Application startup complete") >= workers)
    await until(lambda: re.search(r"http://127\.0\.0\.1:\d+", program.trouble))
    port = re.search(r"http://127\.0\.0\.1:(\d+)", program.trouble)
    assert port is not None
    await asyncio.gather(*(_get(int(port[1]), f"/{count // 4}") for _ in range(4)))
    program.process.send_signal(signal.SIGTERM)


async def _get(port: int, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    await reader.read()
    writer.close()


def _told(folder: Path) -> list[dict[str, Any]]:
    """What each process told last of its counts."""
    path = folder / "told"
    lines = path.read_text().splitlines() if path.exists() else []
    return list({told["pid"]: told for told in map(json.loads, lines)}.values())


def _dropped(told: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    dropped: dict[str, dict[str, int]] = {}
    for one in told:
        for counts in one["counts"].values():
            for reason, levels in counts["dropped"].items():
                for level, count in levels.items():
                    into = dropped.setdefault(reason, {})
                    into[level] = into.get(level, 0) + count
    return dropped


def _pending(told: dict[str, Any]) -> bool:
    return any(counts["pending"] for counts in told["counts"].values())


Report = Callable[[Way, str, Outcome], None]


async def run_all(ways: list[tuple[Way, str]], folder: Path, at_a_time: int, report: Report) -> list[Outcome]:
    """Try each of them, so many at a time."""
    free = asyncio.Semaphore(at_a_time)

    async def one(number: int, way: Way, system: str) -> Outcome:
        async with free:
            outcome = await run(way, system, folder / str(number))
        report(way, system, outcome)
        return outcome

    return await asyncio.gather(*(one(number, way, system) for number, (way, system) in enumerate(ways)))
