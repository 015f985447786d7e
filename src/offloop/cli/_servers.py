"""What the demo's servers share: the count of what reached them, and a life that ends with the parent's.

A server says its port in a line of JSON on stdout, answers each line on stdin with its counts, and ends with stdin. No
parent can end, however it does, and leave it behind.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

__all__ = ["HOST", "Tally", "answer_lines", "serve"]

HOST = "127.0.0.1"

_TAG = re.compile(r"\b([a-z]+)#(\d+)\b")


class Tally:
    """Which records came, by round: each has its round's name and its number in its message, as in `standard#17`.

    Attributes:
        open: Connections that are open now.
        damaged: Messages that could not be read.
    """

    def __init__(self) -> None:
        self.open = 0
        self.damaged = 0
        self._seen: dict[str, set[int]] = {}
        self._messages: Counter[str] = Counter()
        self._duplicates: Counter[str] = Counter()

    def add(self, text: str, *, first: bool = False) -> None:
        """Count one message and the records in it.

        Args:
            text: A record's message, or a mail's text.
            first: The text is one record's: what follows the first tag is part of it.
        """
        tags = dict.fromkeys(_TAG.findall(text))  # a record may be named twice in one mail
        if not tags:
            self.damaged += 1
            return
        self._messages[next(iter(tags))[0]] += 1
        for name, number in list(tags)[: 1 if first else None]:
            seen = self._seen.setdefault(name, set())
            if int(number) in seen:
                self._duplicates[name] += 1
            seen.add(int(number))

    def counts(self) -> dict[str, Any]:
        """What came so far: messages, different records, and records that came again, by round."""
        return {
            "open": self.open,
            "damaged": self.damaged,
            "rounds": {
                name: {
                    "messages": self._messages[name],
                    "records": len(numbers),
                    "duplicates": self._duplicates[name],
                }
                for name, numbers in self._seen.items()
            },
        }


def say(message: dict[str, Any]) -> None:
    """Write a line of JSON to stdout, at once."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


async def answer_lines(answer: Callable[[], dict[str, Any]]) -> None:
    """Answer each line on stdin; return when stdin ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while await reader.readline():
            say(answer())
    except BrokenPipeError:
        return  # the parent ended while we answered
    finally:
        transport.close()


async def serve(protocol: Callable[[], asyncio.Protocol], port: int, tally: Tally) -> int:
    """Serve on loopback until stdin ends.

    Args:
        protocol: Makes what handles a connection.
        port: Where to listen; 0 takes a free port.
        tally: What to answer from.

    Returns:
        The exit code: 1 if the port can't be had, which is said in the first line instead of the port.
    """
    try:
        server = await asyncio.get_running_loop().create_server(protocol, HOST, port)
    except OSError as error:
        say({"error": f"can't listen on {HOST}:{port}: {error.strerror or error}"})
        return 1
    say({"port": server.sockets[0].getsockname()[1]})
    await answer_lines(tally.counts)
    server.close()
    return 0
