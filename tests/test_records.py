"""The quick record factory, checked against the standard class."""

from __future__ import annotations

import _thread
import asyncio
import copy
import json
import logging
import multiprocessing
import os
import pickle
import string
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from logging.handlers import SocketHandler
from types import MappingProxyType
from typing import Any, cast
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from offloop import ConfigError, JSONFormatter, Pipeline, QueueHandler, TextFormatter, records
from offloop.capture import Record, capture, extras, restore
from offloop.framing import PickleFormatter
from offloop.intake import OwnQueue
from offloop.records import FastRecord, fields_of
from offloop.spooling.codec import pack, unpack
from offloop.testing import MemorySink

NAMES = tuple(vars(logging.LogRecord("", 0, "", 0, "", (), None)))
INPUTS: tuple[Any, ...] = ("app", logging.INFO, "/srv/app/shop.cart.py", 7, "hello %s", ("you",), None, "buy", None)
NOW = 1_677_903_920_999_998_503
"""Nanoseconds whose float is rounded up to the next second, or nearly."""


def pair(*inputs: Any, now: int = NOW, **more: Any) -> tuple[logging.LogRecord, logging.LogRecord]:
    """A standard record and a fast one, made at the same moment of the same."""
    given = inputs or INPUTS
    with mock.patch("time.time_ns", return_value=now), mock.patch("time.time", return_value=now / 1e9):
        return logging.LogRecord(*given, **more), FastRecord(*given, **more)


def same(standard: logging.LogRecord, fast: logging.LogRecord) -> bool:
    """Whether both have equal attributes of equal types, in one order."""
    theirs, ours = vars(standard), vars(fast)
    assert list(ours.items()) == list(theirs.items())
    assert list(map(type, ours.values())) == list(map(type, theirs.values()))
    return set(NAMES) - theirs.keys() != set() or repr(fast) == repr(standard)


@pytest.fixture
def installed() -> Iterator[None]:
    records.install()
    yield
    records.uninstall()


# -- attribute by attribute ------------------------------------------------------------------------------------------

values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary())
USUAL: dict[str, Any] = {"name": "a", "level": 20, "msg": "m", "func": None, "sinfo": None}
mappings = st.dictionaries(st.text(), values)


@given(
    name=st.one_of(st.none(), st.text()),
    level=st.one_of(st.none(), st.integers(-10, 60), st.sampled_from(["INFO", "ODD"])),
    pathname=st.one_of(st.none(), st.integers(), st.binary(), st.text(alphabet="ab./\\\0 ")),
    msg=values,
    args=st.one_of(
        st.none(), mappings, st.lists(values, max_size=2), st.lists(st.one_of(values, mappings), max_size=3).map(tuple)
    ),
    func=st.one_of(st.none(), st.text()),
    sinfo=st.one_of(st.none(), st.text()),
    now=st.integers(0, 2**62),
)
@example(**USUAL, args=({},), pathname="/x/.hidden", now=1_677_903_920_999_999_900)
@example(**USUAL, args=({"k": 1},), pathname="/x/a.b.py", now=NOW)
def test_every_attribute_is_the_standard_one(now: int, **given: Any) -> None:
    """Whatever it is made of: read one by one before it is looked at, and as a dictionary."""
    inputs = [given.get(name) for name in ("name", "level", "pathname", "lineno", "msg", "args", "exc_info", "func")]
    args = given["args"]
    if isinstance(args, dict) and len(args) == 1:
        return  # the standard class looks for its first item, and fails
    standard, fast = pair(*inputs, given["sinfo"], now=now)
    for name in NAMES:
        one_alone = pair(*inputs, given["sinfo"], now=now)[1]
        assert getattr(one_alone, name) == getattr(standard, name), name
    assert isinstance(fast, logging.LogRecord)
    assert same(standard, fast)


