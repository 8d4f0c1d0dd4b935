"""The command line: `skipless train | eval | reproduce | init | doctor`."""

import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from skipless import recipes
from skipless.data import load_images
from skipless.data.builtin import DEBIAN_FASHION, cache_folder, find_fashion
from skipless.errors import InputError
from skipless.init import PRESETS, SkiplessInit
from skipless.models import create_model, inspect_init
from skipless.recipes.table1 import OptimizerName, Scale
from skipless.reproduce import reproduce_table1
from skipless.training import load_weights, save_weights
from skipless.training.devices import launch

Preset = Literal["vit_base", "dino_vit_small", "language"]


def train(
    recipe: Positional[Literal["table1"]],
    *,
    out: Path,
    scale: Scale | None = None,
    data: str | None = None,
    skip: bool = False,
    init: bool = True,
    optimizer: OptimizerName = "soap",
    lr: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    c: float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    accumulation: int | None = None,
    clip_norm: float | None = None,
    precision: Literal["fp32", "bf16", "fp16"] | None = None,
    seed: int = 0,
    workers: int | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None,
    progress: Literal["auto", "bar", "lines", "none"] = "auto",
    threads: int | None = None,
    tensorboard: bool = False,
    wandb: bool = False,
) -> None:
    """Train one model; the same command with the same --out resumes it.

    Args:
        recipe: the experiment.
        out: run folder: metrics.jsonl, run.json, checkpoint, result.json.
        scale: digits, fashion or paper (ViT-B on ImageNet-1k); by default the one that --data names.
        data: digits, fashion, or a folder: ImageNet-style (train/CLASS/*.jpg, val/CLASS/*.jpg), or Fashion-MNIST's.
        skip: keep the skip connections (and timm's initialisation).
        init: the paper's initialisation, for models without skips.
        optimizer: adamw or soap.
        lr: peak learning rate; the recipe's by default.
        alpha: scale of Z in W_Q W_K^T = alpha Z + beta I.
        beta: scale of I there.
        c: scale of W_V and W_O.
        epochs: length; the warm-up keeps its share.
        batch_size: images of an optimizer step, over all devices.
        accumulation: micro-batches of a step, to save memory.
        clip_norm: largest global gradient norm.
        precision: fp32, or autocast to bf16 or fp16.
        seed: of weights, order and augmentation.
        workers: processes that load data.
        device: where to train; the recipe's choice by default.
        progress: a bar, plain lines or nothing.
        threads: CPU threads; they decide rounding, so resume with as many.
        tensorboard: write TensorBoard files into the run folder.
        wandb: log to Weights & Biases.
    """
    if threads is not None:
        if threads < 1:
            raise InputError(f"--threads {threads}: give at least 1")
        torch.set_num_threads(threads)
    made = _table1(scale, data, skip, init, optimizer, seed).with_(
        optimizer__lr=lr,
        fit__epochs=epochs,
        fit__batch_size=batch_size,
        fit__accumulation=accumulation,
        fit__clip_norm=clip_norm,
        fit__precision=precision,
        fit__workers=workers,
        fit__device=device,
        fit__progress=progress,
        fit__tensorboard=tensorboard,
        fit__wandb=wandb,
    )
    values = {name: value for name, value in (("alpha", alpha), ("beta", beta), ("c", c)) if value is not None}
    if values and made.model.init is None:
        given = " ".join(f"--{name}" for name in values)
        raise InputError(f"{given}: part of the initialisation, which --skip and --no-init leave out")
    if made.model.init is not None:
        made = made.with_(model__init=SkiplessInit(**{**vars(made.model.init), **values}))
    result = recipes.run(made, out)
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"{out}: {result.steps} steps in {result.seconds:.0f} s  {_words(result.metrics)}")


def _table1(
    scale: Scale | None, data: str | None, skip: bool, init: bool, optimizer: OptimizerName, seed: int
) -> recipes.Recipe:
    """The recipe that `train` starts from; --data names the scale where --scale does not."""
    if scale is None:
        scale = "digits" if data in (None, "digits") else "fashion" if data == "fashion" else "paper"
        if data is not None and scale == "paper" and find_fashion(Path(data).expanduser()) is not None:
            scale = "fashion"
    row = "skip" if skip else "skipless + init" if init else "skipless"
    return recipes.table1(scale, row, optimizer, seed=seed, data=data)


def evaluate(
    run: Positional[Path],
    what: Positional[Literal["top1"]] = "top1",
    *,
    data: str | None = None,
    weights: Path | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
) -> None:
    """Measure a trained model.

    Args:
        run: a run folder of `skipless train`.
        what: top1, the accuracy on the validation images.
        data: other data than the run's.
        weights: other weights than the run's checkpoint, a safetensors file.
        device: where to compute, in the run's precision.
    """
    recipe = recipes.read_recipe(run).with_(data__data=data)
    images = load_images(recipe.data)
    fabric = launch(device, recipe.fit.precision)
    model = replace(recipe.model, init=None).build(images, recipe.fit.seed)  # its weights are loaded anyway
    load_weights(model, weights or run)
    with fabric.autocast():
        print(_words(recipes.evaluate_top1(fabric.to_device(model), images, recipe.fit)))


