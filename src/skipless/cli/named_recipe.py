"""A named recipe from the command line: what makes it, and what one may change in it, as options."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from skipless.choices import Row
from skipless.cli.listing import listed
from skipless.cli.parse import asks_for_help, choose, holders, parse, told
from skipless.cli.signature import Argument, argument_docs, arguments_of, build, title
from skipless.errors import InputError
from skipless.options import Option, option_of
from skipless.recipes.kinds import Recipe
from skipless.recipes.recipe import KINDS
from skipless.registry import NamedRecipe, recipes

_WITHOUT_INIT = "part of the initialisation, which --skip and --no-init leave out"
_SKIP = (
    Argument("skip", bool, False, "keep the skip connections, and the library's initialisation.", Option(), False),
    Argument("init", bool, True, "the paper's initialisation, for models without skips.", Option(), False),
    Argument("ours", bool, False, "our initialisation instead of it, for any width and depth.", Option(), False),
)


def chosen_recipe(verb: str, words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The recipe's name among the words, and the others; a help text that lists all recipes ends the command."""
    known = {name: title(recipe.make) for name, recipe in recipes().items()}
    more = [OUT, THREADS, *_every_option()]
    name, rest = choose(verb, words, {one: [*_making(named), *more] for one, named in recipes().items()})
    if name is None and verb == "train":
        if words and not asks_for_help(words):
            raise InputError(f"`skipless train` which recipe? There is {', '.join(known)}")
        told(_HELP.format(verb=verb, recipes=listed(known)), words)
    return name, rest


