"""Tables 2 to 4 and Figures 2 to 4 and 7 to 9: pretrain what is missing, evaluate it, lay ours beside the paper's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skipless.choices import slug
from skipless.errors import InputError
from skipless.experiments.dense.pretraining.history import Pretraining
from skipless.experiments.dense.pretraining.runs import (
    Member,
    epochs_of,
    make_runs,
    members,
    read_runs,
    recipe_of,
    teacher_of,
)
from skipless.experiments.dense.pretraining.tuning import read_rates, tune, with_rates
from skipless.experiments.dense.recipe import DinoScale, dino
from skipless.experiments.dense.report import report_loss, report_pictures, report_scores
from skipless.experiments.dense.scale import SCALES, DenseScale, Folders, find_folders
from skipless.experiments.dense.scores.evaluation import evaluate_all, evaluation_of
from skipless.experiments.dense.scores.pictures import feature_pictures
from skipless.experiments.dense.scores.record import UNTRAINED, DenseRuns, Scores
from skipless.experiments.dense.what import DENSE, DenseWhat, kind_of
from skipless.recipes.self_supervised import DinoRecipe
from skipless.report.pages.write_page import write_report


def reproduce_dense(
    what: DenseWhat,
    scale: DinoScale,
    out: Path,
    *,
    seeds: int = 1,
    data: Mapping[str, Path | None] | None = None,
    jobs: int | None = None,
    threads: int = 1,
    epochs: int | None = None,
    points: int | None = None,
    pretrain: bool | None = None,
    tuned: bool = False,
    command: str = "",
) -> dict[str, Path]:
    """A table or figure of sections 6.2, 6.3, A.2, A.5 or A.6: make what is missing, go on with what was cut off.

    Args:
        what: the table or figure.
        scale: `scenes` (generated scenes, offline) or `vit_small` (the paper's, with its data).
        out: folder of the reports; data, runs and evaluations go below it and serve all tables and figures.
        seeds: runs a cell, with seeds 0, 1, ...
        data: folders by key: `imagenet`, `voc`, `coco`, `coco20k`, `ade20k`.
        jobs: processes at a time.
        threads: CPU threads of each.
        epochs: another length of pretraining.
        points: of Figure 2's curves.
        pretrain: run what is missing, or say what to run; by default the former at `scenes`, the latter at `vit_small`.
        tuned: first choose each model's and optimizer's peak learning rate by k-NN; what an earlier call chose in the
            same folder is taken up in any case.
        command: what the report names as its origin.

    Returns:
        The report's files by name.

    Raises:
        InputError: for data that is missing or cannot be used, runs that fail, or folders that hold other runs.
    """
    chosen = _scale_named(what, scale, seeds)
    shape = dino(scale, data="unknown")  # of the model and its images, whatever the folder
    folders = find_folders(what, chosen, data or {}, out, shape.data.image_size or 224)
    wanted = members(what, shape.model.kwargs["depth"], seeds, shape.optimizer.name)
    recipes = {one: recipe_of(scale, one, folders["imagenet"], epochs) for one in wanted}
    if tuned:
        tune(recipes, out, jobs=jobs, threads=threads)
    recipes = with_rates(recipes, read_rates(out, shape.metric))
    start = scale == "scenes" if pretrain is None else pretrain
    made = make_runs(recipes, out, jobs=jobs, threads=threads, pretrain=start)
    first = next(iter(recipes.values()))
    evaluated = (UNTRAINED, *epochs_of(first, (points or chosen.points) if what == "figure2" else 0))
    pretrained = read_runs(made)
    kind = kind_of(what)
    scores: Scores = {}
    if kind in ("masks", "boxes"):
        scores = _scores(what, chosen, folders, recipes, made, pretrained, evaluated, out, jobs, threads)
    runs = DenseRuns(what, chosen, recipes, pretrained, evaluated, scores, command)
    if kind == "pictures":
        drawn = feature_pictures(what, runs.recipes, made, folders["coco"], out)
        return _written(out, what, report_pictures(runs, drawn))
    return _written(out, what, report_scores(runs) if kind else report_loss(runs))


def _written(out: Path, what: DenseWhat, files: dict[str, Any]) -> dict[str, Path]:
    page = files.pop(f"{what}.html")
    return write_report(out, what, files, page)


def _scale_named(what: DenseWhat, scale: DinoScale, seeds: int) -> DenseScale:
    if what not in DENSE or scale not in SCALES:
        raise InputError(f"no {what!r} at scale {scale!r}; scales are {', '.join(SCALES)}")
    if seeds < 1:
        raise InputError(f"--seeds {seeds}: give at least 1")
    return SCALES[scale]


def _scores(
    what: DenseWhat,
    scale: DenseScale,
    folders: Folders,
    recipes: Mapping[Member, DinoRecipe],
    made: Mapping[Member, Path],
    pretrained: Sequence[Pretraining],
    epochs: Sequence[int],
    out: Path,
    jobs: int | None,
    threads: int,
) -> Scores:
    """Evaluate every member's teachers; those before training are the same by whichever optimizer."""
    kind: Any = kind_of(what)
    columns = scale.masks if kind == "masks" else scale.boxes
    places: dict[tuple[Member, int, str], int | None] = {}
    wanted, labels = [], []
    homes: dict[Path, int] = {}
    for (member, recipe), run in zip(recipes.items(), pretrained, strict=True):
        for epoch in epochs:
            weights = None if epoch == UNTRAINED else teacher_of(made[member], epoch, collapsed=run.run.diverged)
            for column in columns:
                if epoch != UNTRAINED and weights is None:
                    places[member, epoch, column] = None
                    continue
                home = out / "evaluations" / _place(member, epoch)
                one = evaluation_of(scale, kind, column, folders, recipe, weights, home)
                if one.home not in homes:
                    homes[one.home] = len(wanted)
                    wanted.append(one)
                    labels.append((member.row, member.optimizer, f"{member.depth} blocks", f"epoch {epoch}", column))
                places[member, epoch, column] = homes[one.home]
    found = evaluate_all(wanted, labels, jobs=jobs, threads=threads)
    return {key: None if place is None else found[place] for key, place in places.items()}


def _place(member: Member, epoch: int) -> str:
    if epoch != UNTRAINED:
        return f"{member.slug}/epoch-{epoch:04d}"
    return f"{slug(member.row)}-depth{member.depth}-seed{member.seed}-untrained"
