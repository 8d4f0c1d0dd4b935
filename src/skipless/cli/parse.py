"""From options and words to values, by tyro; what is unknown is told in one line."""

import difflib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import field, make_dataclass
from io import StringIO
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

import tyro

from skipless.cli.choices import check_choices
from skipless.cli.signature import Argument, is_tuple
from skipless.errors import InputError, did_you_mean

FIRST = "general"  # heading of options that have none of their own


def parse(
    arguments: Sequence[Argument],
    words: Sequence[str],
    *,
    prog: str,
    description: str,
    elsewhere: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """The value of every argument.

    Args:
        arguments: of the command.
        words: as typed, without the command's own.
        prog: the command's own.
        description: above the options in its help.
        elsewhere: for each flag, which commands beside this one have it.

    Raises:
        InputError: for a flag that there is not.
        SystemExit: with code 0 after `--help`, and 2 where a value cannot be read.
    """
    known = {flag for argument in arguments for flag in argument.flags} | {"-h", "--help"}
    for word in words:
        flag = word.partition("=")[0].replace("_", "-")
        if flag.startswith("--") and flag not in known:
            raise InputError(_unknown(flag, prog, known, elsewhere or {}))
    if asks_for_help(words):
        words = ["--help"]
    else:
        check_choices(arguments, words)
    words, unsaid = _unsaid(arguments, words)
    groups: dict[str, list[Argument]] = {FIRST: []}
    for argument in arguments:
        groups.setdefault(argument.shown.group or FIRST, []).append(argument)
    shape = make_dataclass(
        "Command", [(name, _shape(name, members), field()) for name, members in groups.items() if members], kw_only=True
    )
    # The root shows groups under their names and options under theirs alone.
    said = [argument.name.upper() for argument in arguments if argument.shown.positional]
    with _named_once([name for name in said if name in prog.split()]):
        made = tyro.cli(
            shape, prog=prog, args=list(words), description=description, config=(tyro.conf.OmitArgPrefixes,)
        )  # pyright: ignore[reportCallIssue, reportArgumentType]
    values = {name: value for group in vars(made).values() for name, value in vars(group).items()}
    return values | dict.fromkeys(unsaid)


@contextmanager
def _named_once(names: Sequence[str]) -> Iterator[None]:
    """Leave arguments that stand in the command itself out of the end of the usage line, where tyro names all."""
    if not names:
        yield
        return
    written = _Written()
    try:
        with redirect_stdout(written):
            yield
    finally:
        text = written.getvalue()
        for name in names:
            text = re.sub(rf"(usage:.*\[-h\][^\n]*?) (?:\x1b\[[\d;]*m)*{name}(?:\x1b\[[\d;]*m)*", r"\1", text, count=1)
        sys.stdout.write(text)


class _Written(StringIO):
    """What is written to standard output instead of it, by whoever asks first whether it is a terminal."""

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of standard output."""
        return getattr(sys.__stdout__, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether standard output is one."""
        return sys.__stdout__ is not None and sys.__stdout__.isatty()


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether `-h` or `--help` is among the words."""
    return any(word in ("-h", "--help") for word in words)


def choose(
    verb: str, words: Sequence[str], candidates: Mapping[str, Sequence[Argument]], *, after: int = 0
) -> tuple[str | None, list[str]]:
    """The name among the words that says what is wanted, and the other words; None where there is none.

    A word that is the value of an option is no name, whatever it is.

    Args:
        verb: for messages.
        words: as typed.
        candidates: the options of everything that may be named, by name.
        after: how many positional words come before the name.

    Raises:
        InputError: for a name that there is not.
    """
    places = positional(words, [argument for options in candidates.values() for argument in options])[after:]
    if not places:
        return None, list(words)
    at = next((place for place in places if words[place] in candidates), None)
    if at is not None:
        return words[at], [*words[:at], *words[at + 1 :]]
    given = words[places[0]]
    hint = did_you_mean(given, candidates).strip() or f"there is {', '.join(candidates)};"
    raise InputError(f"`skipless {verb}` knows no {given!r}; {hint} `skipless {verb} --help` lists all")


def positional(words: Sequence[str], arguments: Sequence[Argument]) -> list[int]:
    """Where words stand that are neither flags nor the value that follows one."""
    valued = {
        flag
        for argument in arguments
        if bool not in (argument.type, *get_args(argument.type))
        for flag in argument.flags
    }
    places, is_value = [], False
    for at, word in enumerate(words):
        if is_value:
            is_value = False
        elif word.startswith("--"):
            is_value = word.replace("_", "-") in valued
        elif not word.startswith("-"):
            places.append(at)
    return places


def _unsaid(arguments: Sequence[Argument], words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words, and the switches that may be left open and are: neither `--x` nor `--no-x` is among the words."""
    kept, unsaid = list(words), []
    for argument in arguments:
        if argument.type == (bool | None):
            yes, no = argument.flags[:2]
            for at in reversed([at for at, word in enumerate(kept) if word.partition("=")[0].replace("_", "-") == yes]):
                spelt = kept[at].split("=")[1:] or kept[at + 1 : at + 2]
                if spelt in (["True"], ["False"]):  # `--x True` or `--x=True`, as it was once given
                    kept[at : at + 1 + ("=" not in kept[at])] = [no if spelt == ["False"] else yes]
            unsaid += [] if {yes, no} & {word.replace("_", "-") for word in kept} else [argument.name]
    return kept, unsaid


def _shape(name: str, members: Sequence[Argument]) -> type:
    """The dataclass of a group; a default makes the field optional."""
    made = make_dataclass(
        name.capitalize(),
        [(one.name, _annotated(one), field() if one.required else field(default=_default(one))) for one in members],
        kw_only=True,
        frozen=True,
    )
    made.__doc__ = ""
    return made


def _default(argument: Argument) -> Any:
    return False if argument.type == (bool | None) else argument.default


def _annotated(argument: Argument) -> Any:
    shown, kind = argument.shown, _chosen(argument)
    hint: str | None = None
    if not argument.required and (shown.default or argument.default is None):
        text = shown.default or "none"
        hint = "(required)" if text == "required" else f"(default: {text})"
    told = tyro.conf.arg(
        help=argument.help,
        metavar=argument.name.upper() if shown.positional else _metavar(kind),
        aliases=shown.aliases or None,
        help_behavior_hint=hint,
    )
    kind = Annotated[kind, told]
    return tyro.conf.Positional[kind] if shown.positional else kind


def _chosen(argument: Argument) -> Any:
    """Its type, narrowed to what may be chosen from."""
    choices = argument.shown.choices
    if argument.type == (bool | None):
        return bool
    return argument.type if choices is None else Literal[choices()]  # pyright: ignore[reportInvalidTypeForm]


def _metavar(kind: Any) -> str | None:
    """What stands for the value; None leaves it to tyro."""
    if get_origin(kind) not in (Union, UnionType):
        return None
    (bare, *more) = [part for part in get_args(kind) if part is not NoneType]
    if more or bare is bool:
        return None
    if is_tuple(bare):
        return f"[{_word(get_args(bare)[0])} ...]"
    return _word(bare)


def _word(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    return getattr(kind, "__name__", str(kind)).upper()


def _unknown(flag: str, prog: str, known: set[str], elsewhere: Mapping[str, Sequence[str]]) -> str:
    what = prog.rsplit(maxsplit=1)[-1]
    others = elsewhere.get(flag)
    near = difflib.get_close_matches(
        flag.strip("-"), [one.strip("-") for one in known], n=1, cutoff=0.8 if others else 0.6
    )
    hint = f"did you mean --{near[0]}? " if near else ""
    if others:
        advice = hint or "leave it out "
        return f"{flag} changes nothing of {what}: {advice}({flag} is for {', '.join(others)}, not for {what})"
    return f"{prog} has no {flag}; {hint}`{prog} --help` lists all"


def told(text: str, words: Sequence[str]) -> NoReturn:
    """Print a help text and end: with exit code 2 where nobody asked for it, as after an empty command."""
    asked = asks_for_help(words)
    print(text, file=sys.stdout if asked else sys.stderr)
    sys.exit(0 if asked else 2)


def holders(candidates: Mapping[str, Sequence[Argument]], name: str) -> dict[str, list[str]]:
    """For each flag, which other candidates have it."""
    found: dict[str, list[str]] = {}
    for other, arguments in candidates.items():
        for flag in (flag for argument in arguments for flag in argument.flags):
            if other != name:
                found.setdefault(flag, []).append(other)
    return found
