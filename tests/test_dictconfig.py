"""`dictConfig` and its special treatment of queue handlers, as docs/how-to/dictconfig.md tells it."""

from __future__ import annotations

import asyncio
import logging
import logging.config
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from offloop import QueueHandler, QueueListener
from offloop.testing import MemorySink

SPECIAL = sys.version_info >= (3, 12)


def make_queue() -> asyncio.Queue[Any]:
    """What `queue` names."""
    return asyncio.Queue(100)


def make_listener(queue: asyncio.Queue[Any], *handlers: logging.Handler, respect_handler_level: bool) -> QueueListener:
    """What `listener` names."""
    return QueueListener(queue, *handlers, respect_handler_level=respect_handler_level)


@pytest.fixture(autouse=True)
def log() -> Iterator[logging.Logger]:
    """The logger that is configured, without its handlers at the end."""
    logger = logging.getLogger("test.dictconfig")
    yield logger
    logger.handlers = []


def configure(**handler: Any) -> Any:
    """The queue handler that comes of these keys."""
    config: dict[str, Any] = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"sink": {"()": MemorySink}, "queue": handler},
        "loggers": {"test.dictconfig": {"handlers": ["queue"], "level": "INFO", "propagate": False}},
    }
    logging.config.dictConfig(config)
    (made,) = logging.getLogger("test.dictconfig").handlers
    return made


def test_factory_form_attaches_no_listener() -> None:
    """The `()` form is the same on each version of Python."""
    made = configure(**{"()": "offloop.QueueHandler", "queue": make_queue(), "overflow": "drop_old"})
    assert type(made) is QueueHandler
    assert getattr(made, "listener", None) is None


@pytest.mark.parametrize("queue", [f"{__name__}.make_queue", f"ext://{__name__}.queue"])
def test_listener_class_is_refused(queue: str) -> None:
    """The class form takes only listeners that inherit from the standard one."""
    keys = {"class": "offloop.QueueHandler", "queue": queue, "listener": "offloop.QueueListener", "handlers": ["sink"]}
    with pytest.raises(ValueError, match="Unable to configure handler 'queue'"):
        configure(**keys)


async def test_listener_made_by_a_function(log: logging.Logger) -> None:
    """The class form takes a function's name, and the listener that it makes delivers; 3.11 knows no such key."""
    keys = {
        "class": "offloop.QueueHandler",
        "queue": f"{__name__}.make_queue",
        "listener": f"{__name__}.make_listener",
        "handlers": ["sink"],
    }
    if not SPECIAL:
        with pytest.raises(ValueError, match="Unable to configure handler 'queue'"):
            configure(**keys)
        return
    handler = configure(**keys)
    async with handler.listener:
        log.info("order placed")
    assert [sink.messages for sink in logging._handlers.values() if isinstance(sink, MemorySink)] == [["order placed"]]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="3.11 attaches no listener, and 3.12 refuses the queue")
async def test_standard_listener_that_is_attached_does_not_run(log: logging.Logger) -> None:
    """Without a `listener` the class form attaches a standard one, which harms nobody as long as nobody starts it."""
    queue, sink = make_queue(), MemorySink()
    handler = configure(**{"class": "offloop.QueueHandler", "queue": queue})
    assert type(handler.listener) is logging.handlers.QueueListener
    async with QueueListener(queue, sink):
        log.info("order placed")
    assert sink.messages == ["order placed"]


queue = make_queue()
