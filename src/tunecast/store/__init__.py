"""Where runs live: SQL for many writers at once, Parquet to carry them, importers for what users have."""

from tunecast.store.store import Store

__all__ = ["Store"]
