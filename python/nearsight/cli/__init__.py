"""The command line: `main` is the entry point; each command is a module with a function `command`."""

from nearsight.cli.app import main

__all__ = ["main"]
