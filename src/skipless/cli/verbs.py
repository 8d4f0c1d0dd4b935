"""The command line: one file a verb."""

import faulthandler
import os
import sys
from collections.abc import Callable
from typing import Any

import tyro

from skipless.cli.data import data
from skipless.cli.doctor import doctor
from skipless.cli.evaluate import evaluate
from skipless.cli.export import export
from skipless.cli.init import init
from skipless.cli.measure import measure
from skipless.cli.plan import plan
from skipless.cli.reproduce import reproduce
from skipless.cli.train import train
from skipless.errors import InputError

VERBS: dict[str, Callable[..., Any]] = {
    "train": train,
    "eval": evaluate,
    "export": export,
    "measure": measure,
    "reproduce": reproduce,
    "data": data,
    "init": init,
    "plan": plan,
    "doctor": doctor,
}


def main(arguments: list[str] | None = None) -> None:
    """Run one verb. Bad input is one line on the standard error and exit code 2."""
    if sys.__stderr__ is not None and not faulthandler.is_enabled():
        faulthandler.enable(sys.__stderr__)  # a crash in a library's native code says in which line of ours
    try:
        tyro.extras.subcommand_cli_from_dict(
            VERBS,
            prog="skipless",
            args=arguments,
            description="Transformers without skip connections (arXiv 2510.00345).",
        )
    except InputError as error:
        print(f"skipless: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("skipless: interrupted; of a run, the same command goes on from the last checkpoint", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # `skipless ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
