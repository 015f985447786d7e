"""A `LogRecord` that is made at a third of the cost, by not working out what is rarely read.

At creation a `FastRecord` notes in one tuple what was true then: place, time, thread, task, process. The tuple never
changes, so that a queue may share it instead of copying. File name, module, milliseconds and the dictionary of
attributes come into being when somebody first looks at the dictionary, asks for one of those, or sets anything; from
then on the record is an ordinary one, with an ordinary `__dict__`, in the order that the standard class has.

Nothing here raises what the standard class does not, nothing takes a lock while a record is made.
"""

from __future__ import annotations

import asyncio
import copyreg
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from logging import LogRecord
from threading import Lock
from typing import Any, ClassVar, cast

from offloop.errors import ConfigError

__all__ = ["FastRecord", "install", "make", "uninstall"]

Fields = tuple[Any, ...]
"""What is known of a record from its creation on: see `_NAMES`."""

_NAMES = (
    *("msg", "args", "exc_info", "stack_info", "time", "processName"),
    *("name", "levelname", "levelno", "pathname", "lineno", "funcName", "process", "thread", "threadName", "taskName"),
)
MSG, ARGS, EXC_INFO, STACK_INFO, TIME = range(5)
LEVELNO = _NAMES.index("levelno")

_KNOWN = (
    *("name", "msg", "args", "levelname", "levelno", "pathname", "filename", "module", "exc_info", "exc_text"),
    *("stack_info", "lineno", "funcName", "created", "msecs", "relativeCreated", "thread", "threadName"),
    *("processName", "process", "taskName"),
)
_STANDARD = tuple(LogRecord("", 0, "", 0, "", (), None).__dict__)
HAS_TASKS = "taskName" in _STANDARD  # 3.12 and later
SITE = slice(_NAMES.index("name"), None if HAS_TASKS else _NAMES.index("taskName"))
"""The fields that formatters want, together; the last of them the task's name, where records have one."""
UNDERSTOOD = _STANDARD in {_KNOWN, _KNOWN[:-1]}
"""Whether records of this Python have the attributes that are known here."""

# By time_ns since 3.13. Looked up at each call, as the standard class does: tests set the clock there.
IN_NS = isinstance(cast("object", logging._startTime), int)  # type: ignore[attr-defined]  # noqa: SLF001

# One dictionary look-up each, where the public function is a call or two; they fall back on it.
_level_names: dict[object, str] = getattr(logging, "_levelToName", {})
_threads: Mapping[int, threading.Thread] = getattr(threading, "_active", {})

_find_module = sys.modules.get

# Of these no mapping is made; to ask `Mapping` costs as much as to note five fields.
_NO_MAPPINGS = frozenset({str, int, float, bool, type(None), bytes, tuple, list})

_MAX_PATHS = 4_096
_files: dict[str, tuple[str, str]] = {}

# Real dictionaries of instances, past the property that stands in their way.
_dict_of: Callable[[LogRecord], dict[str, Any]] = LogRecord.__dict__["__dict__"].__get__
_put_dict: Callable[[LogRecord, dict[str, Any]], None] = LogRecord.__dict__["__dict__"].__set__


class Noted(LogRecord):
    """A record with a place for what was noted at its creation."""

    __slots__ = ("_fields",)
    _fields: Fields | None


_note: Callable[[LogRecord, Fields | None], None] = Noted.__dict__["_fields"].__set__
_new = cast("Callable[[type[FastRecord]], FastRecord]", object.__new__)


class Lazy:
    """What a record of a tuple of fields has over others; filled, it is one of the class that `ordinary_of` tells.

    As long as it has its fields nothing was set on it, and its dictionary is empty.
    """

    __slots__ = ()
    places: ClassVar[frozenset[str]] = frozenset()
    """Attributes that have a place of their own: to set them changes nothing of what was noted."""

    __dict__ = property(lambda self: _filled(self))  # pyright: ignore[reportAssignmentType]  # noqa: PLW0108 - it stands below

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self.places:
            _filled(cast("LogRecord", self))
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        _filled(cast("LogRecord", self))
        object.__delattr__(self, name)

    def __getstate__(self) -> object:
        return _filled(cast("LogRecord", self))

    def __reduce_ex__(self, protocol: Any) -> Any:
        _filled(cast("LogRecord", self))
        return self.__reduce_ex__(protocol)  # the other class's


class _FilledRecord(Noted):
    """A fast record that somebody looked at: as the standard one in all but the name of its class."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickled or copied, it is a plain `LogRecord`: whoever unpickles it needs no offloop."""
        # Not by `copyreg.__newobj__`: pickle wants the class of what it pickles there.
        return copyreg._reconstructor, (LogRecord, object, None), self.__dict__  # type: ignore[attr-defined]  # noqa: SLF001

    def __getstate__(self) -> object:
        return self.__dict__


