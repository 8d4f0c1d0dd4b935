"""What `skipless plan` counts, beside what a step takes here: FLOPs over seconds must be alike for all sizes.

    OMP_NUM_THREADS=1 python benchmarks/plan.py

Forward and backward of the skipless ViT-S, -B and -L at 224 pixels and of DINO's crops through ViT-S, and SOAP's
ordinary and refreshing steps on a block of each width. Every line: FLOPs as `skipless plan` counts them, the median of
n runs with the quickest and the slowest, and their quotient. Times are CPU times of the one thread.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from skipless.models import create_model
from skipless.optim import OptimizerConfig, build_optimizer
from skipless.planning import backward_flops, forward_flops
from skipless.planning.optimizer_cost import parameter_costs, total
from skipless.planning.table import markdown_table

SIZES = {"small": 384, "base": 768, "large": 1024}


def seconds(run: Callable[[], object], times: int) -> list[float]:
    """CPU seconds of a call, the first one left out."""
    found = []
    for _ in range(times + 1):
        start = time.thread_time()
        run()
        found.append(time.thread_time() - start)
    return found[1:]


def passes(name: str, crops: dict[int, int], times: int) -> tuple[float, list[float]]:
    """Counted FLOPs and seconds of forward and backward, for so many crops of each size."""
    model = create_model(f"vit_{name}_patch16_224", dynamic_img_size=True)
    batches = [torch.randn(count, 3, size, size) for size, count in crops.items()]

    def step() -> None:
        for batch in batches:
            model(batch).square().mean().backward()

    flops = sum(n * (forward_flops(model, size) + backward_flops(model, size)) for size, n in crops.items())
    return flops, seconds(step, times)


def soap_steps(name: str, times: int) -> list[tuple[str, float, list[float]]]:
    """SOAP on one block: ordinary steps, and what a refresh adds."""
    block = create_model(f"vit_{name}_patch16_224", depth=1).blocks  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(block, nn.Module)
    optimizer = build_optimizer(block, OptimizerConfig(name="soap"))
    cost = total(parameter_costs(optimizer))

    def step() -> None:
        for p in block.parameters():
            p.grad = torch.randn_like(p) * 1e-3
        optimizer.step()

    def at(frequency: int) -> list[float]:
        for group in optimizer.param_groups:
            group["precondition_frequency"] = frequency
        return seconds(step, times)

    for _ in range(2):  # the first gradient only starts the state
        step()
    ordinary = at(10**6)
    added = [refreshing - statistics.median(ordinary) for refreshing in at(1)]
    return [
        (f"SOAP, ordinary step, ViT-{name} block", cost.products, ordinary),
        (f"SOAP, what a refresh adds, ViT-{name} block", cost.refresh_products + cost.factorisation, added),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5, help="timed runs of each")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lines = [(f"ViT-{name}, forward and backward", *passes(name, {224: 2}, given.times)) for name in given.sizes]
    lines.append(("ViT-small, DINO's crops (2 of 224, 8 of 96)", *passes("small", {224: 2, 96: 8}, given.times)))
    for name in given.sizes:
        lines += soap_steps(name, given.times)
    rows = [
        (
            what,
            f"{flops / 1e9:.1f}",
            f"{statistics.median(times):.3f} ({min(times):.3f} to {max(times):.3f})",
            f"{flops / statistics.median(times) / 1e9:.1f}",
        )
        for what, flops, times in lines
    ]
    print(markdown_table((f"n = {given.times}", "GFLOP, counted", "seconds", "GFLOP/s"), rows, left=1))
    print(f"\ntorch {torch.__version__}, 1 thread, fp32")


if __name__ == "__main__":
    main()