def _words(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.5g}" for name, value in metrics.items())


def reproduce(
    what: Positional[Literal["table1", "figure1"]],
    *,
    scale: Scale = "digits",
    seeds: int = 1,
    out: Path | None = None,
    data: str | None = None,
    jobs: int | None = None,
    tune: bool = False,
    epochs: int | None = None,
) -> None:
    """Make a table or figure of the paper: run what is missing, resume what was cut off, write the report.

    Args:
        what: table1 and figure1 come from the same six runs, and are written together.
        scale: digits (minutes), fashion (Fashion-MNIST) or paper (says what to run).
        seeds: runs a cell.
        out: folder of report and runs; runs/table1-SCALE by default.
        data: another place for the data.
        jobs: runs at a time; by default one a core, or one in all with a GPU.
        tune: choose each cell's learning rate anew on images held out of training.
        epochs: another length.
    """
    folder = out or Path("runs") / f"table1-{scale}"
    options = {"--seeds": seeds if seeds > 1 else None, "--epochs": epochs, "--data": data, "--out": out}
    given = [part for name, value in options.items() if value is not None for part in (name, str(value))]
    command = shlex.join(["skipless", "reproduce", what, "--scale", scale, *given, *["--tune"] * tune])
    files = reproduce_table1(
        scale, folder, seeds=seeds, data=data, jobs=jobs, tune=tune, epochs=epochs, command=command
    )
    print(files["table1.md"].read_text(encoding="utf-8"))
    print(f"the page: {files['index.html']}\nfigure 1: {files['figure1.png']}")


def init(
    model: Positional[str],
    *,
    out: Path | None = None,
    preset: Preset | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    c: float | None = None,
    factors: Literal["per_head", "sliced", "partition"] = "per_head",
    noise: Literal["normal", "uniform"] = "normal",
    logit_scale: Literal["kept", "compensated"] = "kept",
    seed: int = 0,
) -> None:
    """Initialise a timm model without skips, print what `inspect_init` says of it, and write its weights.

    Args:
        model: timm's name, vit_base_patch16_224.
        out: where to write the weights, a safetensors file that timm and PyTorch load.
        preset: the paper's values: vit_base (2, 0.6, 3; the default), dino_vit_small (1.8, 1, 3) or language (0, 0.5).
        alpha: scale of Z, instead of the preset's.
        beta: scale of I, instead of the preset's.
        c: scale of W_V and W_O, instead of the preset's.
        factors: how W_Q W_K^T is cut into heads.
        noise: distribution of Z.
        logit_scale: whether W_Q makes up for the 1 / sqrt(d_h) of the softmax.
        seed: of the weights.
    """
    values = {name: value for name, value in (("alpha", alpha), ("beta", beta), ("c", c)) if value is not None}
    named: dict[str, Any] = {"factors": factors, "noise": noise, "logit_scale": logit_scale}
    scheme = SkiplessInit(**{**vars(PRESETS[preset or "vit_base"]), **named, **values})
    made = create_model(model, init=scheme, seed=seed)
    print(inspect_init(made, scheme))
    if out is not None:
        save_weights(made, out)
        print(f"wrote {out}")


def doctor() -> None:
    """Say what there is: devices, versions, optional libraries, data, disk."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _findings():
        table.add_row(name, value)
    Console().print(table, markup=False)


def _findings() -> list[tuple[str, str]]:
    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = [
        ("skipless", importlib.metadata.version("skipless")),
        ("python", platform.python_version()),
        ("torch", f"{torch.__version__}, timm {importlib.metadata.version('timm')}"),
        ("GPU", ", ".join(cuda) or "none (CUDA); everything runs on the CPU"),
        ("CPU", f"{cores} cores, {torch.get_num_threads()} threads"),
    ]
    optional = {"sklearn": "demo", "matplotlib": "demo", "tensorboard": "loggers", "wandb": "loggers"}
    for module, extra in optional.items():
        here = importlib.util.find_spec(module) is not None
        found.append((module, "there" if here else f"not installed: pip install 'skipless[{extra}]'"))
    fashion = next((place for place in (DEBIAN_FASHION, cache_folder()) if find_fashion(place)), None)
    digits = "there (scikit-learn's)" if importlib.util.find_spec("sklearn") else "needs scikit-learn"
    found.append(("digits", digits))
    found.append(
        ("Fashion-MNIST", str(fashion or "not here yet: apt install dataset-fashion-mnist, or it is downloaded"))
    )
    found.append(("disk", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB free in {Path.cwd()}"))
    return found


VERBS: dict[str, Callable[..., Any]] = {
    "train": train,
    "eval": evaluate,
    "reproduce": reproduce,
    "init": init,
    "doctor": doctor,
}


def main(arguments: list[str] | None = None) -> None:
    """Run one verb. Bad input is one line on the standard error and exit code 2."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            VERBS,
            prog="skipless",
            args=arguments,
            description="Transformers without skip connections (arXiv 2510.00345).",
        )
    except InputError as error:
        print(f"skipless: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("skipless: interrupted; the same command goes on from the last checkpoints", file=sys.stderr)
        raise SystemExit(130) from None
