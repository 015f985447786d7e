"""Spool files as processes leave them that are killed."""

from __future__ import annotations

from pathlib import Path

from offloop.spooling.store import SpoolStore


def leave_as_killed(store: SpoolStore) -> None:
    """Leave the files as a process that is killed does: copies of them, since the connection can't be cut."""
    for member in store._members:
        path = member.file.path
        kept = {
            ending: Path(f"{path}{ending}").read_bytes() for ending in ("", "-wal") if Path(f"{path}{ending}").exists()
        }
        member.file.close()
        for ending, data in kept.items():
            Path(f"{path}{ending}").write_bytes(data)
        member.lock.release(remove=False)
