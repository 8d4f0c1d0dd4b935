"""The pretrainings behind section 6.2: each is made once, in a folder that all tables and figures share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from skipless.choices import PAPER_OPTIMIZERS, ROWS, OptimizerName, Row, slug
from skipless.data.multicrop import load_multicrop
from skipless.errors import InputError
from skipless.experiments.dense.paper import EARLY_EPOCH, PAPER_EPOCHS
from skipless.experiments.dense.pretraining.history import Pretraining, read_pretraining
from skipless.experiments.dense.recipe import DinoScale, dino
from skipless.experiments.dense.what import BY_DEPTH, PICTURES, DenseWhat
from skipless.recipes.command import training_command
from skipless.recipes.read import refuse_other_recipe
from skipless.recipes.self_supervised import DinoRecipe
from skipless.recipes.teacher_snapshots import kept_teachers
from skipless.sweep import Job, run_jobs

SHALLOWER = (1, 2, 3)  # blocks less than all: the paper's 11, 10 and 9 of 12


class Member(NamedTuple):
    """One pretraining.

    Attributes:
        row: the model.
        optimizer: by which it is trained.
        depth: number of blocks.
        seed: of everything.
    """

    row: Row
    optimizer: OptimizerName
    depth: int
    seed: int

    @property
    def slug(self) -> str:
        """Its name as part of a path.

        Example:
            >>> Member("skipless + init", "soap", 8, 0).slug
            'skipless-init-soap-depth8-seed0'
        """
        return f"{slug(self.row)}-{self.optimizer}-depth{self.depth}-seed{self.seed}"


def members(what: DenseWhat, full_depth: int, seeds: int, optimizer: OptimizerName = "adamw") -> tuple[Member, ...]:
    """The runs that a table or figure is made of, a seed after the other; those of one optimizer by this one."""
    pairs: list[tuple[Row, OptimizerName, int]]
    if what in BY_DEPTH:
        depths = [full_depth, *(full_depth - less for less in SHALLOWER if less < full_depth)]
        pairs = [("skip", optimizer, full_depth), *(("skipless + init", optimizer, depth) for depth in depths)]
    elif what in PICTURES:
        pairs = [(row, optimizer, full_depth) for row in ROWS]
        seeds = 1
    else:
        pairs = [(row, each, full_depth) for each in PAPER_OPTIMIZERS for row in ROWS]
    return tuple(Member(*pair, seed) for seed in range(seeds) for pair in pairs)


def recipe_of(scale: DinoScale, member: Member, data: Path | str, epochs: int | None = None) -> DinoRecipe:
    """How a member is pretrained."""
    made = dino(scale, member.row, member.optimizer, depth=member.depth, seed=member.seed, data=str(data))
    return made.with_(fit__epochs=epochs)


def epochs_of(recipe: DinoRecipe, points: int = 0) -> tuple[int, ...]:
    """Epochs whose teachers are evaluated: two thirds, the last, and so many more, at those that are kept.

    Example:
        >>> from skipless.recipes import dino
        >>> epochs_of(dino("vit_small", data="imagenet/"), points=5)
        (60, 120, 180, 200, 240, 300)
    """
    last, step = recipe.fit.epochs, max(recipe.keep_every, 1)

    def kept(share: float) -> int:
        return min(last, max(step, round(share * last / step) * step))

    shares = [EARLY_EPOCH / PAPER_EPOCHS, *(k / points for k in range(1, points))]
    return tuple(sorted({*(kept(share) for share in shares), last}))


def early_epoch(recipe: DinoRecipe) -> int:
    """The epoch that stands for the paper's 200 of 300."""
    return epochs_of(recipe)[0]


def make_runs(
    recipes: Mapping[Member, DinoRecipe], out: Path, *, jobs: int | None, threads: int, pretrain: bool
) -> dict[Member, Path]:
    """Folders of runs that have ended, after running what is missing and going on with what was cut off.

    Args:
        recipes: of all members.
        out: the runs go into `out/runs`.
        jobs: runs at a time.
        threads: CPU threads of each.
        pretrain: run what is missing; else say what to run.

    Raises:
        InputError: for runs that fail, folders that hold other runs, and what is to be run.
    """
    folders = {member: out / "runs" / member.slug for member in recipes}
    missing = [member for member in recipes if not _ended(folders[member], recipes[member])]
    if missing and not pretrain:
        commands = [
            training_command(recipes[one], folders[one], "--depth", recipes[one].model.kwargs["depth"])
            for one in missing
        ]
        head = f"{len(missing)} pretrainings are not finished; run each of these, or all of them here by --pretrain:"
        raise InputError("\n  ".join([head, *commands]))
    if missing:
        crops = load_multicrop(recipes[missing[0]].data.data, recipes[missing[0]].crops)
        run_jobs([_job(member, recipes[member], folders[member], len(crops)) for member in missing], parallel=jobs,
                 threads=threads)  # fmt: skip
    return folders


def read_runs(folders: Mapping[Member, Path]) -> list[Pretraining]:
    """What the runs' folders tell, for reports."""
    return [read_pretraining(folder, one.row, one.optimizer, one.depth) for one, folder in folders.items()]


def teacher_of(folder: Path, epoch: int, *, collapsed: bool) -> Path | None:
    """The teacher's file after an epoch; None if the run collapsed before.

    Raises:
        InputError: if a finished run did not keep it.
    """
    kept = kept_teachers(folder)
    if epoch in kept:
        return kept[epoch]
    if collapsed:
        return None
    raise InputError(
        f"{folder} has no teacher of epoch {epoch} (there are {', '.join(map(str, kept)) or 'none'}): it was trained "
        "with another keep_every; move it away, so that it is trained again"
    )


def _ended(folder: Path, recipe: DinoRecipe) -> bool:
    if not (folder / "result.json").exists():
        return False
    refuse_other_recipe(folder, recipe)
    return True


def _job(member: Member, recipe: DinoRecipe, folder: Path, samples: int) -> Job:
    labels: Sequence[str] = (member.row, member.optimizer, f"{member.depth} blocks", f"seed {member.seed}")
    return Job(tuple(labels), recipe, folder, recipe.fit.total_steps(samples))
