"""One file per version of the schema, named by its number; never changed once released."""