class Lookup(Mapping[str, int]):
    """A mapping that is no dictionary."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __getitem__(self, key: str) -> int:
        return ord(key)

    def __iter__(self) -> Iterator[str]:
        return iter(string.ascii_letters[: self.size])

    def __len__(self) -> int:
        return self.size


@pytest.mark.parametrize(
    "argument",
    [{"a": 1}, {}, Lookup(2), Lookup(0), MappingProxyType({"a": 1}), [1], "a", 1.5],
    ids=lambda argument: type(argument).__name__,
)
def test_a_sole_mapping_is_the_arguments(argument: object) -> None:
    """As with the standard class, unless it is empty."""
    standard, fast = pair("a", 20, "p", 1, "%s", (argument,), None)
    assert fast.args == standard.args
    assert same(standard, fast)


def test_keywords_are_the_standard_ones() -> None:
    """Those it does not know are ignored, as ever; a level that can't be hashed is refused alike."""
    named: dict[str, Any] = dict(
        zip(("name", "level", "pathname", "lineno", "msg", "args", "exc_info"), INPUTS, strict=False)
    )
    assert same(*pair(*named.values(), func="f", sinfo="s", unknown=1))
    for factory in (logging.LogRecord, FastRecord):
        with pytest.raises(TypeError):
            factory(**{**named, "level": cast("Any", [])})


@pytest.mark.parametrize("switch", ["logThreads", "logProcesses", "logMultiprocessing", "logAsyncioTasks"])
async def test_switches_of_logging(switch: str) -> None:
    """What `logging` was told not to find out is None."""
    with mock.patch.object(logging, switch, new=False, create=True):
        standard, fast = pair()
    assert same(standard, fast)


def test_custom_level_names() -> None:
    """A level that was named later has its name."""
    logging.addLevelName(7, "SEVEN")
    assert same(*pair("a", 7, "p", 1, "m", (), None))


# -- what was true at its creation -----------------------------------------------------------------------------------


def test_thread_that_was_renamed_or_ended() -> None:
    """Its name is the one that it had."""
    made: list[tuple[logging.LogRecord, logging.LogRecord]] = []

    def work() -> None:
        made.append(pair())
        threading.current_thread().name = "after"

    thread = threading.Thread(target=work, name="before")
    thread.start()
    thread.join()
    assert made[0][1].threadName == "before"
    assert same(*made[0])


def test_thread_that_threading_does_not_know() -> None:
    """It gets the name that `threading` gives it then."""
    made: list[tuple[logging.LogRecord, logging.LogRecord]] = []
    done = threading.Event()

    def work() -> None:
        fast = FastRecord(*INPUTS)
        made.append((logging.LogRecord(*INPUTS), fast))
        done.set()

    _thread.start_new_thread(work, ())
    assert done.wait(5)
    standard, fast = made[0]
    assert (fast.thread, fast.threadName) == (standard.thread, standard.threadName)


def test_thread_whose_class_names_it() -> None:
    """A class attribute in place of the property is the name."""

    class Named(threading.Thread):
        name = "by class"  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

        def run(self) -> None:
            self.made = pair()

    thread = Named()
    thread.start()
    thread.join()
    assert thread.made[1].threadName == "by class"
    assert same(*thread.made)


async def test_task_that_was_renamed() -> None:
    """Its name is the one that it had; a callback has no task."""

    async def work() -> tuple[logging.LogRecord, logging.LogRecord]:
        made = pair()
        task = asyncio.current_task()
        assert task is not None
        task.set_name("after")
        return made

    assert same(*await asyncio.create_task(work(), name="before"))
    called: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: called.set_result(pair()))
    assert same(*await called)


def test_process_that_was_renamed() -> None:
    """Its name is the one that it had; while `multiprocessing` is being imported it is the main one."""
    process = multiprocessing.current_process()
    before = process.name
    process.name = "worker"
    try:
        standard, fast = pair()
    finally:
        process.name = before
    assert fast.processName == "worker"
    assert same(standard, fast)
    with mock.patch.dict(sys.modules, {"multiprocessing.process": None, "multiprocessing": None}):
        assert same(*pair())
    with mock.patch.dict(sys.modules, {"multiprocessing.process": object(), "multiprocessing": object()}):
        assert same(*pair())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_forked_child() -> None:
    """A child's records are its own; one of the parent stays the parent's."""
    source = (
        "import os, logging, sys\n"
        "from offloop.records import FastRecord\n"
        "make = lambda kind: kind('a', 20, 'p', 1, 'm', (), None)\n"
        "mine = make(FastRecord)\n"
        "parent = os.getpid()\n"
        "if os.fork():\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))\n"
        "theirs = make(FastRecord)\n"
        "ok = mine.process == parent and theirs.process == os.getpid() == make(logging.LogRecord).process\n"
        "os._exit(0 if ok else 3)\n"
    )
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == 0


