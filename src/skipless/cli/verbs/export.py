"""`skipless export`."""

from pathlib import Path
from typing import Annotated

from skipless.cli.call import call
from skipless.options import Option


def main(words: list[str]) -> None:
    """Write the backbone of a run as a file."""
    lines = (
        "skipless export runs/d1 --out teacher.safetensors",
        "skipless export runs/d1 --out t200.safetensors --epoch 200",
        "skipless export runs/l1 --out llama/",
    )
    call(export, words, prog="skipless export", examples=lines)


def export(
    run: Annotated[Path, Option(positional=True)],
    *,
    out: Path,
    epoch: Annotated[int | None, Option("the last weights")] = None,
) -> None:
    """Write the backbone of a run (of DINO the teacher's) as a safetensors file that timm loads.

    A language model is written as a folder with its tokenizer, which transformers loads.

    Args:
        run: a run folder of skipless train.
        out: the file, NAME.safetensors; of a language model, a new folder.
        epoch: the teacher after this epoch, where the run kept it.
    """
    from skipless.recipes.export import export_backbone

    made = export_backbone(run, out, epoch=epoch)
    print(f"wrote {made.file}; load it by\n\n{made.python}")
