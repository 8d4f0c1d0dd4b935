"""One teacher on one data set: evaluated in a process of its own, kept in a file, and recognised the next time."""

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from skipless.data.dense import load_boxes, load_segmentation
from skipless.data.images import pixel_statistics
from skipless.experiments.dense.scale import Boxes, DenseScale, Folders, Masks
from skipless.frozen import to_json
from skipless.recipes.self_supervised import DinoRecipe
from skipless.report.write_files import write_files
from skipless.studies import DiscoveryConfig, ProbeConfig, discover, segment
from skipless.studies.formatting import feature_name, file_name
from skipless.studies.origin import Origin
from skipless.sweep import Call, run_jobs
from skipless.training import load_weights
from skipless.training.processes.launch import launch

EXAMPLES = 4  # images in a study's picture


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, on what, how, and where the outcome goes.

    Attributes:
        kind: `masks` for a linear probe, `boxes` for object discovery.
        data: the set.
        root: its folder.
        config: how.
        recipe: of the run.
        weights: the teacher's; None is the teacher before the first step.
        home: folder of the outcome, `found.json` in it.
    """

    kind: Literal["masks", "boxes"]
    data: Masks | Boxes
    root: Path
    config: ProbeConfig | DiscoveryConfig
    recipe: DinoRecipe
    weights: Path | None
    home: Path

    @property
    def file(self) -> Path:
        """The outcome's."""
        return self.home / "found.json"

    def asked(self) -> dict[str, Any]:
        """Everything that the outcome depends on, as JSON."""
        weights = None if self.weights is None else hashlib.sha256(self.weights.read_bytes()).hexdigest()
        model, seed = to_json(self.recipe.model), self.recipe.fit.seed
        values = {"data": asdict(self.data), "root": str(self.root), "config": asdict(self.config)}
        return json.loads(json.dumps({**values, "model": model, "seed": seed, "weights": weights}))


@dataclass(frozen=True)
class Found:
    """What a teacher is worth on a data set.

    Attributes:
        best, last, multiscale: per cent, and where: the best block (or block and feature), chosen on the very images,
            the last block (or its keys), and the last four blocks side by side. None where there is none.
        floor: per cent that needs no features: the most frequent class, or a box around the whole image.
        n: images that it is on.
        unusable: images that were left out.
    """

    best: tuple[float, str] | None
    last: tuple[float, str] | None
    multiscale: tuple[float, str] | None
    floor: float | None
    n: int
    unusable: int

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Found":
        """Read back what `asdict` gave."""
        pairs = {name: tuple(values[name]) if values[name] else None for name in ("best", "last", "multiscale")}
        return cls(**{**values, **pairs})


def evaluate_all(
    wanted: Sequence[Evaluation], labels: Sequence[tuple[str, ...]], *, jobs: int | None, threads: int
) -> list[Found]:
    """Evaluate what no file has; the outcomes in the order asked.

    Raises:
        InputError: if one could not be evaluated, after all others were.
    """
    asked = [one.asked() for one in wanted]
    on_gpu = torch.cuda.is_available()
    calls = [
        Call(label, evaluate_teacher, (one,), on_gpu=on_gpu)
        for one, label, known in zip(wanted, labels, asked, strict=True)
        if _read(one.file).get("asked") != known
    ]
    if len(calls) < len(wanted):
        print(f"{len(wanted) - len(calls)} of {len(wanted)} evaluations are from before", file=sys.stderr, flush=True)
    if calls:
        run_jobs(calls, parallel=jobs, threads=threads)
    return [Found.from_json(_read(one.file)["found"]) for one in wanted]


def evaluate_teacher(one: Evaluation) -> None:
    """Evaluate, and write `found.json` and the study's own files; features on disk go once they have served."""
    fabric = launch("auto", "fp32")
    model = one.recipe.backbone()
    if one.weights is not None:
        load_weights(model, one.weights)
    model = fabric.to_device(model.eval())
    shared: dict[str, Any] = {"out": one.home, "statistics": pixel_statistics(one.recipe.data), "progress": False}
    shared["origin"] = Origin("untrained" if one.weights is None else "teacher")
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
        found = (_probed if one.kind == "masks" else _discovered)(model, one, {**shared, "examples": EXAMPLES})
    write_files(one.home, {one.file.name: {"asked": one.asked(), "found": asdict(found)}})
    shutil.rmtree(one.home / "features", ignore_errors=True)


def evaluation_of(
    scale: DenseScale, kind: Literal["masks", "boxes"], column: str, folders: Folders, recipe: DinoRecipe,
    weights: Path | None, home: Path,
) -> Evaluation:  # fmt: skip
    """One of a scale's evaluations, its outcome below `home`."""
    data = scale.masks[column] if kind == "masks" else scale.boxes[column]
    config = scale.probe if kind == "masks" else scale.discovery
    if scale.name == "scenes" and isinstance(config, ProbeConfig) and config.size is None:
        config = replace(config, size=recipe.data.image_size)
    place = home / file_name(f"{'probe' if kind == 'masks' else config_name(config)}-{column}")
    return Evaluation(kind, data, folders[data.folder].resolve(), config, recipe, weights, place)


def config_name(config: ProbeConfig | DiscoveryConfig) -> str:
    """`tokencut`, `lost`, or the probe's protocol."""
    return config.method if isinstance(config, DiscoveryConfig) else config.protocol


def _probed(model: torch.nn.Module, one: Evaluation, shared: Mapping[str, Any]) -> Found:
    assert isinstance(one.config, ProbeConfig)
    assert isinstance(one.data, Masks)
    train = load_segmentation(one.data.name, one.root, "train", sample=one.data.sample)
    val = load_segmentation(one.data.name, one.root, "val")
    result = segment(model, train, val, one.config, **shared)
    probe = result.probe
    scored = [(score.miou, score.blocks) for score in probe.blocks if score.miou is not None]
    singles = [(miou, f"block {blocks[0]}") for miou, blocks in scored if len(blocks) == 1]
    several = [(miou, "blocks " + "+".join(map(str, blocks))) for miou, blocks in scored if len(blocks) > 1]
    last = f"block {max(score.blocks[0] for score in probe.blocks if len(score.blocks) == 1)}"
    return Found(
        best=max(singles, default=None),
        last=next((found for found in singles if found[1] == last), None),
        multiscale=several[0] if several else None,
        floor=result.majority.miou,
        n=probe.val,
        unusable=len(probe.skipped),
    )


def _discovered(model: torch.nn.Module, one: Evaluation, shared: Mapping[str, Any]) -> Found:
    assert isinstance(one.config, DiscoveryConfig)
    assert isinstance(one.data, Boxes)
    result = discover(model, load_boxes(one.data.name, one.root, sample=one.data.sample), one.config, **shared)
    last = result.last_key
    return Found(
        best=(result.scores[result.best].percent, feature_name(result.best)),
        last=None if last is None else (result.scores[last].percent, feature_name(last)),
        multiscale=None,
        floor=result.whole_image.percent,
        n=result.n,
        unusable=len(result.unreadable),
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
