"""Beats from another process, and how late the event loop hears them.

The beats come when they are due, whatever the loop does: what is measured is the time from when a beat was meant to be
struck until the loop handles it, as a request from outside would feel it. An asyncio timer would not do: it rounds to
milliseconds, and is not set while the loop is held up.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

INTERVAL = 0.002  # seconds
_BEAT = struct.Struct("d")


class Beats:
    """Those that were heard.

    Attributes:
        late_us: Microseconds by which each was late.
    """

    def __init__(self, ear: socket.socket) -> None:
        self.late_us: list[float] = []
        self._ear = ear
        self._rest = b""
        self._heard = asyncio.Event()

    def hear(self) -> None:
        """All that wait to be heard."""
        data = self._rest + self._ear.recv(1 << 16)
        now = time.monotonic()
        whole = len(data) - len(data) % _BEAT.size
        self._rest = data[whole:]
        self.late_us.extend(1e6 * (now - due) for (due,) in _BEAT.iter_unpack(data[:whole]))
        self._heard.set()

    async def begin(self) -> None:
        """Wait for the first one, and count from the next."""
        await self.next()
        self.late_us.clear()

    async def next(self) -> None:
        """Wait for another one: if the loop was held up until now, for those that came meanwhile too."""
        self._heard.clear()
        await self._heard.wait()


@contextmanager
def beating() -> Iterator[Beats]:
    """Have beats struck and heard by the running loop; the first one comes some 20 ms later."""
    ear, mouth = socket.socketpair()
    # Room for the beats of some seconds: one that waits is as late as it is.
    mouth.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    ear.setblocking(False)  # noqa: FBT003 - the standard library's
    loop = asyncio.get_running_loop()
    beats = Beats(ear)
    process = subprocess.Popen([sys.executable, "-S", "-E", __file__, str(mouth.fileno())], pass_fds=[mouth.fileno()])
    mouth.close()
    loop.add_reader(ear.fileno(), beats.hear)
    try:
        yield beats
    finally:
        loop.remove_reader(ear.fileno())
        process.terminate()
        process.wait()
        ear.close()


def _strike(mouth: socket.socket) -> None:
    """Until somebody ends us. At irregular intervals: what the program does may be regular."""
    due = time.monotonic()
    while True:
        due += INTERVAL * random.uniform(0.5, 1.5)
        time.sleep(max(0.0, due - time.monotonic()))
        mouth.sendall(_BEAT.pack(due))


if __name__ == "__main__":
    with suppress(OSError):  # nobody listens any more
        _strike(socket.socket(fileno=int(sys.argv[1])))
