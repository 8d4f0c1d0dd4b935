"""Why 4-bit weights cost a model without skips more: where the error arises, and what becomes of it on the way.

    OMP_NUM_THREADS=1 python benchmarks/few_bits_cause.py runs/q/skip-soap-seed0 runs/q/skipless-init-soap-seed0

Each block of a trained classifier is rounded alone. Printed is the relative error (Frobenius norm, over the model's
first validation images) of the tokens that leave that block, `own`, and of those that leave the last block, `last`;
medians over blocks, lowest and highest beside them. `last / own` is what the blocks behind the first make of an error.
`together` is the error at the end with all blocks rounded, and `in quadrature` what it would be if the blocks' errors
at the end were independent. With --save the numbers of each block go to a file.
"""

import argparse
import copy
import json
import statistics
from pathlib import Path

import torch
from torch import Tensor, nn

from skipless.data import load_images
from skipless.data.loading.loader import BatchKey
from skipless.errors import InputError
from skipless.evaluators.quantisation import precision, quantise_
from skipless.models import block_views
from skipless.recipes import open_model

Tokens = list[Tensor]


@torch.no_grad()
def leaving(model: nn.Module, images: Tensor) -> Tokens:
    """The tokens that leave each block."""
    found: Tokens = []
    hooks = [
        view.block.register_forward_hook(lambda _, __, out: found.append(out.double())) for view in block_views(model)
    ]
    model(images)
    for hook in hooks:
        hook.remove()
    return found


def error(found: Tensor, wanted: Tensor) -> float:
    """The relative error of tokens."""
    return float((found - wanted).norm() / wanted.norm())


def of_run(folder: str, name: str, count: int) -> dict[str, object]:
    """The errors of one run at one precision."""
    source = open_model(folder)
    if source.recipe is None or not source.recipe.classifies or not hasattr(source.model, "blocks"):
        raise InputError(f"{folder!r} is no run of a classifier of timm's: give folders of `skipless train table1`")
    model, data = source.model.eval(), load_images(source.recipe.data)
    images = data.val.__getitems__(BatchKey(0, 0, torch.arange(min(count, len(data.val)))))[0]
    wanted = leaving(model, images)
    rounded = quantise_(copy.deepcopy(model), *precision(name))
    rows = []
    for index in range(len(wanted)):
        one = copy.deepcopy(model)
        one.blocks[index] = rounded.blocks[index]
        found = leaving(one, images)
        rows.append({"own": error(found[index], wanted[index]), "last": error(found[-1], wanted[-1])})
    found = leaving(rounded, images)
    return {"run": Path(folder).name, "blocks": rows, "together": error(found[-1], wanted[-1])}


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    """Print a row for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="run folders of classifiers")
    parser.add_argument("--precision", default="W4", help="of weights and activations, as W4A8")
    parser.add_argument("--images", type=int, default=200, help="validation images")
    parser.add_argument("--save", type=Path, help="JSON with the numbers of each block")
    args = parser.parse_args()
    print(f"| {args.precision} | own | last | last / own, first block | in quadrature | together |")
    print("|:--|--:|--:|--:|--:|--:|")
    all_found = []
    for run in args.runs:
        found = of_run(run, args.precision, args.images)
        all_found.append(found)
        own, last = ([row[key] for row in found["blocks"]] for key in ("own", "last"))
        together = sum(value**2 for value in last) ** 0.5
        print(f"| {found['run']} | {spread(own)} | {spread(last)} | {last[0] / own[0]:.2f} | {together:.3f} "
              f"| {found['together']:.3f} |", flush=True)  # fmt: skip
    if args.save:
        args.save.write_text(json.dumps(all_found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(str(error)) from None
