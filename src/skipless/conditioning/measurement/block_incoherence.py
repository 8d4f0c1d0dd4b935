"""check_assumptions measures in a model what the paper assumes: Eq. 6 and the block incoherence of A.4.4."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from skipless.conditioning.measurement.block_inputs import block_inputs
from skipless.conditioning.measurement.conditioning_report import draw_kappas
from skipless.conditioning.measurement.network_jacobian import (
    RowIndices,
    Rows,
    jacobian_rows,
    select_columns,
    sub_block_columns,
)
from skipless.conditioning.operators.given import as_dtype
from skipless.conditioning.operators.linear_operator import LinearOperator
from skipless.conditioning.spectra.estimates import Estimate, Spectrum, spectra_table
from skipless.conditioning.spectra.spectrum import spectrum
from skipless.conditioning.theory.concatenation import ConcatenationBound, concatenation_bound, triangular_factor
from skipless.display import Record, Table
from skipless.display.axes import name_ticks
from skipless.errors import InputError
from skipless.models.starting.first_tokens import Given
from skipless.precision import full_precision

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class AssumptionReport(Record):
    """Both sides of Eqs. 6 and 37, and rho and tau, for one model at some rows of J. All of it in float64.

    Attributes:
        rows: the chosen rows of J, and so of every J_l and J^_l.
        whole: spectrum of J.
        sub_blocks: spectra of J_l ("blocks.0.attn") and J^_l ("blocks.0.mlp"), first to last.
        worst_image: for each sub-block, the spectrum at the worst-conditioned single image; None with one image.
        bound: rho, tau and Eq. 37 for the concatenation of all sub-blocks.
    """

    rows: RowIndices
    whole: Spectrum
    sub_blocks: Mapping[str, Spectrum]
    worst_image: Mapping[str, Spectrum] | None
    bound: ConcatenationBound

    @property
    def worst(self) -> str:
        """The sub-block with the largest kappa (the right side of Eq. 6)."""
        return max(self.sub_blocks, key=lambda name: self.sub_blocks[name].kappa.value)

    @property
    def eq6(self) -> bool | None:
        """Whether kappa(J) is at most the largest kappa of a sub-block; None if both sides are numerically singular."""
        return certainly_at_most(self.whole.kappa, [found.kappa for found in self.sub_blocks.values()])

    @property
    def coherence(self) -> float:
        """rho / s_max^2, which has no units. A.4.4 needs it near 0. With k sub-blocks it is at most k - 1."""
        return self.bound.coherence / self.bound.s_max**2

    @property
    def incoherence(self) -> float | None:
        """rho / s_min^2, which must be below 1 for Eq. 37 to say anything; None where a sub-block is singular."""
        return None if self.bound.kappa_max is None else self.bound.coherence / self.bound.s_min**2

    @property
    def images_bounded(self) -> tuple[int, int, int]:
        """Counts of sub-blocks where kappa of the stacked images is at most the worst image's, is larger, is unknown.

        Section 4.3 claims the first for all of them.
        """
        if self.worst_image is None:
            return 0, 0, 0
        told = [certainly_at_most(self.sub_blocks[name].kappa, [one.kappa]) for name, one in self.worst_image.items()]
        return told.count(True), told.count(False), told.count(None)

    def as_json(self) -> dict[str, Any]:
        """Plain values that `json` writes."""
        return {
            "choice": self.rows.as_json(),
            "whole": self.whole.as_json(),
            "sub_blocks": {name: found.as_json() for name, found in self.sub_blocks.items()},
            "worst": self.worst,
            "eq6": self.eq6,
            "coherence": self.coherence,
            "incoherence": self.incoherence,
            "images_bounded": list(self.images_bounded),
            "bound": vars(self.bound),
        }

    def _summary(self) -> str:
        holds = {True: "holds", False: "does not hold", None: "cannot be told"}[self.eq6]
        parts = f"{len(self.sub_blocks)} sub-blocks, Eq. 6 {holds}"
        return f"{parts}, kappa(J) {self.whole.kappa}, worst {self.worst}; {self.rows}"

    def tables(self) -> tuple[Table, ...]:
        """A row for J and each sub-block, and what follows from them."""
        about, *verdicts = str(self).splitlines()
        singles = self.worst_image or {}
        table = spectra_table({"J": self.whole, **self.sub_blocks}, "part", about)
        if not singles:
            return (replace(table, notes=verdicts),)
        rows = [(*row, str(singles[row[0]].kappa) if row[0] in singles else "") for row in table.rows]
        head = (*table.head, "kappa, worst image")
        return (replace(table, head=head, rows=rows, align=f"{table.align}r", notes=verdicts),)

    def _draw(self, axes: "Axes") -> None:
        kappas = {"images stacked": {i: found.kappa for i, found in enumerate(self.sub_blocks.values())}}
        if self.worst_image is not None:
            kappas["worst image"] = {i: found.kappa for i, found in enumerate(self.worst_image.values())}
        kappas["J"] = dict.fromkeys((0, len(self.sub_blocks) - 1), self.whole.kappa)
        draw_kappas(axes, kappas)
        name_ticks(axes, list(self.sub_blocks))

    def __str__(self) -> str:
        bound, worst = self.bound, self.sub_blocks[self.worst]
        verdict = {True: "holds", False: "does not hold", None: "cannot be told: both sides are singular"}[self.eq6]
        rho = "beyond measure, a sub-block is singular" if self.incoherence is None else f"{self.incoherence:.2g}"
        tau = "undefined" if bound.balance is None else f"{bound.balance:.3g}"
        eq37 = "void, rho >= s_min^2" if bound.printed is None else f"kappa(J) <= {bound.printed:.3g}"
        better, worse, unknown = self.images_bounded
        lines = [
            f"J at {self.rows}; {bound.orientation} blocks",
            f"Eq. 6 {verdict}: kappa(J) {self.whole.kappa}, worst sub-block {self.worst} {worst.kappa}",
            f"A.4.4: rho / s_min^2 {rho} (Eq. 37 needs < 1), rho / s_max^2 {self.coherence:.2g}, tau {tau}",
            f"Eq. 37: {eq37}",
        ]
        if self.worst_image is not None:
            lines.append(
                f"images stacked: kappa at most the worst image's in {better} sub-blocks, larger in {worse}, "
                f"not told in {unknown}"
            )
        return "\n".join(lines)


@torch.inference_mode(False)
@full_precision()
def check_assumptions(model: nn.Module, images: Given, rows: Rows | None = None) -> AssumptionReport:
    """Measure the assumptions of sections 4.2 and A.4.4: Eq. 6, rho and tau, and that stacking images is harmless.

    Some rows of J are formed in float64 and split into the J_l and J^_l of all sub-blocks, which include the parameters
    of their norms.

    - If every sub-block has more parameters than there are rows, Eq. 6 holds without any assumption (see
      `concatenation_bound`).
    - If an attention has fewer parameters than rows, its J_l is singular: W_Q W_K^T, W_V W_O, the key bias and the
      norm's affine part leave directions that change nothing. Both sides of Eq. 6 are then infinite.
    - Stacking images adds rows. This can only raise the kappa of a matrix with more columns than rows, so section 4.3's
      bound by the worst image is false there for every model.

    Args:
        model: a model with blocks that an adapter knows.
        images: at least `rows.images` of them; of a language model, as many rows of token ids.
        rows: which rows of J to form; `Rows()` gives 128. Memory is about 3 x rows x parameters x 8 bytes.

    Raises:
        InputError: as `param_jacobian`, if `rows` asks for more than there is, or if parameters are shared by blocks.

    Example:
        >>> from skipless.models import create_model
        >>> model = create_model("vit_tiny_patch16_224", depth=2, img_size=32, embed_dim=24, num_heads=2, seed=0)
        >>> report = check_assumptions(model, torch.randn(2, 3, 32, 32), Rows(2, 2, 6))
        >>> report.bound.orientation, report.eq6, list(report.sub_blocks)
        ('wide', True, ['blocks.0.attn', 'blocks.0.mlp', 'blocks.1.attn', 'blocks.1.mlp'])
    """
    choice, j = _jacobian(model, images, rows or Rows())
    columns = sub_block_columns(model)
    if sum(part.stop - part.start for parts in columns.values() for part in parts) != j.shape[1]:
        raise InputError("blocks share parameters: J has no columns of one sub-block alone")
    parts = {name: select_columns(j, where) for name, where in columns.items()}
    singles = None
    if choice.images > 1:
        singles = {
            name: max(
                (_spectrum(image, name) for image in part.chunk(choice.images)), key=lambda found: found.kappa.value
            )
            for name, part in parts.items()
        }
    return AssumptionReport(
        rows=choice,
        whole=_spectrum(j, "J"),
        sub_blocks={name: _spectrum(part, f"J of {name}") for name, part in parts.items()},
        worst_image=singles,
        bound=concatenation_bound(list(parts.values())),
    )


def certainly_at_most(left: Estimate, right: list[Estimate]) -> bool | None:
    """Whether a number is at most the largest of some others; None if their bounds do not decide it.

    Example:
        >>> two, more = Estimate(2.0, 2.0, 2.0, True, "dense"), Estimate(9.0, 9.0, None, False, "dense")
        >>> certainly_at_most(two, [more]), certainly_at_most(more, [two]), certainly_at_most(more, [more])
        (True, False, None)
    """
    if left.upper is not None and left.upper <= max(number.lower for number in right):
        return True
    uppers = [number.upper for number in right]
    if None not in uppers and left.lower > max(upper for upper in uppers if upper is not None):
        return False
    return None


def _jacobian(model: nn.Module, images: Given, rows: Rows) -> tuple[RowIndices, Float[Tensor, "r p"]]:
    entering = block_inputs(model, images[:1], [0])[0].attn_raw
    choice = rows.of((len(images), entering.shape[1], entering.shape[2]))
    return choice, jacobian_rows(copy.deepcopy(model).double(), as_dtype(images, torch.float64), choice)


def _spectrum(matrix: Float[Tensor, "r p"], name: str) -> Spectrum:
    """The spectrum of a matrix. A wide one is reduced to its triangular factor, which has the same singular values."""
    return spectrum(LinearOperator.from_dense(triangular_factor(matrix), name), method="dense")
