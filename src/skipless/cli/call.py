"""A verb that is one function: its arguments are the options."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from skipless.cli.listing import examples as listed_examples
from skipless.cli.loading import MODELS, load
from skipless.cli.parse import parse
from skipless.cli.signature import arguments_of, build, summary


def call(
    function: Callable[..., Any],
    words: list[str],
    *,
    prog: str,
    examples: tuple[str, ...] = (),
    elsewhere: Mapping[str, Sequence[str]] | None = None,
) -> Any:
    """Call it with the values of its arguments, once torch is there.

    Args:
        function: whose docstring is the help.
        words: as typed, without the verb.
        prog: the command.
        examples: command lines that work as they stand.
        elsewhere: for each flag, which commands beside this one have it.
    """
    description = "\n\n".join(part for part in (summary(function), listed_examples(examples)) if part)
    values = parse(arguments_of(function), words, prog=prog, description=description, elsewhere=elsewhere)
    load(*MODELS)
    return build(function, values)
