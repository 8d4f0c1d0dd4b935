"""Composing a scene: objects on photo textures, with the mask of every object's visible pixels."""

import colorsys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from skipless.choices import SceneColours as Colours, SceneShapes as Shapes
from skipless.data.loading.seeding import derive_seed
from skipless.data.scenes.sources import Sources
from skipless.display import Record, Table
from skipless.display.axes import colour_of
from skipless.display.values import counted, few_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZES = (0.2, 0.6)  # smallest and largest ratio of an object's longer side to the scene's
_TEXTURE_SIDES = (100, 250)  # pixels of a photo along the scene's longer side; validation's parts are 256 wide
_MIN_VISIBLE = 0.25  # an object with a smaller share of visible pixels is dropped
_HUE_JITTER = 0.04  # turns; the hues of ten classes are 0.1 apart
_DIFFICULT = 0.4  # an object with a smaller share of visible pixels is marked difficult


@dataclass(frozen=True, eq=False, repr=False)
class SceneObject(Record):
    """The visible part of one object.

    Attributes:
        label: class, 0 to 9.
        mask: the visible pixels.
        box: xmin, ymin, xmax, ymax of the visible pixels, from 0, with exclusive maxima.
        truncated: whether part of the object is outside the scene.
        occluded: whether part of the object is behind another one.
        difficult: whether only a small part of the object is visible.
    """

    label: int
    mask: Bool[np.ndarray, "h w"]
    box: tuple[int, int, int, int]
    truncated: bool
    occluded: bool
    difficult: bool


@dataclass(frozen=True, eq=False, repr=False)
class Scene(Record):
    """An image with its annotations.

    Attributes:
        image: RGB pixels.
        textures: index of the background photo of every pixel.
        objects: the objects, front to back; their masks do not overlap.
    """

    image: UInt8[np.ndarray, "h w 3"]
    textures: UInt8[np.ndarray, "h w"]
    objects: tuple[SceneObject, ...]

    def _summary(self) -> str:
        height, width, _ = self.image.shape
        labels = " ".join(str(shown.label) for shown in self.objects)
        return f"{height} x {width}, {counted(len(self.objects), 'object')} of the classes {labels}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each object, front to back."""
        rows = [
            (
                str(one.label),
                *map(str, one.box),
                str(int(one.mask.sum())),
                few_words(one.truncated),
                few_words(one.difficult),
            )
            for one in self.objects
        ]
        head = ("class", "xmin", "ymin", "xmax", "ymax", "pixels", "truncated", "difficult")
        return (Table(head, rows, "pixels from 0, maxima exclusive; front to back", align="lrrrrrll"),)

    def _draw(self, axes: "Axes") -> None:
        axes.imshow(self.image)
        for index, shown in enumerate(self.objects):
            xmin, ymin, xmax, ymax = (edge - 0.5 for edge in shown.box)
            edges = [xmin, xmax, xmax, xmin, xmin], [ymin, ymin, ymax, ymax, ymin]
            axes.plot(*edges, color=colour_of(index), linewidth=1.4)
        axes.set_axis_off()

    @property
    def main(self) -> int:
        """Label of the object with the most visible pixels."""
        return max(self.objects, key=lambda shown: int(shown.mask.sum())).label

    def instances(self) -> UInt8[np.ndarray, "h w"]:
        """Return the object of every pixel, numbered from 1, front to back; 0 is background."""
        numbers = np.zeros(self.textures.shape, dtype=np.uint8)
        for number, shown in enumerate(self.objects, start=1):
            numbers[shown.mask] = number
        return numbers


def compose(
    sources: Sources,
    split: str,
    index: int,
    *,
    size: int,
    seed: int,
    shapes: Shapes = "square",
    main: int | None = None,
    at_most: int = 4,
    sizes: tuple[float, float] = SIZES,
    colours: Colours = "any",
) -> Scene:
    """Compose scene `index` of a split, as a pure function of the arguments.

    Args:
        sources: objects and photos of the split.
        split: name of the split; with index and seed, it seeds the random numbers.
        index: index of the scene.
        size: longer side in pixels.
        seed: seed of the set.
        shapes: `mixed` draws an aspect of 1:1, 4:3 or 3:4.
        main: class of the front object; scenes are drawn until the largest object is of this class.
        at_most: largest number of objects.
        sizes: smallest and largest longer side of an object, as a share of the scene's.
        colours: `any` draws the hue of an object independently of its class; `class` draws it near the class's hue.
    """
    attempt = 0
    while True:
        # RandomState's stream never changes (NEP 19), so the scenes are the same everywhere.
        random = np.random.RandomState(derive_seed(seed, "scene", split, index, attempt) & 0xFFFFFFFF)
        scene = _draw(sources, random, _shape(random, size, shapes), main, at_most, sizes, colours)
        if scene.objects and main in (None, scene.main):
            return scene
        attempt += 1


def _shape(random: np.random.RandomState, size: int, shapes: Shapes) -> tuple[int, int]:
    short = round(size * 3 / 4)
    return (size, size) if shapes == "square" else [(size, size), (short, size), (size, short)][random.randint(3)]


