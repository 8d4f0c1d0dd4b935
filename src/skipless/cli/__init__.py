"""The command line: `skipless train | eval | measure | reproduce | report | export | data | init | plan | doctor`.

Its help is made from the signatures and docstrings of what it calls. It knows no experiment and no study by name.
"""

from skipless.cli.main import main

__all__ = ["main"]
