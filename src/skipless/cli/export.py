"""`skipless export`."""

from pathlib import Path

from tyro.conf import Positional

from skipless.recipes.exported import export_backbone


def export(run: Positional[Path], *, out: Path, epoch: int | None = None) -> None:
    """Write the backbone of a run (of DINO the teacher's) as a safetensors file that timm loads.

    Args:
        run: a run folder of `skipless train`.
        out: the file, NAME.safetensors.
        epoch: the teacher after this epoch, where the run kept it; the last weights by default.
    """
    made = export_backbone(run, out, epoch=epoch)
    print(f"wrote {made.file}; load it by\n\n{made.python}")
