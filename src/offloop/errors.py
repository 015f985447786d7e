"""Everything offloop raises, as one tree.

Two branches: what a sink raises to say how a delivery failed (`DeliveryError`), and what a caller did wrong. Nothing
here is ever raised out of a `logger.info(...)` call.
"""

from __future__ import annotations

from collections.abc import Sequence
from logging import LogRecord

__all__ = [
    "ConfigError",
    "DeliveryError",
    "MissingExtra",
    "OffloopError",
    "PartialFailure",
    "PermanentFailure",
    "PipelineInUse",
    "SinkFailure",
    "TemporaryFailure",
]


class OffloopError(Exception):
    """The root: `except OffloopError` catches whatever this library raises of its own."""


class ConfigError(OffloopError, ValueError):
    """A value that cannot be used; the message names the value, the limit and the way out."""


class MissingExtra(OffloopError, ImportError):
    """An optional package is needed and not installed; the message holds the `pip install` line."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(f"{what} needs the {package} package: pip install 'offloop[{extra}]'")
        self.what = what
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str, str]]:
        # By default pickle would hand the message to __init__, which takes three arguments.
        return type(self), (self.what, self.package, self.extra)


class PipelineInUse(OffloopError, RuntimeError):
    """A pipeline or listener is running in one event loop and was started in another."""


class DeliveryError(OffloopError):
    """How a `Sink.send` failed. Raise one of the subclasses; anything else is taken for a poisonous record."""


class TemporaryFailure(DeliveryError):
    """The batch may be taken later; it is sent again after a backoff.

    Args:
        message: What happened, for diagnostics.
        retry_after: Seconds the destination asked us to wait, None if it did not say. The next attempt is not earlier.
        outage: Whether it may be away. False: it is there, and puts this batch off: the breaker does not count that.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None, outage: bool = True) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.outage = outage


class PermanentFailure(DeliveryError):
    """These records will never be taken; the whole batch is not sent again: rejected, or dead letters."""


class PartialFailure(DeliveryError):
    """Some of the batch was taken; what is in neither list counts as delivered.

    Args:
        message: What happened, for diagnostics.
        retry: Records of the batch to send again, in order, after a backoff.
        rejected: Records of the batch that will never be taken.
        retry_after: As for `TemporaryFailure`.
    """

    def __init__(
        self,
        message: str = "",
        *,
        retry: Sequence[LogRecord] = (),
        rejected: Sequence[LogRecord] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.retry = tuple(retry)
        self.rejected = tuple(rejected)
        self.retry_after = retry_after


class SinkFailure(DeliveryError):
    """The sink itself cannot work (password, certificate, configuration): the breaker opens, the records are kept."""
