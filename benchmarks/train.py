"""The whole training loop beside timm's own training script: images a second from files to updated weights.

    pip install ".[demo]"  # for the photos
    curl -O https://raw.githubusercontent.com/huggingface/pytorch-image-models/v1.0.31/train.py  # timm's, as installed
    OMP_NUM_THREADS=1 python benchmarks/train.py --timm-script train.py

Claim: at least 1.0 times timm's rate with AdamW. Both train the same residual ViT on the same folder of JPEG files of
500 x 375 pixels, with the paper's augmentation and targets (RandAugment, erasing, mixup, cutmix, smoothed labels), the
same batch, workers and threads. Both processes live through the whole measurement, but only one runs at a time: the
other is stopped (SIGSTOP) with its workers. They take turns, in changing order; a turn is timed from the first line of
the log after the process goes on to a line so many steps later, so that what was fetched ahead counts for neither. Ends
of epochs (where timm starts its workers anew) and checkpoints lie outside. The ratio is taken turn by turn and printed
as its median with the range.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from multicrop import write_photos  # beside this file

from skipless.data import ImageConfig
from skipless.optim import OptimizerConfig
from skipless.recipes import ModelConfig, Recipe, ScheduleConfig, run
from skipless.tasks import IMAGENET_TARGETS
from skipless.training import FitConfig

FILES = 64  # different ones; the set has each many times, as links
MODEL = "vit_tiny_patch16_224"
AUGMENT = "rand-m9-inc1"  # the paper's, but for its -mstd0.5: with that timm and Pillow 13 fail at a posterisation
LIMIT_S = 300.0  # for a turn
LOG_EVERY = 5


@dataclass
class Contender:
    """A training process, and how many steps its log says that it has taken."""

    process: subprocess.Popen
    log: Path
    steps: Callable[[bytes], int | None]
    read: int = 0
    last: int = 0

    def signal(self, number: signal.Signals) -> None:
        """Stop it or let it go on, together with its workers."""
        os.killpg(self.process.pid, number)

    def wait_for(self, steps: int) -> float:
        """Wait until the log says that so many steps are done; give the time when it did."""
        end = time.perf_counter() + LIMIT_S
        while self.last < steps:
            if self.process.poll() is not None or time.perf_counter() > end:
                raise SystemExit(f"{self.log} came to no more than {self.last} steps; see there")
            time.sleep(0.002)
            self._look()
        return time.perf_counter()

    def _look(self) -> None:
        if not self.log.exists():
            return
        with self.log.open("rb") as file:
            file.seek(self.read)
            new = file.read()
        whole, newline, _ = new.rpartition(b"\n")
        self.read += len(whole) + len(newline)
        for line in whole.splitlines():
            self.last = max(self.last, self.steps(line) or 0)


def turn(contender: Contender, steps: int) -> float:
    """Seconds for so many steps."""
    contender.signal(signal.SIGCONT)
    start = contender.wait_for(contender.last + LOG_EVERY)
    seconds = contender.wait_for(contender.last + steps) - start
    contender.signal(signal.SIGSTOP)
    return seconds


def steps_of_skipless(line: bytes) -> int | None:
    return json.loads(line).get("step")


def steps_of_timm(line: bytes) -> int | None:
    found = re.search(rb"Train: 0 \[\s*(\d+)/", line)
    return int(found[1]) if found else None


@contextmanager
def started(command: list[str], output: Path, log: Path, steps: Callable[[bytes], int | None]) -> Iterator[Contender]:
    """Start a process in a group of its own, and end that group in the end."""
    with output.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield Contender(process, log, steps)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def timm_command(args: argparse.Namespace, folder: Path) -> list[str]:
    return [
        sys.executable, str(args.timm_script), "--data-dir", str(folder / "data"), "--val-split", "",
        "--device", args.device, *(["--amp", "--amp-dtype", "bfloat16"] if args.precision == "bf16" else []),
        "--model", MODEL, "--model-kwargs", f"img_size={args.size}", "--img-size", str(args.size), "--num-classes", "2",
        "--batch-size", str(args.batch), "--workers", str(args.workers), "--opt", "adamw", "--weight-decay", "0.3",
        "--lr", "1e-3", "--sched", "cosine", "--sched-on-updates", "--epochs", "100", "--warmup-epochs", "5",
        "--aa", AUGMENT, "--reprob", "0.25", "--train-interpolation", "bicubic",
        "--mean", "0.485", "0.456", "0.406", "--std", "0.229", "0.224", "0.225",
        "--mixup", "0.8", "--cutmix", "1.0", "--smoothing", "0.1", "--log-interval", str(LOG_EVERY),
        *(["--pin-mem"] if args.device == "cuda" else []), "--output", str(folder / "timm"), "--experiment", "run",
    ]  # fmt: skip


def skipless_command(args: argparse.Namespace, folder: Path) -> list[str]:
    given = vars(args) | {"timm_script": None, "as_skipless": str(folder)}
    return [sys.executable, __file__, "--as-skipless", json.dumps(given)]


def train_skipless(given: dict) -> None:
    """The other side: the recipe of Table 1 with timm's residual model, and AdamW."""
    folder = Path(given["as_skipless"])
    recipe = Recipe(
        name="benchmark",
        scale="benchmark",
        model=ModelConfig(MODEL, skip=True),
        data=ImageConfig(str(folder / "data"), image_size=given["size"], auto_augment=AUGMENT),
        targets=IMAGENET_TARGETS,
        optimizer=OptimizerConfig(name="adamw", lr=1e-3, weight_decay=0.3),
        schedule=ScheduleConfig(warmup=0.05),
        fit=FitConfig(
            epochs=100, batch_size=given["batch"], workers=given["workers"], evaluate_every=0, log_every=LOG_EVERY,
            device=given["device"], precision=given["precision"],
        ),
    )  # fmt: skip
    run(recipe, folder / "skipless")


