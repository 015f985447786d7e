"""What offloop costs and what its loop feels, beside others in the same run: `nox -s bench`, or `python -m benchmarks`.

A part is a module with a `measure(scale)` that gives plain data; `page` makes tables and figures of it. Nothing here is
a test: no figure fails a run.
"""
