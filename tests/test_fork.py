"""A forked child begins anew, and leaves its parent's records, locks and connections alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from endings import ended, printed, told
from helpers import Collector, collecting, messages_of
from mailservers import aiosmtpd

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

LISTENER = "listener = QueueListener(queue, TCPSink('127.0.0.1', port), shutdown_timeout=20)\n"


async def collected(collector: Collector, count: int) -> list[str]:
    """The messages that have arrived, once there are so many."""
    await collector.wait_for(lambda: len(collector.lines) >= count)
    return sorted(messages_of(collector.lines))


async def test_waiting_records_are_the_parents(tmp_path: Path) -> None:
    """Of what was logged before the fork the child has nothing, in its queue and in its counts."""
    source = """
        log.info("before")
        pid = os.fork()
        log.info("of the parent" if pid else "of the child")
        if pid:
            os.waitpid(pid, 0)
    """
    async with collecting() as collector:
        running = await ended(tmp_path, LISTENER + source.replace("\n        ", "\n"), COLLECTOR=collector.port)
        assert await collected(collector, 3) == ["before", "of the child", "of the parent"]
    child, parent = told(running.text)
    assert child["intake"]["offered"] == child["TCPSink"]["delivered"] == 1
    assert parent["intake"]["offered"] == parent["TCPSink"]["delivered"] == 2


@pytest.mark.parametrize("plain", [True, False], ids=["Queue", "OwnQueue"])
async def test_fork_within_the_loop(tmp_path: Path, *, plain: bool) -> None:
    """A child of a running pipeline delivers over a connection of its own; the parent goes on with the one it had."""
    source = f"""
        context = pipeline = Pipeline(TCPSink("127.0.0.1", port), logger=log, shutdown_timeout=20)
        listener = pipeline.listener
        if {plain}:
            context = listener = QueueListener(queue, TCPSink("127.0.0.1", port), shutdown_timeout=20)
        else:
            log.handlers = []
        async def in_child():
            async with context:
                log.info("of the child")
        async def main():
            async with context:
                log.info("before")
                await context.flush()
                pid = os.fork()
                if not pid:
                    asyncio.run(in_child())
                    tell()
                    os._exit(0)
                await asyncio.to_thread(os.waitpid, pid, 0)
                for number in range(3):
                    log.info("after %d", number)
                    await context.flush()
        asyncio.run(main())
    """
    async with collecting() as collector:
        running = await ended(tmp_path, source, COLLECTOR=collector.port)
        await collected(collector, 5)
        streams = sorted(messages_of(bytes(stream).decode().splitlines()) for stream in collector.streams)
    assert streams == [["before", "after 0", "after 1", "after 2"], ["of the child"]]
    child, parent = told(running.text)
    assert (child["TCPSink"]["offered"], parent["TCPSink"]["offered"]) == (1, 4)
    assert not running.trouble


# The loop runs in a thread of its own, and what forks is the main one, whose child ends as any program does.
BESIDE = """ready, go_on = threading.Event(), threading.Event()
        async def main():
            async with listener:
                log.info("before")
                await listener.flush()
                # Ready when the executor is: a fork amid its start leaves its locks held, in the standard library.
                await asyncio.to_thread(lambda: (ready.set(), go_on.wait()))
                log.info("after")
        thread = threading.Thread(target=asyncio.run, args=(main(),))
        thread.start()
        ready.wait()
"""


async def test_fork_beside_the_loop(tmp_path: Path) -> None:
    """A child that ends with all that belongs to it does nothing to the parent's connection."""
    source = f"""
        listener = QueueListener(queue, TCPSink("127.0.0.1", port), shutdown_timeout=20)
        {BESIDE}
        pid = os.fork()
        if not pid:
            log.info("of the child")
            sys.exit()
        os.waitpid(pid, 0)
        go_on.set()
    """
    async with collecting() as collector:
        running = await ended(tmp_path, source, COLLECTOR=collector.port)
        await collected(collector, 3)
        streams = [messages_of(bytes(stream).decode().splitlines()) for stream in collector.streams]
    assert streams == [["before", "after"], ["of the child"]]
    assert [one["TCPSink"]["delivered"] for one in told(running.text)] == [1, 2]


async def test_fork_beside_a_spool(tmp_path: Path) -> None:
    """A child says nothing of the parent's work on disk, and begins with a file of its own."""
    source = f"""
        from offloop import Spool
        sink = TCPSink("127.0.0.1", port, spool=Spool(os.environ["DIRECTORY"], when="always"))
        listener = QueueListener(queue, sink, shutdown_timeout=20)
        {BESIDE}
        pid = os.fork()
        if not pid:
            import gc
            gc.collect()
            log.info("of the child")
            sys.exit()
        os.waitpid(pid, 0)
        go_on.set()
        thread.join()  # the end of asyncio.run may start a thread, which the end of the interpreter forbids
    """
    async with collecting() as collector:
        running = await ended(tmp_path, source, COLLECTOR=collector.port, DIRECTORY=tmp_path / "spool")
        assert await collected(collector, 3) == ["after", "before", "of the child"]
    assert [one["TCPSink"]["delivered"] for one in told(running.text)] == [1, 2]
    assert not running.trouble
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
async def test_children_of_multiprocessing(tmp_path: Path, method: str) -> None:
    """They skip atexit; what they log is delivered at their end all the same, however they are started."""
    source = """
        import multiprocessing
        listener = QueueListener(queue, TCPSink("127.0.0.1", port), shutdown_timeout=20)
        def work(number):
            log.info("of child %d", number)
        async def main():
            async with listener:
                log.info("before")
                processes = [context.Process(target=work, args=(number,)) for number in range(2)]
                for process in processes:
                    process.start()
                for process in processes:
                    await asyncio.to_thread(process.join)
                log.info("after")
        if __name__ == "__main__":
            context = multiprocessing.get_context(os.environ["METHOD"])
            asyncio.run(main())
    """
    async with collecting() as collector:
        running = await ended(tmp_path, source, COLLECTOR=collector.port, METHOD=method)
        assert await collected(collector, 4) == ["after", "before", "of child 0", "of child 1"]
    assert told(running.text)[-1]["TCPSink"]["delivered"] == 2
    assert not printed(running.trouble, "TCPSink")


