"""The ledger: our own durable account of what was indexed, from what, by which model.

It decides what exists. A record in the store counts only if the ledger has committed it, so a crash
between the two leaves nothing half-done: `pending` tells what was under way, and `ingest` finishes or
undoes it. SQLite by default, any database of SQLAlchemy by URL.

A change of documents goes through four steps, each one transaction here:

    intend   the records to come and the records to go are written down; the new ones are hidden
             (the store then takes the new records)
    commit   the new version is the document's version; from here on the old records are hidden
             (the store then drops the old records)
    settle   the intent is forgotten
"""

from nearest.ledger.ledger import Change, Entry, Intent, Ledger

__all__ = ["Change", "Entry", "Intent", "Ledger"]
