"""Writing the files of a layout: reproducible bytes, written atomically."""

import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image


@dataclass(frozen=True)
class Files:
    """A folder to fill; existing files of an interrupted call are kept."""

    root: Path

    def put(self, path: str, encode: Callable[[], bytes]) -> None:
        """Write a file unless it exists."""
        file = self.root / path
        if file.exists():
            return
        temporary = file.with_name(f".{file.name}.tmp")
        try:
            temporary.write_bytes(encode())
        except FileNotFoundError:
            file.parent.mkdir(parents=True)
            temporary.write_bytes(encode())
        os.replace(temporary, file)

    def put_text(self, path: str, lines: Sequence[str]) -> None:
        """Write lines of text."""
        self.put(path, lambda: "".join(f"{line}\n" for line in lines).encode())

    def put_json(self, path: str, values: dict[str, Any], indent: int | None = None) -> None:
        """Write JSON."""
        self.put(path, lambda: json.dumps(values, indent=indent).encode())


def jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Encode an image as a JPEG of quality 90."""
    return _encoded(Image.fromarray(image), "JPEG", quality=90)


def grey_png(ids: UInt8[np.ndarray, "h w"]) -> bytes:
    """Encode ids as a grey PNG."""
    return _encoded(Image.fromarray(ids), "PNG")


def palette_png(ids: UInt8[np.ndarray, "h w"]) -> bytes:
    """Encode ids as a palette PNG with VOC's colours."""
    image = Image.fromarray(ids)
    image.putpalette(voc_palette().tobytes())
    return _encoded(image, "PNG")


@cache
def voc_palette() -> UInt8[np.ndarray, "256 3"]:
    """Return VOC's colour of every id: the bits of the id, three at a time, are the high bits of red, green, blue.

    Example:
        >>> voc_palette()[[0, 1, 15, 255]].tolist()
        [[0, 0, 0], [128, 0, 0], [192, 128, 128], [224, 224, 192]]
    """
    ids, channels = np.arange(256)[:, None], np.arange(3)
    bits = [((ids >> 3 * place + channels) & 1) << 7 - place for place in range(3)]
    return np.sum(bits, axis=0).astype(np.uint8)


def _encoded(image: Image.Image, form: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()
