"""Ours beside the published multi-crop pipeline (torchvision on PIL), on JPEG files of 500 x 375 pixels.

    pip install ".[demo]"  # for the photos
    OMP_NUM_THREADS=1 python benchmarks/multicrop.py              # time of exact, fast and published
    OMP_NUM_THREADS=1 python benchmarks/multicrop.py --deviation  # how far the fast crops are from the exact ones

Every contender decodes the same files and makes the ten normalised crops of each: two of 224 and eight of 96 pixels.
They take turns, in changing order, a window of files each, on one thread. The ratio is taken within a window and
printed as its median over the windows with their range. Times are CPU times of the thread, so that other processes on
the machine disturb them little. The files are cut from scikit-learn's two sample photos, mirrored and rescaled; the
time of an operation hardly depends on what is in the picture.
"""

import argparse
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from PIL import Image, ImageFilter, ImageOps
from sklearn.datasets import load_sample_images
from torchvision import transforms

from skipless.data import BatchKey
from skipless.data.multicrop import MultiCropConfig, load_multicrop, measure_deviation

SIZE = (500, 375)


class PublishedBlur:
    """A blur as DINO's published code has it, by PIL."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, image: Image.Image) -> Image.Image:
        """Blur, or not."""
        if random.random() > self.share:
            return image
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def solarise(image: Image.Image) -> Image.Image:
    return ImageOps.solarize(image) if random.random() < 0.2 else image


def published_crop(size: int, scale: tuple[float, float], blur: float, *rest: Callable) -> Callable:
    """One crop of the published pipeline: facebookresearch/dino, `DataAugmentationDINO`, by its description."""
    bicubic = transforms.InterpolationMode.BICUBIC
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=scale, interpolation=bicubic),
            transforms.RandomHorizontalFlip(0.5),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            transforms.RandomGrayscale(0.2),
            PublishedBlur(blur),
            *rest,
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )


def published(files: list[Path]) -> Callable[[list[int]], object]:
    first = published_crop(224, (0.4, 1.0), 1.0)
    second = published_crop(224, (0.4, 1.0), 0.1, solarise)
    local = published_crop(96, (0.05, 0.4), 0.5)

    def make(indices: list[int]) -> object:
        samples = []
        for index in indices:
            with Image.open(files[index]) as file:
                image = file.convert("RGB")
            samples.append([crop(image) for crop in (first, second, *[local] * 8)])
        return [torch.stack(crops) for crops in zip(*samples, strict=True)]

    return make


def ours(folder: Path, config: MultiCropConfig) -> Callable[[list[int]], object]:
    data, epoch = load_multicrop(folder, config), iter(range(10**9))
    return lambda indices: data.__getitems__(BatchKey(0, next(epoch), torch.tensor(indices)))


def write_photos(folder: Path, count: int) -> list[Path]:
    """Cut the sample photos at random boxes and sizes."""
    generator = random.Random(0)
    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    for number in range(count):
        photo = photos[number % len(photos)]
        width = generator.randint(380, photo.width)
        height = min(photo.height, round(width * SIZE[1] / SIZE[0]))
        left, top = generator.randint(0, photo.width - width), generator.randint(0, photo.height - height)
        cut = photo.resize(SIZE, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
        (ImageOps.mirror(cut) if generator.random() < 0.5 else cut).save(folder / f"{number:03}.jpg", quality=90)
    return sorted(folder.iterdir())


def measure(contenders: dict[str, Callable], files: int, windows: int, batch: int) -> dict[str, list[float]]:
    """Give each contender's seconds per image in every window, after one to warm up."""
    order, seconds = random.Random(1), {name: [] for name in contenders}
    for window in range(-1, windows):
        indices = order.sample(range(files), batch)
        for name in order.sample(list(contenders), len(contenders)):
            start = time.thread_time()
            contenders[name](indices)
            if window >= 0:
                seconds[name].append((time.thread_time() - start) / batch)
    return seconds


def report(seconds: dict[str, list[float]], batch: int) -> str:
    base = seconds["published"]
    lines = [
        f"| n = {len(base)} windows of {batch} images | ms an image | images/s, one core | published takes |",
        "|---|---|---|---|",
    ]
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(base, times, strict=True)]
        cell = "" if name == "published" else f"{median(ratios):.2f}x as long ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"| {name} | {1e3 * median(times):.2f} | {1 / median(times):.0f} | {cell} |")
    return "\n".join(lines)


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "pillow", "numpy"))
    threads = f"{torch.get_num_threads()} thread, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    return f"{cpu}, {threads}; {versions}; commit {commit.strip() or 'unknown'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=64, help="JPEG files to write")
    parser.add_argument("--windows", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16, help="images of one window")
    parser.add_argument("--deviation", action="store_true", help="measure the fast crops' deviation instead")
    args = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(0)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_photos(folder, args.files)
        print(machine() + "\n")
        if args.deviation:
            print(measure_deviation(files))
            return
        contenders = {
            "published": published(files),
            "exact": ours(folder, MultiCropConfig()),
            "fast": ours(folder, MultiCropConfig(mode="fast")),
        }
        print(report(measure(contenders, len(files), args.windows, args.batch), args.batch))


if __name__ == "__main__":
    main()