class FastRecord(Lazy, Noted):
    """A `LogRecord` that costs a third where `make` makes it.

    It has every attribute that the standard class gives, with the values of the moment of its creation: whatever is
    worked out later comes from what was noted then. `isinstance`, `vars`, formats, `makeLogRecord` see no difference.
    A pickle or a copy of it is a plain `LogRecord`. Its class changes to another (private) one when somebody first
    looks at its `__dict__` or sets an attribute, which is why it can have no subclasses: have those of `LogRecord`.

    In a child forked by C code that tells Python nothing of it, `process` is the parent's.
    """

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Note what `make` does, which is quicker than to call the class."""
        _note(self, make(*args, **kwargs)._fields)

    def __init_subclass__(cls) -> None:
        msg = "FastRecord changes its class when it is looked at, and can have no subclass: derive from LogRecord"
        raise TypeError(msg)


def make(  # noqa: PLR0913, PLR0917 - the standard signature; calls cost more than lines
    name: str,
    level: int,
    pathname: str,
    lineno: int,
    msg: object,
    args: Any,
    exc_info: Any,
    func: str | None = None,
    sinfo: str | None = None,
    **_kwargs: object,
) -> FastRecord:
    """A `FastRecord` that notes what is true now, for `logging.setLogRecordFactory`; `install` and `Pipeline` do that.

    As with the standard class, other keywords are ignored.
    """
    now = time.time_ns() if IN_NS else time.time()
    if args and len(args) == 1 and type(args[0]) not in _NO_MAPPINGS and isinstance(args[0], Mapping) and args[0]:
        args = args[0]
    try:
        levelname = _level_names[level]
    except (KeyError, TypeError):
        levelname = logging.getLevelName(level)
    thread: int | None
    if logging.logThreads:
        thread = threading.get_ident()
        try:
            thread_name = _threads[thread].name
        except KeyError:
            thread_name = threading.current_thread().name
    else:
        thread = thread_name = None
    if logging.logMultiprocessing:
        processes = _find_module("multiprocessing.process")
        process_name = "MainProcess" if processes is None else _process_name(processes)
    else:
        process_name = None
    process = _pid if logging.logProcesses else None
    task = None
    if HAS_TASKS and logging.logAsyncioTasks:  # type: ignore[attr-defined,unused-ignore]
        # Asked of the loop: without one `current_task` raises, which costs more than all the rest.
        loop = asyncio._get_running_loop()  # noqa: SLF001 - documented as "for framework developers"
        task = None if loop is None else asyncio.current_task(loop)
    task_name = None if task is None else task.get_name()
    record = _new(FastRecord)
    # In the order of _NAMES.
    # fmt: off
    _note(record, (
        msg, args, exc_info, sinfo, now, process_name,
        name, levelname, level, pathname, lineno, func, process, thread, thread_name, task_name,
    ))
    # fmt: on
    return record


ordinary_of: dict[type, type[LogRecord]] = {FastRecord: _FilledRecord}
"""What a lazy record is once it was filled."""


def fields_of(record: Any) -> Fields | None:
    """What was noted of the record, if that is all there is: nothing was changed, nothing was added."""
    return record._fields if isinstance(record, Lazy) else None  # type: ignore[attr-defined]


def attributes_of(record: LogRecord) -> dict[str, Any]:
    """A copy of the record's attributes; it is not looked at for that."""
    fields = fields_of(record)
    return record.__dict__.copy() if fields is None else attributes(fields)


def attributes(fields: Fields) -> dict[str, Any]:
    """All attributes of a record, in the standard order."""
    # fmt: off
    (
        msg, args, exc_info, stack_info, now, process_name,
        name, levelname, levelno, pathname, lineno, func, process, thread, thread_name, task_name,
    ) = fields
    # fmt: on
    filename, module = file_of(pathname)
    created, msecs, relative = _times(now)
    # In two parts: of more than fifteen the compiler makes a dictionary that grows one by one, at twice the cost.
    whole = {
        "name": name,
        "msg": msg,
        "args": args,
        "levelname": levelname,
        "levelno": levelno,
        "pathname": pathname,
        "filename": filename,
        "module": module,
        "exc_info": exc_info,
        "exc_text": None,
        "stack_info": stack_info,
        "lineno": lineno,
        "funcName": func,
        "created": created,
        "msecs": msecs,
    }
    whole["relativeCreated"] = relative
    whole["thread"] = thread
    whole["threadName"] = thread_name
    whole["processName"] = process_name
    whole["process"] = process
    if HAS_TASKS:
        whole["taskName"] = task_name
    return whole


