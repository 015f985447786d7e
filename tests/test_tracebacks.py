"""Frozen exceptions: the text of the standard library, without the frames."""

from __future__ import annotations

import gc
import logging
import sys
import traceback
import weakref
from typing import Any

import pytest

from offloop.tracebacks import freeze


def raised(error: BaseException, cause: BaseException | None = None) -> Any:
    """The error as it is after it was raised and caught."""
    try:
        if cause is not None:
            raise error from cause
        raise error
    except BaseException as caught:
        return caught


def standard(error: BaseException) -> str:
    """What the standard formatter writes."""
    return logging.Formatter().formatException((type(error), error, error.__traceback__))


def chained() -> BaseException:
    try:
        try:
            {}["missing"]
        except KeyError as first:
            raise ValueError("second\nwith two lines") from first
    except ValueError:
        try:
            raise OSError(2, "third", "file")
        except OSError as third:
            return third
    raise AssertionError


def suppressed() -> BaseException:
    try:
        try:
            int("x")
        except ValueError:
            raise TypeError("alone") from None
    except TypeError as error:
        return error
    raise AssertionError


def grouped() -> BaseException:
    inner = ExceptionGroup("inner", [raised(ValueError("a")), raised(TypeError("b"), KeyError("c"))])
    return raised(BaseExceptionGroup("outer", [raised(inner), raised(KeyboardInterrupt())]))


def noted() -> BaseException:
    error = ValueError("noted")
    error.add_note("one\ntwo")
    error.add_note("three")
    return raised(error)


def unparsed() -> BaseException:
    try:
        compile("x = (1,\ny = 2", "some.conf", "exec")
    except SyntaxError as error:
        return error
    raise AssertionError


def recursive(depth: int = 0) -> int:
    return recursive(depth + 1) + 1


def endless() -> BaseException:
    try:
        recursive()
    except RecursionError as error:
        return error
    raise AssertionError


class OutOfStock(Exception):
    class Inner(Exception):
        """A class within a class."""

    def __str__(self) -> str:
        return f"{self.args[0]} is gone"


def linked_twice() -> BaseException:
    error = ValueError("in a circle")
    other = TypeError("the other")
    other.__cause__ = error
    error.__cause__ = other
    return raised(error, other)


