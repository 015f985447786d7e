"""However a process ends, its records are delivered, or printed and counted."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from endings import ended, printed, program, told, written
from helpers import Collector, collecting, messages_of, until

TO_COLLECTOR = "listener = QueueListener(queue, TCPSink('127.0.0.1', port), shutdown_timeout=20)\n"
TO_NOBODY = "listener = QueueListener(queue, TCPSink('127.0.0.1', 9, name='nobody'), shutdown_timeout=0.2)\n"


def given_up(stats: dict[str, Any], sink: str) -> int:
    """What was printed, or not even that, for the sink or before it was routed."""
    places = stats[sink], stats["intake"]
    return sum(counts["printed"] + sum(counts["dropped"].get("shutdown", {}).values()) for counts in places)


async def collected(collector: Collector, count: int) -> list[str]:
    """The messages that have arrived, once there are so many."""
    await collector.wait_for(lambda: len(collector.lines) >= count)
    return messages_of(collector.lines)


async def test_records_before_any_loop(tmp_path: Path) -> None:
    """Where no loop ever runs, what was logged is delivered at exit."""
    async with collecting() as collector:
        running = await ended(tmp_path, TO_COLLECTOR + "log.info('early')", COLLECTOR=collector.port)
        assert await collected(collector, 1) == ["early"]
    (stats,) = told(running.text)
    assert stats["intake"]["delivered"] == stats["TCPSink"]["delivered"] == 1
    assert not running.trouble


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_records_after_the_loop(tmp_path: Path, host: str) -> None:
    """What is logged after the listener was stopped is delivered at exit, by an address that is known from before."""
    source = f"""
        listener = QueueListener(queue, TCPSink("{host}", port), shutdown_timeout=20)
        async def main():
            async with listener:
                log.info("in the loop")
        asyncio.run(main())
        log.info("after the loop")
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("failed")
    """
    async with collecting() as collector:
        running = await ended(tmp_path, source, COLLECTOR=collector.port)
        assert await collected(collector, 3) == ["in the loop", "after the loop", "failed"]
        assert "ZeroDivisionError: division by zero" in collector.lines[2]
    assert told(running.text)[0]["TCPSink"]["delivered"] == 3
    assert not running.trouble


@pytest.mark.parametrize("end", ["", "loop.close()"], ids=["left standing", "closed"])
async def test_abandoned_loop(tmp_path: Path, end: str) -> None:
    """What a loop without a stop left in the queue and in a lane is delivered at exit."""
    source = f"""
        from offloop.testing import MemorySink
        memory = MemorySink()
        waiting = TCPSink("127.0.0.1", port, batching=Batching(max_wait=60))
        listener = QueueListener(queue, waiting, memory, shutdown_timeout=20)
        async def main():
            listener.start()
            log.info("in the lane")
            await memory.wait_for(1)
            log.info("in the queue")
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        {end}
    """
    async with collecting() as collector:
        running = await ended(tmp_path, source, COLLECTOR=collector.port)
        assert await collected(collector, 2) == ["in the lane", "in the queue"]
    assert told(running.text)[0]["MemorySink"]["delivered"] == 2


async def test_loop_in_a_daemon_thread(tmp_path: Path) -> None:
    """A loop that still runs beside the ending main thread is asked to deliver what it has."""
    source = """
        waiting = TCPSink("127.0.0.1", port, batching=Batching(max_wait=60))
        listener = QueueListener(queue, waiting, shutdown_timeout=20)
        started = threading.Event()
        async def main():
            listener.start()
            started.set()
            await asyncio.Event().wait()
        threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
        started.wait()
        log.info("from the main thread")
    """
    async with collecting() as collector:
        running = await ended(tmp_path, source, COLLECTOR=collector.port)
        assert await collected(collector, 1) == ["from the main thread"]
    assert told(running.text)[0]["TCPSink"]["delivered"] == 1


async def test_loop_that_is_held_up_in_a_daemon_thread(tmp_path: Path) -> None:
    """What it holds is printed, when its time is over."""
    source = """
        listener = QueueListener(queue, Hung(batching=Batching(max_wait=60)), shutdown_timeout=0.1)
        held, never = threading.Event(), threading.Event()
        async def main():
            listener.start()
            log.info("held")
            while not listener.stats().sinks["Hung"].pending:
                await asyncio.sleep(0)
            held.set()
            never.wait()
        threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
        held.wait()
    """
    running = await ended(tmp_path, source)
    assert printed(running.trouble, "Hung") == ["held"]
    assert told(running.text)[0]["Hung"]["printed"] == 1


async def test_plain_handler_at_exit(tmp_path: Path) -> None:
    """A handler that works in a thread works at exit, when no thread can be started."""
    source = """
        listener = QueueListener(queue, logging.FileHandler(os.environ["FILE"]))
        log.info("to a file")
    """
    running = await ended(tmp_path, source, FILE=tmp_path / "log")
    assert (tmp_path / "log").read_text() == "to a file\n"
    assert told(running.text)[0]["FileHandler"]["delivered"] == 1


async def test_slow_plain_handler_at_exit(tmp_path: Path) -> None:
    """It gets its time, not more; what it did not take by then is printed, as long as there is time for that."""
    source = """
        import time
        class Slow(logging.Handler):
            def emit(self, record):
                time.sleep(0.1)
        listener = QueueListener(queue, Slow(), shutdown_timeout=0.3)
        for number in range(200):
            log.info("%d", number)
    """
    running = await ended(tmp_path, source)
    (stats,) = told(running.text)
    counts = stats["Slow"]
    assert counts["delivered"] <= 20
    lines = printed(running.trouble, "Slow")
    assert lines == [str(counts["delivered"] + number) for number in range(counts["printed"])]
    # Where no thread starts any more the handler holds up the loop at exit, and what is not routed by then never is.
    assert counts["delivered"] + given_up(stats, "Slow") == 200


async def test_unreachable_collector_at_exit(tmp_path: Path) -> None:
    """What can't be delivered is printed, a line a record, with a line of totals, and counted."""
    source = TO_NOBODY + "log.info('one')\nlog.info('a\\nforged %s', 'line')\n"
    running = await ended(tmp_path, source)
    assert printed(running.trouble, "nobody") == ["one", "a\\nforged line"]
    assert "offloop: at exit 2 record(s) could not be delivered: 2 printed, 0 lost" in running.trouble.splitlines()
    (stats,) = told(running.text)
    assert stats["nobody"]["printed"] == 2
    assert stats["nobody"]["dropped"] == {}


