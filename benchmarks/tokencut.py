"""Our TokenCut beside the published way, scipy's dense generalised eigensolver, on the same features.

    pip install ".[demo]"                                  # brings SciPy
    OMP_NUM_THREADS=1 python benchmarks/tokencut.py               # 196 and 1,200 tokens, one thread

Scenes are one or several objects over a background; their features are drawn in 64 dimensions and turned into 384, the
width of ViT-S's keys. A scene is `clear` if the published solver finds lambda_3 - lambda_2 >= 0.3 and `small gap` if it
finds less than 0.1; `cliques` are scenes in 384 free dimensions, whose objects hang together by eps alone, with a gap
of about 1e-5.

Two spans are timed: `cut`, from the 0/1 matrix to the eigenvector (ours: and the seed), and `image`, from the features
to the box, where both ways pay for the same 384-wide product. Both run in turn and in changing order; each ratio is
taken between two runs side by side and printed as its median over all images with its range. Times are CPU times of
the thread, so that other processes on the machine disturb them less.
"""

import argparse
import os
import platform
import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import scipy.linalg
import scipy.ndimage
import torch
from torch import Tensor

from skipless.evaluators.discovery import Discovery, tokencut
from skipless.evaluators.discovery.normalized_cut import FLOAT32_TOKENS, normalised_cut
from skipless.evaluators.discovery.regions import similarity_graph

TAU, EPS, PATCH = 0.2, 1e-5, 16
KINDS = {"clear": (1, 64), "small gap": (4, 64), "cliques": (4, 384)}  # objects, free dimensions


@dataclass
class Tally:
    """What one kind of scene gave: for both spans the times of both ways, and how the answers compare."""

    published: dict[str, list[float]] = field(default_factory=lambda: {"cut": [], "image": []})
    ours: dict[str, list[float]] = field(default_factory=lambda: {"cut": [], "image": []})
    same: int = 0
    ties: int = 0
    different: int = 0
    unproven: int = 0


def scene(objects: int, dims: int, grid: tuple[int, int], seed: int) -> Tensor:
    """Ellipses of similar features over a background, 384 wide."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = grid
    y, x = torch.meshgrid(torch.arange(rows) / rows, torch.arange(columns) / columns, indexing="ij")
    labels = torch.zeros(grid, dtype=torch.long)
    for k in range(objects):
        cy, cx, radius = torch.rand(3, generator=generator).tolist()
        labels[(y - cy) ** 2 + (x - cx) ** 2 < (0.15 + 0.2 * radius) ** 2] = k + 1
    noise = 1.0 if objects == 1 else 1.7
    centres = torch.randn(objects + 1, dims, generator=generator)
    features = centres[labels.flatten()] + noise * torch.randn(rows * columns, dims, generator=generator)
    return features @ torch.linalg.qr(torch.randn(384, dims, generator=generator)).Q.T


def published_cut(edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve (D - A) v = lambda D v densely for the second and third eigenvalue."""
    affinity = np.where(edges, 1.0, EPS)
    degree = np.diag(affinity.sum(axis=1))
    return scipy.linalg.eigh(degree - affinity, degree, subset_by_index=[1, 2])


def published(features: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> tuple[np.ndarray, Any, np.ndarray]:
    """TokenCut by the dense solver: eigenvector, box, and sides."""
    unit = torch.nn.functional.normalize(features, dim=1)
    vector = published_cut((unit @ unit.T).numpy() > TAU)[1][:, 0]
    sides, seed = vector > vector.mean(), np.abs(vector).argmax()
    if not sides[seed]:
        sides = ~sides
    labels, _ = scipy.ndimage.label(sides.reshape(grid))
    ys, xs = np.where(labels == labels.flat[seed])
    box = (xs.min() * PATCH, ys.min() * PATCH)
    box += (min((xs.max() + 1) * PATCH, size[1]), min((ys.max() + 1) * PATCH, size[0]))
    return vector, box, sides


def compare(tally: Tally, ours: Discovery, vector: np.ndarray, box: Any, sides: np.ndarray) -> None:
    """Count equal sides and boxes; a tie is one where the published vector is as large at our seed as at its own."""
    tally.unproven += not ours.proven
    if np.array_equal(ours.foreground.numpy().ravel(), sides) and ours.box == tuple(box):
        tally.same += 1
    elif ours.tied > 1 and abs(vector[ours.seed]) >= np.abs(vector).max() * (1 - 1e-9):
        tally.ties += 1
    else:
        tally.different += 1


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.thread_time()
    result = function()
    return time.thread_time() - start, result


def measure(kind: str, grid: tuple[int, int], images: int, order: random.Random) -> Tally:
    """Time both ways on as many images of this kind as asked for."""
    tally, seed, size = Tally(), 0, (grid[0] * PATCH - 5, grid[1] * PATCH - 3)
    dtype = torch.float32 if grid[0] * grid[1] >= FLOAT32_TOKENS else torch.float64
    while len(tally.ours["image"]) < images:
        features = scene(*KINDS[kind], grid, seed)
        seed += 1
        edges = similarity_graph(features, TAU, dtype)
        array = edges.numpy() > 0
        gap = float(np.diff(published_cut(array)[0])[0])
        if (kind == "clear" and gap < 0.3) or (kind == "small gap" and gap >= 0.1):
            continue
        discover = partial(tokencut, features[None], grid, tau=TAU, eps=EPS, patch=PATCH, image_size=size)
        ways: dict[str, dict[str, Callable[[], Any]]] = {
            "cut": {"published": partial(published_cut, array), "ours": partial(normalised_cut, edges, EPS)},
            "image": {"published": partial(published, features, grid, size), "ours": discover},
        }
        results = {}
        for span, both in ways.items():
            for way in order.sample(sorted(both), 2):
                elapsed, results[way] = seconds(both[way])
                getattr(tally, way)[span].append(elapsed)
        compare(tally, results["ours"][0], *results["published"])
    return tally


def report(tallies: dict[tuple[int, str], Tally]) -> str:
    lines = [
        "| tokens | graph | n | ours, cut | cut: published / ours | ours, image | image: published / ours | answers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (tokens, kind), tally in tallies.items():
        cells = [str(tokens), kind, str(len(tally.ours["cut"]))]
        for span in ("cut", "image"):
            ratios = [a / b for a, b in zip(tally.published[span], tally.ours[span], strict=True)]
            cells.append(f"{1e3 * median(tally.ours[span]):.1f} ms")
            cells.append(f"{median(ratios):.1f}x ({min(ratios):.1f} to {max(ratios):.1f})")
        answers = f"{tally.same} the same, {tally.ties} ties, {tally.different} different; {tally.unproven} unproven"
        lines.append(f"| {' | '.join([*cells, answers])} |")
    return "\n".join(lines)


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "scipy", "numpy"))
    threads = f"{torch.get_num_threads()} thread, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    return f"{cpu}, {threads}; {versions}; commit {commit.strip() or 'unknown'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=14, help="images of each kind")
    args = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("SciPy's threads are set before Python starts: OMP_NUM_THREADS=1 python benchmarks/tokencut.py")
    torch.set_num_threads(1)
    order = random.Random(0)
    for kind in KINDS:
        measure(kind, (14, 14), 3, order)  # warms up
    tallies = {
        (grid[0] * grid[1], kind): measure(kind, grid, args.images, order)
        for grid in ((14, 14), (30, 40))
        for kind in KINDS
    }
    print(f"tau {TAU}, eps {EPS:g}; {machine()}\n")
    print(report(tallies))


if __name__ == "__main__":
    main()
