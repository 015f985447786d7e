"""Fixtures that every room's tests use."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

import pytest

_numbers = itertools.count()


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger of its own, at DEBUG, that tells nobody else."""
    logger = logging.getLogger(f"test.{next(_numbers)}")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    logger.handlers = []
