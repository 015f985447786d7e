"""A pipeline for minutes behind proxies that go wrong: `nox -s soak -- --minutes 20`.

Four sinks (a collector over TCP, two more with a spool, a mail server), each behind a fault proxy of its own; loggers
on the loop and in threads, a few hundred records a second, with bursts. In each cycle every proxy goes through each
fault. Between two cycles all is drained, and looked at: the balance, memory (resident pages after a collection,
without this script's own arrays; and the blocks that Python has allocated), threads, tasks, sockets. At the end every
number that was logged was delivered, or is counted as lost.

What a proxy's kernel has acknowledged when the proxy resets the connection is lost without a word, as `TCPSink` says:
it is counted here by number, and each must have been acknowledged within a moment of a reset.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import itertools
import json
import logging
import os
import random
import re
import sys
import tempfile
import threading
import time
from array import array
from collections import Counter
from contextlib import AsyncExitStack
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP

from offloop import Batch, Buffer, Pipeline, Retry, SMTPSink, Spool, Stats, TCPSink
from offloop.testing import FaultProxy
from offloop.testing.probes import Leftovers

NUMBERS = 1_500_000  # as many records are logged at most: what is known of each is in arrays that never grow
NUMBER = re.compile(rb"#(\d+)#")
RATE = 75  # records a second, of each logger
THREADS = 3
BURST = 2_000
ERROR_EVERY = 100
FAULTS = ("latency", "reset", "black hole", "half-close", "refuse")
BETWEEN = 2.0  # seconds of quiet between two faults of one proxy
NEAR = 2.5  # seconds within which a reset may undo an acknowledgement
DRAINED = 60.0  # seconds a drain may take
FLAT = 1.1
FEW_SAMPLES = 3
SOON = Retry(initial=0.05, maximum=1.0)
BEGAN = time.monotonic() - 1.0
_M_ARENA_MAX = -8


class Known:
    """What is known of each number at one destination, in arrays whose pages are all touched at the start."""

    def __init__(self) -> None:
        self.received = bytearray(b"\0" * NUMBERS)
        self.acked = array("f", bytes(4 * NUMBERS))
        """When it was taken, in seconds since the start; 0: it was not."""
        self.notices = 0
        self.told = Counter[str]()
        """Losses that notices told of, by place."""

    @classmethod
    def size_bytes(cls) -> int:
        """What one of these takes."""
        return 5 * NUMBERS

    def arrived(self, data: bytes) -> None:
        for found in NUMBER.finditer(data):
            number = int(found[1])
            self.received[number] = min(255, self.received[number] + 1)

    def took(self, batch: Batch) -> None:
        now = time.monotonic() - BEGAN
        for record in batch.records:
            if record.name == "offloop.loss":
                self._hear(record)
                continue
            number = record.number  # type: ignore[attr-defined]
            assert not self.acked[number], f"{number} was taken twice"
            self.acked[number] = now

    def _hear(self, record: Any) -> None:
        self.notices += 1
        self.told[record.sink] += sum(sum(levels.values()) for levels in record.lost.values())
        print(f"{time.monotonic() - BEGAN:7.1f} s, notice: {record.getMessage()}", flush=True)


class Collector:
    """Reads lines and forgets all but their numbers."""

    def __init__(self, known: Known) -> None:
        self.known = known

    async def start(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rest = b""
        try:
            while data := await reader.read(65_536):
                *lines, rest = (rest + data).split(b"\n")
                self.known.arrived(b"\n".join(lines))
        except OSError:
            pass  # the proxy passed a reset on; what was cut off comes again
        finally:
            writer.close()


class Desk:
    """Takes mails and forgets all but the numbers in them."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.mails = 0

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        body = message_from_bytes(envelope.content, policy=policy.SMTP).get_body(("plain",))
        assert body is not None
        self.known.arrived(body.get_content().encode())
        self.mails += 1
        return "250 OK"


class WatchedTCP(TCPSink):
    """Notes which numbers count as delivered."""

    known: Known

    async def send(self, batch: Batch) -> None:
        await super().send(batch)
        self.known.took(batch)


class WatchedSMTP(SMTPSink):
    """Notes which numbers count as delivered."""

    known: Known

    async def send(self, batch: Batch) -> None:
        await super().send(batch)
        self.known.took(batch)


