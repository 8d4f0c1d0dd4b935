"""ImageNet-style folders: `train/CLASS/*.jpg` and `val/CLASS/*.jpg`."""

import io
import os
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from skipless.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")

# What Pillow is known to raise on damaged files. Our own readers catch any exception of its decoders.
PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)

_MAX_UINT8, _MAX_UINT16 = 2**8 - 1, 2**16 - 1
_SIXTEEN_BIT_FORMATS = ("PNG", "PPM")  # Pillow opens their 16-bit images in a mode of 32 bits, or did so
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF
_WHITE_IS_ZERO = 0


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
    try:
        content = file.read_bytes()  # at once, so that whatever is raised later comes from the content
    except OSError as error:
        raise InputError(f"cannot read {str(file)!r} ({error}); see that it is there, then go on") from error
    return decode_image(io.BytesIO(content), str(file))


def decode_image(content: io.BytesIO, name: str) -> Image.Image:
    """Decode the content of a file to RGB.

    Raises:
        UnreadableImage: if it is not an image, or is truncated; `name` is in the message.
    """
    try:
        with Image.open(content) as image:
            image.load()
            return to_mode(image, "RGB", name)
    except (MemoryError, UnreadableImage):
        raise
    except UnidentifiedImageError as error:  # its own message has an address in memory
        raise UnreadableImage(name, "in no format that Pillow knows") from error
    except Exception as error:  # Pillow's parsers raise almost any exception on damaged bytes
        raise UnreadableImage(name, str(error) or type(error).__name__) from error


def to_mode(image: Image.Image, mode: Literal["RGB", "L"], name: str) -> Image.Image:
    """Convert an image to an 8-bit mode; an image that already has the mode is returned without a copy.

    For 16-bit grey, 65535 becomes white, whereas Pillow would clip all values above 255. In a TIFF of 12 bits, 4095 is
    white. Some versions of Pillow open a 16-bit PNG in mode `I;16`, others in `I`, which has 32 bits.

    Args:
        image: an image in any mode. In mode `I` it is taken as 16 bits if it comes from a PNG or PPM file, or from no
            file and its values say so.
        mode: the mode to convert to.
        name: name of the image in errors.

    Raises:
        UnreadableImage: if the image has floats or 32-bit integers, for which white is not defined, or Pillow cannot
            convert its mode.
    """
    if image.mode == mode:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        image = _eight_bits(image, name)
    try:
        return image.convert(mode)
    except ValueError as error:  # LAB and a few other modes
        raise UnreadableImage(name, str(error)) from error


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if (why := _why_white_is_unknown(image, values)) is not None:
        raise UnreadableImage(
            name,
            f"in mode {image.mode}, {why}, nothing says which value is white: scale to 0..255 or 0..65535 and save as "
            "integers of 8 or 16 bits",
        )
    white = 2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts such images of 8 bits, not those of 16
        values = white - np.minimum(values, white)
    return Image.fromarray(np.rint(values / (white / 255)).astype(np.uint8))


def _why_white_is_unknown(image: Image.Image, values: np.ndarray) -> str | None:
    if image.mode == "F":
        return "floats"
    if image.mode != "I":
        return None
    if values.min() < 0 or values.max() > _MAX_UINT16:
        return "more than 16 bits"
    if image.format not in (*_SIXTEEN_BIT_FORMATS, None):
        return f"32-bit integers of a {image.format}"
    if image.format is None and 0 < values.max() <= _MAX_UINT8:
        return "32-bit integers up to 255"
    return None


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
            if is_image(name):
                yield os.fsencode(os.path.relpath(os.path.join(folder, name), start))


def is_image(name: str, extensions: tuple[str, ...] = EXTENSIONS) -> bool:
    """Tell by its name whether a file counts as an image. The same rule holds for folders, shards and all layouts.

    Names that start with a dot do not count: macOS leaves `._x.jpg` beside `x.jpg` on other systems' disks.

    Example:
        >>> [name for name in ("a.JPG", "b.jpeg", "._a.jpg", "c.txt") if is_image(name)]
        ['a.JPG', 'b.jpeg']
    """
    return not _hidden(name) and name.lower().endswith(extensions)


def without_extension(name: str, extensions: tuple[str, ...] = EXTENSIONS) -> str:
    """Return a name without its extension, if it has one of some; other dots belong to the name.

    Example:
        >>> without_extension("img.001"), without_extension("img.001.JPG")
        ('img.001', 'img.001')
    """
    extension = next((extension for extension in extensions if name.lower().endswith(extension)), "")
    return name[: len(name) - len(extension)]


def _hidden(name: str) -> bool:
    return name.startswith(".")
