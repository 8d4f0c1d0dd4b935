"""One command as a person types it, in this process."""

from typing import Any

from skipless import cli


def skipless(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    """Give its exit code, standard output and standard error."""
    code = 0
    try:
        cli.main(list(arguments))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    return code, *capsys.readouterr()
