"""One command as a person types it, in this process."""

from typing import Any

from skipless import cli
from skipless.cli.main import VERBS
from skipless.cli.verbs.data import _KINDS
from skipless.registry import recipes, reports
from skipless.studies.named import STUDIES


def skipless(capsys: Any, *arguments: str) -> tuple[int, str, str]:
    """Give its exit code, standard output and standard error."""
    code = 0
    try:
        cli.main(list(arguments))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    return code, *capsys.readouterr()


def every_command() -> list[list[str]]:
    """Everything that has options of its own, without them."""
    named = {"train": recipes(), "doctor": recipes(), "reproduce": reports(), "data": _KINDS}
    commands = [[verb, name] for verb, names in named.items() for name in names]
    commands += [["eval", "SOURCE", study] for study in ("top1", *STUDIES)]
    return commands + [[verb] for verb in VERBS if verb not in ("train", "reproduce", "data", "eval")]
