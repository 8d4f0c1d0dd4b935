"""The command line: `skipless train | eval | reproduce | init | doctor`."""

from skipless.cli.verbs import main

__all__ = ["main"]
