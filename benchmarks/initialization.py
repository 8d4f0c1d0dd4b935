"""Processor time of `initialize_`, block by block, beside another version's in turn.

    python benchmarks/initialization.py --before PATH_OF_ANOTHER_CHECKOUT

Each version runs in a process of its own with the threads that torch takes by default. They take turns, so that what
else the machine does falls on both. Weights are compared, too: each head's W_Q W_K^T, W_V W_O and the MLP's maps.
`--busy 2` lets two other processes use the processor meanwhile, as where two runs start at once.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

MODELS = ("vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224")

SERVER = """
import json, sys, time
import timm, torch
import skipless
from skipless.models import block_views

def products(model):
    view = block_views(model)[0]
    w_q, w_k = (w.double().unflatten(1, (view.heads, -1)).transpose(0, 1) for w in (view.w_q, view.w_k))
    maps = [linear.w.double() for linear in (*view.mlp_in, view.mlp_out)]
    return [w_q @ w_k.mT, view.w_v.double() @ view.w_o.double(), *maps]

models = {}
for line in sys.stdin:
    name, seed, keep = json.loads(line)
    if name not in models:
        models[name] = skipless.remove_skips_(timm.create_model(name, depth=2)).double()
    generator = torch.Generator().manual_seed(seed)
    scheme = skipless.SkiplessInit(2.0, 0.6, 3.0)
    cpu, wall = time.process_time(), time.perf_counter()
    skipless.initialize_(models[name], scheme, generator=generator)
    spent = [(time.process_time() - cpu) / 2, (time.perf_counter() - wall) / 2]
    if keep:
        torch.save(products(models[name]), keep)
    print(json.dumps(spent), flush=True)
"""


def serve(root: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    return subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def keep_busy(count: int) -> list[subprocess.Popen[bytes]]:
    return [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]


def ask(server: subprocess.Popen[str], *question: object) -> list[float]:
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(question) + "\n")
    server.stdin.flush()
    return json.loads(server.stdout.readline())


def difference(first: Path, second: Path) -> float:
    """The largest relative difference of two sets of products, in the Frobenius norm."""
    import torch

    pairs = zip(torch.load(first, weights_only=True), torch.load(second, weights_only=True), strict=True)
    return max(((a - b).norm(dim=(-2, -1)) / a.norm(dim=(-2, -1))).max().item() for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the other version")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--busy", type=int, default=0, help="other processes that use the processor")
    parser.add_argument("--scratch", type=Path, default=Path("build"))
    arguments = parser.parse_args()
    arguments.scratch.mkdir(exist_ok=True)
    others = keep_busy(arguments.busy)
    try:
        compare(arguments)
    finally:
        for other in others:
            other.kill()


def compare(arguments: argparse.Namespace) -> None:
    files = [arguments.scratch / f"products-{side}.pt" for side in ("before", "now")]
    servers = [serve(arguments.before), serve(Path(__file__).resolve().parent.parent)]
    print("| model | CPU s a block, before | now | ratio (range) | wall ratio | products differ by |")
    print("|---|--:|--:|--:|--:|--:|")
    for model in arguments.models:
        for server in servers:
            ask(server, model, 0, None)
        spent, apart = [], 0.0
        for turn in range(arguments.turns):
            spent.append([ask(server, model, turn, str(file)) for server, file in zip(servers, files, strict=True)])
            apart = max(apart, difference(*files))
        before, now = (statistics.median(turn[side][0] for turn in spent) for side in (0, 1))
        cpu = sorted(turn[0][0] / turn[1][0] for turn in spent)
        wall = statistics.median(turn[0][1] / turn[1][1] for turn in spent)
        print(
            f"| {model} | {before:.2f} | {now:.2f} | {statistics.median(cpu):.1f}x ({cpu[0]:.1f} to {cpu[-1]:.1f}) | "
            f"{wall:.1f}x | {apart:.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