def test_record_that_is_changed_before_it_is_looked_at() -> None:
    """What is derived comes from its creation, as with the standard class."""
    for name in NAMES:
        standard, fast = pair()
        setattr(fast, name, "changed")
        setattr(standard, name, "changed")
        assert same(standard, fast), name
        standard, fast = pair()
        delattr(fast, name)
        delattr(standard, name)
        assert same(standard, fast), name
        with pytest.raises(AttributeError):
            getattr(fast, name)
    standard, fast = pair()
    fast.request_id = standard.request_id = "r1"
    assert same(standard, fast)


# -- to everyone -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("looked_at", [False, True])
def test_pickle_is_a_plain_record(protocol: int, *, looked_at: bool) -> None:
    """In every protocol, with all attributes."""
    standard, fast = pair()
    if looked_at:
        vars(fast)
    data = pickle.dumps(fast, protocol)
    assert b"offloop" not in data
    loaded = pickle.loads(data)
    assert type(loaded) is logging.LogRecord
    assert same(standard, loaded)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
@pytest.mark.parametrize("looked_at", [False, True])
def test_copy(copied: Callable[[Any], Any], *, looked_at: bool) -> None:
    """A copy has all, and is changed without a change to the other."""
    standard, fast = pair()
    if looked_at:
        vars(fast)
    other = copied(fast)
    assert same(standard, other)
    other.msg = "changed"
    assert fast.msg == "hello %s"
    assert copied(pair()[0]).__getstate__() == copied(pair()[1]).__getstate__()
    assert set(cast("Any", FastRecord(*INPUTS)).__getstate__()) == set(NAMES)


def test_made_of_a_dictionary(installed: None) -> None:
    """`makeLogRecord` takes a fast record's dictionary, and gives one with it."""
    standard, fast = pair()
    assert same(standard, logging.makeLogRecord(fast.__dict__))
    assert logging.makeLogRecord({}).levelname == "Level None"


@pytest.mark.parametrize("style", ["%", "{", "$"])
def test_formats(style: Any) -> None:
    """Each attribute in each style, the time with its milliseconds."""
    shape = {"%": "%({})s", "{": "{{{}}}", "$": "${{{}}}"}[style]
    names = [*NAMES, "asctime", "message"]
    formatter = logging.Formatter(" ".join(shape.format(name) for name in names), style=style)
    standard, fast = pair()
    assert formatter.format(fast) == formatter.format(standard)
    assert same(standard, fast)


def test_extra(log: logging.Logger, installed: None) -> None:
    """It is set, and refused where it would overwrite, with the same words."""
    sink = MemorySink()

    def refusal(factory: Any, name: str) -> str:
        with mock.patch.object(logging, "_logRecordFactory", factory), pytest.raises(KeyError) as caught:
            log.info("x", extra={"mine": 1, name: 1})
        return str(caught.value)

    for name in [*NAMES, "message", "asctime"]:
        assert refusal(FastRecord, name) == refusal(logging.LogRecord, name)
    record = log.makeRecord(*INPUTS[:8], extra={"request_id": "r1"})
    assert list(vars(record)) == [*NAMES, "request_id"]
    assert extras(record) == {"request_id": "r1"}
    assert sink.messages == []


def test_two_threads_look_at_once() -> None:
    """Both see all of it, and what one set stays."""
    with ThreadPoolExecutor(4) as pool:
        for _ in range(200):
            record = FastRecord(*INPUTS)
            gate = threading.Barrier(4, timeout=5)

            def look(number: int, record: logging.LogRecord = record, gate: threading.Barrier = gate) -> bool:
                gate.wait()
                setattr(record, f"seen{number}", record.filename)
                return vars(record)["msg"] == record.msg

            assert all(pool.map(look, range(4)))
            assert [getattr(record, f"seen{number}") for number in range(4)] == ["shop.cart.py"] * 4


def test_reader_that_another_thread_overtakes() -> None:
    """Between the look-up of an attribute and its value the record may be filled: the value is the same."""
    standard, fast = pair()
    readers = {name: getattr(FastRecord, name).fget for name in NAMES}
    vars(fast)
    assert {name: read(fast) for name, read in readers.items()} == vars(standard)


