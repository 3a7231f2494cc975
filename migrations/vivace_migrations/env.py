"""Alembic's entry point: runs migrations on the connection that `vivace.store.migrate` hands over."""

from alembic import context

from vivace.store.tables import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
