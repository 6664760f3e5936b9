"""The ledger's words, without the database behind them: what changes, what is under way, what is visible."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Entry:
    """What the ledger knows of a document."""

    hash: str
    origin: str | None
    source: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """A document's next version; no record_ids and an empty hash remove it.

    record_ids: the store's ids of its chunks, by ordinal.
    """

    document_id: str
    hash: str = ""
    record_ids: tuple[str, ...] = ()
    origin: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """A change under way. new: record ids only the next version has; old: only the previous one."""

    document_id: str
    new: frozenset[str]
    old: frozenset[str]
    committed: bool


@dataclass(slots=True)
class Visibility:
    """What a search may show while documents change.

    hidden: record ids that the store may hold and no search may show; swapped whole, so that a reader
    without the mutex sees one state or the other. epoch: grows whenever what is visible changes.
    mutex: held, nothing becomes visible or hidden. watch: where other processes write as well, reads the
    two from the ledger; None when nothing changed since it last did.
    """

    hidden: frozenset[str] = frozenset()
    epoch: int = 0
    mutex: threading.RLock = field(default_factory=threading.RLock)
    watch: Callable[[], tuple[frozenset[str], int] | None] | None = None

    def refresh(self) -> None:
        """Learn what other processes made visible."""
        if self.watch is not None:
            with self.mutex:
                seen = self.watch()
                if seen is not None:
                    self.hidden, self.epoch = seen
