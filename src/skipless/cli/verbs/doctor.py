"""`skipless doctor [RECIPE]`."""

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

import skipless
from skipless.cli.listing import examples
from skipless.cli.loading import RUNS, load
from skipless.cli.named_recipe import THREADS, chosen_recipe, parsed_recipe, use_threads
from skipless.cli.parse import parse
from skipless.cli.signature import Argument
from skipless.errors import InputError
from skipless.optional import REQUIREMENT, how_to_install, is_installed
from skipless.options import Option
from skipless.registry import recipes

_SECONDS = Argument(
    "seconds", float, 8.0, "how long to watch; half of it goes to the loader alone before.", Option(), False
)
_INSTALLED = "Say what there is: devices, versions, data.\n\n`skipless doctor RECIPE` says what limits a run here.\n\n"
_WATCHED = (
    "Say what limits a recipe's training here: the run that `skipless train` would make is watched for some seconds "
    "and thrown away."
)


def main(words: list[str]) -> None:
    """Say what there is; or, of a recipe, what limits its training here."""
    name, rest = chosen_recipe("doctor", words)
    if name is None:
        _refuse_options_of_recipes(words)
        lines = ("skipless doctor", *(f"skipless doctor {one} --help" for one in recipes()))
        parse([], words, prog="skipless doctor", description=_INSTALLED + examples(lines))
        load("torch")
        _print_findings()
        return
    lines = (f"skipless doctor {name} --data DIR", f"skipless doctor {name} --data DIR --batch-size 32 --seconds 20")
    made, values = parsed_recipe(
        recipes()[name],
        rest,
        (_SECONDS, THREADS),
        prog=f"skipless doctor {name}",
        description=f"{_WATCHED}\n\n{examples(lines)}",
    )
    load(*RUNS)
    use_threads(values["threads"])
    from skipless.planning.bottlenecks import profile_text
    from skipless.planning.profiling import profile_run

    print(profile_text(profile_run(made, seconds=values["seconds"])))


def _refuse_options_of_recipes(words: list[str]) -> None:
    given = [word for word in words if word.startswith("--") and word != "--help"]
    if given:
        first = next(iter(recipes()))
        raise InputError(f"{' '.join(given)}: of which recipe? `skipless doctor {first} {given[0]} ...`")


def _print_findings() -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in _findings():
        table.add_row(name, value)
    Console().print(table, markup=False)


def _findings() -> list[tuple[str, str]]:
    import torch

    from skipless.data.builtin import DEBIAN_FASHION, cache_folder, find_fashion

    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = [
        ("skipless", skipless.__version__),
        ("python", platform.python_version()),
        ("torch", f"{torch.__version__}, timm {importlib.metadata.version('timm')}"),
        ("GPU", ", ".join(cuda) or "none (CUDA); everything runs on the CPU"),
        ("CPU", f"{cores} cores, {torch.get_num_threads()} threads"),
    ]
    for module in REQUIREMENT:
        found.append((module, "there" if is_installed(module) else f"not installed: {how_to_install(module)}"))
    fashion = next((place for place in (DEBIAN_FASHION, cache_folder()) if find_fashion(place)), None)
    digits = "there (scikit-learn's)" if is_installed("sklearn") else "needs scikit-learn"
    found.append(("digits", digits))
    found.append(
        ("Fashion-MNIST", str(fashion or "not here yet: apt install dataset-fashion-mnist, or it is downloaded"))
    )
    found.append(("disk", f"{shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB free in {Path.cwd()}"))
    return found
