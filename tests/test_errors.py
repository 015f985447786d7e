"""One tree of errors, with fields."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest

from offloop import errors
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


def test_all_have_one_root() -> None:
    """`except OffloopError` catches whatever is public here."""
    assert all(issubclass(getattr(errors, name), OffloopError) for name in errors.__all__)


@pytest.mark.parametrize("kind", [TemporaryFailure, PermanentFailure, PartialFailure, SinkFailure])
def test_failures_of_delivery_are_told_by_one_name(kind) -> None:
    """What `send` raises is a `DeliveryError`, with or without a message."""
    assert issubclass(kind, DeliveryError)
    assert str(kind("refused")) == "refused"
    assert isinstance(kind(), DeliveryError)


def test_standard_exceptions_are_bases() -> None:
    """Callers who know only the standard ones catch them too."""
    assert issubclass(ConfigError, ValueError)
    assert issubclass(MissingExtra, ImportError)
    assert issubclass(PipelineInUse, RuntimeError)


def test_missing_extra_tells_what_to_install() -> None:
    """The message holds the command."""
    error = MissingExtra("RedisSink", "redis", "redis")
    assert str(error) == "RedisSink needs the redis package: pip install 'offloop[redis]'"
    assert (error.package, error.extra) == ("redis", "redis")


def test_fields_of_failures() -> None:
    """When to come back, and which records."""
    record = logging.makeLogRecord({})
    rejected: Any = iter([record])
    partial = PartialFailure("some", retry=[record], rejected=rejected, retry_after=2)
    assert (partial.retry, partial.rejected, partial.retry_after) == ((record,), (record,), 2)
    assert TemporaryFailure(retry_after=1.5).retry_after == 1.5
    assert (TemporaryFailure().retry_after, PartialFailure().retry, PartialFailure().rejected) == (None, (), ())


def test_errors_survive_pickling() -> None:
    """They cross the border of a process with their fields."""
    missing = pickle.loads(pickle.dumps(MissingExtra("RedisSink", "redis-py", "redis")))
    assert (str(missing).startswith("RedisSink needs"), missing.extra) == (True, "redis")
    assert pickle.loads(pickle.dumps(TemporaryFailure("later", retry_after=3))).retry_after == 3
