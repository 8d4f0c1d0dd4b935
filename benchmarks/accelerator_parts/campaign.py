"""A small campaign: `table1 --scale fashion` at width 384, 12 blocks, bf16, all six cells."""

import time
from pathlib import Path

from accelerator_parts.record import Record
from skipless.data.builtin import DEBIAN_FASHION, cache_folder, find_fashion
from skipless.experiments.supervised.recipe import PAPER_CELLS
from skipless.init import SkiplessInit
from skipless.recipes import run as run_recipe, table1


def run(record: Record) -> None:
    """Every cell is a run folder of its own: a cell that was cut off goes on."""
    here = any(find_fashion(place) for place in (DEBIAN_FASHION, cache_folder()))
    scale = "fashion" if here and not record.tiny else "digits"
    if not here:
        record.note("Fashion-MNIST is not on this machine: trained on digits of 8 x 8 pixels instead")
    width, depth = (32, 2) if record.tiny else (384, 12)
    sizes = {"patch_size": 7 if scale == "fashion" else 2, "embed_dim": width, "depth": depth, "num_heads": width // 16}
    if not record.tiny:
        sizes["num_heads"] = 6
    rounds = max(1, round(record.minutes / 4))
    epochs = 1 if record.tiny else rounds if scale == "fashion" else 20 * rounds
    record.note(
        f"width {width}, {depth} blocks, bf16, epochs: {epochs}, one seed; learning rates are those tuned at the "
        "scale's own width, and the initialisation is the preset for width 384: a check that training works, no result"
    )
    for cell in PAPER_CELLS:
        recipe = table1(scale, cell.row, cell.optimizer).with_(
            model__kwargs=sizes, fit__epochs=epochs, fit__device=record.device.type, fit__precision="bf16",
            fit__batch_size=256 if scale == "fashion" else 32, fit__progress="none", fit__log_every=20,
            fit__workers=0 if record.tiny else None,
        )  # fmt: skip
        if cell.row == "skipless + init":
            recipe = recipe.with_(model__init=SkiplessInit.preset("dino_vit_small"))
        name = f"{cell.row}, {cell.optimizer}"
        start = time.monotonic()
        record.row(name, "top-1 %", lambda recipe=recipe, cell=cell: _accuracy(recipe, record.folder / cell.slug))
        record.note(f"{name}: {time.monotonic() - start:.0f} s in this call")


def _accuracy(recipe: object, out: Path) -> list[float]:
    return [run_recipe(recipe, out).metrics["top1"]]  # pyright: ignore[reportArgumentType]
