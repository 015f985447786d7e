"""A file of what destinations refused: one JSON object a line, with who refused it and why."""

from __future__ import annotations

import logging
import os
from io import TextIOWrapper
from typing import cast

from offloop.formatters.json import JSONFormatter
from offloop.sinks.handler import HandlerSink

__all__ = ["DeadLetterFile"]


class DeadLetterFile(HandlerSink):
    """Appends to a file, in a thread of its own; the file is made (mode 0600) with the first record.

    While it can't be written it is tried again, as for any plain handler; what is lost then is counted here.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Touch nothing yet."""
        super().__init__(_PrivateFile(path, encoding="utf-8", errors="backslashreplace", delay=True))
        self.handler.setFormatter(JSONFormatter())

    def default_name(self) -> str:
        """What it holds."""
        return "dead-letters"

    async def aclose(self) -> None:
        """Close the file; a later record opens it again."""
        if self._running is None or self._running.done():
            await self._worker.run(self.handler.close)
        await super().aclose()


class _PrivateFile(logging.FileHandler):
    """A file that only its owner reads."""

    def _open(self) -> TextIOWrapper:
        file = open(  # noqa: SIM115 - the handler closes it
            self.baseFilename, self.mode, encoding=self.encoding, errors=self.errors, opener=_opener
        )
        return cast("TextIOWrapper", file)


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
