"""`python -m seg3d_core.cli`, where the command is not on the path."""

from . import main

main()
