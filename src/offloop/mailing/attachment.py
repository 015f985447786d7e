"""Texts as a gzip file of a bounded size. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator

__all__ = ["compressed"]

_GZIP = 31  # zlib's name for the format; the header has no time in it, so that each attempt gives the same bytes
_CHUNK = 1024  # characters
_END = 512  # bytes kept for the end of the file, and for saying that something is missing
_MAX_BYTES = 16 * 1024 * 1024  # of text: what is more takes seconds to look through


def compressed(texts: Iterable[str], room: int, breathe: Callable[[], object]) -> tuple[bytes, bool]:
    """The texts one behind the other, compressed, as many of them as there is room for; and whether that is all.

    Args:
        texts: Any number, taken as they are needed.
        room: Bytes that the file does not exceed, as long as it is some hundreds.
        breathe: Called between pieces of work.
    """
    squeeze = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
    pieces: list[bytes] = []
    size = taken = pending = 0
    for chunk in _chunks(texts):
        if _fits(room, size, pending) < len(chunk):
            # Now it is known what that takes which is in there; before, it might not have been compressible.
            pieces.append(squeeze.flush(zlib.Z_SYNC_FLUSH))
            size, pending = sum(map(len, pieces)), 0
        if _fits(room, size, pending) < len(chunk) or taken > _MAX_BYTES:
            pieces += (squeeze.compress(b"\n[what follows did not fit into this file]\n"), squeeze.flush())
            return b"".join(pieces), False
        pieces.append(squeeze.compress(chunk))
        pending += len(chunk)
        taken += len(chunk)
        breathe()
    pieces.append(squeeze.flush())
    return b"".join(pieces), True


def _chunks(texts: Iterable[str]) -> Iterator[bytes]:
    for text in texts:
        for start in range(0, len(text), _CHUNK):
            yield text[start : start + _CHUNK].encode("utf-8", "backslashreplace")


def _fits(room: int, size: int, pending: int) -> int:
    """How many bytes can be added, should neither they nor those that are pending be compressible."""
    left = room - _END - size - pending
    return left - (left + pending) // 100
