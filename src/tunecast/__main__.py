"""``python -m tunecast`` is the command line."""

from tunecast.cli import main

main()
