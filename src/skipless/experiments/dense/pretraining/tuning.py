"""Peak learning rates of DINO, for each model and optimizer: what `--tune` tries and chooses."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skipless.choices import OptimizerName, Row, slug
from skipless.data.multicrop import load_multicrop
from skipless.experiments.dense.pretraining.runs import Member
from skipless.recipes.self_supervised import DinoRecipe
from skipless.report.write_files import write_files
from skipless.sweep import Job
from skipless.sweep.rates import best_rate, tune_learning_rates
from skipless.training.run_folder.atomic import read_json

_FILE = "tuning-dino.json"  # Table 1 has a tuning.json

FACTORS = (0.1, 0.3, 1.0, 3.0)  # of the recipe's own rate
SEED = 1000  # of the tuning runs, not that of any reported one
Rates = Mapping[tuple[Row, OptimizerName], float]


def tune(recipes: Mapping[Member, DinoRecipe], out: Path, *, jobs: int | None, threads: int) -> None:
    """Find the rate whose teacher has the best k-NN on the validation images of the pretraining folder.

    A run that collapses has no score. Grids and their scores go to `out/tuning-dino.json`, where `read_rates` finds
    them, and runs into `out/tuning`.

    Raises:
        InputError: where nothing in a grid trained, or a run failed.
    """
    first = next(iter(recipes.values()))
    samples = len(load_multicrop(first.data.data, first.crops))
    full = max(member.depth for member in recipes)
    made: dict[tuple[Row, OptimizerName], dict[float, Job]] = {}
    for member, recipe in recipes.items():
        if member.depth == full and (cell := (member.row, member.optimizer)) not in made:
            made[cell] = {rate: _job(member, recipe, rate, out, samples) for rate in rates_of(recipe)}
    reached = tune_learning_rates(made, jobs=jobs, threads=threads)
    earlier = [one for one in _read(out) if (one["row"], one["optimizer"]) not in reached]
    found = [{"row": row, "optimizer": name, first.metric: grid} for (row, name), grid in reached.items()]
    write_files(out, {_FILE: [*earlier, *found]})


def rates_of(recipe: DinoRecipe) -> Sequence[float]:
    """The grid of a recipe.

    Example:
        >>> from skipless.recipes import dino
        >>> rates_of(dino("vit_small", data="imagenet/"))
        [0.0002, 0.0006, 0.002, 0.006]
    """
    return [float(f"{factor * recipe.optimizer.lr:.3g}") for factor in FACTORS]


def with_rates(recipes: Mapping[Member, DinoRecipe], rates: Rates) -> dict[Member, DinoRecipe]:
    """The recipes at tuned rates, their own where none was tuned; shallower models take that of the deepest."""
    return {
        member: recipe.with_(optimizer__lr=rates.get((member.row, member.optimizer)))
        for member, recipe in recipes.items()
    }


def read_rates(out: Path, metric: str) -> dict[tuple[Row, OptimizerName], float]:
    """The rates that an earlier tuning chose; empty if there was none."""
    found = {}
    for one in _read(out):
        grid = {float(rate): score for rate, score in one[metric].items()}
        found[one["row"], one["optimizer"]] = best_rate((one["row"], one["optimizer"]), grid)
    return found


def _read(out: Path) -> list[dict[str, Any]]:
    return read_json(out / _FILE) or []


def _job(member: Member, recipe: DinoRecipe, rate: float, out: Path, samples: int) -> Job:
    tuning = recipe.with_(optimizer__lr=rate, fit__seed=SEED, keep_every=0)
    folder = out / "tuning" / f"{slug(member.row)}-{member.optimizer}-lr{rate:g}"
    labels = (member.row, member.optimizer, f"lr {rate:g}")
    return Job(labels, tuning, folder, tuning.fit.total_steps(samples))