class Loggers:
    """One on the loop, some in threads; all draw from one row of numbers."""

    def __init__(self, log: logging.Logger, seed: int) -> None:
        self.log = log
        self.numbers = itertools.count()
        self.logged = 0
        self.go_on = threading.Event()
        self.ended = False
        self._large = 0
        self._random = random.Random(seed)
        self._threads = [threading.Thread(target=self._in_thread, name=f"logger-{n}") for n in range(THREADS)]
        self._counting = threading.Lock()

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._on_loop())
        for thread in self._threads:
            thread.start()

    async def __aexit__(self, *_: object) -> None:
        self.ended = True
        self.go_on.set()
        await self._task
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def burst(self) -> None:
        """Begin with as much as ever comes at once, so that the first cycle needs as much memory as any."""
        self._large = THREADS
        self.go_on.set()

    def _say(self, count: int, padding: int = 0) -> None:
        count = min(count, NUMBERS - BURST * (THREADS + 1) - self.logged)
        for _ in range(count):
            number = next(self.numbers)
            level = logging.ERROR if number % ERROR_EVERY == 0 else logging.WARNING if number % 3 else logging.INFO
            error = ValueError(number) if number % (7 * ERROR_EVERY) == 0 else None
            self.log.log(level, "#%d# %s", number, "x" * padding, extra={"number": number}, exc_info=error)
        with self._counting:
            self.logged += count

    async def _on_loop(self) -> None:
        while not self.ended:
            if self.go_on.is_set():
                burst = self._random.random() < 1 / 150
                self._say(BURST // 4 if burst else RATE // 10)
            await asyncio.sleep(0.1)

    def _in_thread(self) -> None:
        while not self.ended:
            self.go_on.wait()
            # Large records in some bursts: more than the kernels' buffers hold, so that a black hole is felt.
            if self._large > 0:
                self._large -= 1
                self._say(BURST, padding=2_000)
            elif self._random.random() < 1 / 200:
                self._say(BURST, padding=self._random.choice((0, 0, 2_000)))
            else:
                self._say(RATE // 10)
            time.sleep(0.1)


class Weather:
    """Takes a proxy through each fault once, in random order."""

    def __init__(self, proxy: FaultProxy, seed: int) -> None:
        self.proxy = proxy
        self.happened: Counter[str] = Counter()
        self.resets: list[float] = []
        self._random = random.Random(seed)

    async def cycle(self) -> None:
        faults = list(FAULTS)
        self._random.shuffle(faults)
        for fault in faults:
            self.happened[fault] += 1
            await self._suffer(fault)
            self.proxy.forward()
            self.proxy.latency = 0.0
            await asyncio.sleep(BETWEEN)

    async def _suffer(self, fault: str) -> None:
        draw = self._random.uniform
        if fault == "latency":
            self.proxy.latency = draw(0.05, 0.4)
            await asyncio.sleep(draw(2, 4))
        elif fault == "reset":
            self.resets.append(time.monotonic() - BEGAN)
            self.proxy.reset()
            await asyncio.sleep(draw(0, 3))
            self.resets.append(time.monotonic() - BEGAN)
        elif fault == "black hole":
            self.proxy.black_hole()
            await asyncio.sleep(draw(2, 6))
        elif fault == "half-close":
            for _ in range(3):
                self.proxy.half_close()
                await asyncio.sleep(draw(0, 1))
        else:
            self.proxy.refuse()
            await asyncio.sleep(draw(0, 3))


class Soak:
    """The pipeline, its destinations, what it logs, and what was found."""

    def __init__(self, minutes: float, seed: int, directory: Path) -> None:
        self.minutes = minutes
        self.seed = seed
        self.directory = directory
        self.known = {name: Known() for name in ("tcp", "outage", "always", "mail")}
        self.weathers: dict[str, Weather] = {}
        self.samples: list[dict[str, float]] = []
        self.wrong: list[str] = []

    async def run(self) -> dict[str, Any]:
        before = Leftovers()
        descriptors = _descriptors()
        collectors = {name: Collector(known) for name, known in self.known.items() if name != "mail"}
        desk = Desk(self.known["mail"])
        servers = {name: await collector.start() for name, collector in collectors.items()}
        servers["mail"] = await mail_server(desk)
        proxies = {
            name: FaultProxy("127.0.0.1", server.sockets[0].getsockname()[1]) for name, server in servers.items()
        }
        async with AsyncExitStack() as stack:
            for name, proxy in proxies.items():
                await stack.enter_async_context(proxy)
                self.weathers[name] = Weather(proxy, self.seed + len(self.weathers))
            stats, logged = await self._live(proxies)
        for server in servers.values():
            server.close()
            await server.wait_closed()
        await self._gone(before, descriptors)
        result = self._result(stats, logged, proxies, desk)
        self._judge(stats, logged, result)
        result["wrong"] = self.wrong
        return result

    def _sinks(self, proxies: dict[str, FaultProxy]) -> list[Any]:
        spools = {name: Spool(self.directory / name, when=name) for name in ("outage", "always")}  # type: ignore[arg-type]
        sinks: list[Any] = [
            WatchedTCP(
                "127.0.0.1",
                proxies[name].port,
                name=name,
                retry=SOON,
                send_timeout=1.5,
                buffer=Buffer(max_records=2_000),
                spool=spools.get(name),
            )
            for name in ("tcp", "outage", "always")
        ]
        sinks.append(
            WatchedSMTP(
                "127.0.0.1",
                proxies["mail"].port,
                name="mail",
                sender="soak@example.org",
                to="desk@example.org",
                tls="off",
                html=False,
                digest=None,  # each number is looked for in a mail
                level=logging.ERROR,
                retry=SOON,
                send_timeout=1.5,
                data_timeout=1.5,
                connect_timeout=1.5,
            )
        )
        for sink in sinks:
            sink.known = self.known[sink.name]
        return sinks

    async def _live(self, proxies: dict[str, FaultProxy]) -> tuple[Stats, int]:
        log = logging.getLogger("soak")
        log.setLevel(logging.DEBUG)
        log.propagate = False
        pipeline = Pipeline(*self._sinks(proxies), logger=log, shutdown_timeout=DRAINED)
        async with pipeline:
            loggers = Loggers(log, self.seed)
            async with loggers:
                cycles = 0
                while not cycles or time.monotonic() - BEGAN < self.minutes * 60:
                    loggers.burst()
                    await asyncio.gather(*(weather.cycle() for weather in self.weathers.values()))
                    loggers.go_on.clear()
                    cycles += 1
                    await self._drain(pipeline)
                    self._sample(pipeline, loggers.logged, cycles)
        return pipeline.stats(), loggers.logged

    async def _drain(self, pipeline: Pipeline) -> None:
        await asyncio.sleep(0.5)  # the threads' last piece
        until = time.monotonic() + DRAINED
        while time.monotonic() < until:
            report = await pipeline.flush(5)
            if not report.balanced:
                self.wrong.append(f"not balanced: {report}")
            if report.complete and not any(counts.spooled + counts.pending for counts in report.sinks.values()):
                return
            await asyncio.sleep(0.1)
        self.wrong.append(f"not drained within {DRAINED:g} s: {pipeline.stats()}")

    def _sample(self, pipeline: Pipeline, logged: int, cycles: int) -> None:
        gc.collect()
        _trim()
        arrays = len(self.known) * Known.size_bytes()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") - arrays
        sample = {
            "seconds": round(time.monotonic() - BEGAN, 1),
            "rss_bytes": resident,
            "heap_bytes": _heap_bytes() - arrays,
            "blocks": sys.getallocatedblocks(),
            "tasks": len(asyncio.all_tasks()),
            "threads": threading.active_count(),
            "descriptors": _descriptors(),
        }
        self.samples.append(sample)
        sinks = pipeline.stats().sinks
        told = ", ".join(f"{name} {counts.delivered}+{counts.lost} lost" for name, counts in sinks.items())
        print(
            f"{sample['seconds']:7.1f} s, cycle {cycles}: {logged} logged; {told}; RSS {resident / 2**20:.1f} MiB, "
            f"{sample['blocks']} blocks, {sample['tasks']} tasks, {sample['threads']} threads, "
            f"{sample['descriptors']} descriptors",
            flush=True,
        )

    async def _gone(self, before: Leftovers, descriptors: int) -> None:
        """See that nothing is left, once what ends in other threads had its time."""
        left, more, kept = "", 0, list[str]()
        until = time.monotonic() + 10
        while time.monotonic() < until:
            gc.collect()
            left = before.told()
            more = _descriptors() - descriptors
            kept = [str(path.relative_to(self.directory)) for path in self.directory.rglob("*") if path.is_file()]
            if not left and not kept and more <= 0:
                break
            await asyncio.sleep(0.05)
        if left or kept or more > 0:
            self.wrong.append(f"left over: {left}, files {kept}, {more} descriptors")

    # -- what was found ----------------------------------------------------------------------------------------------

    def _result(self, stats: Stats, logged: int, proxies: dict[str, FaultProxy], desk: Desk) -> dict[str, Any]:
        return {
            "seconds": round(time.monotonic() - BEGAN, 1),
            "seed": self.seed,
            "logged": logged,
            "intake": {"delivered": stats.intake.delivered, "dropped": _plain(stats.intake.dropped)},
            "sinks": {name: self._found(name, counts, logged, proxies[name]) for name, counts in stats.sinks.items()},
            "mails": desk.mails,
            "memory": self._memory(),
            "samples": self.samples,
        }

    def _found(self, name: str, counts: Any, logged: int, proxy: FaultProxy) -> dict[str, Any]:
        known, weather = self.known[name], self.weathers[name]
        undone = [n for n in range(logged) if known.acked[n] and not known.received[n]]
        far = [n for n in undone if not any(-0.5 <= t - known.acked[n] <= NEAR for t in weather.resets)]
        return {
            "offered": counts.offered,
            "delivered": counts.delivered,
            "filtered": counts.filtered,
            "dropped": _plain(counts.dropped),
            "notices": counts.notices,
            "notices_taken": known.notices,
            "told": dict(known.told),
            "left": counts.pending + counts.spooled + counts.printed,
            "acknowledged": sum(map(bool, known.acked)),
            "arrived": sum(map(bool, known.received)),
            "arrived_again": sum(times - 1 for times in known.received if times > 1),
            "acknowledged_and_reset": len(undone),
            "acknowledged_and_lost_otherwise": len(far),
            "connections": proxy.connections,
            "faults": dict(weather.happened),
        }

    def _memory(self) -> dict[str, Any]:
        """The median after the warm-up, a quarter of the run, against the median at the end."""
        samples = self.samples[len(self.samples) // 4 :]
        few = max(1, min(FEW_SAMPLES, len(samples) // 2))
        told: dict[str, Any] = {}
        for what in ("rss_bytes", "heap_bytes", "blocks"):
            first, last = (
                sorted(sample[what] for sample in part)[few // 2] for part in (samples[:few], samples[-few:])
            )
            told[what] = {"after_warm_up": first, "at_the_end": last, "ratio": round(last / max(first, 1), 3)}
        return told

    def _judge(self, stats: Stats, logged: int, result: dict[str, Any]) -> None:
        self._expect(stats.balanced, "the ledger does not balance")
        self._expect(stats.intake.offered == logged, "the intake was offered something else than what was logged")
        for name, found in result["sinks"].items():
            counts = stats.sinks[name]
            self._expect(found["left"] == 0, f"{name}: something is left")
            taken = found["acknowledged"] + found["notices_taken"]
            self._expect(taken == counts.delivered, f"{name}: delivered is not what was taken")
            gone = stats.intake.lost + counts.lost + counts.filtered
            self._expect(logged + counts.notices == taken + gone, f"{name}: a number has no fate")
            # A notice that is lost is counted, and tells nothing; what it would have told, the next one does.
            silent = counts.notices - found["notices_taken"]
            self._expect(found["told"].get(name, 0) == counts.lost - silent, f"{name}: its notices told something else")
            self._expect(not found["acknowledged_and_lost_otherwise"], f"{name}: lost without a reset")
            self._expect(found["arrived_again"] <= found["connections"] * 500, f"{name}: too many arrived again")
            self._expect(min(found["faults"].values()) > 0, f"{name}: a fault did not occur")
        for name in ("outage", "always"):
            # Where the disk can't keep up with a burst, the buffer's bound holds.
            self._expect(stats.sinks[name].dropped.keys() <= {"overflow"}, f"{name}: lost although it has a spool")
        self._expect(not result["sinks"]["mail"]["acknowledged_and_reset"], "mail: lost what the server took")
        for what, found in result["memory"].items():
            # What is allocated says whether it is a leak or the allocator's gaps; the judge is what the system gave us.
            self._expect(what == "heap_bytes" or found["ratio"] <= FLAT, f"{what} grew: {found}")
        for what in ("tasks", "threads", "descriptors"):
            counts = [sample[what] for sample in self.samples]
            self._expect(counts[-1] <= max(counts[:FEW_SAMPLES]) + 2, f"{what} grew: {counts}")

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.wrong.append(otherwise)


async def mail_server(desk: Desk) -> asyncio.Server:
    """A server in the running loop."""
    return await asyncio.get_running_loop().create_server(lambda: SMTP(desk, hostname="desk.example"), "127.0.0.1", 0)


def _descriptors() -> int:
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - numbers, not paths


def _share_one_arena() -> None:
    """Have all threads allocate from one heap of glibc's; before there are threads.

    Each thread has one of its own otherwise, whose end `_trim` can't give back: the peaks of each would be measured.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def _trim() -> None:
    """Have the C library give back what it keeps for later, where it can: what is left is in use."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class _Mallinfo2(ctypes.Structure):
    """What glibc says of its heap: `mallinfo2`."""

    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = tuple((name, ctypes.c_size_t) for name in _names)


def _heap_bytes() -> int:
    """What is allocated and not freed, of all arenas; 0 where the allocator does not tell."""
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return 0
    ask.restype = _Mallinfo2
    told = ask()
    return int(told.uordblks) + int(told.hblkhd)


def _plain(dropped: Any) -> dict[str, dict[str, int]]:
    return {reason: dict(levels) for reason, levels in dropped.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--json", type=Path, help="where the result goes; it is printed in any case")
    given = parser.parse_args()
    _share_one_arena()
    with tempfile.TemporaryDirectory(prefix="offloop-soak-") as directory:
        result = asyncio.run(Soak(given.minutes, given.seed, Path(directory)).run())
    text = json.dumps(result, indent=2)
    if given.json is not None:
        given.json.write_text(text + "\n")
    print(text)
    return int(bool(result["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
