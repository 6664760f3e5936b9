"""The ledger's words, without the database behind them: what changes, what is under way, what is visible."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


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


_DRAWN = 1 << 62


def draw_epoch() -> int:
    """Another number than any before, of this collection or of any other."""
    return _DRAWN | secrets.randbits(62)


class State(NamedTuple):
    """hidden: record ids that the store may hold and no search may show. epoch: drawn anew whenever what is visible
    changes, or may have; at random, since a copy, a restored backup or a collection made anew would count the same.
    """

    hidden: frozenset[str] = frozenset()
    epoch: int = 0


@dataclass(slots=True)
class Visibility:
    """What a search may show while documents change.

    state: swapped whole, so that a reader without the mutex sees one or the other. mutex: held, nothing becomes
    visible or hidden. watch: where other processes write as well, reads the state from the ledger; None when nothing
    changed since it last did.
    """

    state: State = State()  # noqa: RUF009 -- immutable
    mutex: threading.RLock = field(default_factory=threading.RLock)
    watch: Callable[[], State | None] | None = None

    @property
    def hidden(self) -> frozenset[str]:
        return self.state.hidden

    @property
    def epoch(self) -> int:
        return self.state.epoch

    @property
    def version(self) -> int | None:
        """Names what can be found now: equal numbers, equal documents, wherever and whenever they are seen.

        None while a change is under way, before the first, and where an earlier nearest counted the epochs.
        """
        hidden, epoch = self.state
        return None if hidden or epoch < _DRAWN else epoch

    def refresh(self) -> None:
        """Learn what other processes made visible."""
        if self.watch is not None:
            with self.mutex:
                seen = self.watch()
                if seen is not None:
                    self.state = seen
