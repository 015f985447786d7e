"""Tracebacks as a mail shows them: bounded, with the application set off."""

from __future__ import annotations

import asyncio
import json

from mails import caught, record
from offloop.mailing.redaction import Redactor
from offloop.mailing.shown import Shown
from offloop.mailing.traces import Call, Failure, cause_of, failures_of

SHOWN = Shown(Redactor(""))


def shown(error: object, calls: int = 60) -> tuple[tuple[Failure, ...], int]:
    """Give what is shown of a function's exception."""
    exception = record(exc_info=error).exception
    assert exception is not None
    return failures_of(exception, SHOWN, calls)


def deep(levels: int) -> None:
    """Fail deep down."""
    if levels:
        deep(levels - 1)
    raise ValueError(levels)


def test_middle_of_a_deep_traceback_is_left_out() -> None:
    """The innermost calls tell most, the outermost where it came from; what is left out is counted."""
    (failure,), left = shown(caught(lambda: deep(50)), calls=8)
    assert left == 52 - 8
    assert [call.omitted for call in failure.calls] == [0, 0, left, 0, 0, 0, 0, 0]
    assert failure.calls[-1].source == "raise ValueError(levels)"


def test_recursion_that_was_cut_before_says_so() -> None:
    """Frames that were never frozen are counted too."""

    def endless(level: int) -> None:
        if level == 900:
            raise ValueError
        endless(level + 1) if level % 2 else deeper(level + 1)

    def deeper(level: int) -> None:
        endless(level)

    (failure,), _ = shown(caught(lambda: endless(0)), calls=2_000)
    omitted = sum(call.omitted for call in failure.calls)
    assert len(failure.calls) + omitted >= 900


def test_long_chain_is_bounded() -> None:
    """Of very many causes some are shown, and that there are more is counted."""

    def chain() -> None:
        error = ValueError("0")
        for number in range(1, 40):
            following = ValueError(str(number))
            following.__cause__ = error
            error = following
        raise error

    failures, _ = shown(caught(chain))
    assert len(failures) == 12
    assert failures[-1].message == "ValueError: 39"


def test_large_group_is_bounded() -> None:
    """Of very many members some are shown, those within groups deeper in."""

    def fail() -> None:
        inner = ExceptionGroup("inner", [KeyError("k")])
        raise ExceptionGroup("outer", [inner, *(OSError(str(number)) for number in range(30))])

    failures, left = shown(caught(fail))
    assert [failure.depth for failure in failures[:4]] == [0, 1, 2, 1]
    assert failures[1].heading == "1 of 31 in this group:"
    assert left > 0


def test_library_call_has_a_short_path() -> None:
    """A library's file stands there without the folder that it is installed in."""
    failures, _ = shown(caught(lambda: json.loads("{")))
    library = [call for failure in failures for call in failure.calls if not call.application]
    assert library
    assert all(call.file.startswith("json/") for call in library)
    assert [bool(call.source) for call in library] == [False] * (len(library) - 1) + [True]


def test_cause_names_the_applications_file() -> None:
    """The file is the application's innermost one; an exception that was never raised has none."""
    assert cause_of(record(exc_info=(KeyError, KeyError("x"), None))) == ("KeyError", "", "'x'")
    assert cause_of(record()) is None
    assert cause_of(record(exc_info=caught(lambda: asyncio.run(None)))) == (  # type: ignore[arg-type]
        "ValueError", "test_traces.py", "a coroutine was expected, got None"
    )  # fmt: skip


def test_call_without_source_is_shown() -> None:
    """What was compiled from no file has no source line."""
    namespace: dict[str, object] = {}
    exec(compile("def f():\n    raise ValueError", "<made up>", "exec"), namespace)
    (failure,), _ = shown(caught(namespace["f"]))  # type: ignore[arg-type]
    assert failure.calls[-1] == Call(file="<made up>", line=2, function="f", source="", application=True)
