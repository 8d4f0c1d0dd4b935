"""Options read off a function or dataclass: its arguments, their types and defaults, and its docstring."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, get_args, get_origin, get_type_hints

from skipless.options import Option, option_of

_MISSING = inspect.Parameter.empty
_ARGUMENT = re.compile(r"^( {4,}|\t+)(\w+(?:, \w+)*): (.*)$")


@dataclass(frozen=True)
class Argument:
    """An option of a command.

    Attributes:
        name: of the argument.
        type: of its value.
        default: None may stand for a default that is found out later.
        help: from the docstring.
        shown: what else is said of it.
        required: whether it has no default.
    """

    name: str
    type: Any
    default: Any
    help: str
    shown: Option
    required: bool

    @property
    def flags(self) -> tuple[str, ...]:
        """How it is given: `--lr`, or `--tune` and `--no-tune`; nothing where it is positional."""
        if self.shown.positional:
            return ()
        flag = self.name.replace("_", "-")
        pair = (f"--no-{flag}",) if bool in (self.type, *get_args(self.type)) else ()
        return (f"--{flag}", *pair, *self.shown.aliases)


def arguments_of(function: Callable[..., Any], without: Mapping[str, Any] | None = None) -> list[Argument]:
    """The arguments of a function or dataclass; those of a dataclass among them stand for it.

    Args:
        function: with a Google-style docstring.
        without: names that are left out.
    """
    hints = get_type_hints(function, include_extras=True)
    said = argument_docs(function)
    found: list[Argument] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in (without or {}):
            continue
        hint, shown = hints[name], option_of(hints[name])
        bare = get_args(hint)[0] if hasattr(hint, "__metadata__") else hint
        if is_dataclass(bare):
            inner = arguments_of(bare)  # pyright: ignore[reportArgumentType]
            found += [replace(one, shown=replace(one.shown, group=one.shown.group or shown.group)) for one in inner]
            continue
        missing = parameter.default is _MISSING
        found.append(Argument(name, bare, None if missing else parameter.default, said.get(name, ""), shown, missing))
    return found


def build(function: Callable[..., Any], values: Mapping[str, Any], fixed: Mapping[str, Any] | None = None) -> Any:
    """Call a function, or make a dataclass, with the values that belong to it and to the dataclasses within it."""
    hints = get_type_hints(function)
    given: dict[str, Any] = {}
    for name in inspect.signature(function).parameters:
        hint = hints[name]
        if is_dataclass(hint) and isinstance(hint, type):
            given[name] = build(hint, values)
        elif name in (fixed or {}):
            given[name] = (fixed or {})[name]
        elif name in values:
            given[name] = values[name]
    return function(**given)


def argument_docs(function: Callable[..., Any]) -> dict[str, str]:
    """What a docstring says of each argument, in one line; of a dataclass also what those say that it extends."""
    found: dict[str, str] = {}
    for one in reversed(function.__mro__ if isinstance(function, type) else (function,)):
        found |= _section(inspect.getdoc(one) or "" if one is not object else "")
    return found


def summary(function: Callable[..., Any]) -> str:
    """A docstring up to its sections."""
    text = inspect.getdoc(function) or ""
    return re.split(r"\n(?:Args|Attributes|Returns|Raises|Example):", text)[0].strip()


def title(function: Callable[..., Any]) -> str:
    """A docstring's first line; empty where Python has left docstrings out (`-OO`)."""
    return next(iter(summary(function).splitlines()), "")


def _section(doc: str) -> dict[str, str]:
    match = re.search(r"^(?:Args|Attributes):\n(.*?)(?=^\S|\Z)", doc, re.M | re.S)
    found: dict[str, str] = {}
    names: list[str] = []
    for line in (match[1] if match else "").splitlines():
        start = _ARGUMENT.match(line)
        if start is not None and len(start[1]) == 4:
            names = start[2].split(", ")
            found |= dict.fromkeys(names, start[3])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return {name: text.replace("`", "").strip() for name, text in found.items()}


def is_tuple(hint: Any) -> bool:
    """Whether several words make one value."""
    return get_origin(hint) is tuple or any(get_origin(part) is tuple for part in get_args(hint))
