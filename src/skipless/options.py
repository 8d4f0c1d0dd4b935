"""What a function or a dataclass says of its arguments for the command line, beside their types and docstring."""

import inspect
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from skipless.errors import InputError


@dataclass(frozen=True)
class Option:
    """How the command line shows an argument: `jobs: Annotated[int | None, Option("one a core")] = None`.

    Attributes:
        default: what stands for a default that is found out later.
        group: heading that it stands under.
        positional: given without its name.
        aliases: other names, with their dashes.
        stated: whether a report states it in the command that makes it again; what changes no number is not.
        choices: gives what may be chosen from, where that is known only when it is asked for.
    """

    default: str = ""
    group: str = ""
    positional: bool = False
    aliases: tuple[str, ...] = ()
    stated: bool = True
    choices: Callable[[], tuple[str, ...]] | None = None


def option_of(hint: Any) -> Option:
    """What an annotation says besides the type."""
    found = (extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Option))
    return next(found, Option())


def stated_command(words: tuple[str, ...], options: Callable[..., Any], given: Mapping[str, Any]) -> str:
    """The command line that makes a report again: whatever is not as by default.

    Args:
        words: that it begins with.
        options: a function or dataclass, whose arguments are the options.
        given: their values by name.

    Example:
        >>> def make(*, scale: str = "digits", seeds: int = 1, tune: bool = False): ...
        >>> stated_command(("skipless", "reproduce", "table1"), make, {"scale": "digits", "seeds": 3, "tune": True})
        'skipless reproduce table1 --seeds 3 --tune'
    """
    hints = get_type_hints(options, include_extras=True)
    parts = list(words)
    for name, parameter in inspect.signature(options).parameters.items():
        value = given.get(name, parameter.default)
        if value == parameter.default or not option_of(hints.get(name)).stated:
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            parts.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            parts += [f"--{flag}", *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(parts)


def refuse_given(where: str, **values: Any) -> None:
    """Refuse options that change nothing there.

    Raises:
        InputError: that names the first one whose value is not None.
    """
    for name, value in values.items():
        if value is not None:
            raise InputError(f"--{name.replace('_', '-')} changes nothing of {where}: leave it out")
