"""offloop: logging off the event loop."""

from __future__ import annotations

from offloop.errors import (
    ConfigError,
    DeliveryError,
    MissingExtra,
    OffloopError,
    PartialFailure,
    PermanentFailure,
    PipelineInUse,
    SinkFailure,
    TemporaryFailure,
)
from offloop.formatters import JSONFormatter, TextFormatter
from offloop.handler import QueueHandler
from offloop.ledger import Counts, Report, Stats
from offloop.listener import QueueListener
from offloop.pipeline import Pipeline
from offloop.policies import Batching, Buffer, Retry
from offloop.sink import Batch, Sink
from offloop.sinks.smtp import SMTPSink
from offloop.sinks.tcp import TCPSink

__all__ = [
    "Batch",
    "Batching",
    "Buffer",
    "ConfigError",
    "Counts",
    "DeliveryError",
    "JSONFormatter",
    "MissingExtra",
    "OffloopError",
    "PartialFailure",
    "PermanentFailure",
    "Pipeline",
    "PipelineInUse",
    "QueueHandler",
    "QueueListener",
    "Report",
    "Retry",
    "SMTPSink",
    "Sink",
    "SinkFailure",
    "Stats",
    "TCPSink",
    "TemporaryFailure",
    "TextFormatter",
]
