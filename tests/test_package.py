"""What a user gets who installs the package."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from importlib import metadata, resources

import pytest

import offloop

PUBLIC = [name for name in getattr(offloop, "__all__", ()) if not name.startswith("__")]
MODULES = [info.name for info in pkgutil.walk_packages(offloop.__path__, "offloop.") if "__main__" not in info.name]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_there_and_documented(name: str) -> None:
    """Each name of `offloop.__all__` can be imported from `offloop`."""
    assert getattr(offloop, name) is not None


@pytest.mark.parametrize("name", MODULES)
def test_module_exports_what_it_lists(name: str) -> None:
    """Each module can be imported, and what it lists as public is there."""
    module = importlib.import_module(name)

    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public)


def test_public_names_are_sorted_and_once() -> None:
    """`offloop.__all__` names nothing twice and is in order."""
    assert sorted(set(PUBLIC)) == PUBLIC


def test_types_are_for_users_too() -> None:
    """Type checkers take the package's annotations, since it says so."""
    assert resources.files("offloop").joinpath("py.typed").is_file()


def test_version_is_the_installed_one() -> None:
    """The version in the metadata is one that an index orders as a release or a pre-release of it."""
    assert metadata.version("offloop").split(".")[0].isdigit()


def test_import_leaves_frameworks_alone() -> None:
    """`import offloop` loads no web framework and nothing of an extra."""
    unwanted = {"fastapi", "starlette", "aiohttp", "litestar", "typer", "rich", "aiosmtpd", "uvicorn"}
    code = "import sys, offloop; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)

    assert not unwanted & set(loaded.stdout.split())
