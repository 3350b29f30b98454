"""Versioned migrations of the store's schema, applied when a store is opened."""
