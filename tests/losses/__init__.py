"""The loss table: what becomes of the records of programs that end, fork and fail, with offloop and with others.

`python -m losses` (in `tests`, or with it on the path) writes docs/explanation/loss.md; `nox -s loss` does it with the
packages it needs.
"""
