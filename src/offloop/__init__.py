"""offloop: logging off the event loop."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from offloop.digest import Digest, Preceding
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
from offloop.policies import Batching, Breaker, Buffer, Retry
from offloop.sink import Batch, Sink
from offloop.sinks.tcp import TCPSink
from offloop.spool import Spool

if TYPE_CHECKING:
    from offloop.sinks.lmtp import LMTPSink
    from offloop.sinks.sendmail import SendmailSink
    from offloop.sinks.smtp import SMTPSink

__all__ = [
    "Batch",
    "Batching",
    "Breaker",
    "Buffer",
    "ConfigError",
    "Counts",
    "DeliveryError",
    "Digest",
    "JSONFormatter",
    "LMTPSink",
    "MissingExtra",
    "OffloopError",
    "PartialFailure",
    "PermanentFailure",
    "Pipeline",
    "PipelineInUse",
    "Preceding",
    "QueueHandler",
    "QueueListener",
    "Report",
    "Retry",
    "SMTPSink",
    "SendmailSink",
    "Sink",
    "SinkFailure",
    "Spool",
    "Stats",
    "TCPSink",
    "TemporaryFailure",
    "TextFormatter",
]


_MAIL = {
    "LMTPSink": "offloop.sinks.lmtp",
    "SMTPSink": "offloop.sinks.smtp",
    "SendmailSink": "offloop.sinks.sendmail",
}


def __getattr__(name: str) -> object:
    # The mail client and the standard `email` package take as long to import as all the rest of offloop.
    if name in _MAIL:
        return getattr(import_module(_MAIL[name]), name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
