"""A sink's records on disk, seen from the thread that keeps them."""

from __future__ import annotations

import _sqlite3
import ctypes
import logging
import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from helpers import record_of
from offloop.capture import message_of
from offloop.errors import ConfigError
from offloop.spool import Spool
from offloop.spooling.file import SpoolFile
from offloop.spooling.store import SpoolStore, stem_of
from offloop.spooling.turn import Numbered, Turn

MANY = 1_000_000


def numbered(start: int, stop: int, **extra: Any) -> list[Numbered]:
    """Records that say their number."""
    return [(number, record_of("n %d", number, **extra)) for number in range(start, stop)]


def opened(directory: Path, name: str = "sink", **options: object) -> SpoolStore:
    """A store that has taken over what there was."""
    store = SpoolStore(Spool(directory, **options), name)  # type: ignore[arg-type]
    assert store.open(0).error is None
    return store


def read_all(store: SpoolStore, settled: list[int] | None = None) -> list[str]:
    """The messages of all that is unread."""
    out = store.exchange(Turn(want=MANY, want_bytes=MANY, settled=settled or []))
    assert out.error is None
    return [message_of(record) for _, record in out.read]


def read_rest(directory: Path) -> list[str]:
    """The messages of all that the next store finds."""
    store = opened(directory)
    try:
        return read_all(store)
    finally:
        store.close()


def said(start: int, stop: int) -> list[str]:
    return [f"n {number}" for number in range(start, stop)]


def test_rows_are_read_in_order_and_once(tmp_path: Path) -> None:
    """What was stored is read, oldest first, as much as is wanted at a time; what is settled is gone."""
    store = opened(tmp_path)
    assert store.exchange(Turn(rows=numbered(0, 700))).unread == 700
    first = store.exchange(Turn(want=10, want_bytes=MANY))
    assert ([number for number, _ in first.read], first.unread) == (list(range(10)), 690)
    assert read_all(store, list(range(10))) == said(10, 700)
    store.close()
    again = SpoolStore(Spool(tmp_path), "sink")
    assert again.open(0).found == 690
    assert read_all(again) == said(10, 700)
    again.close()


def test_handed_rows_are_not_read_again(tmp_path: Path) -> None:
    """Rows that stay in memory are on disk all the same."""
    store = opened(tmp_path)
    out = store.exchange(Turn(rows=numbered(0, 20), handed=9, want=5, want_bytes=MANY))
    assert ([number for number, _ in out.read], out.unread) == ([10, 11, 12, 13, 14], 5)
    store.close()
    assert read_rest(tmp_path) == said(0, 20)


def test_rows_of_the_front_come_before(tmp_path: Path) -> None:
    """What is stored later, at the end, under lower numbers, is read first by the next one."""
    store = opened(tmp_path)
    store.exchange(Turn(rows=numbered(10, 20)))
    store.exchange(Turn(rows=numbered(0, 10), handed=9))
    store.close()
    assert read_rest(tmp_path) == said(0, 20)


def test_what_others_left_comes_before_what_is_stored(tmp_path: Path) -> None:
    """A record that is stored while there is something unread of an earlier process passes none of it over."""
    store = opened(tmp_path)
    store.exchange(Turn(rows=numbered(0, 20)))
    store.close()
    store = opened(tmp_path)
    out = store.exchange(Turn(rows=numbered(20, 30)))
    assert (out.unread, out.lost) == (30, [])
    assert read_all(store) == said(0, 30)
    store.close()


def test_memory_is_given_back(tmp_path: Path) -> None:
    """SQLite keeps nothing of what went through, however many records came at once."""
    used = getattr(ctypes.CDLL(_sqlite3.__file__), "sqlite3_memory_used", None)
    if used is None:
        pytest.skip("SQLite is linked into Python, where it can't be asked")
    used.restype = ctypes.c_int64
    store = opened(tmp_path)
    taken = list[int]()
    for count in range(1, 60):
        rows = numbered(0, count, pad="x" * 5_000)
        store.exchange(Turn(rows=rows))
        store.exchange(Turn(settled=[number for number, _ in rows]))
        taken.append(used())
    assert max(taken) - taken[0] < 4_000_000
    store.close()


