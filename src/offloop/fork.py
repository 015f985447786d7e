"""What a forked child must not share with its parent: locks, waiting records, connections.

A fork copies locks as other threads hold them, records that are the parent's to deliver, and descriptors of sockets
that the parent goes on using. In the child each heir renews itself, and each inherited socket is replaced by the null
device: to close a transport here would take the parent's socket out of the epoll instance that both share.
"""

from __future__ import annotations

import os
import socket
from typing import Protocol
from weakref import WeakSet

__all__ = ["inherits", "keep", "remember"]


class Heir(Protocol):
    """Something that is of no use in a child before it was renewed."""

    def after_fork(self) -> None:
        """Begin anew; called in the child, before anything else runs there. Must take no lock and close nothing."""
        ...


_heirs: WeakSet[Heir] = WeakSet()
_sockets: WeakSet[socket.socket] = WeakSet()
_kept: list[object] = []


def inherits(heir: Heir) -> None:
    """Have its `after_fork` called in each child, as long as it lives."""
    _heirs.add(heir)


def remember(connecting: socket.socket) -> None:
    """Have this socket replaced by the null device in each child, as long as it is open."""
    _sockets.add(connecting)


def keep(*parents: object) -> None:
    """Never let go of the parent's tasks and loop: to collect them would run their `finally` blocks in the child."""
    _kept.extend(parents)


def _in_child() -> None:
    _leave_sockets()
    for heir in list(_heirs):
        heir.after_fork()


def _leave_sockets() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for inherited in list(_sockets):
        if inherited.fileno() >= 0:
            os.dup2(null, inherited.fileno(), inheritable=False)
    os.close(null)
    _sockets.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_in_child)
