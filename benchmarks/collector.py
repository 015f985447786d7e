"""A collector in a process of its own, which counts lines; well, slow, hung, or gone every other moment.

The count is in memory that both share, so that to look at it costs the measured process nothing.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

HOST = "127.0.0.1"
STATES = ("healthy", "slow", "hung", "reconnecting")

_SIZE = 16
_SPELL = 0.2  # seconds that a reconnecting one is there, and then is not
_SMALL = 4096  # bytes: a slow or hung peer is felt at once, as loopback's own buffers of some MB would hide
_PIECE = 1 << 18


class Collector:
    """A running one, as the measured process sees it."""

    def __init__(self, port: int, shared: mmap.mmap) -> None:
        self.port = port
        self._shared = shared

    @property
    def lines(self) -> int:
        """How many came, of all connections."""
        return int(struct.unpack_from("Q", self._shared, 0)[0])


@contextmanager
def collecting(state: str = "healthy") -> Iterator[Collector]:
    """A collector in this state, as long as the context lasts, or this process."""
    with tempfile.TemporaryFile() as file:
        file.truncate(_SIZE)
        shared = mmap.mmap(file.fileno(), _SIZE)
        process = subprocess.Popen(
            [sys.executable, "-S", "-E", __file__, str(file.fileno()), state],
            pass_fds=[file.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Collector(int(process.stdout.readline()), shared)
        finally:
            process.stdin.close()
            process.wait()
            process.stdout.close()


class _Server:
    """The other side: one thread, all connections."""

    def __init__(self, shared: mmap.mmap, state: str) -> None:
        self._shared = shared
        self._state = state
        self._lines = 0
        self._peers: list[socket.socket] = []
        self._port = 0
        self._listening = self._listen()

    def _listen(self) -> socket.socket:
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._state in ("slow", "hung"):
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL)
            # As behind a network: loopback's segments of 64 KiB would have the sender's kernel hold megabytes.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)
        listening.bind((HOST, self._port))
        listening.listen(128)
        self._port = listening.getsockname()[1]
        return listening

    def serve(self) -> None:
        """Until the process ends."""
        sys.stdout.write(f"{self._port}\n")
        sys.stdout.flush()
        while self._state != "reconnecting":
            self._turn(1.0)
        while True:
            end = time.monotonic() + _SPELL
            while (left := end - time.monotonic()) > 0:
                self._turn(left)
            self._leave()
            time.sleep(_SPELL)
            self._listening = self._listen()

    def _turn(self, wait: float) -> None:
        watched = [self._listening] if self._state == "hung" else [self._listening, *self._peers]
        for ready in select.select(watched, [], [], wait)[0]:
            if ready is self._listening:
                self._peers.append(ready.accept()[0])
            else:
                self._read(ready)

    def _read(self, peer: socket.socket) -> None:
        try:
            data = peer.recv(_SMALL if self._state == "slow" else _PIECE)
        except OSError:
            data = b""
        if not data:
            self._peers.remove(peer)
            peer.close()
            return
        self._lines += data.count(b"\n")
        struct.pack_into("Q", self._shared, 0, self._lines)
        if self._state == "slow":
            time.sleep(0.01)

    def _leave(self) -> None:
        self._listening.close()
        for peer in self._peers:
            # At once and with a reset, whatever is still unread.
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
        self._peers.clear()


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    _Server(mmap.mmap(int(sys.argv[1]), _SIZE), sys.argv[2]).serve()
