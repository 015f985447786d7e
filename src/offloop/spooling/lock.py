"""Whose a spool file is: an flock on a file beside it, held as long as the process lives and uses it.

On a file of its own, since closing any descriptor of a database drops the locks that SQLite holds on it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

__all__ = ["SpoolLock"]

_held: set[int] = set()


class SpoolLock:
    """A lock that is held. A forked child has none of its parent's."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """Use `take`."""
        self.path = path
        self._descriptor = descriptor
        self._pid = os.getpid()

    @classmethod
    def take(cls, path: Path) -> SpoolLock | None:
        """Take the lock, None if another holds it or just gave it up; makes the file if there is none.

        Raises:
            OSError: The file can't be made or opened.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _held.add(descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have removed it between our `open` and our lock: then it locks nothing.
            same = os.path.samestat(os.fstat(descriptor), path.stat())
        except (BlockingIOError, FileNotFoundError):
            same = False
        except BaseException:
            _close(descriptor)
            raise
        if not same:
            _close(descriptor)
            return None
        return cls(path, descriptor)

    @staticmethod
    def is_held(path: Path) -> bool:
        """Whether somebody holds it. To see that, it is taken for a moment.

        Raises:
            OSError: The file can't be opened.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def release(self, *, remove: bool) -> None:
        """Give it up; remove the file first if what it stood for is gone. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor in _held and self._pid == os.getpid():
            try:
                if remove:
                    self.path.unlink(missing_ok=True)
            finally:
                _close(descriptor)


def _close(descriptor: int) -> None:
    _held.discard(descriptor)
    os.close(descriptor)


def _leave_to_parent() -> None:
    """In a forked child: close the descriptors, never unlock: the lock is the parent's as long as it has its own."""
    for descriptor in list(_held):
        _close(descriptor)


os.register_at_fork(after_in_child=_leave_to_parent)
