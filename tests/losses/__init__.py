"""The loss table: programs that end, fork and fail in every way, with offloop and with others, and what becomes of their records.

`python -m losses` (in `tests`, or with it on the path) writes docs/explanation/loss.md; `nox -s loss` does it with the
packages it needs.
"""
