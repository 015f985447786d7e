"""`python -m offloop.cli`, where the `offloop` script is not on the path."""

from __future__ import annotations

from offloop.cli import main

main()
