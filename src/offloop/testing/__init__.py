"""For tests of logging: sinks that keep or fail as told, and what goes wrong on the way to a destination."""

from __future__ import annotations

from offloop.testing.proxy import FaultProxy
from offloop.testing.sinks import HANG, FaultySink, MemorySink

__all__ = ["HANG", "FaultProxy", "FaultySink", "MemorySink"]
