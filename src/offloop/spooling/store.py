"""A sink's records on disk: the files of this process and those that others left, as one line, oldest first.

Never used on the loop's thread, and by one thread at a time; no trouble with a disk or a file is raised, each is told
in an `Outcome`. Records are named by a number: those of this process count up from 0 as they were offered, those found
are below. In each file, rows up to its cursor are in memory too ("handed"), those after it are unread.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import sqlite3
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TypeVar

from offloop.capture import Record
from offloop.spool import Spool
from offloop.spooling.codec import Unreadable, pack, unpack
from offloop.spooling.file import Abandoned, Damaged, Row, SpoolFile, is_damage, is_full, remove, row_of
from offloop.spooling.lock import SpoolLock
from offloop.spooling.rescue import Rescue
from offloop.spooling.turn import Numbered, Outcome, Turn
from offloop.worker import Breather

__all__ = ["SpoolStore", "owner_of", "stem_of"]

_T = TypeVar("_T")
_AT_A_TIME = 500  # rows
_MAX_MEMO_BYTES = 1024 * 1024
_LOOK = 0.02  # seconds
_LOOKS = 10
_NOTSET = 0  # the level of what can't be read any more


class _Member:
    """A file of the line; its record of number n has the id n - offset."""

    def __init__(self, file: SpoolFile, lock: SpoolLock, offset: int, floor: int) -> None:
        self.cursor = floor - offset - 1
        """An id: no row up to it is unread."""
        self.file = file
        self.lock = lock
        self.offset = offset
        self.floor = floor
        """No number of a record in it is below."""
        self.handed = 0

    @property
    def unread(self) -> int:
        return self.file.state.live - self.handed

    def end(self, *, keep: bool) -> None:
        """Close it; remove it unless it is to be kept."""
        self.file.close()
        if not keep:
            remove(self.file.path)
        self.lock.release(remove=not keep)


class SpoolStore:
    """All that one sink has on disk, as far as this process owns it."""

    def __init__(self, spool: Spool, name: str, only: str | None = None) -> None:
        """Touch nothing yet.

        Args:
            spool: Where, how much, how long.
            name: The sink's.
            only: Take over the file of this name and no other, whoever's it was; without an ending.
        """
        self._spool = spool
        self._only = only
        self._patience = _LOOKS
        self._stem = stem_of(name)
        self._rescue = Rescue(name, durable=spool.durable)
        self._members: list[_Member] = []
        self._own: _Member | None = None
        self._left: dict[Path, int] = {}
        self._floor = self._lowest = 0
        self.unheard: Outcome | None = None
        """What came of the last turn, until whoever asked for it has heard."""
        self._lock = Lock()  # a thread that ends may still be at work when the next one begins
        self._pid = os.getpid()

    def open(self, floor: int, spooled: int | None = None) -> Outcome:
        """Take over what others left, and what a loop left that was not stopped, before any `exchange` of a loop's.

        Args:
            floor: All of it comes before any record from this number on.
            spooled: How many rows the lane counts that were left; what there is beyond them was settled, and not
                removed in time. None: all there are.
        """
        with self._mine():
            out = self._leave(spooled)
            self._floor = self._lowest = floor
            self._attempt(out, self._make_directory)
            stems: set[str] = set()
            self._attempt(out, lambda: stems.update(self._stems()))
            for stem in sorted(stems, reverse=True):
                self._attempt(out, lambda base=self._spool.path / stem: self._adopt(base, out))  # type: ignore[misc]
            self._attempt(out, lambda: self._read_memo(out))
            return self._summed(out)

    def exchange(self, turn: Turn) -> Outcome:
        """Remove, store and read, in this order. What fails does not keep the rest from being tried."""
        packed = _packed(turn.rows)
        with self._mine():
            out = self.unheard = Outcome(kept=list(turn.settled))
            self._attempt(out, lambda: self._trim(turn, packed, out))
            self._attempt(out, lambda: self._write(turn, packed, out))
            self._attempt(out, lambda: self._remove(out))
            if turn.want > 0:
                self._attempt(out, lambda: self._read(turn, out))
            self._attempt(out, self._finish)
            memo = turn.memo
            if memo is not None:
                self._attempt(out, lambda: self._write_memo(memo()))
            return self._summed(out)

    def close(self) -> None:
        """Let go of all files: what is in them is the next one's, in this process or another."""
        with self._mine():
            self._let_go()

    def _let_go(self) -> None:
        for member in self._members:
            live = member.file.state.live
            if live:
                with suppress(OSError, sqlite3.Error):  # as long as it lived, all could be read from it
                    self._keep_on_disk(member)
                self._left[member.file.path] = live
            with suppress(OSError):  # a file that stays is found, empty, by the next one
                member.end(keep=live > 0)
        self._members, self._own = [], None

    # -- opening -----------------------------------------------------------------------------------------------------

    def _leave(self, spooled: int | None) -> Outcome:
        """Let go of what is open still; gives what a lane that counts so many rows does not know of."""
        self._let_go()
        out, unheard = Outcome(), self.unheard
        self.unheard = None
        if unheard is not None:
            out.found, out.lost = unheard.found, unheard.lost + unheard.turned_away
        if spooled is not None:
            again = sum(self._left.values()) - (spooled + out.found - len(out.lost))
            out.found += max(0, again)
            out.lost += [("corrupt", _NOTSET)] * max(0, -again)
        return out

    def _mine(self) -> Lock:
        """The lock; in a forked child all is let go of first that is its parent's."""
        if self._pid != os.getpid():
            self._lock = Lock()
            for member in self._members:
                member.file.close()
            self._members, self._own, self._left, self.unheard = [], None, {}, None
            self._lowest, self._pid = self._floor, os.getpid()
        return self._lock

    def _make_directory(self) -> None:
        path = self._spool.path
        if not path.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                path.mkdir(mode=0o700)

    def _stems(self) -> set[str]:
        """Names of the sink's files, but for the endings; those of this process are among them."""
        if self._only is not None:
            return {self._only}
        names = (entry.name for entry in os.scandir(self._spool.path))
        found = (re.fullmatch(rf"({re.escape(self._stem)}\.[0-9a-f-]+)\.(?:spool|lock)", name) for name in names)
        return {match[1] for match in found if match is not None}

    def _adopt(self, base: Path, out: Outcome) -> None:
        """Put a file that nobody holds in front of the line."""
        lock = self._taken(base)
        if lock is None:
            out.busy += 1
            return
        path = base.with_name(f"{base.name}.spool")
        try:
            opened = self._rescue.open(path) if self._rescue.left(path) else None
        except BaseException:
            lock.release(remove=False)
            raise
        if opened is None:
            lock.release(remove=True)
            return
        file, missing = opened
        out.found += max(0, file.state.live + missing - self._left.pop(path, 0))
        out.lost += [("corrupt", _NOTSET)] * missing
        last = self._lowest - 1
        offset = last - file.state.last
        member = _Member(file, lock, offset, min(file.state.first + offset, last))
        if not file.state.live:
            member.end(keep=False)
            return
        self._members.insert(0, member)
        self._lowest = member.floor

    def _taken(self, base: Path) -> SpoolLock | None:
        path = base.with_name(f"{base.name}.lock")
        lock = SpoolLock.take(path)
        if lock is None and self._patience and not _runs(owner_of(base.name)):
            # Somebody only looks whether it is in use, which takes a moment.
            self._patience -= 1
            time.sleep(_LOOK)
            lock = SpoolLock.take(path)
        return lock

    # -- in and out --------------------------------------------------------------------------------------------------

    def _attempt(self, out: Outcome, step: Callable[[], None]) -> None:
        try:
            step()
        except Abandoned:
            out.error = "no time was left"
        except (OSError, sqlite3.Error) as error:
            out.error = _words(error)

    def _on(self, member: _Member, step: Callable[[], _T], out: Outcome) -> _T:
        """Do something with a file; if it is found broken, salvage it and do it again."""
        try:
            return step()
        except UnicodeDecodeError:  # of SQLite's message, which quotes the file
            pass
        except sqlite3.Error as error:
            if not (is_damage(error) or member.file.closed):  # closed: no room was left to salvage it
                raise
        self._salvage(member, out)
        return step()

    def _salvage(self, member: _Member, out: Outcome) -> None:
        unread, changes = member.unread, member.file.state
        member.file = self._rescue.salvage(member.file.path, member.file, changes)
        found = member.file.count_after(member.cursor)
        out.lost += [("corrupt", _NOTSET)] * max(0, unread - found)
        out.found += max(0, found - unread)
        # Those in memory are counted as there, whether or not their rows are: they are removed by and by.
        state = member.file.state
        member.file.change(state=state._replace(live=found + member.handed, changes=changes.changes + 1))

    def _write(self, turn: Turn, packed: list[Row], out: Outcome) -> None:
        """Store, and remove what lies in the same file, in one commit."""
        refused = set(out.refused)
        rows = [row for row in packed if row.id not in refused]
        if rows:
            own = self._own or self._make()
            self._keep_on_disk(own)
            size_bytes = sum(len(row.data) for row in rows)
            self._on(own, lambda: own.file.make_room(size_bytes), out)
            settled = [number for number in turn.settled if number >= own.floor]
            self._on(own, lambda: own.file.change(delete=settled, insert=rows, claim=turn.claim), out)
            handed = [row.id for row in rows if row.id <= turn.handed]
            own.handed += len(handed) - len(settled)
            own.cursor = max([own.cursor, *handed[-1:]])
            out.kept = [number for number in turn.settled if number < own.floor]
            out.turned_away = [("overflow", row.level) for row in packed if row.id in refused]
        out.stored = True

    def _remove(self, out: Outcome) -> None:
        """Remove what is left to be removed, each from its file."""
        for member in reversed(self._members):
            ids = [number - member.offset for number in out.kept[bisect_left(out.kept, member.floor) :]]
            if ids:
                self._remove_from(member, ids, out)
        out.kept.clear()  # nobody has these: a fault took them, and they were counted

    def _remove_from(self, member: _Member, ids: list[int], out: Outcome) -> None:
        """Remove rows from one file: at once, or on a full disk in pieces, with the log begun anew for each."""
        at_once = len(ids)
        while ids:
            piece = ids[-at_once:]
            try:
                self._on(member, lambda piece=piece: member.file.change(delete=piece), out)  # type: ignore[misc]
            except sqlite3.Error as error:
                if at_once == 1 or not is_full(error):
                    raise
                member.file.begin_log()
                at_once = (at_once + 1) // 2
            else:
                member.handed -= len(piece)
                del ids[-len(piece) :]
                del out.kept[-len(piece) :]

    def _make(self) -> _Member:
        """The file of this process, made when it is needed."""
        self._own = _Member(*self._new_file(), 0, self._floor)
        self._members.append(self._own)
        return self._own

    def _new_file(self) -> tuple[SpoolFile, SpoolLock]:
        self._make_directory()
        while True:
            name = f"{self._stem}.{time.time_ns():016x}-{os.getpid()}-{secrets.token_hex(4)}"
            lock = SpoolLock.take(self._spool.path / f"{name}.lock")
            if lock is not None:
                break
        path = self._spool.path / f"{name}.spool"
        try:
            return SpoolFile(path, durable=self._spool.durable), lock
        except BaseException:
            # A disk that is full is asked again and again: each attempt would leave its files.
            with suppress(OSError):
                remove(path)
            with suppress(OSError):
                lock.release(remove=True)
            raise

    def _keep_on_disk(self, member: _Member) -> None:
        """If somebody removed the file, which can still be read and is gone with this process, make another of it."""
        if member.file.closed or member.file.path.exists():
            return
        file, lock = self._new_file()
        try:
            after = -(2**63)
            while rows := list(member.file.after(after, _AT_A_TIME)):
                file.change(insert=rows)
                after = rows[-1].id
            file.change(state=member.file.state._replace(changes=file.state.changes + 1))
        except BaseException:
            file.close()
            remove(file.path)
            lock.release(remove=True)
            raise
        member.file.close()
        member.lock.release(remove=False)
        member.file, member.lock = file, lock

    def _read(self, turn: Turn, out: Outcome) -> None:
        size = 0
        for member in self._members:
            again = True
            while member.unread > 0 and len(out.read) < turn.want and size < turn.want_bytes:
                count = min(_AT_A_TIME, turn.want - len(out.read))
                rows = self._on(member, lambda m=member, c=count: _sound(m.file.after(m.cursor, c), m.cursor), out)  # type: ignore[misc]
                if rows:
                    size += self._take(member, rows, out, turn.want_bytes - size)
                elif again:
                    again = False
                    self._salvage(member, out)  # it has fewer rows than it says
                else:
                    out.lost += [("corrupt", _NOTSET)] * member.unread
                    member.file.change(state=member.file.state._replace(live=member.handed))

    def _take(self, member: _Member, rows: Sequence[Row], out: Outcome, want_bytes: int) -> int:
        """Hand over rows, as many as are wanted; gives their bytes. What is broken or too old is removed."""
        size = 0
        bad: list[int] = []
        lost: list[tuple[str, int]] = []
        oldest = self._oldest
        breathe = Breather()
        for row in rows:
            if size >= want_bytes:
                break
            try:
                record = _read_row(row)
            except Unreadable:
                bad.append(row.id)
                lost.append(("corrupt", row.level if row.intact else _NOTSET))
            else:
                if row.created < oldest:
                    bad.append(row.id)
                    lost.append(("expired", row.level))
                else:
                    out.read.append((row.id + member.offset, record))
                    member.handed += 1
                    size += len(row.data)
            member.cursor = row.id
            breathe()
        if bad:
            member.file.change(delete=bad)
            out.lost += lost
        return size

    # -- the memo ----------------------------------------------------------------------------------------------------

    @property
    def _memo(self) -> Path:
        """One for all processes: whoever wrote last is believed."""
        return self._spool.path / f"{self._stem}.memo"

    def _read_memo(self, out: Outcome) -> None:
        with suppress(FileNotFoundError), self._memo.open("rb") as file:
            out.memo = file.read(_MAX_MEMO_BYTES)
        for fresh in self._spool.path.glob(f"{self._stem}.memo.*"):
            # What a process that was killed had begun to write.
            if fresh.suffix[1:].isdecimal() and not _runs(int(fresh.suffix[1:])):
                fresh.unlink(missing_ok=True)

    def _write_memo(self, memo: bytes) -> None:
        """Replace it as a whole: a crash leaves the old one, or the new one."""
        fresh = self._memo.with_name(f"{self._memo.name}.{os.getpid()}")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(memo)
            fresh.replace(self._memo)
        except OSError:
            with suppress(OSError):  # the disk is full: what it took is given back
                fresh.unlink(missing_ok=True)
            raise

    # -- bounds ------------------------------------------------------------------------------------------------------

    @property
    def _oldest(self) -> float:
        return float("-inf") if self._spool.max_age is None else time.time() - self._spool.max_age

    def _trim(self, turn: Turn, packed: Sequence[Row], out: Outcome) -> None:
        """Drop the oldest unread rows: those that are too old, and those for which there is no room."""
        oldest = self._oldest
        excess = self._size_bytes + sum(len(row.data) for row in packed) - self._spool.max_bytes
        for member in self._members:
            while member.unread > 0 and (excess > 0 or self._spool.max_age is not None):
                bounds = self._on(member, lambda m=member: m.file.bounds_after(m.cursor, _AT_A_TIME), out)  # type: ignore[misc]
                victims: list[int] = []
                lost: list[tuple[str, int]] = []
                for id_, level, created, size in bounds:
                    if excess <= 0 and not created < oldest:
                        break
                    victims.append(id_)
                    lost.append(("expired" if created < oldest else "overflow", level))
                    excess -= size
                if not victims:
                    break
                member.file.change(delete=victims)
                out.lost += lost
        for row in packed:
            if excess <= 0:
                break
            if row.id > turn.handed:
                out.refused.append(row.id)
                excess -= len(row.data)

    def _finish(self) -> None:
        """Remove the files of others that are done with."""
        for member in [member for member in self._members if member is not self._own and not member.file.state.live]:
            self._members.remove(member)
            member.end(keep=False)

    @property
    def _size_bytes(self) -> int:
        return sum(member.file.state.bytes for member in self._members)

    def _summed(self, out: Outcome) -> Outcome:
        out.unread = sum(max(0, member.unread) for member in self._members)
        out.size_bytes = self._size_bytes
        return out


