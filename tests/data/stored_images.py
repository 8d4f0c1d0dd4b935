"""Small folders of images and shards of them."""

import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def write_folder(root: Path, each: int = 4, size: tuple[int, int] = (40, 60)) -> Path:
    """Write `each` JPEG files of noise for each of two classes and splits."""
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for i in range(each):
                pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.jpg")
    return root


def jpeg(level: int = 0) -> bytes:
    """A small grey JPEG."""
    out = io.BytesIO()
    Image.new("RGB", (12, 10), (level, level, level)).save(out, "JPEG")
    return out.getvalue()


def write_tar(file: Path, members: dict[str, bytes] | list[tuple[str, bytes]], **options: object) -> Path:
    """Write members under their names, in order."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", **options) as tar:  # pyright: ignore[reportCallIssue, reportArgumentType]
        for name, content in members.items() if isinstance(members, dict) else members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file
