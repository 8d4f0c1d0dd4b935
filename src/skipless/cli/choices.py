"""Options that take one of a few words: what is none of them is told in one line, before tyro tells it in six."""

from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Literal, Union, get_args, get_origin

from skipless.cli.signature import Argument, is_tuple
from skipless.errors import InputError, did_you_mean


def check_choices(arguments: Sequence[Argument], words: Sequence[str]) -> None:
    """Check every value of an option that takes one of a few words.

    Args:
        arguments: of the command.
        words: as typed, without the command's own.

    Raises:
        InputError: for the first value that is none of them.
    """
    for argument, value in _given(arguments, words):
        choices = choices_of(argument)
        if choices and value not in (*choices, "None"):
            flag, near = argument.name.replace("_", "-"), did_you_mean(value, choices)
            raise InputError(f"--{flag} {value}: {near}there is {', '.join(choices)}")


def choices_of(argument: Argument) -> tuple[str, ...]:
    """The words that an option takes; none where it takes others, too."""
    if argument.shown.choices is not None:
        return argument.shown.choices()
    found: tuple[str, ...] = ()
    kinds = [argument.type]
    for kind in kinds:
        if get_origin(kind) is Literal:
            found += tuple(map(str, get_args(kind)))
        elif get_origin(kind) in (Union, UnionType, tuple):
            kinds += [part for part in get_args(kind) if part not in (NoneType, Ellipsis)]
        else:
            return ()
    return found


def _given(arguments: Sequence[Argument], words: Sequence[str]) -> Iterator[tuple[Argument, str]]:
    """Each option with each of its values."""
    by_flag = {flag: argument for argument in arguments for flag in argument.flags}
    argument: Argument | None = None
    for word in words:
        flag, equals, value = word.partition("=")
        if flag.startswith("--"):
            argument = by_flag.get(flag.replace("_", "-"))
            if argument is not None and equals:
                yield argument, value
                argument = None
        elif argument is not None:
            yield argument, word
            argument = argument if is_tuple(argument.type) else None
