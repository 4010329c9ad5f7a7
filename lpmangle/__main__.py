"""`python -m lpmangle`."""

from lpmangle.cli import main

main()
