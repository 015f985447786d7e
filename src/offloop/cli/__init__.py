"""The command line: `offloop`.

Importing this imports nothing that is optional: what is missing is said in one line, when the command runs.
"""

from __future__ import annotations

import importlib
import sys

from offloop.errors import MissingExtra

__all__ = ["main"]


def main() -> None:
    """Run the `offloop` command with the process's arguments, and exit."""
    try:
        app = importlib.import_module("offloop.cli.app")
    except MissingExtra as error:
        sys.exit(f"offloop: {error}")
    app.app(prog_name="offloop")