async def test_handler_without_a_listener(tmp_path: Path) -> None:
    """Where nobody ever listened, what waits is printed."""
    source = """
        log.info("to nobody")
        class listener:
            def stats():
                from offloop import Stats
                return Stats(log.handlers[0].intake.counts(), {})
    """
    running = await ended(tmp_path, source)
    assert printed(running.trouble, "the queue") == ["to nobody"]
    assert told(running.text)[0]["intake"]["printed"] == 1


async def test_exit_functions(tmp_path: Path) -> None:
    """What the application's exit functions log is delivered, or, after offloop's own, printed at once."""
    async with collecting() as collector:
        source = TO_COLLECTOR + "atexit.register(log.info, 'at exit')"
        running = await ended(tmp_path, source, COLLECTOR=collector.port, LATE=1)
        assert await collected(collector, 1) == ["at exit"]
    assert printed(running.trouble, "the queue") == ["late"]
    (stats,) = told(running.text)
    assert stats["TCPSink"]["delivered"] == stats["intake"]["printed"] == 1


def test_full_stderr(tmp_path: Path) -> None:
    """Where nobody reads stderr the process ends all the same, and what was not printed is counted as lost."""
    source = TO_NOBODY + "for number in range(3_000): log.info('%d' + 'x' * 1_000, number)\n"
    command = [sys.executable, "-W", "error", str(written(tmp_path, source))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.wait(20)  # what it tells on stdout finds room in the pipe
        assert process.stdout is not None
        assert process.stderr is not None
        output, errors = process.stdout.read(), process.stderr.read()
    (stats,) = told(output)
    count = stats["nobody"]["printed"]
    assert 0 < count < 3_000
    assert given_up(stats, "nobody") == 3_000
    assert len(printed(errors, "nobody")) in {count, count + 1}  # one may be cut off


async def test_what_is_printed_has_a_bound(tmp_path: Path) -> None:
    """At most 1 MiB goes to stderr, whatever there is."""
    source = TO_NOBODY + "for number in range(300): log.info('%d' + 'x' * 10_000, number)\n"
    running = await ended(tmp_path, source)
    (stats,) = told(running.text)
    assert len(running.errors) < 1024 * 1024 + 1_000
    # On a busy machine the last one is cut off, and not counted.
    whole = [line for line in printed(running.trouble, "nobody") if line.endswith("x" * 10_000)]
    assert stats["nobody"]["printed"] == len(whole) > 0
    assert given_up(stats, "nobody") == 300


@pytest.mark.parametrize(
    ("end", "status"), [("sys.exit(3)", 3), ("raise RuntimeError('unhandled')", 1), ("return", 0)], ids=str
)
async def test_end_within_the_block(tmp_path: Path, end: str, status: int) -> None:
    """Whatever ends the program while the listener runs, what was logged is delivered."""
    source = f"""
        listener = QueueListener(queue, TCPSink("127.0.0.1", port), shutdown_timeout=20)
        async def main():
            async with listener:
                log.info("last words")
                {end}
        asyncio.run(main())
    """
    async with collecting() as collector:
        running = await ended(tmp_path, source, COLLECTOR=collector.port)
        assert await collected(collector, 1) == ["last words"]
    assert running.process.returncode == status
    assert told(running.text)[0]["TCPSink"]["delivered"] == 1


async def test_tasks_that_log_while_they_are_cancelled(tmp_path: Path) -> None:
    """At the end of asyncio.run, and after the listener has ended with it, nothing is lost."""
    source = """
        listener = QueueListener(queue, TCPSink("127.0.0.1", port), shutdown_timeout=20)
        async def dawdles(turns):
            try:
                await asyncio.Event().wait()
            finally:
                log.info("cancelled")
                for _ in range(turns):
                    await asyncio.sleep(0)
                log.info("gone after %d", turns)
        async def main():
            listener.start()
            tasks = [asyncio.create_task(dawdles(turns)) for turns in (0, 10, 1_000)]
            await asyncio.sleep(0)
        asyncio.run(main())
    """
    async with collecting() as collector:
        running = await ended(tmp_path, source, COLLECTOR=collector.port)
        messages = await collected(collector, 6)
    assert sorted(messages) == ["cancelled"] * 3 + ["gone after 0", "gone after 10", "gone after 1000"]
    assert told(running.text)[0]["TCPSink"]["delivered"] == 6


async def test_second_interrupt(tmp_path: Path) -> None:
    """Ctrl-C drains within the deadline; a second one cuts it short, and what is left is printed."""
    source = """
        listener = QueueListener(queue, Hung(), shutdown_timeout=60)
        async def main():
            async with listener:
                log.info("stuck")
                await asyncio.Event().wait()
        try:
            asyncio.run(main())
        finally:
            print("over", flush=True)
    """
    async with program(tmp_path, source) as running:
        await until(lambda: "sending" in running.text)
        running.process.send_signal(signal.SIGINT)
        # Python takes a second one that comes at once for the first.
        while "over" not in running.text and not running.reading.done():
            await asyncio.sleep(0.2)
            with suppress(ProcessLookupError):
                running.process.send_signal(signal.SIGINT)
        await running.end()
    assert printed(running.trouble, "Hung") == ["stuck"]
    assert told(running.text)[0]["Hung"]["printed"] == 1


async def test_interrupt_at_exit(tmp_path: Path) -> None:
    """Ctrl-C while the exit hook delivers: what is left is printed at once."""
    source = """
        listener = QueueListener(queue, Hung(), shutdown_timeout=60)
        log.info("stuck")
    """
    async with program(tmp_path, source) as running:
        await until(lambda: "sending" in running.text)
        running.process.send_signal(signal.SIGINT)
        await running.end()
    assert printed(running.trouble, "Hung") == ["stuck"]
    assert told(running.text)[0]["Hung"]["printed"] == 1


async def test_sigterm_under_uvicorn(tmp_path: Path) -> None:
    """Nothing runs then but the lifespan, which delivers what was logged."""
    source = """
        import uvicorn
        from starlette.applications import Starlette
        sink = TCPSink("127.0.0.1", port, batching=Batching(max_wait=60))
        pipeline = Pipeline(sink, logger="app.web", shutdown_timeout=20)
        listener = pipeline.listener
        class Told:
            async def __aenter__(self):
                await pipeline.__aenter__()
                logging.getLogger("app.web").info("started")
            async def __aexit__(self, *error):
                logging.getLogger("app.web").info("stopping")
                await pipeline.__aexit__(*error)
                tell()
        log.handlers = []
        uvicorn.run(Starlette(lifespan=lambda app: Told()), port=0)
    """
    async with collecting() as collector, program(tmp_path, source, COLLECTOR=collector.port) as running:
        await until(lambda: "Uvicorn running" in running.trouble)
        running.process.send_signal(signal.SIGTERM)
        await running.end()
        assert await collected(collector, 2) == ["started", "stopping"]
    assert running.process.returncode == -signal.SIGTERM
    assert told(running.text)[0]["TCPSink"]["delivered"] == 2  # by the lifespan: the exit hook was not reached


async def test_os_exit(tmp_path: Path) -> None:
    """Nothing is possible: the records are gone, and nobody says so."""
    running = await ended(tmp_path, TO_NOBODY + "log.info('lost')\nos._exit(0)\n")
    assert not running.text
    assert not running.trouble


async def test_no_signal_handlers(tmp_path: Path) -> None:
    """offloop installs none."""
    source = """
        before = [signal.getsignal(number) for number in signal.valid_signals()]
        listener = QueueListener(queue, TCPSink("127.0.0.1", port), shutdown_timeout=20)
        loop = asyncio.new_event_loop()
        async def main():
            listener.start()
            log.info("one")
            await listener.flush()
        loop.run_until_complete(main())
        assert [signal.getsignal(number) for number in signal.valid_signals()] == before
    """
    async with collecting() as collector:
        running = await ended(tmp_path, source, COLLECTOR=collector.port)
    assert running.process.returncode == 0


async def test_configuration_and_logging_shutdown_at_any_moment(tmp_path: Path) -> None:
    """Several threads reconfigure and shut logging down while others log: no deadlock, and all is delivered at exit."""
    source = """
        from copy import deepcopy
        from uvicorn.config import LOGGING_CONFIG
        listener = QueueListener(queue, TCPSink("127.0.0.1", port), shutdown_timeout=20)
        turn = threading.Lock()  # the two at once are a deadlock within the standard library
        def configures():
            for _ in range(50):
                with turn:
                    logging.config.dictConfig(deepcopy(LOGGING_CONFIG))
                with turn:
                    logging.shutdown()
        def logs():
            for number in range(1_000):
                log.info("%d", number)
        async def main():
            async with listener:
                threads = [threading.Thread(target=target) for target in (configures, logs) * 3]
                for thread in threads:
                    thread.start()
                for _ in range(2):
                    configures()
                    log.info("in the loop")
                    await asyncio.sleep(0)
                await asyncio.gather(*(asyncio.to_thread(thread.join) for thread in threads))
        asyncio.run(main())
        log.info("after the loop")
    """
    async with collecting() as collector:
        running = await ended(tmp_path, source, COLLECTOR=collector.port)
        assert (await collected(collector, 3_003))[-1] == "after the loop"
    assert told(running.text)[0]["TCPSink"]["delivered"] == 3_003