def created_of(fields: Fields) -> float:
    """Seconds since the epoch."""
    now: float = fields[TIME]
    return now / 1e9 if IN_NS else now


def _filled(record: Any) -> dict[str, Any]:
    """Make an ordinary record of a lazy one; gives its dictionary. Two threads may do so at once."""
    fields = record._fields
    if fields is not None:
        whole = attributes(fields)
        # No thread switch between these two: who comes second must not undo what was set after the first.
        if record._fields is not None:
            _put_dict(record, whole)
        _note(record, None)  # it may hold a traceback
    ordinary = ordinary_of.get(cast("type[LogRecord]", type(record)))
    if ordinary is not None:
        object.__setattr__(record, "__class__", ordinary)
    return _dict_of(record)


def _reader(index: int) -> property:
    name = _NAMES[index]

    def read(record: Noted) -> object:
        try:
            return record._fields[index]  # type: ignore[index]
        except TypeError:  # another thread looked at it meanwhile
            return _dict_of(record)[name]

    return property(read)


def _finder(name: str) -> property:
    return property(lambda record: _filled(record)[name])


def _read_created(record: Noted) -> object:
    fields = record._fields
    return _dict_of(record)["created"] if fields is None else created_of(fields)


for _name in _STANDARD:
    setattr(Lazy, _name, _reader(_NAMES.index(_name)) if _name in _NAMES else _finder(_name))
Lazy.created = property(_read_created)  # type: ignore[attr-defined]
Lazy.exc_text = property(lambda record: None if record._fields else _dict_of(record)["exc_text"])  # type: ignore[attr-defined]


def _process_name(processes: Any) -> Any:
    try:
        return processes._current_process._name  # noqa: SLF001 - `current_process().name` is two calls
    except Exception:  # noqa: BLE001 - it is being imported at this moment
        return "MainProcess"


def file_of(pathname: Any) -> tuple[Any, str]:
    """File name and module of a path."""
    try:
        known = _files.get(pathname)
        if known is not None:
            return known
        filename = os.path.basename(pathname)  # noqa: PTH119 - a Path costs twenty times as much
        found = filename, os.path.splitext(filename)[0]  # noqa: PTH122
    except (TypeError, ValueError, AttributeError):
        return pathname, "Unknown module"
    if type(pathname) is str:
        if len(_files) >= _MAX_PATHS:
            _files.clear()  # code that is compiled anew under ever new names
        _files[pathname] = found
    return found


def _times(now: Any) -> tuple[float, float, float]:
    """`created`, `msecs`, `relativeCreated`, by the arithmetic of this Python."""
    start = cast("Any", logging)._startTime  # noqa: SLF001
    if not IN_NS:
        return now, int((now - int(now)) * 1000) + 0.0, (now - start) * 1000
    created, msecs = now / 1e9, now % 1_000_000_000 // 1_000_000 + 0.0
    if msecs == 999.0 and int(created) != now // 1_000_000_000:  # noqa: PLR2004 - as a float it was rounded up
        msecs = 0.0
    return created, msecs, (now - start) / 1e6


# -- the factory -----------------------------------------------------------------------------------------------------


_lock = Lock()
_users = 0
_found: Callable[..., LogRecord] = LogRecord
_pid = os.getpid()


def install() -> None:
    """Have every logger make `FastRecord`s; as often as it is called, `uninstall` is to be called.

    On a Python whose records have other attributes than offloop knows, they stay the standard ones.

    Raises:
        ConfigError: Somebody installed a factory that is not the standard one. A factory that calls the one before it,
            as in the logging cookbook, works if it is installed after this.
    """
    global _users, _found  # noqa: PLW0603 - as `logging` has one factory
    if not UNDERSTOOD:  # pragma: no cover - a Python to come
        return
    with _lock:
        current = logging.getLogRecordFactory()
        if current not in {LogRecord, FastRecord, make} and not _users:
            msg = (
                f"fast_records would replace the record factory that is installed, {current!r}: call"
                " offloop.records.install() before that is installed, and have it call the factory that it found;"
                " or leave fast_records out"
            )
            raise ConfigError(msg)
        if current is LogRecord or not _users:
            _found = current
            logging.setLogRecordFactory(make)
        _users += 1


def uninstall() -> None:
    """Have loggers make what they made before the first `install`, once all who called that have called this.

    A factory that was installed since stays.
    """
    global _users  # noqa: PLW0603 - as above
    with _lock:
        if not _users:
            return
        _users -= 1
        if not _users and logging.getLogRecordFactory() is make:
            logging.setLogRecordFactory(_found)


def _in_child() -> None:
    global _lock, _pid  # noqa: PLW0603 - as above
    _lock = Lock()
    _pid = os.getpid()


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_in_child)
