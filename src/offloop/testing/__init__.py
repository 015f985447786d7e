"""For tests of logging: sinks that keep or fail as told, what goes wrong on the way, and the contract of every sink."""

from __future__ import annotations

from offloop.testing.contract import ContractBroken, SinkContract
from offloop.testing.proxy import FaultProxy
from offloop.testing.records import make_batch, make_record
from offloop.testing.sinks import HANG, FaultySink, MemorySink

__all__ = [
    "HANG",
    "ContractBroken",
    "FaultProxy",
    "FaultySink",
    "MemorySink",
    "SinkContract",
    "make_batch",
    "make_record",
]
