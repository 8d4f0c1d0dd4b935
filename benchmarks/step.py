"""A training step of the skipless ViT-S beside that of timm's residual one.

    OMP_NUM_THREADS=1 python benchmarks/step.py

Forward, backward and an AdamW step on the same images, in turn and in changing order, on one thread. The ratio of the
two is taken pair by pair and printed as its median with the quartiles. Times are CPU times of the thread.
"""

import argparse
import random
import statistics
import time

import timm
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

import skipless  # noqa: F401 - registers skipless_vit_small_patch16_224


def step(model: nn.Module, optimizer: Optimizer, images: Tensor, labels: Tensor) -> float:
    """Seconds of one training step."""
    start = time.thread_time()
    nn.functional.cross_entropy(model(images), labels).backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.thread_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40, help="timed pairs of steps")
    parser.add_argument("--batch", type=int, default=2, help="images of 224 x 224 a step")
    given = parser.parse_args()
    torch.set_num_threads(1)
    images, labels = torch.randn(given.batch, 3, 224, 224), torch.zeros(given.batch, dtype=torch.long)
    names = ("vit_small_patch16_224", "skipless_vit_small_patch16_224")
    models = [timm.create_model(name).train() for name in names]
    sides = [(model, AdamW(model.parameters(), lr=1e-4)) for model in models]
    ratios = []
    for pair in range(given.pairs + 3):
        seconds = {}
        for side in random.sample((0, 1), 2):
            seconds[side] = step(*sides[side], images, labels)
        if pair >= 3:  # the first ones warm up
            ratios.append(seconds[1] / seconds[0])
    low, middle, high = statistics.quantiles(ratios, n=4)
    spread = f"quartiles {low:.3f} to {high:.3f}, n = {given.pairs}"
    print(f"skipless / residual ViT-S, one training step: {middle:.3f} ({spread})")
    print(f"torch {torch.__version__}, timm {timm.__version__}, {given.batch} images, 1 thread, fp32")


if __name__ == "__main__":
    main()
