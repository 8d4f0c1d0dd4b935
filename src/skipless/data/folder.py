"""ImageNet-style folders: `train/CLASS/*.jpg` and `val/CLASS/*.jpg`."""

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from skipless.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")


class UnreadableImage(InputError):
    """Bytes that are no image. That a disk or a server fails is no such error: it says nothing about the image.

    Attributes:
        name: of the file.
        reason: the decoder's words.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name!r} is no readable image ({reason}); repair or remove it")
        self.name, self.reason = name, reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.name, self.reason)


@dataclass(frozen=True, eq=False)
class FolderFiles:
    """Image files below a folder.

    Attributes:
        root: the folder.
        files: paths below it, as bytes: one flat array, which forked workers share rather than copy.
    """

    root: Path
    files: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """Give the path of one image."""
        return str(self.root / os.fsdecode(bytes(self.files[index])))

    def read(self, index: int) -> Image.Image:
        """Decode one image to RGB.

        Raises:
            UnreadableImage: if its file is no image, or is cut off.
            InputError: if the file cannot be read.
        """
        return read_image(Path(self.name(index)))

    def chosen(self, indices: Int64[Tensor, " k"]) -> "FolderFiles":
        """Give a part of the files."""
        return replace(self, files=self.files[indices.numpy()])


def read_image(file: Path) -> Image.Image:
    """Decode one file to RGB.

    Raises:
        UnreadableImage: if it is no image, or is cut off.
        InputError: if it cannot be read.
    """
    return decode_image(file, str(file))


def decode_image(content: Path | io.BytesIO, name: str) -> Image.Image:
    """Decode a file, or its content, to RGB; `name` is for the errors, which are those of `read_image`."""
    try:
        with Image.open(content) as image:
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")  # convert would copy it
    except OSError as error:
        if error.errno is not None:  # the operating system's; Pillow's own have no number
            raise InputError(f"cannot read {name!r} ({error}); see that it is there, then go on") from error
        raise UnreadableImage(name, str(error)) from error
    except MemoryError:
        raise
    except Exception as error:  # on damaged bytes Pillow's parsers raise nearly anything
        raise UnreadableImage(name, str(error) or type(error).__name__) from error


def scan_split(root: Path) -> tuple[tuple[str, ...], np.ndarray, Int64[Tensor, " n"]]:
    """List a split: the sorted names of its classes, the sorted files below them, and the class of every file.

    Raises:
        InputError: if the folder is missing, or a class has no image.
    """
    if not root.is_dir():
        raise InputError(
            f"no folder {str(root)!r}; expected train/CLASS/*.jpg and val/CLASS/*.jpg below the data folder"
        )
    classes = tuple(sorted(entry.name for entry in os.scandir(root) if entry.is_dir()))
    files, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(_image_files(root, name))
        if not found:
            raise InputError(
                f"no image in {str(root / name)!r} (looked for {', '.join(EXTENSIONS)}); fill or remove it"
            )
        files += found
        labels += [label] * len(found)
    if not files:
        raise InputError(f"no class folders in {str(root)!r}; expected {root.name}/CLASS/*.jpg")
    return classes, np.array(files, dtype=np.bytes_), torch.tensor(labels)


def _image_files(root: Path, name: str) -> Iterator[bytes]:
    for folder, _, names in os.walk(root / name, followlinks=True):
        for file in names:
            if file.lower().endswith(EXTENSIONS):
                yield os.fsencode(os.path.relpath(os.path.join(folder, file), root))
