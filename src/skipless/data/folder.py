"""ImageNet-style folders: `train/CLASS/*.jpg` and `val/CLASS/*.jpg`."""

import io
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from skipless.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")

_MAX_UINT16 = 2**16 - 1


class UnreadableImage(InputError):
    """A file whose content is not an image. A failing disk or server raises another error, since the image may be good.

    Attributes:
        name: name of the file.
        reason: message of the decoder.
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
        files: paths below it, as bytes in one flat array, which forked workers share without copying.
    """

    root: Path
    files: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def stored_in(self) -> Iterator[Path]:
        """Return the paths of the image files."""
        return (Path(self.name(index)) for index in range(len(self)))

    def name(self, index: int) -> str:
        """Return the path of one image."""
        return str(self.root / os.fsdecode(bytes(self.files[index])))

    def read(self, index: int) -> Image.Image:
        """Decode one image to RGB.

        Raises:
            UnreadableImage: if the file is not an image, or is truncated.
            InputError: if the file cannot be read.
        """
        return read_image(Path(self.name(index)))

    def subset(self, indices: Int64[Tensor, " k"]) -> "FolderFiles":
        """Return the files at some indices."""
        return replace(self, files=self.files[indices.numpy()])


def read_image(file: Path) -> Image.Image:
    """Decode one file to RGB.

    Raises:
        UnreadableImage: if the file is not an image, or is truncated.
        InputError: if the file cannot be read.
    """
    return decode_image(file, str(file))


def decode_image(content: Path | io.BytesIO, name: str) -> Image.Image:
    """Decode a file, or its content, to RGB; raises as `read_image`, with `name` in the message."""
    try:
        with Image.open(content) as image:
            image.load()
            return to_mode(image, "RGB", name)
    except OSError as error:
        if error.errno is not None:  # an error of the operating system; Pillow's own have no errno
            raise InputError(f"cannot read {name!r} ({error}); see that it is there, then go on") from error
        raise UnreadableImage(name, str(error)) from error
    except (MemoryError, UnreadableImage):
        raise
    except Exception as error:  # Pillow's parsers raise almost any exception on damaged bytes
        raise UnreadableImage(name, str(error) or type(error).__name__) from error


def to_mode(image: Image.Image, mode: Literal["RGB", "L"], name: str) -> Image.Image:
    """Convert an image to an 8-bit mode; an image that already has the mode is returned without a copy.

    For 16-bit grey, 65535 becomes white, whereas Pillow would clip all values above 255. Some versions of Pillow open
    such a PNG in mode `I;16`, others in `I`, which is taken as 16 bits if its values fit.

    Args:
        image: an image in any mode.
        mode: the mode to convert to.
        name: name of the image in errors.

    Raises:
        UnreadableImage: if the image has floats, or integers beyond 16 bits, for which white is not defined.
    """
    if image.mode == mode:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > _MAX_UINT16:
            raise UnreadableImage(
                name,
                f"in mode {image.mode}, {'floats' if image.mode == 'F' else 'more than 16 bits'}, nothing says which "
                "value is white: scale to 0..255 or 0..65535 and save as integers of 8 or 16 bits",
            )
        image = Image.fromarray(np.rint(values / (_MAX_UINT16 / 255)).astype(np.uint8))
    return image.convert(mode)


def scan_split(root: Path) -> tuple[tuple[str, ...], np.ndarray, Int64[Tensor, " n"]]:
    """List a split: the sorted names of its classes, the sorted files below them, and the class of every file.

    Folders and files that `image_files` omits are omitted here, too.

    Raises:
        InputError: if the folder is missing, or a class has no image.
    """
    if not root.is_dir():
        raise InputError(
            f"no folder {str(root)!r}; expected train/CLASS/*.jpg and val/CLASS/*.jpg below the data folder"
        )
    classes = tuple(sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not _hidden(entry.name)))
    below: dict[bytes, list[bytes]] = defaultdict(list)
    for file in image_files(root):
        below[file.partition(os.fsencode(os.sep))[0]].append(file)
    files, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(below[os.fsencode(name)])
        if not found:
            raise InputError(
                f"no image in {str(root / name)!r} (looked for {', '.join(EXTENSIONS)}); fill or remove it"
            )
        files += found
        labels += [label] * len(found)
    if not files:
        raise InputError(f"no class folders in {str(root)!r}; expected {root.name}/CLASS/*.jpg")
    return classes, np.array(files, dtype=np.bytes_), torch.tensor(labels)


def image_files(root: Path) -> Iterator[bytes]:
    """Yield the images at any depth below a folder, as paths relative to it, in no particular order.

    Links are followed, except links to a parent folder, which would list its images again. Names that start with a dot
    are omitted: file managers and notebooks leave copies under them.
    """
    start, real = str(root), Path(os.path.realpath(root))
    ways = {start: {str(folder) for folder in (real, *real.parents)}}
    for folder, folders, names in os.walk(start, followlinks=True):
        way = ways.pop(folder)
        reals = {name: os.path.realpath(os.path.join(folder, name)) for name in folders if not _hidden(name)}
        folders[:] = [name for name, real in reals.items() if real not in way]
        ways |= {os.path.join(folder, name): way | {reals[name]} for name in folders}
        for name in names:
            if not _hidden(name) and name.lower().endswith(EXTENSIONS):
                yield os.fsencode(os.path.relpath(os.path.join(folder, name), start))


def _hidden(name: str) -> bool:
    return name.startswith(".")