def test_files_are_private_and_gone_when_empty(tmp_path: Path) -> None:
    """Mode 0600 in a directory of 0700 that is made; a name of any kind is safe; nothing stays of what is delivered."""
    directory = tmp_path / "deep" / "spool"
    store = opened(directory, "../sink/ö\0:*?" * 30)
    store.exchange(Turn(rows=numbered(0, 5), handed=4))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    files = list(directory.iterdir())
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert all(file.name.isascii() and len(file.name) < 120 for file in files)
    store.exchange(Turn(settled=list(range(5))))
    store.close()
    assert list(directory.iterdir()) == []


def test_names_that_look_alike_have_files_of_their_own() -> None:
    """A slug alone would mix two sinks."""
    assert stem_of("a/b") != stem_of("a?b")


def test_files_in_use_are_left_alone(tmp_path: Path) -> None:
    """Two stores on one directory each have a file; the second takes over the first's only when that is let go."""
    first, second = opened(tmp_path), opened(tmp_path)
    first.exchange(Turn(rows=numbered(0, 3)))
    second.exchange(Turn(rows=numbered(10, 12)))
    third = SpoolStore(Spool(tmp_path), "sink")
    assert third.open(0).found == 0
    first.close()
    second.close()
    assert third.open(100).found == 5
    assert read_all(third) == said(0, 3) + said(10, 12)
    third.close()


def test_what_the_same_process_left_is_not_found_twice(tmp_path: Path) -> None:
    """A store that is opened again has counted its own rows before."""
    store = opened(tmp_path)
    store.exchange(Turn(rows=numbered(0, 5)))
    store.close()
    out = store.open(5)
    assert (out.found, out.unread) == (0, 5)
    store.exchange(Turn(rows=numbered(5, 8)))
    assert read_all(store) == said(0, 8)
    store.close()


def test_oldest_go_first_where_there_is_no_room(tmp_path: Path) -> None:
    """The bound holds; what goes is the oldest that nobody has in hand, and is told with its level."""
    store = opened(tmp_path, max_bytes=20_000)
    store.exchange(Turn(rows=numbered(0, 5), handed=4))
    lost = []
    for start in range(5, 605, 50):
        out = store.exchange(Turn(rows=numbered(start, start + 50), handed=4))
        lost += out.lost
        assert out.size_bytes <= 20_000
    left = read_all(store)
    assert left == said(605 - len(left), 605)
    assert lost == [("overflow", 20)] * (600 - len(left))
    store.close()


def test_what_never_fits_is_refused(tmp_path: Path) -> None:
    """Of rows that are more than the whole bound, the oldest are refused."""
    store = opened(tmp_path, max_bytes=2_000)
    out = store.exchange(Turn(rows=numbered(0, 50)))
    assert out.refused == list(range(len(out.refused)))
    assert 0 < out.unread == 50 - len(out.refused)
    assert out.size_bytes <= 2_000
    store.close()


def test_what_was_refused_in_a_turn_nobody_heard_of_is_no_damage(tmp_path: Path) -> None:
    """A lane whose loop was closed counts all rows as stored: it is told later of those there was no room for."""
    store = opened(tmp_path, max_bytes=5_000)
    refused = store.exchange(Turn(rows=numbered(0, 50))).refused
    out = store.open(50, 50)
    assert out.lost == [("overflow", logging.INFO)] * len(refused)
    assert out.unread == 50 - len(refused) < 50
    store.close()


def test_what_is_too_old_is_dropped(tmp_path: Path) -> None:
    """By age, when something is stored and when it is read."""
    store = opened(tmp_path, max_age=60)
    store.exchange(Turn(rows=numbered(0, 3, created=time.time() - 100)))
    out = store.exchange(
        Turn(rows=[*numbered(3, 5, created=time.time() - 100), *numbered(5, 7)], want=9, want_bytes=MANY)
    )
    assert out.lost == [("expired", 20)] * 5
    assert [number for number, _ in out.read] == [5, 6]
    store.close()


