"""Probing 12 blocks at 8 learning rates beside one block at one, from pictures to mIoU.

    OMP_NUM_THREADS=1 python benchmarks/probe.py

Both sides read the same 200 pictures (150 for training, 50 for validation; JPEG of 500 x 375 with PNG masks of 21
classes), run them through a ViT-S at 224, write its features to a folder that is empty at the start, train heads by the
protocol `patch` (30 epochs), choose learning rates and score mIoU at the masks' size. One side is the last block at one
learning rate: its backbone runs as deep as the other's. The two go in turn and in changing order, on one thread. The
ratio is taken pair by pair and printed as its median with the extremes. Times are CPU times of the thread, which other
processes disturb less; wall times are printed beside them.
"""

import argparse
import platform
import random
import statistics
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from skipless.evaluators.features.extraction import FeatureConfig
from skipless.evaluators.probe.pipeline import probe_model
from skipless.evaluators.probe.protocols import PROTOCOLS, DenseProtocol
from skipless.models import create_model

CLASSES = 21
ONE_RATE = (1e-2,)


class Pictures:
    """Coloured rectangles on noise, kept as files."""

    classes = tuple(map(str, range(CLASSES)))
    ignore = 255

    def __init__(self, folder: Path, numbers: range) -> None:
        self.folder, self.numbers = folder, numbers
        for number in numbers:
            draw = np.random.default_rng(number)
            pixels = draw.integers(0, 256, (75, 100, 3), dtype=np.uint8).repeat(5, 0).repeat(5, 1)
            mask = np.zeros((375, 500), np.uint8)
            for label in draw.integers(1, CLASSES, 4):
                y, x = draw.integers(0, 275), draw.integers(0, 350)
                pixels[y : y + 100, x : x + 150] = (label * 12, 255 - label * 12, label * 60 % 256)
                mask[y : y + 100, x : x + 150] = label
            Image.fromarray(pixels).save(folder / f"{number}.jpg")
            Image.fromarray(mask).save(folder / f"{number}.png")

    def __len__(self) -> int:
        return len(self.numbers)

    def load(self, index: int) -> tuple[Image.Image, np.ndarray]:
        """Picture and mask."""
        return Image.open(self.folder / f"{self.numbers[index]}.jpg").convert("RGB"), self.load_mask(index)

    def load_mask(self, index: int) -> np.ndarray:
        """The mask alone."""
        return np.array(Image.open(self.folder / f"{self.numbers[index]}.png"))


def seconds(
    model: torch.nn.Module, data: list[Pictures], protocol: DenseProtocol, blocks: tuple[int, ...] | None
) -> tuple[float, float]:
    """CPU and wall time of one probe from the first picture to the last number."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.thread_time(), time.perf_counter()
        probe_model(
            model,
            *data,
            folder=Path(folder),
            identity=("train", "val"),
            protocol=protocol,
            config=FeatureConfig(blocks=blocks),
            multiscale=None,
            notify=lambda _: None,
        )
        return time.thread_time() - start[0], time.perf_counter() - start[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=3, help="timed pairs")
    parser.add_argument("--images", type=int, default=200, help="three quarters of them for training")
    given = parser.parse_args()
    torch.set_num_threads(1)
    many = PROTOCOLS["patch"]
    one = replace(many, optimizer=replace(many.optimizer, learning_rates=ONE_RATE))
    model = create_model("vit_small_patch16_224", skip=True, seed=0)
    split = given.images * 3 // 4
    with tempfile.TemporaryDirectory() as folder:
        data = [Pictures(Path(folder), numbers) for numbers in (range(split), range(split, given.images))]
        ratios, walls, all_times = [], [], []
        for _ in range(given.pairs):
            times = {}
            for side in random.sample((0, 1), 2):
                times[side] = seconds(model, data, (one, many)[side], ((-1,), None)[side])
            ratios.append(times[1][0] / times[0][0])
            walls.append(times[1][1] / times[0][1])
            all_times.append(times)
    for name, values in (("CPU", ratios), ("wall", walls)):
        spread = f"{min(values):.2f} to {max(values):.2f}, n = {given.pairs}"
        print(f"12 blocks x 8 rates / 1 block x 1 rate, {name} time: {statistics.median(values):.2f} ({spread})")
    first = [statistics.median(times[side][0] for times in all_times) for side in (0, 1)]
    print(f"median CPU seconds: {first[1]:.1f} and {first[0]:.1f}; protocol patch, ViT-S at 224, {given.images} images")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    print(f"torch {torch.__version__}, timm {timm.__version__}, 1 thread, fp32, {processor()}, commit {commit.strip()}")


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
