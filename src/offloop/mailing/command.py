"""One run of a `sendmail` command, in a thread: what goes in, what it said, and what its exit status means.

Not by asyncio: its `subprocess` forks on the loop's thread and needs a child watcher, which is a thread for each child
on 3.11 and where there is no pidfd, and can't be had when the interpreter ends.

Exit statuses: sysexits(3).
"""

from __future__ import annotations

import errno
import os
import selectors
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO

from offloop.errors import DeliveryError, PermanentFailure, SinkFailure, TemporaryFailure
from offloop.mailing.headers import one_line
from offloop.mailing.wire import Mail
from offloop.worker import overdue

__all__ = ["Run"]

_MAX_SAID = 4096  # bytes of stderr that are looked at
_MAX_LINE = 300  # characters of it that are repeated in a message
_SHORTEST, _LONGEST = 0.001, 0.05  # seconds until we look again whether it has ended
_LAST = 1.0  # seconds for one that was killed at the very end of the process

_PERMANENT = {65: "EX_DATAERR", 67: "EX_NOUSER", 68: "EX_NOHOST"}
# 126 and 127 are a shell's words for a command that can't be run or found.
_OURS = {64: "EX_USAGE", 77: "EX_NOPERM", 78: "EX_CONFIG", 126: "cannot run", 127: "not found"}
_LATER = {
    66: "EX_NOINPUT",
    69: "EX_UNAVAILABLE",
    70: "EX_SOFTWARE",
    71: "EX_OSERR",
    72: "EX_OSFILE",
    73: "EX_CANTCREAT",
    74: "EX_IOERR",
    75: "EX_TEMPFAIL",
    76: "EX_PROTOCOL",
}
_MISSING = frozenset({errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ENOEXEC, errno.EPERM, errno.ELOOP})


class Run:
    """A command that is given one mail. `kill` may come from any thread, at any time, and waits for nothing."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """Start nothing yet."""
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = False
        self._read_all = False
        self._said = b""

    def __call__(self, mail: Mail) -> None:
        """Start the command, give it the mail and wait for its end. In a thread.

        Raises:
            SinkFailure: There is no such command, or it may not be run.
            TemporaryFailure: It could not be started now.
        """
        if self._killed:
            return
        try:
            process = subprocess.Popen(  # noqa: S603 - what the user configured, and no shell
                self._arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # a Ctrl-C is for us, and a kill for its children too
            )
        except OSError as error:
            kind = SinkFailure if error.errno in _MISSING else TemporaryFailure
            msg = f"{self._arguments[0]}: {os.strerror(error.errno or 0)}"
            raise kind(msg) from error
        self._process = process
        if self._killed:  # in between
            self._end(process)
        assert process.stdin is not None  # noqa: S101 - a pipe
        assert process.stderr is not None  # noqa: S101 - a pipe
        with process.stdin, process.stderr:
            try:
                self._converse(process, process.stdin, process.stderr, mail.lines())
            except BaseException:
                self.kill()  # the end of what it reads would be the end of the mail
                raise
        process.wait(_LAST if overdue() else None)

    def kill(self) -> None:
        """End it, whether it has begun or not."""
        self._killed = True
        if self._process is not None:
            self._end(self._process)

    def judge(self, owner: str) -> None:
        """Say what became of the mail; returns if it was taken.

        Raises:
            DeliveryError: It was not.
        """
        status = None if self._process is None else self._process.returncode
        if status == 0 and self._read_all:
            return
        lines = self._said.decode("utf-8", "replace").splitlines()
        line = one_line(next((line for line in lines if line.strip()), ""), _MAX_LINE)
        said = f": {line}" if line else ""
        raise self._failure(f"{owner}: the command", status, said)

    def _failure(self, what: str, status: int | None, said: str) -> DeliveryError:
        if self._killed or status is None:
            return TemporaryFailure(f"{what} was killed before its end{said}")
        if status == 0:
            return TemporaryFailure(f"{what} did not read the whole mail{said}")
        if status < 0:
            return TemporaryFailure(f"{what} was ended by {_signal(-status)}{said}")
        name = (_PERMANENT | _OURS | _LATER).get(status)
        message = f"{what} ended with {status}{f' ({name})' if name else ''}{said}"
        if status in _PERMANENT:
            return PermanentFailure(message)
        return SinkFailure(message) if status in _OURS else TemporaryFailure(message)

    def _converse(
        self, process: subprocess.Popen[bytes], stdin: IO[bytes], stderr: IO[bytes], pieces: Iterator[bytes]
    ) -> None:
        """Write the mail and read what is said, until the command has ended.

        Not until its stderr has: a delivery that it leaves in the background may hold that open for hours.
        """
        os.set_blocking(stdin.fileno(), False)
        os.set_blocking(stderr.fileno(), False)
        left = memoryview(next(pieces, b""))
        pause = _SHORTEST
        with selectors.DefaultSelector() as selector:
            selector.register(stdin, selectors.EVENT_WRITE)
            selector.register(stderr, selectors.EVENT_READ)
            while process.poll() is None:
                if overdue():
                    self.kill()
                ready = [key.fileobj for key, _ in selector.select(pause)] if selector.get_map() else []
                if not selector.get_map():
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(pause)
                pause = _SHORTEST if ready else min(_LONGEST, pause * 2)
                if stderr in ready and not self._listen(stderr):
                    selector.unregister(stderr)
                if stdin in ready:
                    left = self._feed(stdin, left, pieces)
                    if stdin.closed:
                        selector.unregister(stdin)
        self._listen(stderr)

    def _feed(self, stdin: IO[bytes], left: memoryview, pieces: Iterator[bytes]) -> memoryview:
        """Write some of the mail; closes the pipe after the last of it, or where nobody reads it."""
        try:
            written = os.write(stdin.fileno(), left)
        except BrokenPipeError:
            stdin.close()
            return left
        left = left[written:] or memoryview(next(pieces, b""))
        if not left:
            self._read_all = True
            stdin.close()
        return left

    def _listen(self, stderr: IO[bytes]) -> bool:
        """Read what there is; False at its end. All of it is read, so that the command can go on."""
        try:
            data = os.read(stderr.fileno(), _MAX_SAID)
        except BlockingIOError:
            return True
        self._said += data[: _MAX_SAID - len(self._said)]
        return bool(data)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):  # it has ended in this moment
                os.killpg(process.pid, signal.SIGKILL)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
