"""SOAP shared out over two ranks beside one rank that does everything, on the parameters of a ViT-S.

    OMP_NUM_THREADS=1 python benchmarks/soap_sharded.py              # ViT-S shapes, 3 blocks, under 3 minutes
    OMP_NUM_THREADS=1 python benchmarks/soap_sharded.py --ranks 4    # needs as many idle cores

Ranks are processes of one thread each on this machine, joined by gloo. Rank 0 also holds the optimizer that does
everything; call by call the two take the same gradients in turn, in changing order, and the others wait meanwhile.
A window is four calls, of which the last refreshes the bases; the ordinary step is the median of the other three. A
shared step takes as long as its slowest rank, with all that it sends. Ratios are taken within a window and printed as
their median over the windows with their range: once of the clock's times, which need idle cores, and once of the ranks'
own CPU times (the busiest rank's), which other processes disturb little.
"""

import argparse
import multiprocessing
import os
import socket
import subprocess
import time
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
import torch.distributed as dist
from torch import Tensor, nn

from skipless.optim import SOAP, param_groups

FREQUENCY = 4
WANTED = 0.6


@dataclass
class Contender:
    """One optimizer on its own copy of the parameters, and the seconds of its calls: by the clock and of the CPU."""

    name: str
    params: list[nn.Parameter]
    optimizer: SOAP
    calls: list[tuple[float, float]] = field(default_factory=list)

    def step(self, gradients: list[Tensor]) -> None:
        """Take one step, and note its seconds."""
        for param, gradient in zip(self.params, gradients, strict=True):
            param.grad = gradient
        clock, cpu = time.perf_counter(), time.thread_time()
        self.optimizer.step()
        self.calls.append((time.perf_counter() - clock, time.thread_time() - cpu))

    def state_bytes(self) -> int:
        """Bytes of all tensors of the state, each storage once."""
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in _tensors(dict(self.optimizer.state))}
        return sum(storage.nbytes() for storage in storages.values())


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    return [tensor for item in items for tensor in _tensors(item)]


def contender(name: str, depth: int, *, share: bool) -> Contender:
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", depth=depth)
    groups = param_groups(model, weight_decay=0.01)
    params = [param for group in groups for param in group["params"]]
    return Contender(name, params, SOAP(groups, lr=3e-4, precondition_frequency=FREQUENCY, share=share))


def measure(rank: int, args: argparse.Namespace) -> tuple[Contender | None, Contender]:
    """Warm up for one window, then time the others; the very first call only starts the state."""
    alone = contender("one rank", args.depth, share=False) if rank == 0 else None
    shared = contender(f"{args.ranks} ranks", args.depth, share=True)
    generator = torch.Generator().manual_seed(1)
    for call in range(1 + FREQUENCY * (args.windows + 1)):
        gradients = [torch.randn(param.shape, generator=generator) for param in shared.params]
        for turn in (alone, shared) if call % 2 else (shared, alone):
            dist.barrier()
            if turn is not None:
                turn.step(gradients)
    if alone is not None:
        apart = max((a - b).abs().max().item() for a, b in zip(alone.params, shared.params, strict=True))
        assert apart < 1e-6, f"the two differ by {apart}"
    return alone, shared


def gathered(own: Contender) -> tuple[list[tuple[float, float]], list[int]]:
    """Seconds of the slowest rank for every call, and bytes of state on every rank."""
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, (own.calls, own.state_bytes()))
    calls = [tuple(map(max, zip(*ranks, strict=True))) for ranks in zip(*(calls for calls, _ in every), strict=True)]
    return calls, [size for _, size in every]


def windows(calls: list[tuple[float, float]], which: int) -> list[tuple[float, float]]:
    """The ordinary and the refreshing step of every window after the first."""
    times = [call[which] for call in calls[1 + FREQUENCY :]]
    cut = [times[start : start + FREQUENCY] for start in range(0, len(times), FREQUENCY)]
    return [(median(window[:-1]), window[-1]) for window in cut]


def report(alone: Contender, calls: list[tuple[float, float]], sizes: list[int]) -> str:
    lines = [f"| n = {len(windows(calls, 0))} windows | one rank | {len(sizes)} ranks |", "|---|---|---|"]
    for which, clock in enumerate(("clock", "CPU")):
        ours, theirs = windows(calls, which), windows(alone.calls, which)
        for kind, name in enumerate(("ordinary step", "refresh step")):
            ratios = [a[kind] / b[kind] for a, b in zip(ours, theirs, strict=True)]
            spread = f"{median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
            lines.append(f"| {name}, {clock} | {1e3 * median(b[kind] for b in theirs):.0f} ms | {spread} |")
    whole = alone.state_bytes()
    shares = ", ".join(f"{size / whole:.2f}x" for size in sizes)
    lines.append(f"| state | {whole / 2**20:.0f} MiB | {shares} |")
    lines.append(f"\nWanted: a refresh step and a rank's state of at most {WANTED}x at two ranks.")
    return "\n".join(lines)


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    load = f"1 thread a rank, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    return f"{cpu}, {load}; torch {version('torch')}; commit {commit.strip() or 'unknown'}"


def work(rank: int, args: argparse.Namespace, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=args.ranks, timeout=timedelta(minutes=5))
    alone, shared = measure(rank, args)
    calls, sizes = gathered(shared)
    if alone is not None:
        print(f"ViT-S, depth {args.depth}, a refresh every {FREQUENCY} steps; {machine()}\n")
        print(report(alone, calls, sizes), flush=True)
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2, help="processes that share")
    parser.add_argument("--depth", type=int, default=3, help="number of blocks")
    parser.add_argument("--windows", type=int, default=5, help="windows of four calls")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=work, args=(rank, args, port), daemon=True) for rank in range(args.ranks)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    if any(process.exitcode for process in ranks):
        raise SystemExit("a rank failed")


if __name__ == "__main__":
    main()