def _draw(
    sources: Sources,
    random: np.random.RandomState,
    shape: tuple[int, int],
    main: int | None,
    at_most: int,
    sizes: tuple[float, float],
    colours: Colours,
) -> Scene:
    image, textures = _background(sources, random, shape)
    free = np.ones(shape, dtype=bool)
    objects: list[SceneObject] = []
    for place in range(random.randint(1, at_most + 1)):  # front to back: each object hides the next ones
        drawn = int(random.randint(len(sources.members)))
        label = drawn if main is None or place else main
        cutout = _transformed(sources, random, label, max(shape), sizes)
        top, left = _position(random, cutout, shape)
        outline = np.zeros(shape, dtype=bool)
        window, part = _overlap(shape, cutout.shape[:2], top, left)
        outline[window] = cutout[part][..., 1] > 127
        mask = outline & free
        whole, inside, seen = (int(count) for count in ((cutout[..., 1] > 127).sum(), outline.sum(), mask.sum()))
        hue = None if colours == "any" else label / len(sources.members)
        tinted = _coloured(random, cutout[part][..., 0], hue)
        if seen < _MIN_VISIBLE * whole:
            continue
        image[window][mask[window]] = tinted[mask[window]]
        free &= ~mask
        objects.append(SceneObject(label, mask, _box(mask), inside < whole, seen < inside, seen < _DIFFICULT * whole))
    return Scene(image, textures, tuple(objects))


def _background(
    sources: Sources, random: np.random.RandomState, shape: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Fill the scene with a window of one photo, or with two photos on the sides of a straight line."""
    first = int(random.randint(len(sources.photos)))
    image, textures = _texture(sources.photos[first], random, shape), np.full(shape, first, dtype=np.uint8)
    if random.randint(2):
        second = (first + 1) % len(sources.photos)
        angle, through = random.uniform(0, np.pi), random.uniform(0.3, 0.7, size=2) * shape
        rows, columns = np.ogrid[: shape[0], : shape[1]]
        beyond = (rows - through[0]) * np.cos(angle) + (columns - through[1]) * np.sin(angle) > 0
        image[beyond], textures[beyond] = _texture(sources.photos[second], random, shape)[beyond], second
    return image, textures


def _texture(
    photo: UInt8[np.ndarray, "_ _ 3"], random: np.random.RandomState, shape: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    scale = random.uniform(*_TEXTURE_SIDES) / max(shape)
    height, width = (max(1, round(side * scale)) for side in shape)
    top, left = random.randint(photo.shape[0] - height + 1), random.randint(photo.shape[1] - width + 1)
    window = photo[top : top + height, left : left + width]
    resized = np.asarray(Image.fromarray(window).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
    if random.randint(2):
        resized = resized[:, ::-1]
    gains = random.uniform(0.6, 1.0) * random.uniform(0.85, 1.15, size=3)
    return np.minimum(resized * gains.astype(np.float32), 255).astype(np.uint8)


def _transformed(
    sources: Sources, random: np.random.RandomState, label: int, side: int, sizes: tuple[float, float]
) -> UInt8[np.ndarray, "h w 2"]:
    """Cut out an object of the class, mirror it (except digits), scale and rotate it; return grey and alpha."""
    members = sources.members[label]
    cutout = sources.cutout(int(members[random.randint(len(members))]))
    if random.randint(2) and sources.kind == "fashion":
        cutout = cutout.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = random.uniform(*sizes) * side / (max(cutout.size) - 2)  # a cutout has an empty border
    width, height = (max(2, round(length * scale)) for length in cutout.size)
    cutout = cutout.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(cutout.rotate(random.uniform(-20, 20), Image.Resampling.BILINEAR, expand=True))


def _position(
    random: np.random.RandomState, cutout: UInt8[np.ndarray, "h w 2"], shape: tuple[int, int]
) -> tuple[int, int]:
    """Draw a position with at most a quarter of the height and of the width outside the scene."""
    top, left = (
        int(random.randint(-(length // 4), max(side - length + length // 4, -(length // 4)) + 1))
        for length, side in zip(cutout.shape[:2], shape, strict=True)
    )
    return top, left


def _overlap(
    shape: tuple[int, int], part: tuple[int, ...], top: int, left: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the slices of the scene that a part at (top, left) covers, and the slices of the part within the scene."""
    starts = (max(top, 0), max(left, 0))
    stops = (min(top + part[0], shape[0]), min(left + part[1], shape[1]))
    rows, columns = (slice(start, stop) for start, stop in zip(starts, stops, strict=True))
    inner_rows, inner_columns = (
        slice(start - offset, stop - offset) for start, stop, offset in zip(starts, stops, (top, left), strict=True)
    )
    return (rows, columns), (inner_rows, inner_columns)


def _coloured(
    random: np.random.RandomState, grey: UInt8[np.ndarray, "h w"], hue: float | None
) -> UInt8[np.ndarray, "h w 3"]:
    """Tint an object with a random hue, or with one near `hue`."""
    drawn, saturation, value = random.uniform(), random.uniform(0.3, 1.0), random.uniform(0.6, 1.0)
    colour = colorsys.hsv_to_rgb(drawn if hue is None else (hue + _HUE_JITTER * (2 * drawn - 1)) % 1, saturation, value)
    return (np.multiply.outer(0.3 + grey / 255 * 0.7, np.multiply(colour, 255))).astype(np.uint8)


def _box(mask: Bool[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