def write_data(folder: Path, count: int) -> None:
    """Two classes of a few files each, under many names; validation has one file of each class."""
    (folder / "photos").mkdir(parents=True)
    photos = write_photos(folder / "photos", FILES)
    for split, each in (("train", count // 2), ("val", 1)):
        for name in ("a", "b"):
            (folder / "data" / split / name).mkdir(parents=True)
            for i in range(each):
                os.link(photos[i % FILES], folder / "data" / split / name / f"{i:06}.jpg")


def machine(args: argparse.Namespace) -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    where = torch.cuda.get_device_name() + ", " if args.device == "cuda" else ""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "pillow"))
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return f"{where}{cpu}, {load}; {versions}; commit {commit.strip() or 'unknown'}"


def measure(args: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Images a second of both, turn by turn, after a turn each to warm up."""
    order, rates = random.Random(1), {"skipless": [], "timm": []}
    ours = started(
        skipless_command(args, folder), folder / "skipless.log", folder / "skipless/metrics.jsonl", steps_of_skipless
    )
    theirs = started(timm_command(args, folder), folder / "timm.log", folder / "timm.log", steps_of_timm)
    with ours as one, theirs as other:
        contenders = {"skipless": one, "timm": other}
        for contender in contenders.values():
            contender.wait_for(LOG_EVERY)
        for contender in contenders.values():
            contender.signal(signal.SIGSTOP)
        for pair in range(-1, args.pairs):
            for name in order.sample(list(contenders), 2):
                seconds = turn(contenders[name], args.steps)
                rate = args.steps * args.batch / seconds
                print(f"turn {pair + 1} of {args.pairs}: {name} {rate:.1f} images/s", file=sys.stderr, flush=True)
                if pair >= 0:
                    rates[name].append(rate)
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timm-script", type=Path, help="timm's train.py")
    parser.add_argument("--pairs", type=int, default=9, help="timed turns of each")
    parser.add_argument("--steps", type=int, default=20, help=f"of one turn, a multiple of {LOG_EVERY}")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=96, help="pixels, a multiple of 16")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--as-skipless", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.as_skipless is not None:
        train_skipless(args.as_skipless)
        return
    if args.timm_script is None or not args.timm_script.is_file():
        parser.error("needs timm's train.py: --timm-script PATH")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that the contenders end, too
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, (args.pairs + 3) * 2 * (args.steps + 2 * LOG_EVERY) * args.batch)
        try:
            rates = measure(args, folder)
        except SystemExit:
            for log in ("skipless.log", "timm.log"):
                print(f"--- {log}\n{(folder / log).read_text()[-2000:]}", file=sys.stderr)
            raise
    ratios = [ours / theirs for ours, theirs in zip(rates["skipless"], rates["timm"], strict=True)]
    print(machine(args))
    print(f"{MODEL} at {args.size} px, batch {args.batch}, {args.workers} workers, {args.precision}, AdamW\n")
    print(f"| n = {len(ratios)} turns of {args.steps} steps | images/s | skipless / timm |\n|---|---|---|")
    print(f"| timm's train.py | {median(rates['timm']):.1f} | |")
    spread = f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    print(f"| skipless | {median(rates['skipless']):.1f} | {spread} |")


if __name__ == "__main__":
    main()
