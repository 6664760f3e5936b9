"""Where the time of adding goes, by stage.

    before      find what is named, load the model
    prepare     read, compare with the ledger, chunk     the caller's thread
    embed       embed                                    beside it, see `write`
    write       store, ledger                            beside both
    after       remove what is gone, index

Within a line stages take turns. The three threads overlap, between before and after; the one that is busy longest is
what the other two wait for, and no run is faster than that.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Literal, TypeVar

Item = TypeVar("Item")
Stage = Literal[
    "finding", "loading", "reading", "comparing", "chunking", "embedding", "storing", "ledger", "removing", "indexing"
]
LINES: Mapping[str, tuple[Stage, ...]] = {
    "before": ("finding", "loading"),
    "prepare": ("reading", "comparing", "chunking"),
    "embed": ("embedding",),
    "write": ("storing", "ledger"),
    "after": ("removing", "indexing"),
}


@dataclass(slots=True)
class Profile:
    """Seconds of wall time that each stage was busy; the threads overlap, so they may add up to more than `seconds`.

    finding: listing what paths and URLs name. loading: the model, unless it was before. reading: what the run waited
    for texts, fetching included. read_ahead: what reading took in other processes, beside all else. comparing:
    hashes, and what the ledger knows of the documents. embedding: requests to a provider and waiting for it
    included. storing, ledger: durable writes. removing: what is gone from its source. indexing: what the store does
    once all is written. running: reading to ledger, all overlapping. megabytes: UTF-8 text of all documents that
    were read, unchanged ones included.
    """

    finding: float = 0.0
    loading: float = 0.0
    reading: float = 0.0
    comparing: float = 0.0
    chunking: float = 0.0
    embedding: float = 0.0
    storing: float = 0.0
    ledger: float = 0.0
    removing: float = 0.0
    indexing: float = 0.0
    read_ahead: float = 0.0
    running: float = 0.0
    megabytes: float = 0.0

    def __add__(self, other: Profile) -> Profile:
        return Profile(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def seconds(self) -> float:
        """Wall time of all."""
        return self.finding + self.loading + self.running + self.removing + self.indexing

    @property
    def lines(self) -> dict[str, dict[Stage, float]]:
        """The seconds of each stage, by the lines at the head of this file."""
        return {line: {stage: getattr(self, stage) for stage in stages} for line, stages in LINES.items()}

    @property
    def bound(self) -> Stage:
        """The stage that has to be faster for the run to be: the longest one of the longest line."""
        longest = max(self.lines.values(), key=lambda stages: sum(stages.values()))
        return max(longest, key=longest.__getitem__)

    @contextmanager
    def timed(self, stage: Stage | Literal["running"]) -> Iterator[None]:
        """Its block belongs to a stage; no two threads have the same one."""
        started = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, stage, getattr(self, stage) + time.perf_counter() - started)

    def each(self, stage: Stage, items: Iterable[Item]) -> Iterator[Item]:
        """The same items; what it takes to come by them belongs to a stage."""
        iterator = iter(items)
        while True:
            with self.timed(stage):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item
