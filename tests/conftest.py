"""Fixtures that every room's tests use."""

from __future__ import annotations

import itertools
import logging
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from offloop import diagnostics

# No test asserts a time, and hypothesis is not to do it for us: a busy machine is slow to begin with.
settings.register_profile("offloop", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("offloop")

_numbers = itertools.count()


def pytest_configure() -> None:
    """Take Ctrl-C even in a run that was started in the background: programs under test would inherit its absence."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what another interpreter runs."""
    if os.environ.get("OFFLOOP_ONCE") == "0" and item.get_closest_marker("once") is not None:
        pytest.skip("once: on the newest interpreter")


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger of its own, at DEBUG, that tells nobody else."""
    logger = logging.getLogger(f"test.{next(_numbers)}")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    logger.handlers = []


@pytest.fixture(autouse=True)
def said_in_its_own_test() -> Iterator[None]:
    """What offloop has to say of a test is not said while another one looks at stderr."""
    yield
    diagnostics._shared._kinds.clear()  # what is held back would be told ten seconds later
    diagnostics.flush()


@pytest.fixture(autouse=True)
def root_logger_as_found() -> Iterator[None]:
    """A test that leaves its handlers on the root logger fails, and the next ones don't see them."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    left = [handler for handler in root.handlers if handler not in handlers]
    # A new list: another thread may be walking the old one.
    root.handlers = handlers
    root.setLevel(level)
    assert not left, f"left on the root logger: {left}"
