"""Kill training runs hundreds of times and say what became of them.

    python -m tests.faults.run --kills 200 --seed 0 --processes 1,2

Every run is killed several times, at any moment or in a phase that is waited for (start, step, evaluation, snapshot,
write and rename of a checkpoint), started again each time as `torchrun --max-restarts` does, then let go to its end and
compared bit for bit with one that nobody disturbed. A quarter of the kills leave a damaged checkpoint besides. The exit
code is 1 if anything was found.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.harness import Report, Undisturbed, torment
from faults.victim import Kind

KINDS = (
    Kind(1, "auto", "AdamW"),
    Kind(1, "auto", "SOAP"),
    Kind(2, "ddp", "AdamW"),
    Kind(2, "ddp", "SOAP"),
    Kind(2, "fsdp", "AdamW"),
    Kind(2, "fsdp", "SOAP"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", default="1,2", help="sizes of the runs, separated by commas")
    parser.add_argument("--out", type=Path, help="keep the run folders here")
    given = parser.parse_args()
    sizes = {int(size) for size in given.processes.split(",")}
    kinds = [kind for kind in KINDS if kind.processes in sizes]
    if not kinds:
        parser.error(f"--processes {given.processes}: give some of 1, 2")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        report = Report()
        begin = time.monotonic()
        draw, undisturbed, index = random.Random(given.seed), Undisturbed(folder), 0
        while report.kills < given.kills:
            kind = kinds[index % len(kinds)]
            torment(folder / f"run-{index}", kind, undisturbed, draw.randint(2, 9), draw, report)
            index += 1
            print(
                f"{time.monotonic() - begin:6.0f} s  {report.kills} kills, {index} runs, sound: {report.sound}",
                flush=True,
            )
        print(report)
    return 0 if report.sound else 1


if __name__ == "__main__":
    raise SystemExit(main())