def test_rows_nobody_waits_for_are_not_stored(tmp_path: Path) -> None:
    """A claim that is refused leaves the disk as it was, and is no fault of the disk."""
    store = opened(tmp_path)
    out = store.exchange(Turn(rows=numbered(0, 3), claim=lambda: False))
    assert (out.stored, out.unread) == (False, 0)
    store.close()


def test_disk_that_can_not_be_used_is_told(tmp_path: Path) -> None:
    """A directory that is a file: no exception, and the words to report."""
    (tmp_path / "file").write_text("x")
    store = SpoolStore(Spool(tmp_path / "file"), "sink")
    assert store.open(0).error is not None
    out = store.exchange(Turn(rows=numbered(0, 3), want=1, want_bytes=1))
    assert out.error is not None
    assert "exists" in out.error or "directory" in out.error
    assert not out.stored
    store.close()


FULL = """
import resource, sys
from pathlib import Path
from typing import Any
from helpers import record_of
from offloop.spool import Spool
from offloop.spooling.store import SpoolStore
from offloop.spooling.turn import Turn
store = SpoolStore(Spool(Path(sys.argv[1])), "sink")
store.open(0)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
stored = 0
while (out := store.exchange(Turn(rows=[(stored, record_of("x" * 2_000, n=stored))], handed=stored))).stored:
    stored += 1
assert out.error is not None and out.unread == 0, out
out = store.exchange(Turn(settled=range(10)))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
out = store.exchange(Turn(settled=out.kept, rows=[(stored, record_of("x", n=stored))], handed=stored))
assert out.stored and out.error is None and not out.kept, out
store.close()
print(stored)
"""


def test_full_disk_is_a_state(tmp_path: Path) -> None:
    """What no longer fits is told, what was stored stays, and it goes on once there is room."""
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": "tests"}, stdout=subprocess.PIPE, check=True)
    stored = int(done.stdout)
    store = opened(tmp_path)
    out = store.exchange(Turn(want=MANY, want_bytes=MANY))
    assert [record.__dict__["n"] for _, record in out.read] == list(range(10, stored + 1))
    store.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_leaves_the_parents_file_alone(tmp_path: Path) -> None:
    """The child stores in a file of its own; the parent's stays locked and whole, also when the child has ended."""
    store = opened(tmp_path)
    store.exchange(Turn(rows=numbered(0, 3)))
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        out = store.exchange(Turn(rows=numbered(10, 12)))
        store.close()
        os._exit(0 if out.stored and out.unread == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert read_all(store) == said(0, 3)
    other = SpoolStore(Spool(tmp_path), "sink")
    assert other.open(0).found == 2
    other.close()
    store.close()


def test_damage_while_it_is_used(tmp_path: Path) -> None:
    """A file that breaks in use is set aside and salvaged; all rows are read or counted."""
    store = opened(tmp_path)
    for start in range(0, 400, 50):
        store.exchange(Turn(rows=numbered(start, start + 50)))
    file: SpoolFile = store._members[0].file
    file._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file._connection.execute("PRAGMA cache_size=0")
    data = bytearray(file.path.read_bytes())
    data[4096:8192] = bytes(4096)  # the root of the tree
    file.path.write_bytes(data)
    file._connection.execute("PRAGMA shrink_memory")
    out = store.exchange(Turn(rows=numbered(400, 450), want=MANY, want_bytes=MANY))
    assert out.stored
    assert [number for number, _ in out.read] == list(range(450))
    assert len(list(tmp_path.glob("*.damaged"))) == 1
    store.close()


def test_policy_says_what_is_wrong(tmp_path: Path) -> None:
    """Values out of their limits are refused with the value."""
    for options in ({"max_bytes": 0}, {"max_age": -1}, {"when": "never"}):
        with pytest.raises(ConfigError):
            Spool(tmp_path, **options)  # type: ignore[arg-type]
