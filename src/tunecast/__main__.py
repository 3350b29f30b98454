"""Runs the command line for ``python -m tunecast``."""

from tunecast.cli import main

main()
