"""Ten minutes on an accelerator: what can be wrong or slow there, in order of importance, in one command.

    python benchmarks/accelerator.py                               # 8 minutes on the GPU, if there is one
    python benchmarks/accelerator.py --part optimizers --part steps
    python benchmarks/accelerator.py --device cpu --minutes 2      # tiny sizes: whether the script works

Each part runs in a process of its own, for no longer than its share of the time: a hang or a crash costs that part
alone. What a part has measured is written at once to OUT/parts, and the page (OUT/accelerator.html and .md) after every
part. The same command again leaves out the parts that are done and goes on with the others; --again measures anew. A
part or a contender whose package is missing is left out and named.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parent / "src")]  # a checkout needs no installation

STARTING = 9.0  # every part starts torch anew
GRACE = 3.0  # seconds between the end of a part's time and its end by force
PAGE_SECONDS = 2.0  # for the last page
NOTHING_KNOWN = {"hardware": {"device": "unknown"}, "versions": {}, "commit": None, "started": "no part has started"}


class Part(NamedTuple):
    """A part: its title, its share of the time beside the others', and its function in `accelerator_parts`."""

    title: str
    weight: float
    function: str


PARTS = {
    "tests": Part("The tests on the device", 4, "checks.run"),
    "optimizers": Part("SOAP beside other optimizers", 6, "optimizers.run"),
    "steps": Part("A training step beside timm's residual model", 4, "steps.run"),
    "loop": Part("The whole loop", 3, "loading.run_loop"),
    "crops": Part("DINO's crops on CPU cores", 2, "loading.run_crops"),
    "tokencut": Part("TokenCut of a batch", 1.5, "instruments.run_tokencut"),
    "spectrum": Part("The spectrum of a block", 1.5, "instruments.run_spectrum"),
    "initialize": Part("initialize_ of a large model", 1.5, "instruments.run_initialize"),
    "table1": Part("A small campaign: Table 1", 6, "campaign.run"),
}


def main() -> None:
    """Run the parts, or one of them as the process of its own."""
    args = parsed()
    if args.run_part:
        run_part(args)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that the part ends, too
    end = time.monotonic() + 60 * args.minutes - PAGE_SECONDS
    chosen = [name for name in PARTS if not args.part or name in args.part]
    if args.again:
        for name in chosen:
            file_of(args.out, name).unlink(missing_ok=True)
    waiting = [name for name in chosen if status_of(args.out, name) != "done"]
    for name in (name for name in chosen if name not in waiting):
        print(f"{name}: done before", flush=True)
    for index, name in enumerate(waiting):
        left = end - time.monotonic()
        if left < 2 * GRACE:
            print(f"{name}: no time left; the same command goes on with it", flush=True)
            continue
        start = time.monotonic()
        in_process(args, name, share_of(waiting[index:], left) - GRACE)
        print(f"{name}: {status_of(args.out, name)}, {time.monotonic() - start:.0f} s", flush=True)
    print(f"page: {args.out / 'accelerator.html'}")


def share_of(waiting: list[str], left: float) -> float:
    """Seconds for the first of the parts that wait: what one leaves over is the others', and the last has all of it."""
    if len(waiting) == 1:
        return left
    weights = [PARTS[name].weight for name in waiting]
    fixed = min(STARTING, left / len(waiting))
    return fixed + 1.2 * (left - fixed * len(waiting)) * weights[0] / sum(weights)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be given several times")
    parser.add_argument("--again", action="store_true", help="measure anew what is done")
    parser.add_argument("--out", type=Path, default=Path("runs/accelerator"), help="folder of results")
    parser.add_argument("--run-part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.typed_out, args.out = str(args.out), args.out.resolve()
    return args


def file_of(out: Path, name: str) -> Path:
    return out / "parts" / f"{name}.json"


def status_of(out: Path, name: str) -> str:
    from accelerator_parts.files import read

    return (read(file_of(out, name)) or {"status": "not run"})["status"]


def in_process(args: argparse.Namespace, name: str, seconds: float) -> None:
    """Run a part in a process group of its own, and end that group when its time is over."""
    args.out.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--device", args.device, "--minutes", str(args.minutes),
               "--out", str(args.out), "--run-part", name, "--seconds", str(seconds)]  # fmt: skip
    with (args.out / f"{name}.log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        code: int | None = None
        try:
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(seconds + GRACE)
        finally:
            end_group(process)
    if code != 0:
        said = "was cut off by the time limit" if code is None else f"ended with code {code}: see {name}.log"
        noted(file_of(args.out, name), said, code)
    write_whole_page(args)


def end_group(process: subprocess.Popen) -> None:
    """Whatever the part has started: loaders' workers too."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def noted(file: Path, said: str, code: int | None) -> None:
    """Say in a part's record how it ended, and keep its rows."""
    from accelerator_parts.files import read, write

    values = read(file) or {"rows": [], "notes": []}
    if values.get("status") == "done":  # it had only to end
        return
    values["notes"] = [*(note for note in values["notes"] if note != said), said]
    values["status"] = "unfinished" if code is None else "failed"
    write(file, values)


def run_part(args: argparse.Namespace) -> None:
    """The process of one part: measure and keep."""
    if hasattr(signal, "alarm"):
        signal.alarm(int(args.seconds + 2 * GRACE))  # ends this process even if the one that started it was killed
    import torch
    from accelerator_parts.record import Record

    device = torch.device(args.device if args.device != "auto" else best_device())
    work = args.out / "work" / args.run_part
    work.mkdir(parents=True, exist_ok=True)
    record = Record(file_of(args.out, args.run_part), device, args.seconds, folder=work, minutes=args.minutes)
    record.values["made"] = made_with(device)
    module, name = PARTS[args.run_part].function.split(".")
    getattr(import_module(f"accelerator_parts.{module}"), name)(record)
    record.finish()


def best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def made_with(device: Any) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    from skipless.training.run_folder.provenance import provenance

    made = provenance(device)
    for name in ("heavyball", "pytorch_optimizer"):
        try:
            made["versions"][name] = version(name)
        except PackageNotFoundError:
            continue
    return made


def write_whole_page(args: argparse.Namespace) -> None:
    """Write the page over all records that are there."""
    from accelerator_parts.files import read
    from accelerator_parts.page import write_page

    records = {name: read(file_of(args.out, name)) for name in PARTS}
    parts = {PARTS[name].title: values for name, values in records.items() if values is not None}
    missing = [PARTS[name].title for name, values in records.items() if values is None]
    made = next((values["made"] for values in parts.values() if "made" in values), NOTHING_KNOWN)
    command = ["python", "benchmarks/accelerator.py", "--device", args.device, "--minutes", f"{args.minutes:g}"]
    chosen = [word for name in args.part or () for word in ("--part", name)]
    write_page(args.out, parts, missing, made, [*command, "--out", args.typed_out, *chosen])


if __name__ == "__main__":
    main()
