"""Alembic migrations of the ledger; run by `Ledger` when it opens one of an older version."""
