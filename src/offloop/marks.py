"""Whose records are our own: what is logged while a sink delivers must not feed the same pipeline.

A context variable marks the lanes' tasks and offloop's worker threads. It holds the thread that set it, so that a
thread an application starts from such a task (with a copy of the context) is not taken for ours.
"""

from __future__ import annotations

from contextvars import ContextVar
from threading import get_ident

__all__ = ["OWN", "is_own", "mark"]

OWN: ContextVar[int] = ContextVar("offloop_own", default=0)
"""The thread on which the current context is offloop's own."""


def mark() -> None:
    """Mark the current context, on this thread, as offloop's own."""
    OWN.set(get_ident())


def is_own() -> bool:
    """Whether the code that asks runs on behalf of a sink."""
    return OWN.get() == get_ident()
