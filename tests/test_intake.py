"""The way in."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Thread

import pytest

from helpers import until
from offloop.intake import FILTERED, Intake, OwnQueue


def item(message: str, levelno: int = logging.INFO) -> dict[str, object]:
    """A snapshot with what the intake looks at."""
    return {"msg": message, "levelno": levelno}


def elsewhere(function: object, *args: object, **kwargs: object) -> None:
    """Call the function in another thread and wait for it."""
    thread = Thread(target=function, args=args, kwargs=kwargs)  # type: ignore[arg-type]
    thread.start()
    thread.join()


def drain(intake: Intake) -> list[object]:
    """All messages, taken and committed."""
    messages = [entry["msg"] for entry in intake.take(1_000_000)]  # type: ignore[call-overload]
    intake.commit(len(messages))
    return messages


@pytest.fixture(params=[asyncio.Queue, OwnQueue])
def queue(request: pytest.FixtureRequest) -> asyncio.Queue[object]:
    """A user's plain queue, and the one of a pipeline, for three records."""
    return request.param(3)  # type: ignore[no-any-return]


def test_one_intake_per_queue() -> None:
    """Handlers and listener of one queue share an intake; another queue has another."""
    queue: asyncio.Queue[object] = asyncio.Queue()
    assert Intake.of(queue) is Intake.of(queue)
    assert Intake.of(queue) is not Intake.of(asyncio.Queue())


async def test_loop_thread_puts_on_the_queue(queue: asyncio.Queue[object]) -> None:
    """On the loop's thread a record goes straight on the queue."""
    intake = Intake.of(queue)
    intake.attach(int)
    intake.offer(item("a"), "drop_new")
    assert queue.qsize() == 1
    assert drain(intake) == ["a"]


async def test_plain_queue_has_the_record_without_a_listener() -> None:
    """A consumer of the user's own finds the record on the queue."""
    queue: asyncio.Queue[object] = asyncio.Queue()
    Intake.of(queue).offer(item("a"), "drop_new")
    assert queue.get_nowait() == item("a")


async def test_foreign_thread_stages_and_wakes_once(queue: asyncio.Queue[object]) -> None:
    """What another thread logs waits beside a queue that is not our own; a burst wakes the loop once."""
    intake = Intake.of(queue)
    intake.attach(int)
    sleeper = intake.sleep()
    assert sleeper is not None
    elsewhere(lambda: [intake.offer(item(str(n)), "drop_new") for n in range(3)])
    assert queue.qsize() == (3 if isinstance(queue, OwnQueue) else 0)
    await asyncio.wait_for(sleeper, 5)
    assert drain(intake) == ["0", "1", "2"]
    assert intake.sleep() is not None


