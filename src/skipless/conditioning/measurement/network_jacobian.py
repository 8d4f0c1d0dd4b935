"""The Jacobian J of the whole network at chosen rows. Table 5 needs such a choice, and the paper does not state it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.conditioning.operators.block_stack import select_parameters
from skipless.conditioning.operators.jacobian import param_jacobian
from skipless.conditioning.operators.linear_operator import LinearOperator
from skipless.conditioning.spectra.estimates import Spectrum
from skipless.conditioning.spectra.spectrum import spectrum
from skipless.display import Record, Table
from skipless.errors import InputError
from skipless.models import block_views
from skipless.models.starting.first_tokens import Given
from skipless.precision import full_precision

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Size up to which the chosen rows of J are materialised; beyond it J is used through its products.
MATERIALISED_BYTES = 2**30
VJP_CHUNK = 16  # rows of one batched vector-Jacobian product


@dataclass(frozen=True)
class Rows:
    """How many rows of J to keep. All m n d rows do not fit, and the paper does not say which it took (Table 5).

    Attributes:
        images: number of images, the first ones.
        tokens: number of token positions, spaced evenly from the first (the class token); 1 keeps the class token
            alone.
        outputs: number of features, spaced evenly from the first.
    """

    images: int = 4
    tokens: int = 4
    outputs: int = 8

    def __post_init__(self) -> None:
        if min(self.images, self.tokens, self.outputs) < 1:
            raise InputError(f"{self}: give at least 1 of each")

    def of(self, sizes: tuple[int, int, int]) -> "RowIndices":
        """The row indices, given the available numbers of images, tokens and features.

        Raises:
            InputError: if there are fewer.

        Example:
            >>> rows = Rows(2, 3, 2).of((5, 17, 32))
            >>> rows.tokens, rows.outputs
            ((0, 6, 11), (0, 16))
        """
        for name, size in zip(("images", "tokens", "outputs"), sizes, strict=True):
            if getattr(self, name) > size:
                raise InputError(f"{self}: there are {size} {name}")
        return RowIndices(self.images, evenly_spaced(self.tokens, sizes[1]), evenly_spaced(self.outputs, sizes[2]))


@dataclass(frozen=True, repr=False)
class RowIndices(Record):
    """Indices of the chosen rows of J: the first `images` images, with these token positions and features."""

    images: int
    tokens: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.images * len(self.tokens) * len(self.outputs)

    def _summary(self) -> str:
        return str(self)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "rows": self.count}

    def __str__(self) -> str:
        return f"{self.count} rows: {self.images} images x {len(self.tokens)} tokens x {len(self.outputs)} features"


@dataclass(frozen=True, repr=False)
class NetworkConditioning(Record):
    """The conditioning of J = dF / d theta at the rows `rows` (Table 5); `spectrum.kappa_gram` is kappa(J J^T)."""

    rows: RowIndices
    spectrum: Spectrum

    _size: ClassVar[tuple[float, float]] = Spectrum._size

    def _summary(self) -> str:
        return str(self)

    def tables(self) -> tuple[Table, ...]:
        """The spectrum of J, at the rows that the caption names."""
        (table,) = self.spectrum.tables()
        return (replace(table, caption=f"{table.caption}; {self.rows}"),)

    def _draw(self, axes: "Axes") -> None:
        self.spectrum._draw(axes)

    def as_json(self) -> dict[str, Any]:
        """Plain values that `json` writes."""
        return {"rows": self.rows.as_json(), "spectrum": self.spectrum.as_json()}

    def __str__(self) -> str:
        gram = self.spectrum.kappa_gram
        return f"kappa(J J^T) {'' if str(gram).startswith('>') else '= '}{gram} at {self.rows}"


@full_precision()
def network_conditioning(
    model: nn.Module, images: Given, rows: Rows | None = None, *, seed: int = 0, steps: int = 1000
) -> NetworkConditioning:
    """kappa(J J^T) at some rows, for J the derivative of the blocks' output by all their parameters (Table 5).

    Kappa describes these rows only: more rows give a larger kappa. Up to `MATERIALISED_BYTES` the rows are factored
    densely; beyond that, Lanczos uses their products.

    Args:
        model: a model with blocks that an adapter knows.
        images: at least `rows.images` of them; of a language model, as many rows of token ids.
        rows: which rows of J to take; `Rows()` by default.
        seed: seed of the Lanczos start vector.
        steps: maximum number of Lanczos steps.

    Raises:
        InputError: as `param_jacobian`, or if there are fewer images, tokens or features than `rows` asks for.

    Example:
        >>> from skipless.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=2, img_size=32, embed_dim=24, num_heads=2, seed=0)
        >>> network_conditioning(model, torch.randn(2, 3, 32, 32), Rows(2, 2, 6)).spectrum.shape
        (24, 14448)
    """
    whole = param_jacobian(model, images[:1])
    dim = block_views(model)[0].dim
    choice = (rows or Rows()).of((len(images), whole.shape[0] // dim, dim))
    size = choice.count * whole.shape[1] * whole.dtype.itemsize
    if size <= MATERIALISED_BYTES:
        found = LinearOperator.from_dense(jacobian_rows(model, images, choice), "J by all")
        return NetworkConditioning(choice, spectrum(found, method="dense", seed=seed))
    given = images[: choice.images]
    found = param_jacobian(model, given, tokens=choice.tokens, outputs=choice.outputs)
    return NetworkConditioning(choice, spectrum(found, method="lanczos", seed=seed, max_iterations=steps))


@full_precision()
def jacobian_rows(model: nn.Module, images: Given, choice: RowIndices) -> Float[Tensor, "r p"]:
    """The chosen rows of J as a matrix. Each image is computed by itself, since no row depends on two images."""
    parts = []
    for image in images[: choice.images].split(1):
        operator = param_jacobian(model, image, tokens=choice.tokens, outputs=choice.outputs)
        units = torch.eye(operator.shape[0], dtype=operator.dtype, device=operator.device)
        parts.append(torch.func.vmap(operator.rmatvec, chunk_size=VJP_CHUNK)(units))
    return torch.cat(parts)


def sub_block_columns(model: nn.Module) -> dict[str, list[slice]]:
    """The columns of J that belong to each J_l ("blocks.3.attn") and J^_l ("blocks.3.mlp"), norms included."""
    views = block_views(model)
    _, names = select_parameters(views, "all", True)
    where, start = {}, 0
    for name in names:
        index, _, path = name.removeprefix("blocks.").partition(".")
        size = views[int(index)].block.get_parameter(path).numel()
        where[name] = slice(start, start + size)
        start += size
    columns = {}
    for index, view in enumerate(views):
        for part in ("attn", "mlp"):
            _, mine = select_parameters([view], f"{view.name}.{part}".lstrip("."), True)
            columns[f"{view.name}.{part}"] = [where[f"blocks.{index}.{n.removeprefix('blocks.0.')}"] for n in mine]
    return columns


def select_columns(matrix: Float[Tensor, "r p"], columns: Sequence[slice]) -> Float[Tensor, "r q"]:
    """The columns of several slices, concatenated."""
    return torch.cat([matrix[:, part] for part in columns], dim=1)


def evenly_spaced(count: int, size: int) -> tuple[int, ...]:
    """`count` positions out of `size`, spaced evenly from the first."""
    return tuple(round(i * size / count) for i in range(count))
