"""`python -m underone`."""

from underone.cli import main

main()
