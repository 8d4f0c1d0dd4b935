"""Ours beside heavyball's and pytorch_optimizer's SOAP, on the parameters of a ViT-S.

    pip install ".[bench]"
    OMP_NUM_THREADS=1 python benchmarks/soap.py                      # ViT-S shapes, 3 blocks
    OMP_NUM_THREADS=1 python benchmarks/soap.py --dim 32 --depth 12  # the digits demo's shapes
    OMP_NUM_THREADS=1 python benchmarks/soap.py --authors soap.py    # and the file of github.com/nikhilvyas/SOAP

All take the same gradients with the same hyperparameters (dimension limit 10000, frequency 10), call by call in
turn and in changing order, on one thread. A window is ten calls, of which the longest is the one that refreshes the
bases; the ordinary step is the median of the other nine, the amortised one the mean of all ten. Each ratio is taken
within a window and printed as its median over the windows with their range. Times are CPU times of the thread, so
that other processes on the machine disturb them little.
"""

import argparse
import importlib.util
import os
import random
import subprocess
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from skipless.optim import SOAP, param_groups

FREQUENCY = 10
COMMON = {"lr": 3e-4, "betas": (0.95, 0.95), "eps": 1e-8, "precondition_frequency": FREQUENCY}


@dataclass
class Contender:
    """One optimizer on its own copy of the parameters, and its times in seconds: ten of them make a window."""

    name: str
    optimizer: Optimizer
    params: list[nn.Parameter]
    windows: list[list[float]] = field(default_factory=list)

    def step(self, gradients: list[Tensor]) -> float:
        """Take one step and give its seconds."""
        for param, gradient in zip(self.params, gradients, strict=True):
            param.grad = gradient.clone()  # heavyball takes gradients away
        start = time.thread_time()
        self.optimizer.step()
        return time.thread_time() - start

    def state_bytes(self) -> int:
        """Bytes of all tensors of the state, each storage once."""
        tensors = {t.untyped_storage().data_ptr(): t for t in _tensors(self.optimizer.state)}
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [tensor for item in items for tensor in _tensors(item)]


def vit(dim: int, depth: int) -> nn.Module:
    """ViT-S for 384, the digits demo's model for 32."""
    size = {"img_size": 224, "patch_size": 16, "num_heads": dim // 64} if dim >= 64 else {}
    small = {"img_size": 8, "patch_size": 2, "num_heads": 2, "num_classes": 10, "in_chans": 1}
    torch.manual_seed(0)
    return timm.create_model("vit_small_patch16_224", embed_dim=dim, depth=depth, **(size or small))


def build_ours(model: nn.Module) -> Optimizer:
    return SOAP(param_groups(model, weight_decay=0.01, split_qkv=True), **COMMON)


def build_heavyball(model: nn.Module) -> Optimizer:
    import heavyball

    return heavyball.SOAP(model.parameters(), weight_decay=0.01, max_precond_dim=10000, merge_dims=False, **COMMON)


def build_pytorch_optimizer(model: nn.Module) -> Optimizer:
    import pytorch_optimizer

    return pytorch_optimizer.SOAP(model.parameters(), weight_decay=0.01, max_precondition_dim=10000, **COMMON)


def build_authors(file: Path, model: nn.Module) -> Optimizer:
    spec = importlib.util.spec_from_file_location("authors_soap", file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"cannot import {file}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SOAP(model.parameters(), weight_decay=0.01, max_precond_dim=10000, **COMMON)


def measure(contenders: list[Contender], windows: int) -> None:
    """Warm up for one window and a half, then time `windows` of them."""
    shapes = [param.shape for param in contenders[0].params]
    generator, order = torch.Generator().manual_seed(1), random.Random(1)
    for call in range(-FREQUENCY - FREQUENCY // 2, windows * FREQUENCY):
        gradients = [torch.randn(shape, generator=generator) for shape in shapes]
        for contender in order.sample(contenders, len(contenders)):
            seconds = contender.step(gradients)
            if call >= 0 and call % FREQUENCY == 0:
                contender.windows.append([])
            if call >= 0:
                contender.windows[-1].append(seconds)


MEASURES: dict[str, Callable[[list[float]], float]] = {
    "ordinary step": lambda window: median(sorted(window)[:-1]),
    "refresh step": max,
    "amortised": mean,
}


def report(contenders: list[Contender], windows: int, model: nn.Module) -> str:
    own, *others = contenders
    weight_bytes = sum(param.numel() * param.element_size() for param in own.params)
    lines = [
        f"| n = {windows} windows | {' | '.join(c.name for c in contenders)} |",
        f"|---|{'---|' * len(contenders)}",
    ]
    for name, measure_of in MEASURES.items():
        cells = [f"{1e3 * median(map(measure_of, own.windows)):.1f} ms"]
        for other in others:
            ratios = [measure_of(a) / measure_of(b) for a, b in zip(other.windows, own.windows, strict=True)]
            cells.append(f"{median(ratios):.2f}x as long ({min(ratios):.2f} to {max(ratios):.2f})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    fastest = [min(min(window) for window in contender.windows) for contender in contenders]
    cells = [f"{1e3 * fastest[0]:.1f} ms", *(f"{seconds / fastest[0]:.2f}x as long" for seconds in fastest[1:])]
    lines.append(f"| fastest step of all | {' | '.join(cells)} |")
    cells = [f"{contender.state_bytes() / weight_bytes:.2f}" for contender in contenders]
    lines.append(f"| state, bytes per parameter byte | {' | '.join(cells)} |")
    return "\n".join(lines)


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "heavyball", "pytorch_optimizer"))
    threads = f"{torch.get_num_threads()} thread, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    return f"{cpu}, {threads}; {versions}; commit {commit.strip() or 'unknown'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=384, help="width of the ViT (384: ViT-S)")
    parser.add_argument("--depth", type=int, default=3, help="number of blocks")
    parser.add_argument("--windows", type=int, default=5, help="windows of ten calls")
    parser.add_argument("--authors", type=Path, help="the authors' soap.py, as another contender")
    parser.add_argument("--no-compile", action="store_true", help="run heavyball uncompiled")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the other packages' own
    if args.no_compile:
        import heavyball

        heavyball.utils.compile_mode = None
        heavyball.utils.compile_mode_recommended_to_none = None
    compiled = "uncompiled" if args.no_compile else "compiled"
    contenders = []
    authors = [("the authors' file", partial(build_authors, args.authors))] if args.authors else []
    for name, build in (
        ("ours", build_ours),
        (f"heavyball, {compiled}", build_heavyball),
        ("pytorch_optimizer", build_pytorch_optimizer),
        *authors,
    ):
        model = vit(args.dim, args.depth)
        contenders.append(Contender(name, build(model), list(model.parameters())))
    measure(contenders, args.windows)
    print(f"width {args.dim}, depth {args.depth}; {machine()}\n")
    print(report(contenders, args.windows, model))


if __name__ == "__main__":
    main()
