"""Where trials run: worker processes that hold the base model and answer requests."""
