"""A program under test: `python application.py WAY`, with the system and the collector in the environment."""

from __future__ import annotations

import asyncio
import logging
import logging.config
import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")  # a fork beside threads is what is tested; a peer's deprecations are not
sys.path.insert(0, str(Path(__file__).parent.parent))

from losses.systems import Loguru, Standard, from_environment  # noqa: E402 - as said above

COUNT = int(os.environ.get("LOSS_COUNT", "200"))
WAYS: dict[str, Callable[[], None]] = {}

system, source = from_environment()


def way(main: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], Coroutine[Any, Any, None]]:
    """A program whose main function this is."""
    WAYS[main.__name__] = lambda: asyncio.run(main())
    return main


def plain(main: Callable[[], None]) -> Callable[[], None]:
    """A program that is not one `asyncio.run`."""
    WAYS[main.__name__] = main
    return main


@asynccontextmanager
async def logging_on() -> AsyncIterator[None]:
    """The time in which the system runs, and its proper end."""
    system.begin()
    try:
        yield
    finally:
        await system.end()


# -- ends ------------------------------------------------------------------------------------------------------------


@way
async def leave() -> None:
    async with logging_on():
        await source.stream(COUNT)


@way
async def run_out() -> None:
    system.begin()
    await source.stream(COUNT)


@way
async def interrupt() -> None:
    async with logging_on():
        await source.stream(COUNT)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()


@way
async def interrupt_twice() -> None:
    async with logging_on():
        await source.stream(COUNT)
        threading.Thread(target=_interrupt_later, daemon=True).start()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()


def _interrupt_later() -> None:
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGINT)


@way
async def exit_in_task() -> None:
    async def exits() -> None:
        await source.stream(COUNT)
        sys.exit(3)

    async with logging_on():
        task = asyncio.create_task(exits())
        await asyncio.Event().wait()
        del task


@way
async def raise_error() -> None:
    async with logging_on():
        await source.stream(COUNT)
        raise RuntimeError("unhandled")


@plain
def around_the_loop() -> None:
    async def main() -> None:
        system.begin()
        await source.stream(COUNT // 2)

    source.log(COUNT // 4)
    asyncio.run(main())
    source.log(COUNT // 4)


@way
async def log_while_cancelled() -> None:
    async def dawdles() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await source.stream(COUNT // 10, 0)

    system.begin()
    tasks = [asyncio.create_task(dawdles()) for _ in range(10)]
    await asyncio.sleep(0.05)
    del tasks


@way
async def os_exit() -> None:
    async with logging_on():
        await source.stream(COUNT - 20)
        source.log(20)
        os._exit(0)


@way
async def kill() -> None:
    async with logging_on():
        await source.stream(COUNT - 20)
        source.log(20)
        os.kill(os.getpid(), signal.SIGKILL)


@way
async def kill_later() -> None:
    async with logging_on():
        await source.stream(COUNT)
        await asyncio.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)


@plain
def serve() -> None:
    import uvicorn

    uvicorn.run("losses.web:app", port=0)


# -- forks -----------------------------------------------------------------------------------------------------------


@plain
def fork() -> None:
    forked = threading.Event()

    async def main() -> None:
        async with logging_on():
            stream = asyncio.create_task(source.stream(COUNT // 2))
            await asyncio.to_thread(forked.wait)
            await stream

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    time.sleep(0.05)
    pid = os.fork()
    if not pid:
        source.log(COUNT // 2)
        sys.exit()
    os.waitpid(pid, 0)
    forked.set()
    thread.join()


@way
async def process_fork() -> None:
    async with logging_on():
        await source.stream(COUNT // 4)
        processes = [multiprocessing.Process(target=_work, args=(_given(),)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            await asyncio.to_thread(process.join)
        await source.stream(COUNT // 4)


WAYS["process_spawn"] = WAYS["process_fork"]


def _given() -> Any:
    """What a child that inherits nothing is to be given, as the documentation of some says."""
    if multiprocessing.get_start_method() == "spawn" and isinstance(system, Standard):
        return system.queue
    if multiprocessing.get_start_method() == "spawn" and isinstance(system, Loguru):
        return system.logger
    return None


def _work(given: Any) -> None:
    multiprocessing.util.Finalize(None, system.tell, exitpriority=-1_000)  # after offloop's own
    if given is not None and isinstance(system, Standard):
        system.attach(given)
    elif given is not None and isinstance(system, Loguru):
        system.logger = given
    elif __name__ != "__main__":
        system.set_up()
    source.log(COUNT // 4)
    system.end_child()


# -- fails -----------------------------------------------------------------------------------------------------------


@way
async def slowly() -> None:
    async with logging_on():
        await source.stream(COUNT, 0.04)


@way
async def burst() -> None:
    async with logging_on():
        await asyncio.sleep(0.1)
        source.log(COUNT)
        await asyncio.sleep(0.1)


@way
async def configure() -> None:
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"null": {"class": "logging.NullHandler"}},
        "root": {"handlers": ["null"]},
    }
    async with logging_on():
        for _ in range(4):
            await source.stream(COUNT // 4)
            logging.config.dictConfig(config)


@way
async def shut_logging_down() -> None:
    async with logging_on():
        for _ in range(4):
            await source.stream(COUNT // 4)
            logging.shutdown()


@way
async def full_disk() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    async with logging_on():
        await source.stream(COUNT)


# -- once more -------------------------------------------------------------------------------------------------------


@way
async def again() -> None:
    """Started after any of the above: what was kept on disk is delivered now."""
    async with logging_on():
        system.log(logging.INFO, "again")
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    name = sys.argv[1]
    if name.startswith("process_"):
        multiprocessing.set_start_method(name.removeprefix("process_"))
        if isinstance(system, Standard):
            system.across = True
    if name != "serve":  # there it is the application's business
        system.set_up()
    WAYS[name]()
