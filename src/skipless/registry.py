"""The experiments, a line each. None is imported before it is asked for, and none needs torch to say what it takes."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skipless.errors import InputError, did_you_mean

EXPERIMENTS = [
    "skipless.experiments.supervised",
    "skipless.experiments.dense",
    "skipless.experiments.conditioning",
    "skipless.experiments.token_graying",
    "skipless.experiments.depth",
    "skipless.experiments.language",
    "skipless.experiments.quantisation",
    "skipless.experiments.family",
    "skipless.experiments.sine",
]
"""Packages that hold an `EXPERIMENT`."""


def no_remarks(recipe: Any) -> Sequence[str]:
    """Nothing to say of a recipe."""
    return ()


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe that `skipless train` knows by name.

    Attributes:
        make: gives the recipe; its keyword arguments are the command's options, and its docstring their help.
            An argument `row` becomes `--skip` and `--init`.
        remarks: what somebody should know of a recipe before it is trained, a sentence each: that its data is not what
            its scale is made for.
        paper: its scale that is the paper's, for `skipless plan`; None where there is none.
        examples: command lines that work as they stand.
    """

    make: Callable[..., Any]
    paper: str | None = None
    examples: tuple[str, ...] = ()
    remarks: Callable[[Any], Sequence[str]] = no_remarks


@dataclass(frozen=True)
class Report:
    """A table or figure that `skipless reproduce` makes.

    Attributes:
        title: what it is, in a line.
        options: a dataclass whose fields are the command's options, and whose docstring is their help.
        make: gives the report's files by name, from the options and the command that the report names as its origin.
        examples: command lines that work as they stand.
    """

    title: str
    options: type
    make: Callable[[Any, str], Mapping[str, Path]]
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """What an experiment adds to the command line.

    Attributes:
        recipes: by name.
        reports: by name.
        kinds: modules that hold kinds of recipe of its own, imported when a run's recipe is read. They need no torch.
    """

    recipes: Mapping[str, NamedRecipe] = field(default_factory=dict)
    reports: Mapping[str, Report] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()


def experiments() -> list[Experiment]:
    """All of them, in the order of their lines."""
    return [importlib.import_module(package).EXPERIMENT for package in EXPERIMENTS]


def recipes() -> dict[str, NamedRecipe]:
    """Every named recipe."""
    return {name: recipe for one in experiments() for name, recipe in one.recipes.items()}


def reports() -> dict[str, Report]:
    """Every table and figure."""
    return {name: report for one in experiments() for name, report in one.reports.items()}


def recipe_named(name: str) -> Callable[..., Any]:
    """What makes a named recipe, for an experiment that trains what another one has defined.

    Raises:
        InputError: for a name that no experiment has.

    Example:
        >>> recipe_named("table1")("digits", "skip").model.skip
        True
    """
    known = recipes()
    if name not in known:
        raise InputError(f"no recipe {name!r}; {did_you_mean(name, known)}there is {', '.join(known)}")
    return known[name].make
