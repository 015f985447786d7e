"""Sockets; the only module that opens a connection."""

from __future__ import annotations

import asyncio
import socket

__all__ = ["connect"]


async def connect(host: str, port: int, *, timeout: float) -> socket.socket:  # noqa: ASYNC109
    """A connected, non-blocking TCP socket."""
    connecting = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connecting.setblocking(False)
    try:
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_connect(connecting, (host, port))
    except BaseException:
        connecting.close()
        raise
    return connecting
