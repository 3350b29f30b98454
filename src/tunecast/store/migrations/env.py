"""Script that alembic runs: applies the migrations within the store's open transaction."""

from alembic import context

from tunecast.store.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
with context.begin_transaction():
    context.run_migrations()
