"""Near-duplicate passages: found by their resemblance, and left out where that is asked for.

The resemblance of two texts is the share of their runs of three words that both have (Broder, SEQUENCES 1997).
Candidates are found by MinHash signatures in bands (Indyk and Motwani, STOC 1998), so that each new passage meets few
others; of 100 pairs at the threshold about one is missed. Candidates are compared by their runs of words themselves,
so nothing below the threshold is left out.

Within a run each passage is compared with those before it, of its own document too. Across runs it is compared with
what the collection holds when the run begins: all its passages are read once, which costs some 0.1 ms each and 2 KB
of memory. A document's first passage always stays, so that the document can be found, counted and removed. A passage
that was left out does not come back when the one that it resembles is removed or changes; add its document again
without skipping, or with another threshold, for that.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nearest.contract import Chunk, Record
from nearest.errors import InvalidInput

_RUN = 3  # words
_HASHES = 64
_MISSED = 0.02
# Where words are not parted by spaces, a character is one.
_UNPARTED = r"\u0e00-\u0eff\u1000-\u109f\u3040-\u9fff"
_WORD = re.compile(rf"[{_UNPARTED}]|[^\W{_UNPARTED}]+")

U64 = NDArray[np.uint64]


class Duplicate(NamedTuple):
    """A passage that was left out, what it resembles (`document#ordinal` both), and how much, 0 to 1."""

    id: str
    of: str
    resemblance: float


class Duplicates:
    """Passages that were seen; `threshold` is the resemblance, above 0 to 1, from which on two are duplicates."""

    def __init__(self, threshold: float) -> None:
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0.3 <= threshold <= 1:
            raise InvalidInput(f"the resemblance of duplicates is from 0.3 to 1, got {threshold!r}")
        self.threshold = threshold
        # As many hashes a band as still find the pairs at the threshold.
        self._rows = max(r for r in (1, 2, 4, 8) if (1 - threshold**r) ** (_HASHES // r) <= _MISSED or r == 1)
        rng = np.random.default_rng(1997)
        self._factors = rng.integers(1, 2**63, _HASHES, np.uint64) * np.uint64(2) + np.uint64(1)
        self._bands: list[dict[bytes, list[int]]] = [{} for _ in range(_HASHES // self._rows)]
        self._runs: list[U64] = []
        self._owners: list[tuple[str, int]] = []
        self._before = 0  # passages of earlier runs
        self._changed: set[str] = set()  # documents whose passages of earlier runs are of no account

    def know(self, records: Iterable[Record]) -> None:
        """Passages that are in the collection already."""
        for record in records:
            runs = _runs(record.text)
            self._insert((record.document_id or "", int(record.payload.get("chunk", 0))), runs, self._keys(runs))
        self._before = len(self._runs)

    def without(self, document_id: str, chunks: list[Chunk]) -> tuple[list[Chunk], list[Duplicate]]:
        """The chunks of a document that are no duplicates, and those that are."""
        self._changed.add(document_id)
        kept: list[Chunk] = []
        found: list[Duplicate] = []
        for chunk in chunks:
            runs = _runs(chunk.text)
            keys = self._keys(runs)
            like = self._like(runs, keys) if chunk.ordinal else None
            if like is None:
                kept.append(chunk)
                self._insert((document_id, chunk.ordinal), runs, keys)
            else:
                owner, resemblance = like
                found.append(Duplicate(f"{document_id}#{chunk.ordinal}", f"{owner[0]}#{owner[1]}", resemblance))
        return kept, found

    def _insert(self, owner: tuple[str, int], runs: U64, keys: list[bytes]) -> None:
        for band, key in zip(self._bands, keys, strict=True):
            band.setdefault(key, []).append(len(self._runs))
        self._runs.append(runs)
        self._owners.append(owner)

    def _like(self, runs: U64, keys: list[bytes]) -> tuple[tuple[str, int], float] | None:
        candidates = {i for band, key in zip(self._bands, keys, strict=True) for i in band.get(key, ())}
        for i in sorted(candidates):
            if i < self._before and self._owners[i][0] in self._changed:
                continue
            both = len(np.intersect1d(runs, self._runs[i], assume_unique=True))
            resemblance = both / (len(runs) + len(self._runs[i]) - both)
            if resemblance >= self.threshold:
                return self._owners[i], resemblance
        return None

    def _keys(self, runs: U64) -> list[bytes]:
        """The signature in bands: for each hash function the least of all runs of words."""
        hashed = runs[:, None] * self._factors
        hashed ^= hashed >> np.uint64(29)
        hashed *= self._factors[::-1]
        least = (hashed >> np.uint64(32)).min(axis=0).astype(np.uint32)
        return [band.tobytes() for band in least.reshape(-1, self._rows)]


def _runs(text: str) -> U64:
    """The hashes of a text's runs of words, distinct and sorted; of a text without words that of the text."""
    words = _WORD.findall(text.lower()) or [text]
    hashes = np.fromiter((zlib.crc32(word.encode()) for word in words), np.uint64, len(words))
    mixed = hashes * np.uint64(0x9E3779B97F4A7C15)
    run = mixed[: max(1, len(words) - _RUN + 1)].copy()
    for k in range(1, min(_RUN, len(words))):
        run = run * np.uint64(0xC2B2AE3D27D4EB4F) + mixed[k : k + len(run)]
    distinct: U64 = np.unique(run)
    return distinct