def test_exception_is_let_go() -> None:
    """Who sets `exc_info` to None, as the standard `QueueHandler` does, holds nothing any more."""

    class Failure(Exception):
        pass

    try:
        raise Failure
    except Failure as error:
        seen = weakref.ref(error)
        record = FastRecord("a", 40, "p", 1, "m", (), sys.exc_info())
    assert record.exc_info is not None
    record.exc_info = None
    assert seen() is None


def test_no_subclasses() -> None:
    """It would lose its class as soon as somebody looks."""
    with pytest.raises(TypeError, match="derive from LogRecord"):

        class _Mine(FastRecord):
            pass


def test_many_paths_are_not_kept() -> None:
    """Code that is compiled anew again and again does not fill the memory."""
    for number in range(records._MAX_PATHS + 10):
        assert FastRecord("a", 20, f"/gen/{number}.py", 1, "m", (), None).module == str(number)
    assert len(records._files) <= records._MAX_PATHS


# -- through a pipeline ----------------------------------------------------------------------------------------------


def log_all(log: logging.Logger) -> None:
    """What takes the quick way, and what does not."""
    log.info("plain")
    log.warning("%s of %d", "one", 2, stack_info=True)
    log.info("named %(a)s", {"a": 1})
    log.info("list %s", [1])
    log.info("more", extra={"request_id": "r1", "items": [1]})
    log.info(("no", "text"))
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("failed")
    thread = threading.Thread(target=lambda: log.info("elsewhere"), name="other")
    thread.start()
    thread.join()


MOVING = {"created", "msecs", "relativeCreated", "lineno", "thread", "stack_info", "exc_text"}


async def delivered(log: logging.Logger, *, fast: bool) -> list[Record]:
    sink = MemorySink()
    async with Pipeline(sink, logger=log, fast_records=fast):
        log_all(log)
    return sink.records


async def test_sinks_see_what_they_always_saw(log: logging.Logger) -> None:
    """Every attribute of every record, whichever way it took."""
    for standard, fast in zip(await delivered(log, fast=False), await delivered(log, fast=True), strict=True):
        assert isinstance(fast, Record)
        assert fast.getMessage() == standard.getMessage()
        assert (fast.template, bool(fast.exception), fast.size_bytes) == (
            *(standard.template, bool(standard.exception)),
            standard.size_bytes,
        )
        assert extras(fast) == extras(standard)
        assert list(vars(fast)) == list(vars(standard))
        for name in vars(standard).keys() - MOVING:
            assert getattr(fast, name) == getattr(standard, name), name
        assert fast.module == "test_records"


async def test_quick_way_shares_what_was_noted(log: logging.Logger, installed: None) -> None:
    """Nothing is copied for the queue, and what another handler does to the record does not reach it."""
    queue = OwnQueue(10)
    handler = QueueHandler(queue)
    record = log.makeRecord(*INPUTS)
    noted = fields_of(record)
    assert handler.handle(record)
    record.msg, record.mine = "changed", 1
    (item,) = queue.container
    assert item is noted
    arrived = restore(item)
    assert arrived.getMessage() == "hello you"
    assert not hasattr(arrived, "mine")


@pytest.mark.parametrize("changed", ["filter", "formatter", "context", "looked at"])
async def test_careful_way(changed: str, log: logging.Logger, installed: None) -> None:
    """A handler with a filter or a formatter, or a record that somebody looked at, is handled as ever."""
    queue = OwnQueue(10)
    handler = QueueHandler(queue)
    record = log.makeRecord(*INPUTS)
    if changed == "filter":
        handler.addFilter(lambda record: not setattr(record, "seen", 1))
    elif changed == "formatter":
        handler.setFormatter(logging.Formatter("<%(filename)s>"))
    elif changed == "looked at":
        record.seen = 1
    handler.handle(record)
    (item,) = queue.container
    arrived = restore(item)
    assert arrived.getMessage() == ("<shop.cart.py>" if changed == "formatter" else "hello you")
    assert getattr(arrived, "seen", None) == (1 if changed in {"filter", "looked at"} else None)


async def test_full_queue_goes_by_level(log: logging.Logger) -> None:
    """The oldest goes for an ERROR, whatever the records are made of; the counts balance."""
    sink = MemorySink()
    async with Pipeline(sink, logger=log, queue_size=10, overflow="drop_old", fast_records=True) as pipeline:
        for number in range(10):
            log.warning("%d", number)
        for number in range(10):
            log.error("error %d", number)
    told = pipeline.stats().intake
    assert told.offered == 20
    assert [message for message in sink.messages if message.startswith("error")] == [f"error {n}" for n in range(10)]


