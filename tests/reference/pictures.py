"""Small image files, whole and damaged."""

from pathlib import Path

import numpy as np
from PIL import Image

from skipless.data.scenes.files import voc_palette


def jpeg(file: Path, size: tuple[int, int] = (12, 8), mode: str = "RGB") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 100, 50)).convert(mode).save(file)


def png(file: Path, ids: np.ndarray, *, palette: bool = False) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids.astype(np.uint8))
    if palette:
        image.putpalette(voc_palette().tobytes())
    image.save(file)


def damage(file: Path, how: str) -> None:
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "html": b"<html>404"}[how])
