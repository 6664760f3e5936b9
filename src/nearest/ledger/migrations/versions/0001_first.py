"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "settings",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("value", sa.JSON, nullable=False),
    )
    op.create_table(
        "documents",
        sa.Column("id", sa.String(512), primary_key=True),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("origin", sa.Text),
        sa.Column("source", sa.Text),
        sa.Column("run", sa.Integer, nullable=False),
        sa.Column("chunks", sa.Integer, nullable=False),
    )
    op.create_index("ix_documents_origin", "documents", ["origin"])
    op.create_table(
        "chunks",
        sa.Column("document_id", sa.String(512), primary_key=True),
        sa.Column("ordinal", sa.Integer, primary_key=True),
        sa.Column("record_id", sa.String(36), nullable=False),
    )
    op.create_table(
        "intents",
        sa.Column("document_id", sa.String(512), primary_key=True),
        sa.Column("new", sa.JSON, nullable=False),
        sa.Column("old", sa.JSON, nullable=False),
        sa.Column("committed", sa.Boolean, nullable=False),
    )
    op.create_table(
        "failures",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("origin", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
    )
