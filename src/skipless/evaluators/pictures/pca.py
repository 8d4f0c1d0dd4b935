"""PCA of patch features to RGB colours (Figures 4, 7 and 8), deterministic across runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from skipless.display import Record, Table
from skipless.display.values import counted
from skipless.errors import InputError
from skipless.evaluators.pictures.grids import picture_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Scope = Literal["set", "image"]
_CHANNELS = 3
_DRAWN = 8  # images that plot() shows, beside one another
_CHANNEL_COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))


@dataclass(frozen=True, eq=False, repr=False)
class PcaColours(Record):
    """Patches as colours.

    Attributes:
        images: rows x columns x RGB for each image; masked background is black.
        foreground: mask of each image's foreground patches; all patches if nothing was masked.
        explained: fraction of the variance explained by each of the three components; one triple for a set, or one for
            each image.
        scope: whether the components were fitted to the set or to each image.
        n: number of patches that the components were fitted to; one number for a set, or one for each image.
    """

    images: tuple[UInt8[np.ndarray, "_ _ 3"], ...]
    foreground: tuple[np.ndarray, ...]
    explained: tuple[tuple[float, ...], ...]
    scope: Scope
    n: tuple[int, ...]

    _size: ClassVar[tuple[float, float]] = (6.4, 1.9)

    def _summary(self) -> str:
        shares = " ".join(f"{100 * share:.0f}" for share in self.explained[0])
        fitted = "all images" if self.scope == "set" else "each image"
        told = f"{shares} % explained by three components"
        return f"{counted(len(self.images), 'image')}, {told}, fitted to {self.n[0]:,} patches of {fitted}"

    def tables(self) -> tuple[Table, ...]:
        """A row for each fit."""
        rows = [
            ("all" if self.scope == "set" else str(i), str(count), *(f"{100 * share:.1f}" for share in shares))
            for i, (count, shares) in enumerate(zip(self.n, self.explained, strict=True))
        ]
        return (Table(("images", "patches", "1st, %", "2nd, %", "3rd, %"), rows, "variance explained", align="lrrrr"),)

    def _draw(self, axes: "Axes") -> None:
        images = self.images[:_DRAWN]
        rows = max(len(image) for image in images)
        padded = [np.pad(image, ((0, rows - len(image)), (0, 1), (0, 0)), constant_values=255) for image in images]
        axes.imshow(np.concatenate(padded, axis=1), interpolation="nearest")
        axes.set_axis_off()

    def pictures(self) -> list[Image.Image]:
        """One picture for each image, with one pixel for each patch."""
        return [Image.fromarray(image) for image in self.images]


def pca_colours(
    patches: Sequence[Float[Tensor, "n d"]],
    grids: Sequence[tuple[int, int]],
    *,
    scope: Scope = "set",
    foreground: bool = False,
    percentiles: tuple[float, float] = (1.0, 99.0),
) -> PcaColours:
    """Show patch features by their first three principal components as red, green and blue.

    The components are eigenvectors of the covariance in float64. The sign of an eigenvector is arbitrary, so each is
    signed such that its entry of largest magnitude (the first of equal ones) is positive. Colours are then the same in
    every run.

    Args:
        patches: features of each image's patches, all of the same width.
        grids: rows and columns of each image's patches.
        scope: `"set"` fits the components to all images, so that a colour means the same in each; `"image"` fits them
            to each image.
        foreground: leave out the background. The first component of all patches splits them at its mean; the side with
            the smaller part of the images' border patches is the foreground, and components are fitted to it alone.
        percentiles: percentiles of each component's values over the scope that map to 0 and 255; values beyond them are
            clipped. Without clipping, a few patches of huge norm would leave the rest grey.

    Raises:
        InputError: if features and grids do not match, features are not finite, or percentiles are not in order.

    Example:
        >>> shown = pca_colours([torch.rand(6, 8, generator=torch.Generator().manual_seed(0))], [(2, 3)])
        >>> shown.images[0].shape, len(shown.explained[0])
        ((2, 3, 3), 3)
    """
    _check(patches, grids, percentiles, scope)
    groups = [list(range(len(patches)))] if scope == "set" else [[i] for i in range(len(patches))]
    colours: dict[int, np.ndarray] = {}
    masks: dict[int, np.ndarray] = {}
    explained, counts = [], []
    for group in groups:
        x = torch.cat([patches[i] for i in group]).double()
        border = torch.cat([_border_patches(grids[i]) for i in group]).to(x.device)
        kept = _foreground(x, border) if foreground else torch.ones(len(x), dtype=torch.bool, device=x.device)
        values, shares = _project(x, x[kept])
        explained.append(shares)
        counts.append(int(kept.sum()))
        shown = _to_uint8(values, values[kept], percentiles)
        shown[~kept] = 0
        sizes = [len(patches[i]) for i in group]
        for i, image, mask in zip(group, shown.split(sizes), kept.split(sizes), strict=True):
            colours[i] = image.view(*grids[i], _CHANNELS).cpu().numpy()
            masks[i] = mask.view(*grids[i]).cpu().numpy()
    order = range(len(patches))
    return PcaColours(
        images=tuple(colours[i] for i in order),
        foreground=tuple(masks[i] for i in order),
        explained=tuple(explained),
        scope=scope,
        n=tuple(counts),
    )


def pca_picture(
    images: Sequence[Image.Image],
    columns: Mapping[str, Sequence[Float[Tensor, "n d"]]],
    grids: Sequence[tuple[int, int]],
    *,
    cell: tuple[int, int] = (112, 112),
    names: Sequence[str] = (),
    scope: Scope = "set",
    foreground: bool = False,
) -> tuple[Image.Image, dict[str, PcaColours]]:
    """Images beside their patches as colours: one row an image, one column a model (Figures 4, 7) or a block (8).

    Args:
        images: the pictures.
        columns: for each column title, the patch features of every image; each column has components of its own.
        grids: rows and columns of each image's patches.
        cell: height and width of each picture in pixels.
        names: captions of the rows.
        scope: see `pca_colours`.
        foreground: see `pca_colours`.

    Returns:
        The picture (`save_png` writes it), and each column's colours.
    """
    colours = {
        caption: pca_colours(patches, grids, scope=scope, foreground=foreground) for caption, patches in columns.items()
    }
    across = [list(images), *(found.pictures() for found in colours.values())]
    rows = list(zip(*across, strict=True))
    legend = [(f"component {number}", colour) for number, colour in enumerate(_CHANNEL_COLOURS, 1)]
    legend += [("background", (0, 0, 0))] if foreground else []
    return picture_grid(rows, cell=cell, columns=("image", *columns), names=names, legend=legend), colours


def principal_components(
    x: Float[Tensor, "n d"], count: int = _CHANNELS
) -> tuple[Float[Tensor, "d k"], Float[Tensor, " k"], Float[Tensor, " d"]]:
    """The first principal components, the fractions of variance that they explain, and the mean.

    The sign makes the entry of largest magnitude positive; among entries equal to 1e-6 of it, the first decides.
    """
    x = x.double()
    mean = x.mean(0)
    centred = x - mean
    variances, vectors = torch.linalg.eigh(centred.mT @ centred)
    variances, vectors = variances.flip(0).clamp_min(0), vectors.flip(1)[:, :count]
    magnitude = vectors.abs()
    first = (magnitude >= magnitude.amax(0) * (1 - 1e-6)).int().argmax(0)
    vectors = vectors * torch.where(vectors.gather(0, first[None]) < 0, -1.0, 1.0)
    total = variances.sum()
    shares = variances[:count] / total if total > 0 else torch.zeros_like(variances[:count])
    return vectors, shares, mean


def _project(
    x: Float[Tensor, "n d"], reference: Float[Tensor, "m d"]
) -> tuple[Float[Tensor, "n 3"], tuple[float, ...]]:
    vectors, shares, mean = principal_components(reference)
    missing = _CHANNELS - vectors.shape[1]  # features with one or two dimensions leave channels empty
    values = torch.nn.functional.pad((x - mean) @ vectors, (0, missing))
    return values, (*shares.tolist(), *[0.0] * missing)


def _foreground(x: Float[Tensor, "n d"], border: Tensor) -> Tensor:
    """The side of the first component that has the smaller fraction of its patches at the border."""
    vectors, _, mean = principal_components(x, 1)
    above = ((x - mean) @ vectors)[:, 0] > 0
    if above.all() or not above.any():
        return torch.ones_like(above)
    at_border = [border[side].double().mean() for side in (above, ~above)]
    return above if at_border[0] <= at_border[1] else ~above


def _border_patches(grid: tuple[int, int]) -> Tensor:
    outer = torch.ones(grid, dtype=torch.bool)
    outer[1:-1, 1:-1] = False
    return outer.flatten()


def _to_uint8(
    values: Float[Tensor, "n 3"], reference: Float[Tensor, "m 3"], percentiles: tuple[float, float]
) -> UInt8[Tensor, "n 3"]:
    """Map the percentiles to 0 and 255; a constant component becomes mid-grey."""
    low, high = (torch.from_numpy(np.percentile(reference.cpu().numpy(), p, axis=0)).to(values) for p in percentiles)
    spread = high - low
    unit = torch.where(spread > 0, (values - low) / spread.clamp_min(torch.finfo(values.dtype).tiny), 0.5)
    return (unit.clamp(0, 1) * 255).round().to(torch.uint8)


def _check(
    patches: Sequence[Tensor], grids: Sequence[tuple[int, int]], percentiles: tuple[float, float], scope: str
) -> None:
    if not patches or len(patches) != len(grids):
        raise InputError(
            f"features of {len(patches)} images with {len(grids)} grids: give one grid an image, at least one"
        )
    for i, (x, grid) in enumerate(zip(patches, grids, strict=True)):
        if len(x) != grid[0] * grid[1] or x.shape[1] != patches[0].shape[1]:
            raise InputError(f"image {i} has features {tuple(x.shape)}, its grid is {grid}")
        if not x.isfinite().all():
            raise InputError(f"features of image {i} are not finite: these weights give no picture")
    if not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise InputError(f"percentiles {percentiles}: give two from 0 to 100, the lower first")
    if scope not in ("set", "image"):
        raise InputError(f"scope={scope!r}: choose from set, image")
