"""Mean attention diagonals at initialisation against their targets, over widths, heads, token counts and depths.

    python benchmarks/attention_diagonal.py [--cells 4] [--out benchmarks/results/attention_diagonal.md]

`initialize_(images=)` gives every block the diagonal that `SkiplessInit.for_model` asks for, on one half of a batch of
crops of photographs. The table has the largest error over the blocks on that half, and on the other half, which it has
not seen; the same for the error of `predict_token_cosine`, where the model is wide enough for it. A line is written as
soon as it is known.
"""

import argparse
import itertools
import time
from pathlib import Path

import torch
from sklearn.datasets import load_sample_images
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from skipless import SkiplessInit, create_model, initialize_, remove_skips_
from skipless.conditioning import predict_token_cosine
from skipless.models import inspect_tokens

# width, heads, tokens (a class token and a square of patches), blocks
CELLS = (
    (32, 1, 17, 12), (32, 2, 17, 12), (32, 2, 17, 36), (32, 2, 17, 144), (32, 2, 197, 12),
    (64, 2, 17, 12), (64, 2, 17, 72), (64, 4, 17, 144), (64, 2, 197, 36), (64, 2, 1025, 12),
    (192, 3, 17, 24), (192, 3, 197, 12), (192, 3, 197, 72), (192, 12, 65, 12),
    (384, 6, 17, 24), (384, 6, 65, 36), (384, 6, 197, 12), (384, 6, 1025, 12),
    (768, 12, 65, 12), (768, 12, 197, 12), (768, 12, 17, 36),
)  # fmt: skip
HEAD = (
    "| width | heads | tokens | blocks | first and last target | largest error, own images | other images | "
    "cosine after the last block | largest error of its prediction | seconds |\n" + "|--:" * 10 + "|\n"
)
PATCH = 8
WIDE = 384  # from which predictions are promised


def crops(count: int, size: int) -> Tensor:
    """Crops of two photographs at several scales, normalised."""
    photos = [torch.from_numpy(one.copy()).permute(2, 0, 1).float() / 255 for one in load_sample_images().images]
    generator = Generator().manual_seed(0)
    found = []
    for index in range(count):
        photo = photos[index % 2]
        side = int(torch.randint(96, 320, (), generator=generator))
        top, left = (int(torch.randint(0, length - side, (), generator=generator)) for length in photo.shape[1:])
        part = photo[None, :, top : top + side, left : left + side]
        found.append(interpolate(part, size=(size, size), mode="bilinear", antialias=True)[0])
    return (torch.stack(found) - 0.45) / 0.225


def measure(width: int, heads: int, tokens: int, blocks: int) -> str:
    """One line of the table."""
    start = time.perf_counter()
    size = PATCH * round((tokens - 1) ** 0.5)
    kinds = {"img_size": size, "patch_size": PATCH, "embed_dim": width, "num_heads": heads, "depth": blocks}
    model = remove_skips_(create_model("vit_tiny_patch16_224", skip=True, seed=0, **kinds))
    init = SkiplessInit.for_model(model)
    own, other = crops(16, size).chunk(2)
    initialize_(model, init, images=own, generator=Generator().manual_seed(0))
    targets = init.diagonals(blocks)
    errors, cosine = [], 0.0
    for images in (own, other):
        report = inspect_tokens(model, images)
        found = [block.diagonal for block in report.blocks]
        errors.append(max(abs(a - b) for a, b in zip(found, targets, strict=True)))
        cosine = report.blocks[-1].cosine
    predicted = f"{predict_token_cosine(model, other).error:.3f}" if width >= WIDE else "–"
    values = (f"{targets[0]:.2f}, {targets[-1]:.2f}", *(f"{error:.3f}" for error in errors), f"{cosine:.2f}", predicted)
    spent = f"{time.perf_counter() - start:.0f}"
    return f"| {width} | {heads} | {tokens} | {blocks} | " + " | ".join((*values, spent)) + " |\n"


def main() -> None:
    """Measure the cells in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, help="how many of them")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [HEAD]
    print(HEAD, end="")
    for cell in itertools.islice(CELLS, options.cells):
        lines.append(measure(*cell))
        print(lines[-1], end="", flush=True)
        if options.out is not None:
            options.out.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