@pytest.mark.parametrize(
    "make",
    [
        chained,
        suppressed,
        grouped,
        noted,
        unparsed,
        endless,
        linked_twice,
        lambda: ValueError("never raised"),
        lambda: raised(ValueError()),
        lambda: raised(OutOfStock("milk")),
        lambda: raised(OutOfStock.Inner("x", 2)),
        lambda: raised(KeyError("k"), OutOfStock("m")),
        lambda: raised(SystemExit(3)),
        lambda: raised(SyntaxError("no details")),
        lambda: raised(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")),
        lambda: raised(ExceptionGroup("many", [ValueError(str(number)) for number in range(30)])),
    ],
)
def test_rendered_text_is_the_standard_one(make) -> None:
    """Chains, groups, notes, syntax errors and recursion read as the standard formatter writes them."""
    error = make()
    assert freeze(error).render() == standard(error)


def test_carets_of_every_kind_of_expression_are_the_standard_ones() -> None:
    """The columns of the failing instruction survive the freezing."""
    with pytest.raises(ZeroDivisionError) as caught:
        str({"a": [number / (number - number) for number in [1]]}["a"][0])
    assert freeze(caught.value).render() == "".join(traceback.format_exception(caught.value)).rstrip("\n")


def test_change_after_freezing_is_not_seen() -> None:
    """A note, a further raise and a new cause change nothing."""
    error = raised(ValueError("as it was"))
    frozen, text = freeze(error), standard(error)
    error.add_note("later")
    error.__cause__ = KeyError("later")
    raised(error)
    assert frozen.render() == text
    assert frozen.notes == ()


def test_local_with_a_finalizer_is_not_held() -> None:
    """A local of a frame that raised dies when the caller lets the exception go."""

    class Local:
        pass

    def fails() -> None:
        local = Local()
        watched.append(weakref.ref(local))
        raise ValueError(local)

    watched: list[weakref.ref[Local]] = []
    frozen = None
    try:
        fails()
    except ValueError as error:
        frozen = freeze(error)
    gc.collect()
    assert watched[0]() is None
    assert frozen is not None
    assert frozen.qualname == "ValueError"


def test_text_that_fails_is_named() -> None:
    """An exception, or a note, whose `str` raises is frozen with a note of that."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise OSError

    error: Any = Mute()
    error.__notes__ = [Mute(), "fine"]
    frozen = freeze(error)
    assert frozen.message == "<str() of this exception failed: OSError>"
    assert frozen.notes == ("<str() of this note failed: OSError>", "fine")
    assert "OSError" in frozen.render()


def test_notes_that_cannot_be_read_are_named() -> None:
    """An exception whose `__notes__` raises, or is no list, harms nobody."""

    class Guarded(Exception):
        @property
        def __notes__(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
            raise OSError

    assert freeze(Guarded("x")).notes == ("<the notes of this exception can't be read: OSError>",)
    odd: Any = ValueError("x")
    odd.__notes__ = "no list"
    assert freeze(odd).notes == ()


def test_frame_tells_file_and_function() -> None:
    """A frame names its source file, function and line."""
    (frame,) = freeze(raised(ValueError("x"))).frames
    assert (frame.filename, frame.name) == (__file__, "raised")
    assert frame.summary().lineno == frame.lineno


def test_very_deep_traceback_is_cut_in_the_middle() -> None:
    """Of a traceback of thousands of frames both ends are kept, and the gap is told."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(5_000)
    try:
        frozen = freeze(endless())
    finally:
        sys.setrecursionlimit(limit)
    assert len(frozen.frames) == 1_000
    assert frozen.omitted > 3_000
    assert f"<{frozen.omitted} frames left out>" in frozen.render()


def test_very_long_chain_and_group_are_cut() -> None:
    """Of a chain, or a group, of hundreds the first hundred are kept."""
    error: BaseException = ValueError("0")
    for number in range(300):
        error = raised(ValueError(str(number)), error)
    link, length = freeze(error), 1
    while link.cause is not None:
        link, length = link.cause, length + 1
    assert length == 100
    assert len(freeze(ExceptionGroup("g", [ValueError()] * 150)).exceptions or ()) == 99


def test_groups_within_groups_are_cut() -> None:
    """Of groups that hold one another many times a hundred members are kept, and an empty one says why."""
    group: ExceptionGroup[Any] = ExceptionGroup("g", [ValueError()] * 50)
    for _ in range(9):
        group = ExceptionGroup("g", [group] * 50)
    assert len(freeze(group).render()) < 100_000
    wide = ExceptionGroup("wide", [ExceptionGroup("narrow", [ValueError()]), *[ValueError()] * 150])
    assert "<members left out>" in freeze(wide).render()


def test_group_that_hides_its_members_is_frozen_with_them() -> None:
    """A subclass that redefines `exceptions` harms nobody."""

    class Hiding(ExceptionGroup):
        @property
        def exceptions(self) -> tuple[Exception, ...]:
            raise OSError

    assert [member.qualname for member in freeze(Hiding("g", [KeyError()])).exceptions or ()] == ["KeyError"]


def test_type_name_leaves_out_the_module_of_builtins() -> None:
    """The class is named as a traceback names it."""
    assert freeze(ValueError()).type_name == "ValueError"
    assert freeze(OutOfStock.Inner()).type_name == f"{__name__}.OutOfStock.Inner"


def test_text_is_made_once() -> None:
    """A second render gives the same string."""
    frozen = freeze(raised(ValueError("x")))
    assert frozen.render() is frozen.render()
