"""Figures 4, 7 and 8: features as colours, on the first images of COCO's validation set, without cherry-picking."""

from collections.abc import Mapping
from pathlib import Path

import torch

from skipless.choices import slug
from skipless.data.images import pixel_statistics
from skipless.errors import InputError
from skipless.experiments.dense.pretraining.runs import Member
from skipless.experiments.dense.what import DenseWhat
from skipless.recipes.self_supervised import DinoRecipe
from skipless.recipes.teacher_snapshots import kept_teachers
from skipless.studies import PictureConfig, draw_features, find_pictures
from skipless.training import load_weights

# Section 6.3: the first 40 images of COCO's validation set; ten in Figure 4, the rest in Figure 7.
IMAGES: dict[str, slice] = {"figure4": slice(0, 10), "figure7": slice(10, 40), "figure8": slice(0, 6)}
ELEVENTH = -2  # "the 11-th blocks", of 12


def feature_pictures(
    what: DenseWhat,
    recipes: Mapping[Member, DinoRecipe],
    folders: Mapping[Member, Path],
    coco: Path,
    out: Path,
) -> dict[str, bytes]:
    """PNG files by name: models side by side for Figures 4 and 7, for Figure 8 a picture a model of all its blocks.

    Raises:
        InputError: if no run has a teacher, or there are no images.
    """
    chosen = IMAGES[what]
    found = find_pictures(_validation(coco), chosen.stop)[chosen]
    images = [(name.lstrip("0") or name, picture) for name, picture in found]
    if not images:
        raise InputError(f"{what} shows images {chosen.start + 1} to {chosen.stop} of {str(_validation(coco))!r}")
    models = {}
    for member, recipe in recipes.items():
        kept = kept_teachers(folders[member])
        if not kept:
            continue
        epoch = max(kept)
        model = load_weights(recipe.backbone(), kept[epoch]).eval()
        stopped = "" if epoch == recipe.fit.epochs else f", collapsed after epoch {epoch}"
        models[member.row + stopped] = (model, pixel_statistics(recipe.data))
    if not models:
        raise InputError("no run came as far as a teacher that was kept")
    size = next(iter(recipes.values())).data.image_size
    scratch = out / "evaluations" / what
    with torch.inference_mode():
        if what != "figure8":
            (path,) = draw_features(models, images, PictureConfig(blocks=(ELEVENTH,), size=size), out=scratch)
            return {f"{what}.png": path.read_bytes()}
        drawn: dict[str, bytes] = {}
        for name, model in models.items():
            (path,) = draw_features({name: model}, images, PictureConfig(size=size), out=scratch)
            drawn[f"figure8-{slug(name.partition(',')[0])}.png"] = path.read_bytes()
        return drawn


def _validation(coco: Path) -> Path:
    found = [coco / name for name in ("val2017", "images/val2017") if (coco / name).is_dir()]
    if not found:
        raise InputError(f"no val2017 in {str(coco)!r}: Figures 4, 7 and 8 show COCO's validation images")
    return found[0]