def test_odd_tuples_on_a_queue() -> None:
    """A tuple that someone else put there is no record."""
    with pytest.raises((IndexError, TypeError)):
        restore(("odd",))


@pytest.fixture
def arrivals() -> tuple[Record, Record]:
    """A standard and a fast record as sinks get them."""
    standard, fast = pair()
    noted = fields_of(fast)
    assert noted is not None
    return restore(capture(standard)), restore(noted)


FORMATTERS = [
    *(JSONFormatter(fields=fields) for fields in ("plain", "otel", "ecs")),
    JSONFormatter(timestamp="epoch"),
    TextFormatter(),
    PickleFormatter(),
]


@pytest.mark.parametrize("formatter", FORMATTERS, ids=["plain", "otel", "ecs", "epoch", "text", "pickle"])
def test_own_formatters(formatter: Any, arrivals: tuple[Record, Record]) -> None:
    """The same bytes for a fast record, in a sink and on a plain handler; those of JSON need not fill it."""
    standard, fast = arrivals
    assert formatter.encode(fast) == formatter.encode(standard)
    if isinstance(formatter, JSONFormatter) and "ecs" not in repr(formatter):
        assert fields_of(fast) is not None
    standard_live, fast_live = pair(*INPUTS[:6], (OSError, OSError("x"), None), "f", "Stack:\n  x")
    assert formatter.encode(fast_live) == formatter.encode(standard_live)


def test_spool_keeps_all(arrivals: tuple[Record, Record]) -> None:
    """Written down and read again, it is what the standard one is."""
    standard, fast = arrivals
    assert pack(fast) == pack(standard)
    assert same(unpack(pack(standard)), unpack(pack(fast)))


def test_twin_and_pickle_in_a_sink(arrivals: tuple[Record, Record]) -> None:
    """A twin is changed alone; a pickle is a plain record; arguments that don't fit are told."""
    standard, fast = arrivals
    for twin in (fast.twin(), copy.copy(fast), copy.deepcopy(fast)):
        assert isinstance(twin, Record)
        assert twin.size_bytes == standard.size_bytes
        twin.msg = "changed %s"
        assert twin.twin().getMessage() == "changed you"
        assert fast.getMessage() == "hello you"
    assert same(pickle.loads(pickle.dumps(standard)), pickle.loads(pickle.dumps(fast)))
    fast.encodings = {}
    odd = fields_of(FastRecord("a", 20, "p", 1, "%d", ("x",), None))
    assert odd is not None
    assert "not rendered: TypeError" in restore(odd).getMessage()


async def test_plain_handler_as_a_sink(log: logging.Logger) -> None:
    """Its formatter finds every attribute."""
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(filename)s %(module)s %(threadName)s %(process)d %(message)s"))
    async with Pipeline(handler, MemorySink(), logger=log, fast_records=True):
        log.info("hello %s", "you")
    assert stream.getvalue() == f"test_records.py test_records MainThread {os.getpid()} hello you\n"


def test_standard_socket_handler() -> None:
    """What the standard handler pickles of it is what it pickles of the standard one."""
    handler = SocketHandler("127.0.0.1", 0)
    standard, fast = pair()
    assert handler.makePickle(fast) == handler.makePickle(standard)


# -- those who read its dictionary -----------------------------------------------------------------------------------


def test_python_json_logger() -> None:
    """All fields, by name and by default."""
    module = pytest.importorskip("pythonjsonlogger.json")
    for shape in (None, "%(asctime)s %(filename)s %(msecs)d %(threadName)s %(message)s"):
        standard, fast = pair()
        formatter = module.JsonFormatter(shape)
        assert json.loads(formatter.format(fast)) == json.loads(formatter.format(standard))


def test_structlog() -> None:
    """`ProcessorFormatter` and `ExtraAdder` find what they look for."""
    stdlib = pytest.importorskip("structlog.stdlib")
    processors = __import__("structlog").processors
    formatter = stdlib.ProcessorFormatter(
        foreign_pre_chain=[stdlib.ExtraAdder(), stdlib.add_logger_name, processors.CallsiteParameterAdder()],
        processors=[stdlib.ProcessorFormatter.remove_processors_meta, processors.JSONRenderer(sort_keys=True)],
    )
    standard, fast = pair()
    assert formatter.format(fast) == formatter.format(standard)
    standard, fast = pair()
    fast.request_id = standard.request_id = "r1"
    assert json.loads(formatter.format(fast))["request_id"] == "r1"


