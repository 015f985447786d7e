"""Which code is offloop's own at work: what is logged in there must not feed the pipeline it works for.

A context variable holds the identity of the thread that set it, and counts on that thread only: a task or a thread that
inherited the context is the application's.
"""

from __future__ import annotations

from contextvars import ContextVar
from threading import get_ident

__all__ = ["is_own", "mark"]

_OWN: ContextVar[int] = ContextVar("offloop_own", default=0)


def mark() -> None:
    """Mark the running context, on this thread."""
    _OWN.set(get_ident())


def is_own() -> bool:
    """Whether the running context is marked, on this thread."""
    return _OWN.get() == get_ident()
