"""A ViT-S in int8 and int4 by torchao beside fp32: accuracy or agreement, size and time.

    OMP_NUM_THREADS=1 python benchmarks/quantisation.py
    OMP_NUM_THREADS=1 python benchmarks/quantisation.py --run runs/s1

Each kernel classifies the same images as fp32, in turn and in changing order, on one thread. The ratio of the two times
is taken pair by pair and printed as its median with the quartiles. Times are CPU times of the thread. Accuracy is that
of a run's own classifier on its validation images; without a run, the share of random images on which a model and its
unquantised self agree. Size is that of weights and buffers.
"""

import argparse
import copy
import random
import statistics
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

import skipless  # noqa: F401 - registers the skipless models
from skipless.data import EvalLoader, load_images
from skipless.evaluators import top1
from skipless.evaluators.quantisation import quantise_, torchao_
from skipless.recipes import open_model

BATCH = 64  # images of a run that are scored at once
KERNELS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "fp32": lambda model: model,
    "fake W8A8": lambda model: quantise_(model, 8, 8),
    "torchao W8A8": lambda model: torchao_(model, 8, 8),
    "torchao W8": lambda model: torchao_(model, 8, None),
    "fake W4A8": lambda model: quantise_(model, 4, 8),
    "torchao W4A8": lambda model: torchao_(model, 4, 8),
}


def megabytes(model: nn.Module) -> float:
    """Of all parameters and buffers; torchao's weights count what they hold."""
    total = 0
    for tensor in (*model.parameters(), *model.buffers()):
        inner = getattr(tensor, "tensor_data_names", None)
        parts = [getattr(tensor, name) for name in inner] if inner else [tensor]
        total += sum(part.numel() * part.element_size() for part in parts if isinstance(part, Tensor))
    return total / 1e6


def seconds(model: nn.Module, images: Tensor) -> float:
    """Of one forward pass."""
    start = time.thread_time()
    model(images)
    return time.thread_time() - start


def ratios(model: nn.Module, whole: nn.Module, images: Tensor, pairs: int) -> list[float]:
    """Time over that of fp32, pair by pair."""
    found = []
    for pair in range(pairs + 3):
        both: dict[int, float] = {}
        for side in random.sample((0, 1), 2):
            both[side] = seconds((whole, model)[side], images)
        if pair >= 3:  # the first ones warm up
            found.append(both[1] / both[0])
    return found


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a supervised run whose classifier is measured")
    parser.add_argument("--images", type=int, help="of a run: score so many validation images, in whole batches")
    parser.add_argument("--pairs", type=int, default=20, help="timed pairs of passes")
    parser.add_argument("--batch", type=int, default=8, help="images a pass")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if given.run is None:
        whole = timm.create_model("vit_small_patch16_224").eval()
        images = torch.randn(64, 3, 224, 224)
        expected = torch.cat([whole(part) for part in images.split(given.batch)]).argmax(1)
        loader = list(zip(images.split(given.batch), expected.split(given.batch), strict=True))
        said = "agreement with fp32, %"
    else:
        source = open_model(str(given.run))
        assert source.recipe is not None
        whole, data = source.model, load_images(source.recipe.with_(data__augmentation="none").data)
        most = len(data.val) if given.images is None else min(given.images, len(data.val))
        loader = list(islice(EvalLoader(data.val, batch_size=BATCH), -(-most // BATCH)))
        images, said = loader[0][0], f"top-1 of {sum(len(labels) for _, labels in loader):,} images, %"
    print(f"| kernel | {said} | MB | time / fp32 (quartiles) |\n|---|--:|--:|--:|")
    for name, convert in KERNELS.items():
        model = convert(copy.deepcopy(whole))
        score = top1(model, loader)["top1"]
        low, middle, high = statistics.quantiles(ratios(model, whole, images[: given.batch], given.pairs), n=4)
        print(f"| {name} | {score:.2f} | {megabytes(model):.1f} | {middle:.3f} ({low:.3f} to {high:.3f}) |", flush=True)
    print(f"\ntorch {torch.__version__}, {given.pairs} pairs of {given.batch} images, 1 thread")


if __name__ == "__main__":
    main()
