"""The demo's collector: counts records that come as lines of JSON or as the standard `SocketHandler`'s pickles.

Run as `python -m offloop.cli._collector PORT`.
"""

from __future__ import annotations

import asyncio
import io
import json
import pickle
import sys
from typing import Any, NoReturn, cast

from offloop.cli._servers import Tally, serve

__all__ = ["Collector", "take"]

_HEADER = 4  # bytes of a pickle's length
_MAX_BYTES = 1024 * 1024  # of one record


class _Plain(pickle.Unpickler):
    """Reads containers, texts and numbers only: whoever may connect here must not run code of his choice."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        msg = f"a record may not hold {module_name}.{global_name}"
        raise pickle.UnpicklingError(msg)


def take(buffer: bytearray) -> list[dict[str, Any]]:
    """Remove the records that are complete and return them.

    Args:
        buffer: What came on one connection and was not taken yet. A JSON line begins with a brace; a pickle with its
            length, whose first byte is 0 below 16 MiB.

    Raises:
        ValueError: The peer sends something else, or more than 1 MiB as one record.
    """
    records: list[dict[str, Any]] = []
    while buffer:
        start, end, after = _frame(buffer)
        if end - start > _MAX_BYTES or (end < 0 and len(buffer) > _MAX_BYTES):
            msg = f"a record has more than {_MAX_BYTES} bytes"
            raise ValueError(msg)
        if end < 0 or len(buffer) < after:
            break
        records.append(_read(bytes(buffer[start:end]), pickled=start > 0))
        del buffer[:after]
    return records


def _frame(buffer: bytearray) -> tuple[int, int, int]:
    """Where the first record starts and ends, and where the next one starts; -1 where that has not come yet."""
    if buffer[0] == ord("{"):
        end = buffer.find(b"\n")
        return 0, end, end + 1
    if buffer[0] != 0:
        msg = "neither a JSON object nor a pickle's length"
        raise ValueError(msg)
    if len(buffer) < _HEADER:
        return 0, -1, 0
    end = _HEADER + int.from_bytes(buffer[:_HEADER], "big")
    return _HEADER, end, end


def _read(data: bytes, *, pickled: bool) -> dict[str, Any]:
    try:
        value = _Plain(io.BytesIO(data)).load() if pickled else json.loads(data)
    except Exception as error:
        # Unpickling garbage raises nearly anything.
        msg = f"a record can't be read: {error}"
        raise ValueError(msg) from error
    if not isinstance(value, dict):
        msg = f"a record must be an object, got {type(value).__name__}"
        raise ValueError(msg)  # noqa: TRY004 - the peer's mistake, not a caller's
    return cast("dict[str, Any]", value)


class Collector(asyncio.Protocol):
    """One connection. It answers nothing, as log collectors do."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._buffer = bytearray()
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._tally.open += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._tally.open -= 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            records = take(self._buffer)
        except ValueError:
            self._tally.damaged += 1
            self._buffer.clear()
            if self._transport is not None:
                self._transport.close()
            return
        for record in records:
            # A pickled record has its merged message in `msg`.
            self._tally.add(str(record.get("message", record.get("msg", ""))), first=True)


def main() -> int:
    """Serve until stdin ends."""
    tally = Tally()
    return asyncio.run(serve(lambda: Collector(tally), int(sys.argv[1]), tally))


if __name__ == "__main__":
    sys.exit(main())
