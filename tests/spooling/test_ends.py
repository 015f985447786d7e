"""However a process with a spool ends or forks, what it could not deliver is on disk for the next one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from endings import ended, program, told
from helpers import until
from offloop.capture import message_of
from offloop.spool import Spool
from offloop.spooling.store import SpoolStore
from offloop.spooling.turn import Turn

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")

HUNG = """
        from offloop import Spool
        sink = Hung(name="hung")
        def listener_of(when):
            return QueueListener(queue, sink, shutdown_timeout=2, spool=Spool(os.environ["SPOOL"], when=when))
"""


def left_in(directory: Path) -> list[str]:
    """The messages that the next process finds; it removes them."""
    store = SpoolStore(Spool(directory), "hung")
    opening = store.open(0)
    out = store.exchange(Turn(want=10_000, want_bytes=10**9))
    assert (opening.error, out.error, opening.lost, out.lost) == (None, None, [], [])
    store.exchange(Turn(settled=[number for number, _ in out.read]))
    store.close()
    assert list(directory.iterdir()) == []
    return [message_of(record) for _, record in out.read]


@pytest.mark.parametrize(("end", "when"), [("", "outage"), ("loop.close()", "always"), ("sys.exit(3)", "outage")])
async def test_exit_hook_stores_what_is_left(tmp_path: Path, end: str, when: str) -> None:
    """What waits in the queue, in a lane and in a hung attempt when the interpreter ends is on disk in time."""
    source = f"""{HUNG}
        listener = listener_of("{when}")
        async def main():
            listener.start()
            for number in range(700):
                log.info("n %d", number)
            while not listener.stats().sinks["hung"].offered:
                await asyncio.sleep(0)
            log.info("in the queue")
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        {end}
    """
    running = await ended(tmp_path, source, SPOOL=tmp_path / "spool")
    (stats,) = told(running.text)
    assert stats["hung"]["spooled"] == 701
    assert (stats["hung"]["dropped"], stats["hung"]["printed"]) == ({}, 0)
    assert left_in(tmp_path / "spool") == [*(f"n {number}" for number in range(700)), "in the queue"]


@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "os.abort()"])
async def test_sudden_end_loses_nothing_that_was_stored(tmp_path: Path, end: str) -> None:
    """Nothing runs after it: with `always`, what the counts called spooled is there."""
    source = f"""{HUNG}
        import resource
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        listener = listener_of("always")
        async def main():
            async with listener:
                for number in range(1_300):
                    log.info("n %d", number)
                while listener.stats().sinks["hung"].spooled < 1_300:
                    await asyncio.sleep(0.001)
                {end}
        asyncio.run(main())
    """
    await ended(tmp_path, source, SPOOL=tmp_path / "spool")
    assert left_in(tmp_path / "spool") == [f"n {number}" for number in range(1_300)]


async def test_a_child_has_a_file_of_its_own(tmp_path: Path) -> None:
    """A fork within the loop: the child's end leaves the parent's file locked and whole, and its own on disk."""
    source = f"""{HUNG}
        listener = listener_of("always")
        async def in_child():
            async with listener:
                for number in range(10):
                    log.info("child %d", number)
        async def main():
            async with listener:
                for number in range(20):
                    log.info("parent %d", number)
                while listener.stats().sinks["hung"].spooled < 20:
                    await asyncio.sleep(0.001)
                pid = os.fork()
                if not pid:
                    import asyncio.events as events
                    events._set_running_loop(None)
                    asyncio.run(in_child())
                    tell()
                    os._exit(0)
                os.waitpid(pid, 0)
                assert len([name for name in os.listdir(os.environ["SPOOL"]) if name.endswith(".spool")]) == 2
                for number in range(20, 30):
                    log.info("parent %d", number)
        asyncio.run(main())
    """
    running = await ended(tmp_path, source, SPOOL=tmp_path / "spool")
    child, parent = told(running.text)
    assert (child["hung"]["offered"], child["hung"]["spooled"]) == (10, 10)
    assert (parent["hung"]["offered"], parent["hung"]["spooled"], parent["hung"]["recovered"]) == (30, 30, 0)
    found = left_in(tmp_path / "spool")
    assert [text for text in found if "parent" in text] == [f"parent {number}" for number in range(30)]
    assert [text for text in found if "child" in text] == [f"child {number}" for number in range(10)]


async def test_two_processes_share_a_directory(tmp_path: Path) -> None:
    """Each keeps its own file while the other lives; of one that is killed the next to start takes over the file."""
    source = f"""{HUNG}
        listener = listener_of("always")
        async def main():
            async with listener:
                for number in range(30):
                    log.info("%s %d", os.environ["WHO"], number)
                while listener.stats().sinks["hung"].spooled < 30 + int(os.environ["FOUND"]):
                    await asyncio.sleep(0.001)
                print("stored\\\\n", end="", flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
    """
    directory = tmp_path / "spool"
    async with program(tmp_path, source, SPOOL=directory, WHO="first", FOUND=0) as first:
        await until(lambda: "stored" in first.text)
        async with program(tmp_path, source, SPOOL=directory, WHO="second", FOUND=0) as second:
            await until(lambda: "stored" in second.text)
            second.process.send_signal(signal.SIGKILL)
            await second.end()
        async with program(tmp_path, source, SPOOL=directory, WHO="third", FOUND=30) as third:
            await until(lambda: "stored" in third.text)
            third.process.send_signal(signal.SIGKILL)
            await third.end()
        first.process.send_signal(signal.SIGKILL)
        await first.end()
    assert sorted(left_in(directory)) == sorted(
        f"{who} {number}" for who in ("first", "second", "third") for number in range(30)
    )
