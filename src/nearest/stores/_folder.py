"""What the embedded stores share: one process a folder, one schema a collection, and what a disk refuses."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from nearest.contract import Schema
from nearest.errors import CollectionLocked, DiskFull, ReadOnly, SchemaMismatch

if TYPE_CHECKING:
    from filelock import FileLock

LOCK_FILE = ".lock"


def lock(folder: Path) -> FileLock:
    """The folder's lock, held; raises CollectionLocked at once where somebody else holds it."""
    from filelock import FileLock, Timeout

    held = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        held.acquire()
    except Timeout:
        raise CollectionLocked(
            f"{folder} is open in another process (or elsewhere in this one); close it there and try again",
            folder=str(folder),
        ) from None
    return held


def check_same(folder: Path, found: Schema, asked: Schema | None) -> None:
    if asked is None or found == asked:
        return
    was, now = found.to_json(), asked.to_json()
    differing = [f"{name} was {was[name]}, now {now[name]}" for name in was if was[name] != now[name]]
    raise SchemaMismatch(f"{folder} was made with another schema: {'; '.join(differing)}", folder=str(folder))


def raise_disk_error(error: Exception, folder: Path) -> None:
    """Raises DiskFull or ReadOnly where the error, or what an engine says of it, means that; else returns."""
    said = str(error)
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT) or any(
        words in said for words in ("No space left", "os error 28", "isk is full", "Not enough space")
    ):
        raise DiskFull(f"{folder}: the disk is full; free some space and run it again ({said})") from error
    if number in (errno.EACCES, errno.EROFS, errno.EPERM) or any(
        words in said for words in ("Read-only file system", "Permission denied")
    ):
        raise ReadOnly(f"{folder} cannot be written ({said}); check its permissions, or copy it elsewhere") from error
