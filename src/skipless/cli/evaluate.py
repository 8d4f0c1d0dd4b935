"""`skipless eval`."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from skipless import recipes
from skipless.cli.studies import STUDIES, Asked
from skipless.cli.words import words
from skipless.data import load_images, relabelled
from skipless.errors import InputError
from skipless.recipes import ModelSource, open_model
from skipless.recipes.exported import PICKLED, open_file
from skipless.studies.folder import process
from skipless.training import load_weights
from skipless.training.devices import launch

What = Literal["top1", "linear-probe", "tokencut", "lost", "knn", "linear-classifier", "pca"]
Kind = Literal["tokens", "q", "k", "v"]
DatasetName = Literal["voc", "ade20k", "ade20k-full", "coco-stuff", "coco-stuff-27", "voc07", "voc12", "coco20k"]

# What may be given to which; all else in the signature serves every one of them but top1.
_OPTIONS: dict[str, tuple[What, ...]] = {
    "dataset": ("linear-probe", "tokencut", "lost"),
    "kinds": ("linear-probe", "tokencut", "lost", "pca"),
    "size": ("linear-probe", "tokencut", "lost", "pca"),
    "protocol": ("linear-probe",),
    "select": ("linear-probe", "linear-classifier"),
    "epochs": ("linear-probe", "linear-classifier"),
    "multiscale": ("linear-probe",),
    "sample": ("linear-probe", "tokencut", "lost", "pca"),
    "ks": ("knn",),
    "pooling": ("knn", "linear-classifier"),
    "tau": ("tokencut",),
    "versus": ("pca",),
    "blocks": ("linear-probe", "tokencut", "lost", "knn", "linear-classifier", "pca"),
    "norm": ("linear-probe", "tokencut", "lost", "knn", "linear-classifier", "pca"),
}


def evaluate(
    source: Positional[str],
    what: Positional[What] = "top1",
    *,
    model: str | None = None,
    data: str | None = None,
    dataset: DatasetName | None = None,
    out: Path | None = None,
    weights: Path | None = None,
    pretrained: bool = False,
    blocks: tuple[int, ...] | None = None,
    kinds: tuple[Kind, ...] | None = None,
    norm: Literal["final", "none"] | None = None,
    size: int | None = None,
    protocol: Literal["paper", "dinov2", "patch"] | None = None,
    select: Literal["val", "holdout"] | None = None,
    epochs: int | None = None,
    multiscale: tuple[int, ...] | None = None,
    sample: int | None = None,
    ks: tuple[int, ...] | None = None,
    pooling: Literal["class", "mean"] | None = None,
    tau: float | None = None,
    versus: tuple[str, ...] | None = None,
    baselines: bool = True,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    seed: int = 0,
) -> None:
    """Measure what a model, or each of its blocks, is worth; what is done is kept, and the same command goes on.

    Args:
        source: a run folder of `skipless train`, timm's name of a plain ViT, or a file of weights: what `skipless
            export` wrote, or a published DINO checkpoint (.pth), of which nothing is run.
        what: top1 (a run's accuracy), linear-probe (segmentation), tokencut or lost (object discovery), knn or
            linear-classifier (images by their features), or pca (features as colours).
        model: timm's name of what a file of weights is of, where the file does not say it: vit_small_patch16_224.
        data: the data's folder; for top1, knn and linear-classifier also digits or fashion, by default the run's own.
        dataset: what lies in that folder; found out by default.
        out: where results go; by default eval/ in the run's folder, or eval/MODEL here.
        weights: other weights, a safetensors file.
        pretrained: take timm's pretrained weights.
        blocks: from 0, negative ones from the last; every block by default.
        kinds: of features: tokens (a block's output), q, k, v.
        norm: put every block's output through the model's last norm, or not.
        size: side in pixels that images are resized to.
        protocol: of the linear probe.
        select: choose the probe's learning rate on the validation images, as papers do, or on held-out training images.
        epochs: of the probe's heads.
        multiscale: blocks that are also probed side by side; the last four by default.
        sample: use so many training images (linear-probe) or images (tokencut, lost), drawn by --seed, or the first by
            name (pca; 8 by default).
        ks: numbers of neighbours.
        pooling: what stands for an image: class token, or mean of the patches.
        tau: TokenCut's threshold.
        versus: other models, beside this one in the picture.
        baselines: measure a run's untrained model too.
        device: where to compute.
        precision: of the backbone.
        seed: of samples, probes, and a timm model without weights.
    """
    given = {name: value for name, value in locals().items() if name in _OPTIONS and value is not None}
    for name in given:
        if what not in _OPTIONS[name]:
            raise InputError(f"--{name} is for {', '.join(_OPTIONS[name])}, not for {what}")
    if model is not None and not _is_file(source):
        raise InputError(f"--model is for a file of weights; {source!r} is none")
    if what == "top1":
        _top1(Path(source), data, weights, device)
        return
    fabric = launch(device, "fp32")
    first = _open(source, model, weights=weights, pretrained=pretrained, seed=seed)
    sources = [first, *(_open(other, None, seed=seed) for other in given.pop("versus", ()))]
    if what != "pca" and baselines and first.recipe is not None:
        sources.append(open_model(source, weights=weights, untrained=True))
    for each in sources:
        fabric.to_device(each.model)
    home = out or (Path(source) / "eval" if first.recipe is not None else Path("eval") / first.name)
    for text in STUDIES[what](Asked(what, sources, data, home, seed, given | {"precision": precision})):
        if process()[0] == 0:
            print(text, end="\n\n", flush=True)
    if process()[0] == 0:
        print(f"results: {home}")


def _is_file(source: str) -> bool:
    path = Path(source).expanduser()
    return path.suffix in (".safetensors", *PICKLED) or path.is_file()


def _open(source: str, name: str | None, **how: Any) -> ModelSource:
    """A run folder, a name, or a file of weights."""
    if not _is_file(source):
        return open_model(source, **how)
    if how.get("weights") is not None or how.get("pretrained"):
        raise InputError(f"--weights and --pretrained are for runs and names; {source!r} has weights of its own")
    return open_file(Path(source).expanduser(), name)


def _top1(run: Path, data: str | None, weights: Path | None, device: Literal["auto", "cpu", "cuda", "mps"]) -> None:
    if not run.is_dir():
        raise InputError(f"{str(run)!r} is no run folder, which top1 needs; for a model, choose knn or another study")
    recipe = recipes.read_recipe(run).with_(data__data=data)
    images = load_images(recipe.data)
    if (classes := recipes.recorded_classes(run)) is not None:
        images = relabelled(images, classes)
    fabric = launch(device, recipe.fit.precision)
    model = replace(recipe.model, init=None).build(images, recipe.fit.seed)  # its weights are loaded anyway
    load_weights(model, weights or run)
    with fabric.autocast():
        print(words(recipes.evaluate_top1(fabric.to_device(model), images, recipe.fit)))