async def test_who_logs_amid_falling_asleep_wakes(
    queue: asyncio.Queue[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler or a `__del__` on the loop's own thread, after it was seen that nothing waits."""
    intake = Intake.of(queue)
    intake.attach(int)
    loop = asyncio.get_running_loop()
    with monkeypatch.context() as patch:
        create = loop.create_future
        patch.setattr(loop, "create_future", lambda: (intake.offer(item("late"), "drop_new"), create())[1])
        sleeper = intake.sleep()
    assert sleeper is not None
    await asyncio.wait_for(sleeper, 5)
    assert drain(intake) == ["late"]


async def test_order_across_threads(queue: asyncio.Queue[object]) -> None:
    """What a thread logged before it signalled the loop comes before what the loop logs after."""
    intake = Intake.of(queue)
    intake.attach(int)
    intake.offer(item("first"), "drop_new")
    elsewhere(intake.offer, item("second"), "drop_new")
    intake.offer(item("third"), "drop_new")
    assert drain(intake) == ["first", "second", "third"]


async def test_sleep_with_records_waiting_gives_nothing_to_wait_for(queue: asyncio.Queue[object]) -> None:
    """A record that is there already is not slept over."""
    intake = Intake.of(queue)
    intake.attach(int)
    intake.offer(item("a"), "drop_new")
    assert intake.sleep() is None


async def test_full_queue_drops_newest(queue: asyncio.Queue[object]) -> None:
    """With drop_new what does not fit is counted by level, wherever it comes from."""
    intake = Intake.of(queue)
    intake.attach(int)
    for n in range(3):
        intake.offer(item(str(n)), "drop_new")
    assert not intake.offer(item("late", logging.ERROR), "drop_new")
    elsewhere(intake.offer, item("later"), "drop_new")
    counts = intake.counts()
    assert counts.dropped == {"overflow": {"ERROR": 1, "INFO": 1}}
    assert (counts.offered, counts.pending) == (5, 3)
    assert drain(intake) == ["0", "1", "2"]


@pytest.mark.parametrize("kind", [asyncio.Queue, OwnQueue])
@pytest.mark.parametrize("here", [True, False])
async def test_queue_fills_in_steps(kind: type[asyncio.Queue[object]], *, here: bool) -> None:
    """INFO to 80%, WARNING to 90%, ERROR to the end; what is above is counted as shed or as overflow."""
    intake = Intake.of(kind(20))
    intake.attach(int)
    call = (lambda function, *args: function(*args)) if here else elsewhere
    for levelno, step in ((logging.INFO, 16), (logging.WARNING, 18), (logging.ERROR, 20)):
        for _ in range(20):
            call(intake.offer, item("x", levelno), "drop_new")
        assert intake.pending == step
    assert intake.counts().dropped == {"shed": {"INFO": 4}, "overflow": {"WARNING": 18, "ERROR": 18}}


async def test_below_warning_is_shed_rather_than_evicts() -> None:
    """With drop_old what is below WARNING goes itself; a WARNING takes the place of the oldest below ERROR."""
    intake = Intake.of(OwnQueue(10))
    intake.attach(int)
    for n in range(9):
        intake.offer(item(str(n)), "drop_old")
    for n in range(3):
        intake.offer(item(f"warning {n}", logging.WARNING), "drop_old")
    assert drain(intake) == [*"234567", "warning 0", "warning 1", "warning 2"]
    assert intake.counts().dropped == {"shed": {"INFO": 1}, "overflow": {"INFO": 2}}


@asynccontextmanager
async def held_up(intake: Intake, *, timeout: float = 30) -> AsyncIterator[list[bool]]:
    """A thread that waits with an ERROR for room in a queue of three, and whether the record was taken in the end."""
    intake.attach(int)
    for n in range(3):
        intake.offer(item(str(n)), "wait", timeout)
    results: list[bool] = []
    thread = Thread(target=lambda: results.append(intake.offer(item("waited", logging.ERROR), "wait", timeout)))
    thread.start()
    await until(lambda: intake._turnstile._gates or not thread.is_alive())
    yield results
    await until(lambda: not thread.is_alive())
    thread.join()


async def test_thread_waits_for_room(queue: asyncio.Queue[object]) -> None:
    """With overflow="wait" another thread is held up until the listener takes something; nothing is lost."""
    intake = Intake.of(queue)
    async with held_up(intake) as results:
        assert intake.counts().offered == 3
        intake.take(1)
        intake.commit(1)
    assert results == [True]
    assert drain(intake) == ["1", "2", "waited"]
    assert intake.counts().lost == 0


async def test_thread_waits_at_most_so_long(queue: asyncio.Queue[object]) -> None:
    """After the timeout the record is dropped, and counted."""
    intake = Intake.of(queue)
    async with held_up(intake, timeout=0.01) as results:
        pass
    assert results == [False]
    assert intake.counts().dropped == {"overflow": {"ERROR": 1}}


async def test_nobody_waits_for_a_listener_that_has_gone(queue: asyncio.Queue[object]) -> None:
    """Who waits when the listener ends is let go; who comes then does not wait."""
    intake = Intake.of(queue)
    async with held_up(intake) as results:
        intake.detach()
    elsewhere(intake.offer, item("late"), "wait", 30)
    assert results == [False]
    assert intake.counts().dropped == {"overflow": {"ERROR": 1, "INFO": 1}}


async def test_loop_does_not_wait(queue: asyncio.Queue[object]) -> None:
    """On the loop's thread, and on that of any other loop, "wait" is drop_new."""
    intake = Intake.of(queue)
    intake.attach(int)

    async def offer() -> None:
        intake.offer(item("another loop's"), "wait", 30)

    for _ in range(4):
        intake.offer(item("x"), "wait", 30)
    elsewhere(lambda: asyncio.run(offer()))
    assert intake.counts().dropped == {"overflow": {"INFO": 2}}


def test_nobody_waits_for_a_loop_that_stands() -> None:
    """A loop between two runs takes nothing, though a listener is attached."""
    intake = Intake.of(OwnQueue(10))

    async def attach() -> None:
        intake.attach(int)

    with asyncio.Runner() as runner:
        runner.run(attach())
        elsewhere(lambda: [intake.offer(item("x"), "wait", 30) for _ in range(10)])
    assert intake.counts().dropped == {"shed": {"INFO": 2}}


async def test_evictions_behind_a_mark_do_not_pass_it() -> None:
    """What is evicted may be newer than the mark, while the errors before it are still in here."""
    intake = Intake.of(OwnQueue(3))
    intake.attach(int)
    intake.offer(item("error 1", logging.ERROR), "drop_old")
    intake.offer(item("error 2", logging.ERROR), "drop_old")
    mark = intake.mark()
    for n in range(9):
        intake.offer(item(str(n)), "drop_old")
    assert not intake.passed(mark)
    assert drain(intake) == ["error 1", "error 2", "8"]
    assert intake.passed(mark)


async def test_full_queue_drops_oldest(queue: asyncio.Queue[object]) -> None:
    """With drop_old the oldest makes room for the newest."""
    intake = Intake.of(queue)
    intake.attach(int)
    for n in range(5):
        intake.offer(item(str(n)), "drop_old")
    assert drain(intake) == ["2", "3", "4"]
    assert intake.counts().balanced


@pytest.mark.parametrize("here", [True, False])
async def test_drop_old_keeps_errors(queue: asyncio.Queue[object], *, here: bool) -> None:
    """An ERROR is never evicted for less, but for another ERROR."""
    intake = Intake.of(queue)
    intake.attach(int)
    call = (lambda function, *args: function(*args)) if here else elsewhere
    for n in range(3):
        call(intake.offer, item(f"error {n}", logging.ERROR), "drop_old")
    call(intake.offer, item("info"), "drop_old")
    call(intake.offer, item("error 3", logging.CRITICAL), "drop_old")
    messages = drain(intake)
    assert "info" not in messages
    assert "error 3" in messages
    assert intake.counts().dropped == {"overflow": {"INFO": 1, "ERROR": 1}}


async def test_drop_old_keeps_the_order_of_errors(queue: asyncio.Queue[object]) -> None:
    """An ERROR at the head that may not go stays at the head."""
    intake = Intake.of(queue)
    intake.attach(int)
    intake.offer(item("error", logging.ERROR), "drop_old")
    for message in ("a", "b", "c"):
        intake.offer(item(message), "drop_old")
    assert drain(intake)[0] == "error"


async def test_counts_within_counts_wait_for_nothing() -> None:
    """A signal handler may ask while its own thread is being told, or is summing up."""
    intake = Intake.of(OwnQueue(3))
    seen: list[int] = []
    handler = signal.signal(signal.SIGALRM, lambda *_: seen.append(intake.counts().offered))
    try:
        assert intake._folding.enter()
        try:
            before = time.monotonic()
            for _ in range(20):
                signal.raise_signal(signal.SIGALRM)
            assert time.monotonic() - before < 0.1
        finally:
            intake._folding.leave()
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert seen == [0] * 20


async def test_floor_is_read_again_before_a_record_is_turned_away() -> None:
    """A sink whose level was lowered gets its records though nothing else happened."""
    intake = Intake.of(asyncio.Queue())
    level = logging.ERROR
    intake.attach(lambda: level)
    assert not intake.wants(logging.INFO)
    level = logging.DEBUG
    assert intake.wants(logging.INFO)


async def test_counts_are_exact_from_many_threads() -> None:
    """What eight threads had turned away is counted to the last record."""
    intake = Intake.of(asyncio.Queue())
    threads = [
        Thread(target=lambda: [intake.turn_away(FILTERED, logging.INFO) for _ in range(5_000)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert intake.counts().balanced
    assert intake.counts().filtered == 40_000


async def test_signal_to_a_closed_loop_is_forgotten() -> None:
    """A wake-up that fails on a closed loop does not keep the next listener asleep."""
    intake = Intake.of(asyncio.Queue())

    async def sleep() -> None:
        intake.attach(int)
        assert intake.sleep() is not None

    elsewhere(lambda: asyncio.run(sleep()))
    intake.offer(item("a"), "drop_new")
    assert not intake.served
    intake.attach(int)
    assert intake.sleep() is None
    assert drain(intake) == ["a"]


async def test_waiter_of_a_dead_loop_on_a_plain_queue_loses_nothing() -> None:
    """`put_nowait` raises when a consumer of a closed loop still waits, and queues the record all the same."""
    queue: asyncio.Queue[object] = asyncio.Queue()
    left: list[object] = []

    def other_loop() -> None:
        loop = asyncio.new_event_loop()
        getter = loop.create_task(queue.get())
        loop.run_until_complete(asyncio.sleep(0))
        left.append(getter)
        getter._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()

    elsewhere(other_loop)
    intake = Intake.of(queue)
    intake.attach(int)
    intake.offer(item("a"), "drop_new")
    assert drain(intake) == ["a"]


async def test_queue_with_a_bound_of_its_own_is_respected() -> None:
    """A queue that refuses though it says it has room: the record waits beside it."""

    class Stubborn(asyncio.Queue[object]):
        def put_nowait(self, item: object) -> None:
            raise asyncio.QueueFull

    intake = Intake.of(Stubborn())
    intake.attach(int)
    intake.offer(item("a"), "drop_new")
    assert drain(intake) == ["a"]


async def test_mark_is_passed_when_everything_before_it_is_routed() -> None:
    """A position in the queue, whatever comes after it."""
    intake = Intake.of(asyncio.Queue())
    intake.attach(int)
    for n in range(3):
        intake.offer(item(str(n)), "drop_new")
    mark = intake.mark()
    intake.offer(item("after"), "drop_new")
    intake.take(2)
    intake.commit(2)
    assert not intake.passed(mark)
    intake.take(1)
    intake.commit(1)
    assert intake.passed(mark)


async def test_record_lost_on_the_way_would_show() -> None:
    """What is offered is counted where records come in: one that vanishes from the hand unbalances the intake."""
    intake = Intake.of(asyncio.Queue())
    intake.attach(int)
    intake.offer(item("a"), "drop_new")
    intake.take(1)
    assert intake.counts().balanced
    intake.hand.clear()
    assert not intake.counts().balanced