async def test_preloaded_application(tmp_path: Path) -> None:
    """A master makes the pipeline and never enters it; each worker that it forks does, and delivers its own."""
    source = """
        pipeline = Pipeline(TCPSink("127.0.0.1", port), logger=log, shutdown_timeout=20)
        log.handlers, listener = [], pipeline.listener
        async def serve(number):
            async with pipeline:
                log.info("worker %d", number)
        workers = []
        for number in range(3):
            workers.append(os.fork())
            if not workers[-1]:
                asyncio.run(serve(number))
                sys.exit()
        for pid in workers:
            os.waitpid(pid, 0)
    """
    async with collecting() as collector:
        running = await ended(tmp_path, source, COLLECTOR=collector.port)
        assert await collected(collector, 3) == ["worker 0", "worker 1", "worker 2"]
    assert sorted(one["TCPSink"]["delivered"] for one in told(running.text)) == [0, 1, 1, 1]
    assert not running.trouble


async def test_locks_that_are_held(tmp_path: Path) -> None:
    """A fork while another thread holds any of offloop's locks leaves a child that logs, counts, delivers and ends."""
    source = f"""
        from offloop import diagnostics, exits, names, stderr
        from offloop.intake import Intake
        plain = logging.FileHandler(os.environ["FILE"])
        listener = QueueListener(queue, TCPSink("localhost", port), plain, shutdown_timeout=20)
        {BESIDE}
        intake = log.handlers[0].intake
        locks = [intake._folding.lock, intake.staged._removing.lock, Intake._registry._lock, names.NAMES._lock]
        locks += [listener.sinks[1]._worker._lock, listener._renderer._lock]
        locks += [diagnostics._shared._writing, exits._process.printing, stderr._gate.lock]
        locks += [plain.__dict__["_offloop_alone"]]
        held, release = threading.Event(), threading.Event()
        def holds():
            for lock in locks:
                lock.acquire()
            held.set()
            release.wait()
            for lock in locks:
                lock.release()
        threading.Thread(target=holds).start()
        held.wait()
        pid = os.fork()
        if not pid:
            for _ in range(2_000):  # as many as are folded
                intake.turn_away("rejected", 20)
            QueueHandler(asyncio.Queue())
            diagnostics.report("test", "the child speaks")
            log.info("of the child")
            listener.stats()
            sys.exit()
        os.waitpid(pid, 0)
        release.set()
        go_on.set()
    """
    async with collecting() as collector:
        running = await ended(tmp_path, source, COLLECTOR=collector.port, FILE=tmp_path / "log")
        assert await collected(collector, 3) == ["after", "before", "of the child"]
    assert (tmp_path / "log").read_text() == "before\nof the child\nafter\n"
    assert "offloop: the child speaks" in running.trouble.splitlines()
    assert len(told(running.text)) == 2


async def test_diagnostics_of_the_parent_are_not_repeated(tmp_path: Path) -> None:
    """What the parent has to say it says itself, once."""
    source = """
        from offloop import diagnostics
        listener = QueueListener(queue)
        diagnostics._shared._pid = os.getpid()  # its thread has not come to it yet
        diagnostics.report("test", "the parent speaks")
        pid = os.fork()
        if pid:
            diagnostics._shared._pid = 0
            os.waitpid(pid, 0)
    """
    running = await ended(tmp_path, source)
    assert running.trouble.count("the parent speaks") == 1


async def test_parents_mail_connection_is_undisturbed(tmp_path: Path) -> None:
    """A child sends its mail over a connection of its own, and the parent its next one over the one it had."""
    source = f"""
        from offloop.sinks.smtp import SMTPSink
        mail = SMTPSink("127.0.0.1", port, sender="a@example.org", to="b@example.org", tls="off", digest=None)
        listener = QueueListener(queue, mail, shutdown_timeout=20)
        {BESIDE}
        session = mail._session
        pid = os.fork()
        if not pid:
            log.info("of the child")
            sys.exit()
        os.waitpid(pid, 0)
        assert session.is_connected
        go_on.set()
        thread.join()
        assert session.delivered == 2
    """
    with aiosmtpd() as desk:
        running = await ended(tmp_path, source, COLLECTOR=desk.port)
    assert [one["SMTPSink"]["delivered"] for one in told(running.text)] == [1, 2]
    assert running.process.returncode == 0
    assert not running.trouble
