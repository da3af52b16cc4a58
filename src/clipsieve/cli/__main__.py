"""``python -m clipsieve.cli``: the command without its script."""

from clipsieve.cli import main

main()
