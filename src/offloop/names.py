"""Host names to addresses, off the loop and never in anybody's way.

A lookup is a call far below Python that nothing can interrupt. Each runs in a daemon thread of its own: not in the
loop's executor, which the application uses and which is closed at exit. One that hangs is left behind.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final, NamedTuple

from offloop import fork

__all__ = ["NAMES", "Address", "Endpoint", "Names"]

_MAX_THREADS = 8
_MAX_REMEMBERED = 256
_PATIENCE = 2.0  # seconds for a lookup whose last answer is known
_TIMEOUT = 5.0

Lookup = Callable[[str], Sequence[tuple[Any, ...]]]
"""What `socket.getaddrinfo` gives, for a host and no port."""


class Endpoint(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Address(NamedTuple):
    """Where to connect to: what `socket.socket` and `connect` want."""

    family: int
    sockaddr: tuple[Any, ...]


def _system(host: str) -> Sequence[tuple[Any, ...]]:
    return socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)


class Names:
    """A resolver that remembers the last good answers and uses them while lookups fail or hang.

    Lookups of one host share one thread; at most eight threads run at a time, further lookups wait for one of them. Any
    number of event loops may use it.
    """

    def __init__(
        self, lookup: Lookup = _system, *, patience: float = _PATIENCE, max_threads: int = _MAX_THREADS
    ) -> None:
        """Know nothing yet.

        Args:
            lookup: Asked in a thread; blocks as long as it likes, raises `OSError` where there is no answer.
            patience: Seconds to wait for a lookup before its last good answer is used.
            max_threads: How many lookups may run at a time.
        """
        self._lookup = lookup
        self._patience = patience
        self._max_threads = max_threads
        self._lock = threading.Lock()
        self._running: dict[str, Future[list[Address]]] = {}
        self._waiting: deque[str] = deque()
        self._threads = 0
        self._remembered: dict[str, list[Address]] = {}
        fork.inherits(self)

    def after_fork(self) -> None:
        """In a child: the lookups under way are the parent's, whose answers never come here."""
        self._lock = threading.Lock()
        self._running = {}
        self._waiting = deque()
        self._threads = 0

    async def resolve(self, host: str, port: int, *, timeout: float = _TIMEOUT) -> list[Address]:
        """The addresses of a host, at least one, in the system's order of preference.

        A literal address is answered at once. Cancellation leaves the lookup to itself; its answer is remembered.

        Args:
            host: A name, or an IPv4 or IPv6 address.
            port: Put into each address.
            timeout: Seconds to wait for an answer.

        Raises:
            TimeoutError: No answer yet, and none is remembered.
            OSError: The lookup failed, and no answer is remembered.
        """
        literal = _literal(host)
        if literal:
            return _with_port(literal, port)
        known = self._remembered.get(host)
        try:
            async with asyncio.timeout(timeout if known is None else min(timeout, self._patience)):
                addresses = await asyncio.wrap_future(self._ask(host))
        except TimeoutError as error:
            if known is None:
                msg = f"{host}: the name was not resolved within {timeout:g} s"
                raise TimeoutError(msg) from error
        except OSError as error:
            if known is None:
                msg = f"{host}: the name was not resolved: {error.strerror or error}"
                raise OSError(msg) from error
        else:
            return _with_port(addresses, port)
        return _with_port(known, port)

    def _ask(self, host: str) -> Future[list[Address]]:
        """The lookup of a host that is under way, or a new one."""
        with self._lock:
            future = self._running.get(host)
            if future is not None:
                return future
            future = self._running[host] = Future()
            # Running from the start: one of those who wait for it must not be able to cancel it for the others.
            future.set_running_or_notify_cancel()
            self._waiting.append(host)
            if self._threads < self._max_threads:
                self._start()
            return future

    def _start(self) -> None:
        try:
            threading.Thread(target=self._work, name="offloop-names", daemon=True).start()
        except RuntimeError as error:  # the interpreter is ending: no new threads
            host = self._waiting.pop()
            self._running.pop(host).set_exception(OSError(str(error)))
        else:
            self._threads += 1

    def _work(self) -> None:
        """Look names up until none is waited for; in a thread."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                host = self._waiting.popleft()
            self._settle(host)

    def _settle(self, host: str) -> None:
        """Look one name up and tell those who wait; never raises."""
        answer: list[Address] = []
        failure: Exception | None = None
        try:
            answer = _addresses(self._lookup(host))
        except (OSError, ValueError) as error:  # ValueError: a name that IDNA can't encode
            failure = error if isinstance(error, OSError) else OSError(str(error))
        except Exception as error:  # noqa: BLE001 - it is told to those who wait
            failure = OSError(f"{type(error).__name__}: {error}")
        if failure is None and not answer:
            failure = OSError("no address")
        with self._lock:
            if answer:
                if len(self._remembered) >= _MAX_REMEMBERED:
                    self._remembered.clear()
                self._remembered[host] = answer
            future = self._running.pop(host)
        if failure is None:
            future.set_result(answer)
        else:
            future.set_exception(failure)


def _literal(host: str) -> list[Address]:
    if not host.isascii():
        return []
    try:
        # As bytes: a str would be encoded with IDNA, a codec whose import reads files on the loop.
        infos = socket.getaddrinfo(host.encode(), None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except OSError:
        return []
    return _addresses(infos)


def _addresses(infos: Sequence[tuple[Any, ...]]) -> list[Address]:
    wanted = (socket.AF_INET, socket.AF_INET6)
    return list(dict.fromkeys(Address(info[0], tuple(info[4])) for info in infos if info[0] in wanted))


def _with_port(addresses: Sequence[Address], port: int) -> list[Address]:
    return [Address(family, (sockaddr[0], port, *sockaddr[2:])) for family, sockaddr in addresses]


NAMES: Final = Names()
"""The one that the process shares."""
