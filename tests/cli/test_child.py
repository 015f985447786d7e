from __future__ import annotations

import pytest

from offloop.cli._child import DemoError, child


async def test_child_that_ends_is_an_error() -> None:
    """A child that fails is reported with the last line it wrote."""
    async with child("the oracle", "offloop.cli.no_such_module") as oracle:
        with pytest.raises(DemoError, match=r"the oracle ended unexpectedly: .*No module named"):
            await oracle.read(20)


async def test_silent_child_is_an_error() -> None:
    """A child that says nothing in time is an error that says how long it had."""
    async with child("the oracle", "http.server", "--bind", "127.0.0.1", "0") as oracle:
        with pytest.raises(DemoError, match=r"the oracle said nothing for 0 s"):
            await oracle.read(0.0)
        await oracle.aclose(grace=0.01)


async def test_child_that_does_not_end_is_killed() -> None:
    """A child that ignores the end of its stdin is ended by force."""
    async with child("the oracle", "http.server", "--bind", "127.0.0.1", "0") as oracle:
        await oracle.aclose(grace=0.01)

    assert oracle.returncode is not None
    assert oracle.returncode < 0
