"""`skipless doctor`."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from skipless.cli.named import AnyScale, RecipeName, named_recipe, use_threads
from skipless.data.builtin import DEBIAN_FASHION, cache_folder, find_fashion
from skipless.errors import InputError
from skipless.planning.limits import limits_text
from skipless.planning.watch import watch
from skipless.recipes.table1 import OptimizerName


def doctor(
    recipe: Positional[RecipeName | None] = None,
    *,
    scale: AnyScale | None = None,
    depth: int | None = None,
    data: str | None = None,
    skip: bool = False,
    init: bool = True,
    optimizer: OptimizerName | None = None,
    batch_size: int | None = None,
    accumulation: int | None = None,
    precision: Literal["fp32", "bf16", "fp16"] | None = None,
    workers: int | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None,
    threads: int | None = None,
    seconds: float = 8.0,
) -> None:
    """Say what there is: devices, versions, data; or, of a recipe, what limits its training here.

    With a recipe, the run that `skipless train` would make is watched for some seconds and thrown away.

    Args:
        recipe: table1, scenes or dino; none says what is installed.
        scale: as for `skipless train`.
        depth: number of blocks, of dino.
        data: digits, fashion, or a folder.
        skip: keep the skip connections.
        init: the paper's initialisation, for models without skips.
        optimizer: adamw or soap.
        batch_size: images of an optimizer step.
        accumulation: micro-batches of a step.
        precision: fp32, or autocast to bf16 or fp16.
        workers: processes that load data; by default as many as keep the cores busy, none for images in memory.
        device: where to train.
        threads: CPU threads.
        seconds: how long to watch; half of it goes to the loader alone before.
    """
    if recipe is not None:
        use_threads(threads)
        made = named_recipe(recipe, scale, data, optimizer, skip=skip, init=init, depth=depth).with_(
            fit__batch_size=batch_size,
            fit__accumulation=accumulation,
            fit__precision=precision,
            fit__workers=workers,
            fit__device=device,
        )
        print(limits_text(watch(made, seconds=seconds)))
        return
    given = {"--scale": scale, "--depth": depth, "--data": data, "--optimizer": optimizer, "--workers": workers}
    if named := [name for name, value in given.items() if value is not None]:
        raise InputError(f"{' '.join(named)}: of which recipe? `skipless doctor table1 {named[0]} ...`")
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
