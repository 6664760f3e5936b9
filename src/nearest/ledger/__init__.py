"""The ledger: our own durable account of what was indexed, from what, by which model.

It decides what exists. A record in the store counts only if the ledger has committed it, so a crash
between the two leaves nothing half-done: `pending` tells what was under way, and `ingest` finishes or
undoes it. SQLite by default, PostgreSQL by URL. Beside an embedded store the store's lock keeps other
processes away; elsewhere many may read while one writes (`Ledger.writing`, `Visibility.refresh`).

A change of documents goes through four steps, each one transaction here:

    intend   the records to come and the records to go are written down; the new ones are hidden
             (the store then takes the new records)
    commit   the new version is the document's version; from here on the old records are hidden
             (the store then drops the old records)
    settle   the intent is forgotten
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nearest.ledger.changes import Change, Entry, Intent, State, Visibility
from nearest.ledger.glance import glance, watch

if TYPE_CHECKING:
    from nearest.ledger.ledger import Ledger

__all__ = ["Change", "Entry", "Intent", "Ledger", "State", "Visibility", "glance", "watch"]


def __getattr__(name: str) -> Any:
    if name == "Ledger":  # with SQLAlchemy behind it
        return importlib.import_module("nearest.ledger.ledger").Ledger
    raise AttributeError(f"module 'nearest.ledger' has no attribute {name!r}")
