"""What a model was asked for outside of runs: queries, and the probe of a model that nobody knows.

Embedders count for themselves, in memory, so that a search costs nothing more. What they counted and no ledger knows
is taken from here when a collection is closed, tells its facts, or has added something. Collections that share one
embedder share its account: nothing is counted twice, and queries are told to whichever of them takes first.
"""

from __future__ import annotations

import threading
import weakref

from nearest.contract import Embedder, Usage

_ACCOUNTS: dict[int, Account] = {}  # by the embedder's id, while it lives: not all of them can be hashed
_LOCK = threading.Lock()


class Account:
    """told: what ledgers know of, and what the embedder was asked for before any collection had it."""

    def __init__(self, told: Usage) -> None:
        self._told = told
        self._running = 0
        self._lock = threading.Lock()

    @classmethod
    def of(cls, embedder: Embedder, before: Usage | None = None) -> Account:
        """The embedder's one account. before: what it was asked for before it came here; all until now if None."""
        with _LOCK:
            account = _ACCOUNTS.get(id(embedder))
            if account is None:
                account = _ACCOUNTS[id(embedder)] = cls(embedder.usage if before is None else before)
                weakref.finalize(embedder, _ACCOUNTS.pop, id(embedder), None)
            return account

    def begin(self) -> None:
        """A run starts, which keeps its own account."""
        with self._lock:
            self._running += 1

    def end(self, used: Usage) -> None:
        """A run has told its ledger what it used."""
        with self._lock:
            self._running -= 1
            self._told += used

    def take(self, embedder: Embedder) -> Usage:
        """What is to be told; nothing while a run goes on, which counts what is asked beside it as well."""
        with self._lock:
            if self._running:
                return Usage()
            rest = embedder.usage - self._told
            self._told = embedder.usage
            return rest
