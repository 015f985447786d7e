"""offloop's own troubles on stderr: few lines, plain text, nobody waits."""

from __future__ import annotations

import io
import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from offloop.diagnostics import Diagnostics


def said(diagnostics: Diagnostics, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines written so far."""
    diagnostics.flush(5.0)
    return capsys.readouterr().err.splitlines()


def test_line_is_written(capsys) -> None:
    """A report is one line that says who speaks."""
    diagnostics = Diagnostics()
    diagnostics.report("a", "the disk is full")
    assert said(diagnostics, capsys) == ["offloop: the disk is full"]


def test_one_of_a_kind_in_a_while(capsys) -> None:
    """Of many reports of a kind the first is written, of another kind too."""
    diagnostics = Diagnostics()
    for number in range(50):
        diagnostics.report("a", f"a {number}")
        diagnostics.report("b", f"b {number}")
    assert said(diagnostics, capsys) == ["offloop: a 0", "offloop: b 0"]


def test_what_was_held_back_is_counted(capsys) -> None:
    """The next line of the kind tells how many there were."""
    now = 100.0
    diagnostics = Diagnostics(every=10, clock=lambda: now)
    for _ in range(3):
        diagnostics.report("a", "again")
    now += 12
    diagnostics.report("a", "and again")
    assert said(diagnostics, capsys) == ["offloop: again", "offloop: and again (2 more like this in the last 12 s)"]


def test_what_was_held_back_last_is_told_later(monkeypatch) -> None:
    """Where no further line of the kind comes, the thread says by itself what it held back, and how many."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    diagnostics = Diagnostics(every=0.05)
    for number in range(5):
        diagnostics.report("a", f"a {number}")
    while stream.getvalue().count("\n") < 2:
        time.sleep(0)
    diagnostics.conclude()
    assert stream.getvalue().splitlines() == ["offloop: a 0", "offloop: a 4 (3 more like this in the last 0 s)"]


def test_what_is_held_back_at_the_end_is_told(capsys) -> None:
    """Nothing that was not said is left uncounted, with many threads at once."""
    diagnostics = Diagnostics()
    diagnostics.report("a", "x")
    threads = [threading.Thread(target=lambda: [diagnostics.report("a", "x") for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    diagnostics.conclude()
    lines = said(diagnostics, capsys)
    more = [int(line.partition("(")[2].split()[0]) for line in lines if "(" in line]
    assert len(lines) + sum(more) == 2_001


def test_kinds_that_are_forgotten_are_told(capsys) -> None:
    """What was held back is told before its kind makes place for others."""
    diagnostics = Diagnostics()
    for _ in range(3):
        diagnostics.report("a", "again")
    for number in range(1_000):
        diagnostics.report(str(number), "x")
    assert "offloop: again (1 more like this in the last 0 s)" in said(diagnostics, capsys)


def test_lines_that_nobody_reads_are_counted(monkeypatch, capsys) -> None:
    """While stderr is blocked lines are dropped, the oldest first; how many is told."""
    gate = threading.Event()

    class Blocked(io.StringIO):
        def write(self, text: str) -> int:
            gate.wait()
            return super().write(text)

    stream = Blocked()
    monkeypatch.setattr(sys, "stderr", stream)
    diagnostics = Diagnostics()
    for number in range(1_500):
        diagnostics.report(str(number % 900) + "." + str(number), "x")
    gate.set()
    diagnostics.flush(5.0)
    lines = stream.getvalue().splitlines()
    lost = int(lines[-1].split()[1])
    assert lines[-1] == f"offloop: {lost} line(s) like these were lost: nobody read them in time"
    assert len(lines) - 1 + lost == 1_500


def test_kinds_are_bounded(capsys) -> None:
    """Kinds without end, and lines without end, take memory that has one."""
    diagnostics = Diagnostics()
    for number in range(3_000):
        diagnostics.report(str(number), "x" * 10)
    assert 1_000 <= len(said(diagnostics, capsys)) <= 3_001
    assert len(diagnostics._kinds) <= 1_000


def test_control_characters_are_escaped(capsys) -> None:
    """A message can neither forge a line nor drive the terminal."""
    diagnostics = Diagnostics()
    diagnostics.report("a", "one\ntwo\x1b[2J\udc80é")
    assert said(diagnostics, capsys) == [r"offloop: one\ntwo\x1b[2J\udc80é"]


def test_stderr_that_is_closed_or_absent_or_odd_harms_nobody(monkeypatch, capsys) -> None:
    """What can't be written is let go, and what comes after a repair is written."""
    diagnostics = Diagnostics()
    closed = io.StringIO()
    closed.close()
    for number, stream in enumerate((closed, None, object())):
        monkeypatch.setattr(sys, "stderr", stream)
        diagnostics.report(str(number), "unheard")
        diagnostics.flush(5.0)
    monkeypatch.undo()
    diagnostics.report("after", "heard")
    assert said(diagnostics, capsys) == ["offloop: heard"]


def test_report_does_not_wait_for_a_full_pipe(monkeypatch) -> None:
    """While nobody reads stderr, `report` returns, and `flush` keeps to its time."""
    diagnostics = Diagnostics()
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", 0) as reader, os.fdopen(writing, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        began = time.monotonic()
        for number in range(500):
            diagnostics.report(str(number), "x" * 1_000)
        diagnostics.flush(0.05)
        assert time.monotonic() - began < 5.0
        drain = threading.Thread(target=lambda: [None for _ in iter(lambda: reader.read(65_536), b"")])
        drain.start()
        diagnostics.flush(10.0)
        monkeypatch.undo()
        stream.close()
        drain.join()


def test_many_threads_report_at_once(capsys) -> None:
    """No line is lost or torn, the first reports included."""
    diagnostics = Diagnostics()
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for count in range(50):
            diagnostics.report(f"{number}.{count}", f"{number}.{count}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said(diagnostics, capsys)) == sorted(f"offloop: {n}.{c}" for n in range(8) for c in range(50))


def test_last_words_are_written_at_exit() -> None:
    """A report made just before the end, or while the interpreter ends, is on stderr."""
    program = (
        "import atexit; from offloop import diagnostics\n"
        "atexit.register(lambda: (diagnostics.report('b', 'ending'), diagnostics.flush()))\n"
        "import sys\n"
        "if sys.argv[1:]: diagnostics.report('a', 'before')\n"
    )
    for arguments, expected in ((["x"], "offloop: before\noffloop: ending\n"), ([], "offloop: ending\n")):
        command = [sys.executable, "-c", program, *arguments]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stderr == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_child_of_a_fork_reports_too() -> None:
    """A forked child has a thread of its own."""
    program = (
        "import os; from offloop import diagnostics\n"
        "diagnostics.report('a', 'parent'); diagnostics.flush(5)\n"
        "pid = os.fork()\n"
        "if not pid: diagnostics.report('b', 'child'); diagnostics.flush(5); os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    assert output == "offloop: parent\noffloop: child\n"


def test_report_from_a_signal_handler_waits_for_no_lock() -> None:
    """One that interrupts a report on its own thread would wait for ever."""
    numbers, diagnostics = itertools.count(), Diagnostics()
    deadline = time.monotonic() + 0.3

    def report(*_: object) -> None:
        diagnostics.report(f"kind {next(numbers)}", "x")

    before = signal.signal(signal.SIGALRM, report)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        while time.monotonic() < deadline:
            report()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    diagnostics.flush(5)
