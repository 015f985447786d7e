"""Exceptions frozen where they were logged, rendered later and elsewhere.

A live traceback changes after the call (it is raised again, notes are added), pins the locals of every frame, and may
run a `__del__` wherever it is let go. So the caller keeps type, text, notes, chain, and for each frame its code, last
instruction and line; no frame and no exception survives. Rendering reads source files (linecache) and belongs in a
worker thread.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from types import CodeType, TracebackType
from typing import cast

__all__ = ["Frame", "FrozenException", "freeze"]

# A recursion of a million frames, or a chain as long, costs memory and time in the caller: both are cut.
_MAX_FRAMES = 1_000
_MAX_EXCEPTIONS = 100
_MAX_TEXT = 64 * 1024  # characters of a message, or of a note
_MAX_NOTES = 100
_FRAME_BYTES = 350  # about what a frame takes, with the lines it is rendered as

SyntaxDetails = tuple[str | None, int | None, int | None, str | None, int | None, int | None]
"""File, line, offset, text, end line and end offset, as `SyntaxError` takes them."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a traceback: enough to find the source again, and nothing that keeps a local alive."""

    code: CodeType
    lasti: int
    lineno: int

    @property
    def filename(self) -> str:
        """The source file."""
        return self.code.co_filename

    @property
    def name(self) -> str:
        """The function's name."""
        return self.code.co_name

    def summary(self) -> traceback.FrameSummary:
        """The frame as `traceback` formats it, with the columns of the failing instruction where the code has them."""
        end_lineno = colno = end_colno = None
        if self.lasti >= 0:
            position = next(islice(self.code.co_positions(), self.lasti // 2, None), None)
            if position is not None:
                _, end_lineno, colno, end_colno = position
        return traceback.FrameSummary(
            self.filename,
            self.lineno,
            self.name,
            lookup_line=False,
            end_lineno=end_lineno,
            colno=colno,
            end_colno=end_colno,
        )


@dataclass(slots=True, eq=False)
class FrozenException:
    """An exception as it was when it was logged.

    Attributes:
        module: Of its class.
        qualname: Of its class.
        message: Its `str`, or a note that `str` failed; at most 64 Ki characters.
        notes: What `add_note` had added by then; at most 100, each as long as a message may be.
        frames: Oldest call first.
        omitted: Frames left out of the middle of a very deep traceback.
        cause: From `raise ... from`.
        context: The exception that was being handled, where a traceback would show it: not beside a cause, not after
            `raise ... from None`.
        suppress_context: Whether `context` is hidden (`raise ... from None`).
        exceptions: The members of a group, None for any other exception.
        syntax: The details of a `SyntaxError`, None for any other.
    """

    module: str
    qualname: str
    message: str
    notes: tuple[str, ...] = ()
    frames: tuple[Frame, ...] = ()
    omitted: int = 0
    cause: FrozenException | None = None
    context: FrozenException | None = None
    suppress_context: bool = False
    exceptions: tuple[FrozenException, ...] | None = None
    syntax: SyntaxDetails | None = None
    _text: str | None = field(default=None, repr=False)

    @property
    def type_name(self) -> str:
        """The class as a traceback names it: without a module for builtins and `__main__`."""
        return self.qualname if self.module in {"builtins", "__main__"} else f"{self.module}.{self.qualname}"

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory, chain, members and rendered text included."""
        size = 0
        waiting: list[FrozenException] = [self]
        while waiting:
            node = waiting.pop()
            texts = len(node.message) + sum(map(len, node.notes))
            size += 500 + 2 * texts + _FRAME_BYTES * len(node.frames)
            waiting.extend(
                linked for linked in (node.cause, node.context, *(node.exceptions or ())) if linked is not None
            )
        return size

    def render(self) -> str:
        """The text the standard formatter would have given, made once; reads source files.

        Spelling suggestions ("Did you mean") are left out: they need the locals of a live frame.
        """
        if self._text is None:
            stand_in = _stand_in(self)
            summary = traceback.TracebackException(type(stand_in), stand_in, None)
            _fill(summary, self)
            self._text = "".join(summary.format()).rstrip("\n")
        return self._text

    def text(self) -> str:
        """As `render`, or `brief` where that fails: an odd exception class. Never fails."""
        try:
            return self.render()
        except Exception:  # noqa: BLE001 - the plain form says as much
            return self.brief()

    def brief(self) -> str:
        """As `render`, but from memory alone: no source lines, no members of a group. Never fails."""
        lines = ["Traceback (most recent call last, without source):"]
        lines += [f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}' for frame in _shown(self)]
        lines += [f"{self.type_name}: {self.message}" if self.message else self.type_name, *self.notes]
        linked = self.cause or self.context
        return "\n".join(lines) if linked is None else "\n".join([linked.brief(), "", *lines])


def freeze(error: BaseException) -> FrozenException:
    """Freeze an exception with its chain and, for a group, its members. Never raises, keeps no reference to it."""
    seen: set[int] = set()
    top = _shallow(error, seen)
    left = _MAX_EXCEPTIONS - 1
    # The order of `traceback.TracebackException`: it decides where an exception that is linked twice is shown.
    waiting = [(top, error)]
    while waiting:
        frozen, live = waiting.pop()
        cause = live.__cause__
        if cause is not None and id(cause) not in seen and left > 0:
            left -= 1
            frozen.cause = _shallow(cause, seen)
            waiting.append((frozen.cause, cause))
        context = None if frozen.cause is not None or live.__suppress_context__ else live.__context__
        if context is not None and id(context) not in seen and left > 0:
            left -= 1
            frozen.context = _shallow(context, seen)
            waiting.append((frozen.context, context))
        if isinstance(live, BaseExceptionGroup):
            # Counted, not looked up in `seen`: a group may hold one exception many times, and so on within it.
            members = _members_of(cast("BaseExceptionGroup[BaseException]", live))[:left]
            left -= len(members)
            frozen.exceptions = tuple(_shallow(member, seen) for member in members)
            waiting.extend(zip(frozen.exceptions, members, strict=True))
    return top


def _members_of(group: BaseExceptionGroup[BaseException]) -> Sequence[BaseException]:
    # The base class's own: a subclass may have something else under this name.
    return cast("Sequence[BaseException]", BaseExceptionGroup.exceptions.__get__(group))


def _shallow(error: BaseException, seen: set[int]) -> FrozenException:
    seen.add(id(error))
    frames, omitted = _frames(error.__traceback__)
    return FrozenException(
        module=str(type(error).__module__),
        qualname=type(error).__qualname__,
        message=_text_of(error),
        notes=tuple(_notes_of(error)),
        frames=frames,
        omitted=omitted,
        suppress_context=error.__suppress_context__,
        syntax=_syntax(error),
    )


def _syntax(error: BaseException) -> SyntaxDetails | None:
    if not isinstance(error, SyntaxError):
        return None
    return (error.filename, error.lineno, error.offset, error.text, error.end_lineno, error.end_offset)


def _frames(trace: TracebackType | None) -> tuple[tuple[Frame, ...], int]:
    frames: list[Frame] = []
    while trace is not None:
        frames.append(Frame(trace.tb_frame.f_code, trace.tb_lasti, trace.tb_lineno))
        trace = trace.tb_next
    omitted = len(frames) - _MAX_FRAMES
    if omitted <= 0:
        return tuple(frames), 0
    half = _MAX_FRAMES // 2
    return (*frames[:half], *frames[-half:]), omitted


def _text_of(error: BaseException) -> str:
    try:
        return _cut(str.__str__(str(error.msg if isinstance(error, SyntaxError) else error)))
    except Exception as failure:  # noqa: BLE001 - the text says so; a log call raises nothing
        return f"<str() of this exception failed: {type(failure).__name__}>"


def _notes_of(error: BaseException) -> Iterator[str]:
    try:
        notes = getattr(error, "__notes__", None)
    except Exception as failure:  # noqa: BLE001 - as above
        yield f"<the notes of this exception can't be read: {type(failure).__name__}>"
        return
    if isinstance(notes, Sequence) and not isinstance(notes, str):
        for note in tuple(cast("Sequence[object]", notes))[:_MAX_NOTES]:
            try:
                yield _cut(str(note))
            except Exception as failure:  # noqa: BLE001 - as above
                yield f"<str() of this note failed: {type(failure).__name__}>"


def _cut(text: str) -> str:
    left = len(text) - _MAX_TEXT
    return text if left <= 0 else f"{text[:_MAX_TEXT]} <{left} characters left out>"


class _Text:
    """Gives a stand-in the frozen text, whatever its base class would say."""

    frozen_text = ""

    def __str__(self) -> str:
        return self.frozen_text


def _stand_in(frozen: FrozenException) -> BaseException:
    """An exception that `traceback` formats like the frozen one.

    `TracebackException` takes only exceptions, and knows groups, notes, chains and carets better than a copy of it here
    would on each Python; a stand-in has the class's name and the frozen text.
    """
    namespace = {"__module__": frozen.module, "__qualname__": frozen.qualname}
    name = frozen.qualname.rpartition(".")[2]
    error: BaseException
    if frozen.exceptions is not None:
        group = type(name, (_Text, BaseExceptionGroup), namespace)
        # A group can't be empty; one whose members were cut shows that they were.
        members = [_stand_in(member) for member in frozen.exceptions] or [Exception("<members left out>")]
        error = group(frozen.message, members)
    elif frozen.syntax is not None:
        error = type(name, (SyntaxError,), namespace)(frozen.message, frozen.syntax)
    else:
        error = type(name, (_Text, Exception), namespace)()
    error.frozen_text = frozen.message  # type: ignore[attr-defined]
    for note in frozen.notes:
        error.add_note(note)
    error.__cause__ = None if frozen.cause is None else _stand_in(frozen.cause)
    error.__context__ = None if frozen.context is None else _stand_in(frozen.context)
    error.__suppress_context__ = frozen.suppress_context
    return error


def _fill(summary: traceback.TracebackException, frozen: FrozenException) -> None:
    """Give each exception of the summary the frames of its frozen twin."""
    if frozen.frames:  # one that was never raised has none, and no header
        summary.stack = traceback.StackSummary.from_list([frame.summary() for frame in _shown(frozen)])
    if summary.__cause__ is not None and frozen.cause is not None:
        _fill(summary.__cause__, frozen.cause)
    if summary.__context__ is not None and frozen.context is not None:
        _fill(summary.__context__, frozen.context)
    members = cast("list[traceback.TracebackException] | None", getattr(summary, "exceptions", None))
    for member, twin in zip(members or (), frozen.exceptions or (), strict=False):
        _fill(member, twin)


def _shown(frozen: FrozenException) -> Sequence[Frame]:
    if not frozen.omitted:
        return frozen.frames
    code = compile("", f"<{frozen.omitted} frames left out>", "exec")
    half = len(frozen.frames) // 2
    return (*frozen.frames[:half], Frame(code.replace(co_name="..."), -1, 0), *frozen.frames[half:])
