"""The demo's other processes, as the one that started them sees them: lines of JSON there and back."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO, Any, cast

from offloop.errors import OffloopError

__all__ = ["Child", "DemoError", "child"]

_GRACE = 2.0  # seconds a child has to end after its stdin did
_MAX_LINES = 5


class DemoError(OffloopError):
    """The demo can't go on; the message says why in one line."""


class Child:
    """A running child process.

    Attributes:
        name: What messages call it.
        pid: Its process id.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, errors: IO[bytes]) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._errors = errors
        # Both are there: `child` asks for pipes.
        self._stdin = cast("asyncio.StreamWriter", process.stdin)
        self._stdout = cast("asyncio.StreamReader", process.stdout)

    async def read(self, patience: float) -> dict[str, Any]:
        """The child's next message.

        Args:
            patience: Seconds to wait for it.

        Raises:
            DemoError: It ended, was silent too long, or says that it can't do its work.
        """
        try:
            async with asyncio.timeout(patience):
                line = await self._stdout.readline()
        except TimeoutError as error:
            msg = f"{self.name} said nothing for {patience:.0f} s"
            raise DemoError(msg) from error
        if not line:
            last = self.stderr_lines()[-1:] or ["no message"]
            msg = f"{self.name} ended unexpectedly: {last[0]}"
            raise DemoError(msg)
        message = cast("dict[str, Any]", json.loads(line))
        if "error" in message:
            msg = f"{self.name} {message['error']}"
            raise DemoError(msg)
        return message

    async def ask(self, patience: float) -> dict[str, Any]:
        """Ask a server for its counts. Raises as `read` does."""
        self._stdin.write(b"\n")
        return await self.read(patience)

    def stderr_lines(self) -> list[str]:
        """The last lines the child wrote to stderr so far."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").splitlines()[-_MAX_LINES:]

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.returncode

    async def aclose(self, grace: float = _GRACE) -> None:
        """End the child: by the end of its stdin, and if that is not enough, by force. Idempotent.

        Args:
            grace: Seconds it has to end by itself.
        """
        self._stdin.close()
        try:
            async with asyncio.timeout(grace):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@asynccontextmanager
async def child(name: str, module: str, *arguments: str) -> AsyncIterator[Child]:
    """Run a module in a process of its own, and end it on the way out.

    Args:
        name: What messages call it.
        module: The full name of the module.
        arguments: Its arguments.
    """
    with tempfile.TemporaryFile() as errors:
        # A process group of its own: Ctrl-C is for the parent alone, which ends its children in order.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", module, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            process_group=0,
        )
        running = Child(name, process, errors)
        try:
            yield running
        finally:
            await running.aclose()
