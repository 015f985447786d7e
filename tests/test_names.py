from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from helpers import until
from offloop.names import NAMES, Address, Endpoint, Names

INFO = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))


class Directory:
    """A lookup that answers, fails or hangs as told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Callable[[], list[tuple[Any, ...]]] = lambda: [INFO]
        self.hanging: set[str] = set()
        self.release = threading.Event()

    def __call__(self, host: str) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        if host in self.hanging:
            self.release.wait(30)
        return self.answer()

    def fail(self, error: Exception) -> None:
        def answer() -> list[tuple[Any, ...]]:
            raise error

        self.answer = answer


@pytest.fixture
def directory() -> Iterator[Directory]:
    directory = Directory()
    yield directory
    directory.release.set()


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.7", Address(socket.AF_INET, ("192.0.2.7", 25))),
        ("2001:db8::7", Address(socket.AF_INET6, ("2001:db8::7", 25, 0, 0))),
    ],
)
async def test_literal_address_needs_no_lookup(directory: Directory, host: str, address: Address) -> None:
    """An address is its own answer."""
    assert await Names(directory).resolve(host, 25) == [address]
    assert not directory.asked


async def test_system_resolves_localhost() -> None:
    """The shared resolver asks the system."""
    assert Address(socket.AF_INET, ("127.0.0.1", 80)) in await NAMES.resolve("localhost", 80)


async def test_name_is_asked_for_each_time(directory: Directory) -> None:
    """A good lookup is not cached: a host may move. Its duplicates, and families other than IP, are left out."""
    other = (socket.AF_UNIX, socket.SOCK_STREAM, 0, "", ("/run/x", 0))
    directory.answer = lambda: [INFO, INFO, other]
    names = Names(directory)
    for port in (25, 587):
        assert await names.resolve("mail.example", port) == [Address(socket.AF_INET, ("192.0.2.1", port))]
    assert directory.asked == ["mail.example"] * 2


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (UnicodeError("label empty or too long"), "label empty or too long"),
        (KeyError("x"), "KeyError"),
    ],
)
async def test_failed_lookup_is_told(directory: Directory, error: Exception, text: str) -> None:
    """Where no answer is remembered, the failure names the host and the reason, as an OSError."""
    directory.fail(error)
    with pytest.raises(OSError, match=f"^bad.example: .*{text}"):
        await Names(directory).resolve("bad.example", 25)


async def test_empty_answer_is_a_failure(directory: Directory) -> None:
    """A name without addresses can't be connected to."""
    directory.answer = list
    with pytest.raises(OSError, match="no address"):
        await Names(directory).resolve("bücher.example", 25)


async def test_failed_lookup_uses_last_good_answer(directory: Directory) -> None:
    """A host that was found once is found while the name service is away."""
    names = Names(directory)
    known = await names.resolve("mail.example", 25)
    directory.fail(OSError("away"))
    assert await names.resolve("mail.example", 25) == known


async def test_hung_lookup_uses_last_good_answer(directory: Directory) -> None:
    """It is waited for as long as `patience` says, then the remembered answer serves."""
    names = Names(directory, patience=0.01)
    known = await names.resolve("mail.example", 25)
    directory.hanging.add("mail.example")
    assert await names.resolve("mail.example", 25) == known


async def test_hung_lookup_delays_no_other(directory: Directory) -> None:
    """A lookup that hangs times out by itself, is asked once only, and another name is answered meanwhile."""
    directory.hanging.add("hung.example")
    names = Names(directory, max_threads=2)
    for _ in range(3):
        with pytest.raises(TimeoutError, match=r"^hung.example: .* within 0.01 s"):
            await names.resolve("hung.example", 25, timeout=0.01)
    assert await names.resolve("good.example", 25)
    assert directory.asked == ["hung.example", "good.example"]


async def test_threads_are_bounded(directory: Directory) -> None:
    """With every thread hung a lookup waits until one is free; the late answer counts."""
    directory.hanging.add("hung.example")
    names = Names(directory, max_threads=1)
    hung = asyncio.create_task(names.resolve("hung.example", 25))
    await until(lambda: directory.asked)
    with pytest.raises(TimeoutError):
        await names.resolve("good.example", 25, timeout=0.01)
    waiting = asyncio.create_task(names.resolve("good.example", 25))
    await asyncio.sleep(0)  # it asks in its first step
    directory.release.set()
    assert await waiting == await hung
    assert directory.asked == ["hung.example", "good.example"]


async def test_cancelled_lookup_goes_on_for_others(directory: Directory) -> None:
    """Two who ask for one name share its lookup, and one who leaves takes nothing from the other."""
    directory.hanging.add("hung.example")
    names = Names(directory)
    leaves, stays = (asyncio.create_task(names.resolve("hung.example", 25)) for _ in range(2))
    await until(lambda: directory.asked)
    leaves.cancel()
    directory.release.set()
    assert await stays
    assert leaves.cancelled()
    assert directory.asked == ["hung.example"]


async def test_memory_is_bounded(directory: Directory) -> None:
    """A program that asks for ever new names does not grow: what is remembered is forgotten at a bound."""
    names = Names(directory)
    await names.resolve("first.example", 25)
    for number in range(256):
        await names.resolve(f"host{number}.example", 25)
    directory.fail(OSError("away"))
    with pytest.raises(OSError, match="away"):
        await names.resolve("first.example", 25)


async def test_no_thread_uses_last_good_answer(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the interpreter's end no thread can be started: remembered answers serve, other names fail at once."""
    names = Names(directory)
    known = await names.resolve("mail.example", 25)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert await names.resolve("mail.example", 25) == known
    with pytest.raises(OSError, match="interpreter shutdown"):
        await names.resolve("other.example", 25)


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [(Endpoint("logs.example", 9020), "logs.example:9020"), (Endpoint("2001:db8::1", 9020), "[2001:db8::1]:9020")],
)
def test_endpoint_reads_as_usual(endpoint: Endpoint, text: str) -> None:
    """An IPv6 address stands in brackets."""
    assert str(endpoint) == text
