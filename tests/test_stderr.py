"""Lines go to stderr without waiting for a reader."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from offloop.stderr import Stderr, say


@contextmanager
def piped() -> Iterator[int]:
    """A pipe in the place of stderr; gives its reading end. Not a fixture: pytest changes stderr between the phases."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading, "rb"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        yield reading


def test_line_goes_out() -> None:
    """It is written as it is, and the descriptor is blocking again."""
    with piped() as pipe:
        say("a line \udc80\n", 1)
        assert os.read(pipe, 100) == b"a line \\udc80\n"
        assert os.get_blocking(sys.stderr.fileno())


def test_full_pipe_is_waited_for_in_vain() -> None:
    """What finds no room within its time does not go out, and nobody is held up."""
    with piped() as pipe:
        say("x" * 1_000_000, 0.05)
        assert 0 < len(os.read(pipe, 1_000_000)) < 1_000_000
        assert os.get_blocking(sys.stderr.fileno())


def test_reader_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told: there is nobody."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        say("a line\n", 1)


def test_one_at_a_time() -> None:
    """While another writes, one waits for as long as it may."""
    with piped() as pipe:
        with Stderr(1), pytest.raises(TimeoutError, match="in use"):
            Stderr(0.01).__enter__()
        say("after\n", 1)
        assert os.read(pipe, 100) == b"after\n"


def test_what_an_application_put_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written to as any stream; one that is closed, or None, takes nothing and raises nothing."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    say("a line\n", 1)
    assert stream.getvalue() == "a line\n"
    stream.close()
    say("closed\n", 1)
    monkeypatch.setattr(sys, "stderr", None)
    say("none\n", 1)


def test_descriptor_that_is_gone() -> None:
    """A descriptor closed below the stream: an error of the system's, and the next writer is not kept out."""
    with piped() as pipe:
        kept = os.dup(sys.stderr.fileno())
        number = sys.stderr.fileno()
        os.close(number)
        say("lost\n", 1)
        os.dup2(kept, number)
        os.close(kept)
        say("found\n", 1)
        assert os.read(pipe, 100) == b"found\n"
