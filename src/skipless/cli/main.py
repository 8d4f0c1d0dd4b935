"""`skipless VERB ...`: finds the verb, imports it, and turns bad input into one line."""

import faulthandler
import importlib
import os
import sys
from io import TextIOWrapper

import skipless
from skipless.cli.listing import listed
from skipless.errors import InputError, did_you_mean

# Each is a module of `skipless.cli.verbs` with a function `main`.
VERBS = {
    "train": "train a model by a named recipe; the same command goes on where it was cut off",
    "eval": "measure what a model's features are worth: probes, object discovery, neighbours, pictures",
    "measure": "measure the conditioning of a model's Jacobians",
    "reproduce": "make a table or figure of the paper",
    "report": "write a page that lists all runs below a folder",
    "export": "write a run's backbone as a file that timm loads",
    "data": "write, draw or pack data",
    "init": "initialise a model without skips, and say what its weights are",
    "plan": "say what a run at the paper's scale would take",
    "doctor": "say what there is, or what limits a run",
}


# What is kept of a command that is interrupted.
_KEPT = {
    "train": "; the same command goes on from the last checkpoint, if there is one",
    "reproduce": "; the same command goes on: what is finished is kept, runs go on from their last checkpoint",
    "eval": "; the same command goes on with the features and results that are kept",
}


def main(arguments: list[str] | None = None) -> None:
    """Run one verb. Bad input is one line on the standard error and exit code 2."""
    if sys.__stderr__ is not None and not faulthandler.is_enabled():
        faulthandler.enable(sys.__stderr__)  # a crash in a library's native code says in which line of ours
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may be no UTF-8
    given = sys.argv[1:] if arguments is None else arguments
    try:
        _run(given)
    except InputError as error:
        print(f"skipless: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"skipless: interrupted{_KEPT.get(''.join(given[:1]), '')}", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # `skipless ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def _run(given: list[str]) -> None:
    if not given:
        print(_HELP.format(verbs=listed(VERBS)), file=sys.stderr)
        raise SystemExit(2)
    verb, rest = given[0], given[1:]
    if verb in ("-h", "--help"):
        print(_HELP.format(verbs=listed(VERBS)))
    elif verb in ("-V", "--version"):
        print(f"skipless {skipless.__version__}")
    elif verb in VERBS:
        importlib.import_module(f"skipless.cli.verbs.{_MODULE.get(verb, verb)}").main(rest)
    else:
        raise InputError(
            f"no verb {verb!r}; {did_you_mean(verb, VERBS)}there is {', '.join(VERBS)}; `skipless --help` says what "
            "they do"
        )


_MODULE = {"eval": "evaluate"}
_HELP = """\
usage: skipless [-h] [--version] VERB ...

Transformers without skip connections (arXiv 2510.00345).

{verbs}

`skipless VERB --help` says what a verb takes."""
