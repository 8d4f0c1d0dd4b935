"""What the room's reports say in words."""

from collections.abc import Sequence

from skipless.experiments.family.recipe import DECAYED
from skipless.experiments.family.runs import CellRuns
from skipless.report.trust import ONE_THREAD, held_out, image_noise, without_spread

ATTENTION_TITLE = "Attention that is not plain softmax"
ATTENTION_DESCRIPTION = (
    "One vision transformer with another core in place of the softmax: powers of the logits, shaped attention, and "
    "orthogonal self-attention. Each is trained with skip connections, without them, and without them but started by "
    "the paper's initialisation or by ours."
)
SHORTCUTS_TITLE = "Ways to do without shortcuts"
SHORTCUTS_DESCRIPTION = (
    "One vision transformer with skip connections, with decayed ones, and without any. Those without start by the "
    "paper's initialisation, by ours, or as earlier papers have it: V-SkipInit, E-SPA, U-SPA and shaped attention. He "
    "et al. 2023 need about five times the steps of a residual model, and the paper claims to need as many as it: so "
    "every model is trained for one length and for five."
)


def attention_differences(found: Sequence[CellRuns]) -> list[str]:
    """How the cells are made where a paper leaves it open or has it otherwise."""
    kinds = {one.cell.attention for one in found}
    said = []
    if any(kind.startswith("polynomial") for kind in kinds):
        said.append(
            "Polynomial attention has the scale 1/sqrt(n) of its paper with the library's initialisation, with skips "
            "and without. With ours or the paper's its scale is solved, so that the mean A_ii is 1: with 1/sqrt(n) it "
            "would be in the hundreds. Power 1 has a matrix of rank d_h at most, and stands here for comparison."
        )
    if "shaped" in kinds:
        said.append("Shaped attention starts with W_Q = 0, so as the identity, in every row.")
    if "orthogonal" in kinds:
        said.append(
            "The initialisation of orthogonal self-attention is not public. Its gain starts at 1, with the paper's "
            "scheme at 0.1, and models keep their norms."
        )
    if any(one.cell.row == "skipless + ours" and one.cell.attention != "softmax" for one in found):
        said.append(
            "Our initialisation solves the diagonal of the softmax. With another core that part is left out; the MLP, "
            "the positions, values and outputs are ours, and so are the rate of the blocks and the weight decay."
        )
    return said


def shortcut_differences(found: Sequence[CellRuns]) -> list[str]:
    """How the cells are made where a paper leaves it open or has it otherwise."""
    rows, kinds = {one.cell.row for one in found}, {one.cell.attention for one in found}
    said = []
    if "skipless + source" in rows:
        said.append(
            "Methods of earlier papers start with W_V and W_O orthogonal and noise in W_Q W_K^T, E-SPA, U-SPA and "
            "shaped attention with W_Q = 0. They keep our model's norms, GELU and output maps, and their MLP starts as "
            "the paper's does; He et al. tailor the activation instead. `+ ours` has our MLP, which starts near a "
            "rotation, and our positions."
        )
    if "E-SPA" in kinds:
        said.append("E-SPA has its source's gamma of 0.005, which was chosen for longer sequences than these.")
    if "U-SPA" in kinds:
        said.append("How the cosine of U-SPA rises is not public: here 1 - rho falls by one factor a block, to 0.2.")
    if "skip, decayed" in rows:
        said.append(
            f"Decayed shortcuts fall from 1 to {DECAYED:g} over the blocks: x + f(x) is a x + f(x) for attention and "
            "MLP alike. W_O and the MLP's last map start at 0, as the source has it for ends of 0.7 and less."
        )
    return said


def notes(images: int, found: Sequence[CellRuns], *, tuned: bool, grid: Sequence[float]) -> list[str]:
    """How far to trust the numbers.

    Args:
        images: that accuracies are on.
        found: the cells.
        tuned: whether learning rates were tuned for these runs.
        grid: the factors that were tried.
    """
    said = [held_out(images)]
    if tuned:
        tried = ", ".join(f"{factor:g}" for factor in grid)
        said.append(
            f"Every cell's learning rate is the best of {len(grid)} ({tried} times that of Table 1's row), by one run "
            "on images held out of training, and of this cell's length."
        )
    else:
        said.append(
            "Learning rates are those of Table 1's rows, tuned for softmax and one length: --tune chooses each anew, "
            "and without it a method that is new to the table is at a disadvantage."
        )
    said += image_noise((value for one in found for value in one.accuracies), images)
    said += without_spread([len(one.accuracies) for one in found])
    said.append("The papers' numbers are of other models and data: compare orders and gaps, not values.")
    said.append(ONE_THREAD)
    return said
