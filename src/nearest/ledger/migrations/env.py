"""What Alembic runs: migrations over the connection that `Ledger` hands in."""

from alembic import context

from nearest.ledger import models

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=models.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