def stem_of(name: str) -> str:
    """How the files of a sink of this name begin: safe on any file system, and not that of any other name."""
    digest = hashlib.blake2s(name.encode("utf-8", "backslashreplace"), digest_size=5).hexdigest()
    return f"{re.sub('[^A-Za-z0-9_-]+', '_', name)[:40]}-{digest}"


def owner_of(name: str) -> int | None:
    """The process that made a file, by its name; None if it is none of ours."""
    match = re.fullmatch(r".+\.[0-9a-f]{16}-([0-9]+)-[0-9a-f]{8}", name)
    return None if match is None else int(match[1])


def _runs(pid: int | None) -> bool:
    """Whether another process of this number runs, as far as can be seen from here."""
    if pid is None or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.EPERM
    return True


def _sound(rows: Iterable[Row], after: int) -> list[Row]:
    """The rows, if each is what was written and they ascend; otherwise the file is to be salvaged, which counts."""
    found: list[Row] = []
    breathe = Breather()
    for row in rows:
        if row.id <= after or not row.intact:
            raise Damaged("a row is not what was written")
        after = row.id
        found.append(row)
        breathe()
    return found


def _packed(rows: Sequence[Numbered]) -> list[Row]:
    """The records as rows, tracebacks rendered."""
    packed: list[Row] = []
    breathe = Breather()
    for number, record in rows:
        if record.exception is not None and record.exc_text is None:
            record.exc_text = record.exception.text()
        # A filter may have left anything there.
        level = record.levelno if isinstance(record.levelno, int) else _NOTSET
        created = record.created if isinstance(record.created, float) else time.time()
        packed.append(row_of(number, level, created, pack(record)))
        breathe()
    return packed


def _read_row(row: Row) -> Record:
    if not row.intact:
        raise Unreadable("the checksum is wrong")
    return unpack(row.data)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
