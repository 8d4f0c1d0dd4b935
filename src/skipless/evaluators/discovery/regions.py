"""Shared parts of object discovery: the graph of similar tokens, connected components, and bounding boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from skipless.display import Record
from skipless.display.drawing import COLOURS
from skipless.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Box = tuple[int, int, int, int]
TINY = torch.finfo(torch.float64).tiny
CHUNK_ROWS = 256  # rows of similarities in one chunk, which stay in cache until they are compared with tau


@dataclass(frozen=True, eq=False, repr=False)
class Discovery(Record):
    """One object found in one image.

    Attributes:
        mask: `(rows, columns)`, the 4-connected component that contains the seed.
        seed: row-major index of the token that the component was grown from.
        box: (xmin, ymin, xmax, ymax) around the mask in pixels, maximum excluded, clipped to the unpadded image.
        foreground: `(rows, columns)`, every token on the seed's side of the cut, in all components.
        method: `lapack`, `lanczos`, `shift-invert`, `dense` or `no cut` for TokenCut, `lost` or `no cut` for LOST.
        proven: whether error bounds decide every token's side and the seed; if not, the tie rules did.
        tied: number of tokens that could equally be the seed; 1 if there is no tie.
        eigenvector: TokenCut's v, `(rows, columns)` in float64, positive at the seed, v^T D v = 1; None for LOST.
        error: bound of the error of TokenCut's eigenvector in the norm of D.
        eigenvalues: the three smallest eigenvalues of TokenCut's normalised Laplacian (fewer with fewer tokens).
        similarity: LOST's summed similarity of each token to the expanded seed, `(rows, columns)`; None for TokenCut.
    """

    mask: Bool[Tensor, "rows columns"]
    seed: int
    box: Box
    foreground: Bool[Tensor, "rows columns"]
    method: str
    proven: bool
    tied: int
    eigenvector: Float[Tensor, "rows columns"] | None = None
    error: float = 0.0
    eigenvalues: tuple[float, ...] = ()
    similarity: Float[Tensor, "rows columns"] | None = None

    def _summary(self) -> str:
        rows, columns = self.mask.shape
        ties = f", {self.tied} tokens could be the seed" if self.tied > 1 else ""
        return (
            f"box {self.box}, {int(self.mask.sum())} of {rows} x {columns} tokens, seed {self.seed}, {self.method}"
            f"{'' if self.proven else ', not proven'}{ties}"
        )

    def _draw(self, axes: "Axes") -> None:
        shown = self.foreground.int().cpu() + self.mask.int().cpu()
        axes.imshow(shown.numpy(), cmap="Blues", vmin=0, vmax=2.6, interpolation="nearest")
        row, column = divmod(self.seed, self.mask.shape[1])
        axes.plot([column], [row], marker="o", color=COLOURS["skipless"])
        axes.set_title(f"foreground, object, seed ({self.method})", loc="left", fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])


def validate_features(
    features: Float[Tensor, "b tokens dim"],
    grid: tuple[int, int],
    patch: int,
    image_size: tuple[int, int] | Sequence[tuple[int, int]],
) -> tuple[Float[Tensor, "b tokens dim"], list[tuple[int, int]]]:
    """Check features, grid and image sizes; returns features in at least float32 and one size for each image."""
    rows, columns = grid
    if features.ndim != 3 or rows < 1 or columns < 1 or features.shape[1] != rows * columns:
        raise InputError(
            f"features have shape {tuple(features.shape)}, but a grid of {rows} x {columns} takes (images, "
            f"{rows * columns}, dim); leave out the class token and give (rows, columns)"
        )
    # The sum takes one pass. It may also overflow with finite features; only then is each one checked.
    if not features.sum().isfinite() and not features.isfinite().all():
        image = int((~features.isfinite()).flatten(1).any(1).nonzero()[0, 0])
        raise InputError(f"features of image {image} are not finite; look for NaN or infinity in the backbone's output")
    sizes = _sizes_per_image(image_size, len(features))
    if len(sizes) != len(features):
        raise InputError(f"{len(sizes)} image sizes for {len(features)} images; give one (height, width), or one each")
    for height, width in sizes:
        needed = (-(-height // patch), -(-width // patch)) if patch > 0 and height > 0 and width > 0 else None
        if needed != (rows, columns):
            raise InputError(
                f"an image of {height} x {width} pixels does not make a grid of {rows} x {columns} patches of {patch}; "
                "image_size is (height, width) before padding"
            )
    return features.to(torch.promote_types(features.dtype, torch.float32)), sizes


def _sizes_per_image(image_size: tuple[int, int] | Sequence[tuple[int, int]], images: int) -> list[tuple[int, int]]:
    """One (height, width) for each image, given one for all or one for each."""
    one = [int(side) for side in image_size if isinstance(side, Integral)]
    if len(one) == 2:
        return [(one[0], one[1])] * images
    each: list[Any] = [size for size in image_size if not isinstance(size, Integral)]
    return [(int(height), int(width)) for height, width in each]


def l2_normalised(features: Float[Tensor, "tokens dim"]) -> Float[Tensor, "tokens dim"]:
    """L2-normalise each token in float64, where squares of float32 do not overflow; a token of zeros stays zero."""
    if features.dtype == torch.float64:
        features = features / features.abs().amax(1, keepdim=True).clamp_min(TINY)
    return features / torch.linalg.vector_norm(features, dim=1, keepdim=True, dtype=torch.float64).clamp_min(TINY)


def similarity_graph(features: Float[Tensor, "n dim"], tau: float, dtype: torch.dtype) -> Float[Tensor, "n n"]:
    """Adjacency matrix: 1 where the cosine similarity of two tokens is above tau, 0 elsewhere; equal on every device.

    Similarities are computed in float32, and again in float64 where the rounding of float32 leaves them undecided. TF32
    and similar modes have larger errors. So on a GPU, with such modes, and for few tokens, all are computed in float64.
    """
    exact, (n, dim) = l2_normalised(features), features.shape
    rounded = features.dtype != torch.float64 and torch.get_float32_matmul_precision() == "highest"
    if n <= CHUNK_ROWS or features.device.type != "cpu" or not rounded:
        return (exact @ exact.T).gt_(tau).to(dtype)
    unit = exact.float()
    margin = (dim + 8) * torch.finfo(torch.float32).eps  # worst-case error of a dot product of unit vectors
    result, undecided = torch.empty(n, n, dtype=dtype), []
    for start in range(0, n, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, n)
        block = unit[start:stop] @ unit[start:].T  # the matrix is symmetric
        edges = (block > tau).to(dtype)
        result[start:stop, start:] = edges
        result[stop:, start:stop] = edges[:, stop - start :].T
        undecided.append((block.sub_(tau).abs_() <= margin).nonzero().add_(start))
    i, j = torch.cat(undecided).T
    if len(i) > n:  # many undecided pairs, as with orthogonal tokens at tau = 0
        return (exact @ exact.T).gt_(tau).to(dtype)
    result[i, j] = result[j, i] = ((exact[i] * exact[j]).sum(1) > tau).to(dtype)
    return result


def connected_component(foreground: Bool[Tensor, "rows columns"], seed: int) -> Bool[Tensor, "rows columns"]:
    """The 4-connected component of the foreground that contains the seed. The seed always belongs to it."""
    rows, columns = foreground.shape
    # Flood fill with one integer per row: shifts spread the reached bits along a row, "or" spreads them to its
    # neighbours.
    packed = np.packbits(foreground.cpu().numpy(), axis=1, bitorder="little")
    open_bits = [int.from_bytes(row.tobytes(), "little") for row in packed]
    reached = [0] * rows
    reached[seed // columns] = 1 << seed % columns
    queue = [seed // columns]
    while queue:
        row = queue.pop()
        spread = reached[row]
        while grown := (spread << 1 | spread >> 1) & open_bits[row] & ~spread:
            spread |= grown
        reached[row] = spread
        for other in (row - 1, row + 1):
            if 0 <= other < rows and (step := spread & open_bits[other] & ~reached[other]):
                reached[other] |= step
                queue.append(other)
    data = np.frombuffer(b"".join(bits.to_bytes(packed.shape[1], "little") for bits in reached), np.uint8)
    bits = np.unpackbits(data.reshape(packed.shape), axis=1, count=columns, bitorder="little")
    return torch.from_numpy(bits.astype(bool)).to(foreground.device)


def bounding_box(mask: Bool[Tensor, "rows columns"], patch: int, image_size: tuple[int, int]) -> Box:
    """The bounding box of a mask in pixels, maximum excluded, clipped to the unpadded (height, width)."""
    height, width = image_size
    rows, columns = mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist()
    xmax, ymax = (columns[-1] + 1) * patch, (rows[-1] + 1) * patch
    return columns[0] * patch, rows[0] * patch, min(xmax, width), min(ymax, height)


def middle_token(tied: list[int]) -> int:
    """Break a tie by the (lower) middle token in row-major order, which is rarely at the border."""
    return sorted(tied)[(len(tied) - 1) // 2]
