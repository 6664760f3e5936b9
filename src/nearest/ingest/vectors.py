"""The vectors of a command's texts, so that equal texts are embedded once: the last in memory, the others on disk.

The disk's part is a temporary file (in $TMPDIR) without a name, so that it goes with the process however it ends. It
takes as much room as the vectors do, but never the last of it. Where there is none, equal texts far apart are embedded
again: that is logged, and costs nothing else.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np

from nearest.contract import Float32

_log = logging.getLogger("nearest")
_IN_MEMORY = 32_000_000  # bytes of vectors
_PAGES = 16_000  # KiB that SQLite keeps
_AT_ONCE = 500  # keys in one question
_SPARE = 2**30  # bytes of the disk that are left alone


class Vectors:
    """Vectors by a key of their text. For one thread at a time."""

    def __init__(self, in_memory: int = _IN_MEMORY) -> None:
        self._most = in_memory
        self._last: dict[bytes, Float32] = {}
        self._file: sqlite3.Connection | None = None
        self._full = False

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Float32]:
        """Those that are there, float32 (d,)."""
        found = {key: self._last[key] for key in keys if key in self._last}
        if self._file is not None:
            others = [key for key in keys if key not in found]
            try:
                for start in range(0, len(others), _AT_ONCE):
                    some = others[start : start + _AT_ONCE]
                    marks = ",".join("?" * len(some))
                    rows = self._file.execute(f"select key, value from vectors where key in ({marks})", some)
                    found.update((key, np.frombuffer(value, np.float32)) for key, value in rows)
            except sqlite3.Error as error:
                self._failed(error)
        return found

    def put(self, vectors: Mapping[bytes, Float32]) -> None:
        self._last.update(vectors)
        if not vectors or self._size() <= self._most:
            return
        # The older half at once: one by one would be many transactions.
        old = list(islice(self._last.items(), (len(self._last) + 1) // 2))
        for key, _ in old:
            del self._last[key]
        if self._full:
            return
        if shutil.disk_usage(folder := tempfile.gettempdir()).free < _SPARE:
            self._stop(f"{folder} has less than {_SPARE >> 20} MiB free")
            return
        try:
            if self._file is None:
                self._file = _opened()
            with self._file:
                rows = ((key, np.asarray(row, np.float32).tobytes()) for key, row in old)
                self._file.executemany("insert or replace into vectors values (?, ?)", rows)
        except (sqlite3.Error, OSError) as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._drop()  # without a journal nothing in it is to be trusted any more
        self._stop(str(error))

    def _stop(self, why: str) -> None:
        self._full = True
        _log.warning("equal texts that are far apart are embedded again: they cannot be remembered (%s)", why)

    def close(self) -> None:
        self._last.clear()
        self._drop()

    def _drop(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _size(self) -> int:
        first = next(iter(self._last.values()))
        return len(self._last) * first.nbytes


def _opened() -> sqlite3.Connection:
    with tempfile.NamedTemporaryFile(prefix="nearest-", delete=False) as made:
        path = Path(made.name)
    try:
        file = sqlite3.connect(path, check_same_thread=False)
        file.execute("pragma journal_mode = off")
        file.execute("pragma synchronous = off")
        file.execute(f"pragma cache_size = -{_PAGES}")
        file.execute("create table vectors (key blob primary key, value blob) without rowid")
    finally:
        with suppress(OSError):  # where an open file keeps its name
            path.unlink()
    return file
