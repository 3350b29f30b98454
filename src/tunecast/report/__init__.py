"""The live display, the HTML report and the model card of a session."""
