"""For tests of logging: sinks that keep or fail, and faults of the network."""

from __future__ import annotations

from offloop.testing.sinks import HANG, FaultySink, MemorySink

__all__ = ["HANG", "FaultySink", "MemorySink"]
