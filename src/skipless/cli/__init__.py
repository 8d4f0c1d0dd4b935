"""The command line: `skipless train | eval | measure | reproduce | data | init | doctor`."""

from skipless.cli.verbs import main

__all__ = ["main"]