def test_sentry() -> None:
    """Breadcrumbs and extra data."""
    integration = pytest.importorskip("sentry_sdk.integrations.logging")
    handler = integration.BreadcrumbHandler()
    standard, fast = pair()
    assert handler.format(fast) == handler.format(standard)
    assert handler._breadcrumb_from_record(fast) == handler._breadcrumb_from_record(standard)
    assert handler._extra_from_record(pair()[1]) == handler._extra_from_record(standard) == {}


def test_opentelemetry() -> None:
    """Time, severity, body and attributes."""
    module = pytest.importorskip("opentelemetry.instrumentation.logging.handler")
    sdk = pytest.importorskip("opentelemetry.sdk._logs")
    handler = module.LoggingHandler(
        logger_provider=sdk.LoggerProvider(shutdown_on_exit=False), log_code_attributes=True
    )

    def shown(record: logging.LogRecord) -> tuple[object, ...]:
        made = handler._translate(record)
        return made.timestamp, made.severity_number, made.severity_text, made.body, dict(made.attributes)

    standard, fast = pair()
    assert shown(fast) == shown(standard)
    assert "code.file.path" in str(shown(pair()[1]))


# -- installing ------------------------------------------------------------------------------------------------------


async def test_pipeline_installs_and_restores(log: logging.Logger) -> None:
    """Nested ones and several: the last to leave restores what was there."""
    first, second = (Pipeline(MemorySink(), logger=log, fast_records=True) for _ in range(2))
    async with first:
        assert logging.getLogRecordFactory() is records.make
        async with second, first:
            pass
        assert logging.getLogRecordFactory() is records.make
    assert logging.getLogRecordFactory() is logging.LogRecord
    async with Pipeline(MemorySink(), logger=log):
        assert logging.getLogRecordFactory() is logging.LogRecord


def test_pipeline_that_can_not_start_installs_nothing() -> None:
    """No loop runs."""
    pipeline = Pipeline(MemorySink(), fast_records=True)
    with pytest.raises(RuntimeError):
        pipeline.start()
    assert logging.getLogRecordFactory() is logging.LogRecord


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_fast_records_is_true_or_false(value: Any) -> None:
    """Anything else is refused."""
    with pytest.raises(ConfigError, match="fast_records must be True or False"):
        Pipeline(MemorySink(), fast_records=value)


@pytest.fixture
def factory() -> Iterator[Callable[..., logging.LogRecord]]:
    """A factory that calls the one it found, as the logging cookbook has it; restored afterwards."""
    before = logging.getLogRecordFactory()

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        record.custom = "attribute"
        return record

    yield make
    logging.setLogRecordFactory(logging.LogRecord)


async def test_own_factory_is_not_replaced(log: logging.Logger, factory: Callable[..., logging.LogRecord]) -> None:
    """Entering says what to do, and leaves everything as it was."""
    logging.setLogRecordFactory(factory)
    pipeline = Pipeline(MemorySink(), logger=log, fast_records=True)
    with pytest.raises(ConfigError, match=r"offloop\.records\.install\(\)"):
        pipeline.start()
    assert logging.getLogRecordFactory() is factory
    assert log.handlers == []
    assert not pipeline.listener.running


async def test_factory_around_ours(log: logging.Logger, installed: None) -> None:
    """It is kept, what it adds arrives, and leaving does not take it away."""

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = FastRecord(*args, **kwargs)
        record.custom = "attribute"
        return record

    sink = MemorySink()
    logging.setLogRecordFactory(make)
    try:
        async with Pipeline(sink, logger=log, fast_records=True):
            log.info("hello")
        assert logging.getLogRecordFactory() is make
    finally:
        logging.setLogRecordFactory(FastRecord)
    assert extras(sink.records[0]) == {"custom": "attribute"}


def test_what_the_user_installed_stays() -> None:
    """`setLogRecordFactory(make)` is the user's own; without `install`, `uninstall` does nothing."""
    logging.setLogRecordFactory(records.make)
    try:
        records.install()
        records.uninstall()
        records.uninstall()
        assert logging.getLogRecordFactory() is records.make
    finally:
        logging.setLogRecordFactory(logging.LogRecord)
