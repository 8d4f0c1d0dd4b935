"""The command line: `skipless train | eval | measure | reproduce | export | data | init | plan | doctor`."""

from skipless.cli.verbs import main

__all__ = ["main"]
