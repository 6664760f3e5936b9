"""The ledger's tables. Changing them needs a migration in `migrations/versions`; a test compares the two."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text

metadata = MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_name)s", "pk": "pk_%(table_name)s"},
)

settings = Table(
    "settings",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", JSON, nullable=False),
)

documents = Table(
    "documents",
    metadata,
    Column("id", String(512), primary_key=True),
    # Of text, metadata, chunker and model: equal means that there is nothing to do.
    Column("hash", String(64), nullable=False),
    # What the user named: a folder or a file; null for documents added as objects.
    Column("origin", Text),
    # The file it was read from.
    Column("source", Text),
    # The run that saw it last; one that a complete run over its origin did not see is gone.
    Column("run", Integer, nullable=False),
    Column("chunks", Integer, nullable=False),
    Index("ix_documents_origin", "origin"),
)

chunks = Table(
    "chunks",
    metadata,
    Column("document_id", String(512), primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("record_id", String(36), nullable=False),
)

intents = Table(
    "intents",
    metadata,
    Column("document_id", String(512), primary_key=True),
    Column("new", JSON, nullable=False),
    Column("old", JSON, nullable=False),
    Column("committed", Boolean, nullable=False),
)

failures = Table(
    "failures",
    metadata,
    Column("id", Text, primary_key=True),
    Column("origin", Text),
    Column("reason", Text, nullable=False),
)

# What the embedding model was asked for, a row a run; see `Usage` in the contract.
usage = Table(
    "usage",
    metadata,
    Column("run", Integer, primary_key=True, autoincrement=False),
    Column("model", Text, nullable=False),
    Column("texts", Integer, nullable=False),
    Column("cached", Integer, nullable=False),
    Column("fallback", Integer, nullable=False),
    Column("requests", Integer, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("dollars", Float, nullable=False),
    Column("seconds", Float, nullable=False),
)

# Kept by Alembic's own convention, so that its tools work on a ledger as well.
version = Table("alembic_version", metadata, Column("version_num", String(32), primary_key=True))
