"""The vectors of a command's texts, so that equal texts are embedded once: the last in memory, the others on disk.

The disk's part is a temporary file of SQLite's own, which nobody else sees and which goes with the process however it
ends. It takes as much room as the vectors do, in $SQLITE_TMPDIR, $TMPDIR or /var/tmp. Where it cannot be written,
equal texts far apart are embedded again: that is logged, and costs nothing else.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np

from nearest.contract import Float32

_log = logging.getLogger("nearest")
_IN_MEMORY = 32_000_000  # bytes of vectors
_PAGES = 16_000  # KiB that SQLite keeps
_AT_ONCE = 500  # keys in one question


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
        try:
            if self._file is None:
                self._file = _opened()
            with self._file:
                rows = ((key, np.asarray(row, np.float32).tobytes()) for key, row in old)
                self._file.executemany("insert or replace into vectors values (?, ?)", rows)
        except sqlite3.Error as error:
            self._failed(error)

    def _failed(self, error: sqlite3.Error) -> None:
        self._full = True  # and without a journal nothing in it is to be trusted any more
        self._drop()
        _log.warning("equal texts that are far apart are embedded again: they cannot be remembered (%s)", error)

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
    file = sqlite3.connect("", check_same_thread=False)  # no name: a temporary file, deleted as soon as it is open
    file.execute("pragma journal_mode = off")
    file.execute("pragma synchronous = off")
    file.execute(f"pragma cache_size = -{_PAGES}")
    file.execute("create table vectors (key blob primary key, value blob) without rowid")
    return file
