"""Images a second: of the whole loop, from files to updated weights, and of DINO's crops that CPU cores make."""

import json
import os
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from accelerator_parts.record import Record
from skipless.data import ImageConfig
from skipless.data.loading.loader import Order, train_batches
from skipless.data.multicrop import MultiCropConfig, load_multicrop
from skipless.optim import OptimizerConfig
from skipless.recipes import ModelConfig, Recipe, ScheduleConfig, run as run_recipe
from skipless.tasks import IMAGENET_TARGETS
from skipless.training import FitConfig

FILES, SIZE = 64, (500, 375)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_files(folder: Path, count: int, *, noise: bool = False) -> list[Path]:
    """Photographs if scikit-learn has them, else noise of the same size, under as many names."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [] if noise else _photos(folder)
    files = files or [_noise(folder / f"{index:03}.jpg", index) for index in range(FILES)]
    for index in range(FILES, count):
        os.link(files[index % FILES], folder / f"{index:06}.jpg")
    return sorted(folder.glob("*.jpg"))


def _photos(folder: Path) -> list[Path]:
    try:
        from multicrop import write_photos  # beside this folder; needs scikit-learn and torchvision
    except ImportError:
        return []
    return write_photos(folder, FILES)


def _noise(file: Path, seed: int) -> Path:
    from PIL import Image

    coarse = torch.randint(0, 256, (12, 16, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    Image.fromarray(coarse.numpy()).resize(SIZE).save(file, quality=90)
    return file


def run_loop(record: Record) -> None:
    """The recipe of Table 1 on JPEG files, and on a set in memory, which shows what the files cost."""
    size, batch, steps = (32, 8, 12) if record.tiny else (224, 256, 120)
    name = "vit_tiny_patch16_224" if record.tiny else "vit_small_patch16_224"
    photos = record.folder / "photos"
    if not photos.exists():
        write_files(photos, FILES, noise=record.tiny)
    for split, count in (("train", batch * steps // 2), ("val", 1)):
        for label in ("a", "b"):
            (record.folder / "data" / split / label).mkdir(parents=True, exist_ok=True)
            for index in range(count):
                link = record.folder / "data" / split / label / f"{index:06}.jpg"
                if not link.exists():
                    os.link(photos / f"{index % FILES:03}.jpg", link)

    def measure() -> list[float]:
        out = record.folder / f"loop-{time.time_ns()}"
        recipe = Recipe(
            name="benchmark", scale="benchmark", model=ModelConfig(name, skip=True),
            data=ImageConfig(str(record.folder / "data"), image_size=size, auto_augment="rand-m9-inc1"),
            targets=IMAGENET_TARGETS, optimizer=OptimizerConfig(name="adamw", lr=1e-3, weight_decay=0.3),
            schedule=ScheduleConfig(warmup=0.05),
            fit=FitConfig(
                epochs=1, batch_size=batch, workers=cores(), log_every=steps // 6, progress="none",
                device=record.device.type, precision="bf16",
            ),
        )  # fmt: skip
        run_recipe(recipe, out)
        logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return [line["images_per_second"] for line in logged if "images_per_second" in line][1:]

    note = f"{name} at {size} px, batch {batch}, bf16, AdamW, {cores()} workers"
    record.row("whole loop, JPEG files", "images/s", measure, note)


def run_crops(record: Record) -> None:
    """DINO's ten crops, by all cores, as batches that arrive on the device."""
    batch = 4 if record.tiny else 64
    if not (record.folder / "crops").exists():
        write_files(record.folder / "crops", FILES, noise=record.tiny)
    for mode in ("fast", "exact"):
        data = load_multicrop(record.folder / "crops", MultiCropConfig(mode=mode))

        def measure(data=data) -> list[float]:
            workers = cores()
            order = Order(len(data), batch, seed=0)
            batches = train_batches(data, order, workers=workers, pin_memory=record.device.type == "cuda")
            rates, end = [], time.monotonic() + min(record.left() / 2, 1 if record.tiny else 15)
            try:
                for _ in range(2 * workers):  # what was fetched ahead counts for nothing
                    _moved(next(batches), record.device)
                while len(rates) < 30 and (not rates or time.monotonic() < end):
                    start = time.perf_counter()
                    for _ in range(workers):
                        _moved(next(batches), record.device)
                    rates.append(workers * batch / (time.perf_counter() - start))
            finally:
                batches.close()
            return rates

        record.row(f"DINO's crops, {mode}", "images/s", measure, f"{cores()} workers, ten crops an image")
        if found := record.samples(f"DINO's crops, {mode}"):
            record.note(f"{mode}: {median(found) / cores():.0f} images/s a core")


def _moved(batch: object, device: torch.device) -> object:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    return [_moved(one, device) for one in batch] if isinstance(batch, list | tuple) else batch
