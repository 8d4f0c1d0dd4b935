"""`skipless doctor`."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from skipless.data.builtin import DEBIAN_FASHION, cache_folder, find_fashion


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
