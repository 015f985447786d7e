"""What all tests share: what a test may not leave behind, and how a real server's program is found."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture(autouse=True)
def logging_as_found() -> Iterator[None]:
    """Give the root logger back its handlers and level; fail a test that leaves its handlers on it."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    left = [handler for handler in root.handlers if handler not in handlers]
    # New list, as the library does: other threads may be walking the old one.
    root.handlers = handlers
    root.setLevel(level)
    assert not left, f"left on the root logger: {left}"


@pytest.fixture
def new_threads() -> Callable[[], set[threading.Thread]]:
    """The threads that were started since the test began and still run."""
    before = set(threading.enumerate())
    return lambda: set(threading.enumerate()) - before


@pytest.fixture(scope="session")
def server_program() -> Callable[[str], str]:
    """Find a real server's program, or skip the test; with OFFLOOP_REQUIRE_SERVERS=1 a missing one fails it."""
    return find_program


def find_program(name: str) -> str:
    # Servers of the system are in sbin, which is not on every user's PATH.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(name, path=path)
    if found is not None:
        return found
    if os.environ.get("OFFLOOP_REQUIRE_SERVERS") == "1":
        pytest.fail(f"{name} is not installed, and OFFLOOP_REQUIRE_SERVERS=1 wants it")
    pytest.skip(f"{name} is not installed")
