"""kappa of a ViT-S block's attention Jacobian at full size, and what a dense factorisation would cost.

    OMP_NUM_THREADS=1 python benchmarks/conditioning.py                   # every setting, one run each
    OMP_NUM_THREADS=1 python benchmarks/conditioning.py --runs 5 --only "(1.8, 3)"

K of one block (n = 197 tokens, d = 384, 6 heads: 75,648 x 75,648) at initialisation, tokens N(0, I), float32, by
`spectrum`: each run in a process of its own, so that its peak memory is its own, with its own seed for weights, tokens
and start vector. Below, the dense method's wall time at sizes where it can be run (fewer tokens), extrapolated from the
largest of them by the cube of the rows. Times are wall times; CPU times of the process stand beside them, because other
processes on the machine disturb those less.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from skipless.conditioning.operators.jacobian import attn_jacobian
from skipless.conditioning.operators.linear_operator import LinearOperator
from skipless.conditioning.spectra.spectrum import spectrum
from skipless.init import SkiplessInit
from skipless.models import block_views, create_model

TOKENS, DIM, HEADS = 197, 384, 6
SETTINGS: dict[str, SkiplessInit | None] = {
    "(1.8, 1)": SkiplessInit(1.8, 1.0, 3.0),
    "(1.8, 3)": SkiplessInit(1.8, 3.0, 3.0),
    "(2, 0.6)": SkiplessInit(2.0, 0.6, 3.0),
    "(0, 1)": SkiplessInit(0.0, 1.0, 3.0),
    "default": None,
}


def operator(setting: str, seed: int, tokens: int, skip: bool, dtype: torch.dtype) -> LinearOperator:
    model = create_model("vit_small_patch16_224", depth=1, init=SETTINGS[setting], seed=seed)
    x = torch.randn(tokens, DIM, generator=torch.Generator().manual_seed(seed))
    return attn_jacobian(block_views(model.to(dtype))[0], x.to(dtype), skip)


def child(args: argparse.Namespace) -> None:
    """One measurement, as JSON."""
    dtype = getattr(torch, args.dtype)
    if args.child == "dense":
        matrix = operator(args.only, args.seed, args.tokens, False, dtype).to_dense()
        k = LinearOperator.from_dense(matrix)
    else:
        k = operator(args.only, args.seed, TOKENS, args.skip, dtype)
    wall, cpu = time.perf_counter(), time.process_time()
    options: dict[str, Any] = {"max_iterations": args.max_iterations, "seed": args.seed}
    record = spectrum(k, method=args.child, **options)
    found = {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "rows": k.shape[0],
        "steps": record.sigma_min.iterations,
        "kappa": str(record.kappa),
    }
    print(json.dumps(found))


def run(**arguments: object) -> dict[str, Any]:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in arguments.items()]
    done = subprocess.run([sys.executable, __file__, *flags], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def spread(values: list[float], digits: int = 1) -> str:
    several = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{median(values):.{digits}f}{several}"


def settings(args: argparse.Namespace) -> None:
    print(f"| n = {args.runs} | kappa, seed by seed | steps | wall s | CPU s | peak GiB |\n|---|---|---|---|---|---|")
    for setting in [args.only] if args.only else SETTINGS:
        for skip in (False, True):
            common = {"child": "auto", "only": setting, "skip": int(skip), "max_iterations": args.max_iterations}
            runs = [run(**common, seed=seed, dtype=args.dtype) for seed in range(args.runs)]
            wall, cpu, gib = ([found[key] for found in runs] for key in ("wall", "cpu", "gib"))
            name = f"{setting}, K{' + I' if skip else ''}"
            kappas, steps = ("; ".join(str(found[key]) for found in runs) for key in ("kappa", "steps"))
            print(f"| {name} | {kappas} | {steps} | {spread(wall)} | {spread(cpu)} | {spread(gib, 2)} |", flush=True)


def dense(args: argparse.Namespace) -> None:
    """The cost of all singular values at sizes that fit, and at this one."""
    print("\n| dense, rows | wall s | peak GiB |\n|---|---|---|")
    points = []
    for tokens in args.dense:
        runs = [run(child="dense", only="(1.8, 3)", tokens=tokens, dtype=args.dtype) for _ in range(args.runs)]
        points.append((runs[0]["rows"], median(found["wall"] for found in runs), max(found["gib"] for found in runs)))
        print(f"| {points[-1][0]:,} | {spread([found['wall'] for found in runs])} | {points[-1][2]:.2f} |", flush=True)
    (large, slow, _), full = points[-1], TOKENS * DIM
    seconds, memory = slow * (full / large) ** 3, 2 * 8 * full**2 / 2**30
    print(
        f"| {full:,}, extrapolated as rows^3 | {seconds:,.0f} ({seconds / 3600:,.0f} h) | "
        f"{memory:,.0f} (matrix and working copy in float64) |"
    )


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm"))
    threads = f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    return f"{cpu}, {threads}; {versions}; commit {commit.strip() or 'unknown'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1, help="runs of each setting, with seeds 0, 1, ...")
    parser.add_argument("--only", choices=SETTINGS, help="one setting")
    parser.add_argument("--max-iterations", type=int, default=1000, help="of Lanczos")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    parser.add_argument("--dense", type=int, nargs="*", default=[2, 4, 8], help="tokens of the dense runs")
    for hidden in ("--seed", "--skip", "--tokens"):
        parser.add_argument(hidden, type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args)
    print(f"K of a ViT-S block, {TOKENS * DIM:,} rows, {HEADS} heads, {args.dtype}; {machine()}\n", flush=True)
    settings(args)
    dense(args)
    return None


if __name__ == "__main__":
    main()