def parsed_recipe(
    named: NamedRecipe, words: Sequence[str], more: Sequence[Argument], *, prog: str, description: str
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe that the words ask for, and the values of further options.

    Defaults are those that will be used: of the recipe that the words name, in the scale that they name.

    Args:
        named: the recipe.
        words: as typed, without verb and name.
        more: further options.
        prog: the command.
        description: above the options in its help.

    Raises:
        InputError: for what the recipe does not have.
    """
    makes = _making(named)
    base, problem = _base(named, makes, words, prog)
    changes = _changes(base)
    elsewhere = holders({name: _making(one) for name, one in recipes().items()}, "")
    values = parse([*makes, *changes, *more], words, prog=prog, description=description, elsewhere=elsewhere)
    if problem is not None:
        raise problem
    made = _made(named, values)
    defaults = {argument.name: argument.default for argument in changes}
    given = {name: values[name] for name in defaults if values[name] != defaults[name]}
    outside = [f"--{name.replace('_', '-')}" for name in given if _at(made, made.options[name], parent=True) is None]
    if outside:
        raise InputError(f"{' '.join(outside)}: {_WITHOUT_INIT}")
    return made.with_(**{made.options[name]: value for name, value in given.items()}), {
        argument.name: values[argument.name] for argument in more
    }


def _making(named: NamedRecipe) -> list[Argument]:
    """What makes the recipe; its row is given by --skip and --init."""
    found = []
    for argument in arguments_of(named.make):
        found += _SKIP if argument.name == "row" else [argument]
    return found


def _base(
    named: NamedRecipe, makes: Sequence[Argument], words: Sequence[str], prog: str
) -> tuple[Recipe, InputError | None]:
    """The recipe before anything in it is changed, and why there is none if it lacks its data."""
    known = {flag for argument in makes for flag in argument.flags}
    own: list[str] = []
    taking = False
    for word in words:
        if word.startswith("--"):
            taking = word.partition("=")[0].replace("_", "-") in known
        if taking and word not in ("-h", "--help"):
            own.append(word)
    values = parse(makes, own, prog=prog, description="")
    try:
        return _made(named, values), None
    except InputError as error:  # options are read before data is asked for
        return _made(named, {**values, "data": values.get("data") or "DIR"}), error


def _made(named: NamedRecipe, values: Mapping[str, Any]) -> Recipe:
    if values.get("ours") and (values.get("skip") or not values.get("init", True)):
        raise InputError("--ours is an initialisation for models without skips: leave out --skip and --no-init")
    own: Row = "skipless + ours" if values.get("ours") else "skipless + init"
    row: Row = "skip" if values.get("skip") else own if values.get("init", True) else "skipless"
    return build(named.make, {**values, "row": row})


def _changes(recipe: Recipe) -> list[Argument]:
    """What may be changed in it, with its own values as defaults."""
    found = []
    for name, path in recipe.options.items():
        owner, attribute = _owner(type(recipe), path)
        annotated = get_type_hints(owner, include_extras=True)[attribute]
        hint = get_type_hints(owner)[attribute]
        value = _at(recipe, path)
        absent = _at(recipe, path, parent=True) is None
        said = option_of(annotated)
        default = "none: without the initialisation" if absent else said.default
        part, _, inner = path.partition("__")
        shown = Option(default, said.group or (part if inner else ""))
        kind = hint | None if absent else hint
        found.append(Argument(name, kind, value, argument_docs(owner).get(attribute, ""), shown, False))
    return found


def _every_option() -> list[Argument]:
    """What may be changed in a recipe of any kind, before one is made."""
    found = []
    for kind in KINDS:
        for name, path in kind.options.items():
            owner, attribute = _owner(kind, path)
            found.append(Argument(name, get_type_hints(owner)[attribute], None, "", Option(), False))
    return found


def _owner(kind: type[Recipe], path: str) -> tuple[type, str]:
    """The dataclass that has a field, and the field's name."""
    *parts, last = path.split("__")
    owner: type = kind
    for part in parts:
        hint = get_type_hints(owner)[part]
        owner = next((kind for kind in getattr(hint, "__args__", ()) if kind is not type(None)), hint)
    assert any(one.name == last for one in fields(owner))
    return owner, last


def _at(recipe: Recipe, path: str, *, parent: bool = False) -> Any:
    """The value at a dotted name, or what holds it; None below a part that is not there."""
    value: Any = recipe
    names = path.split("__")
    for name in names[:-1] if parent else names:
        value = None if value is None else getattr(value, name)
    return value


def use_threads(threads: int | None) -> None:
    """Set the CPU threads of this process; None leaves them.

    Raises:
        InputError: for less than one.
    """
    if threads is None:
        return
    if threads < 1:
        raise InputError(f"--threads {threads}: give at least 1")
    import torch

    torch.set_num_threads(threads)


def paper_recipes() -> tuple[str, ...]:
    """Recipes that have the paper's scale."""
    return tuple(name for name, recipe in recipes().items() if recipe.paper is not None)


def recipe_at_paper_scale(name: str, row: Row, optimizer: str, model: str | None, depth: int | None) -> Recipe:
    """A recipe at the paper's scale, of another model or depth, for data that need not be there.

    Without a model, one of images is of ViT-B, as in Table 1.
    """
    named = recipes()[name]
    found: Recipe = named.make(named.paper, row, optimizer, data="-")
    if depth is not None and depth < 1:
        raise InputError(f"--depth {depth}: give at least 1")
    if found.reads_text:
        if model is not None:
            raise InputError(
                f"{model!r}: {name} has a model of its own, whose number of blocks --depth changes; in Python "
                "skipless.planning.text_workload counts any recipe's"
            )
        return named.make(named.paper, row, optimizer, data="-", depth=depth)
    model = "vit_base_patch16_224" if model is None else model
    kwargs = {key: value for key, value in found.model.kwargs.items() if key != "depth"}
    if depth is not None:
        kwargs["depth"] = depth
    return found.with_(model=replace(found.model, name=model, kwargs=kwargs))


OUT = Argument(
    "out", Path, None, "run folder: run.json, metrics.jsonl, checkpoints, result.json.", Option(group="output"), True
)
THREADS = Argument(
    "threads",
    int | None,
    None,
    "CPU threads; they decide rounding, so resume with as many.",
    Option("torch's own", group="machine"),
    False,
)
_HELP = """\
usage: skipless {verb} RECIPE --out DIR [OPTIONS]

Train one model; the same command with the same --out goes on where it was cut off.

{recipes}

`skipless {verb} RECIPE --help` says what a recipe takes."""
