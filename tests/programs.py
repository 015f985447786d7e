"""Programs in processes of their own: examples and the servers that run them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


@dataclass
class Program:
    """A running program, and what it has printed."""

    process: asyncio.subprocess.Process
    output: bytearray = field(default_factory=bytearray)
    errors: bytearray = field(default_factory=bytearray)
    reading: asyncio.Future[tuple[None, None]] = field(init=False)

    def __post_init__(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.reading = asyncio.gather(
            self._read(self.process.stdout, self.output), self._read(self.process.stderr, self.errors)
        )

    @property
    def text(self) -> str:
        """All it and its children have printed."""
        return self.output.decode(errors="replace")

    @property
    def trouble(self) -> str:
        """All it and its children have said on stderr."""
        return self.errors.decode(errors="replace")

    async def end(self) -> int:
        """Wait until it and all its children have ended; gives its exit status."""
        await self.reading
        return await self.process.wait()

    async def stop(self) -> int:
        """Ask it to end, as a supervisor does, and wait."""
        self.process.send_signal(signal.SIGTERM)
        return await self.end()

    async def _read(self, stream: asyncio.StreamReader, into: bytearray) -> None:
        while chunk := await stream.read(65_536):
            into += chunk


@asynccontextmanager
async def python(*arguments: str | Path, **environment: object) -> AsyncIterator[Program]:
    """Run Python, warnings as errors, in a process group of its own that is gone in the end; prints what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        *arguments,
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"} | {name: str(value) for name, value in environment.items()},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    program = Program(process)
    try:
        yield program
    finally:
        # The group has the program's number as long as any of it is left.
        if not program.reading.done() or process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        await program.end()
        print(program.text, program.trouble)
