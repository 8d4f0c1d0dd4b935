"""What the report of Table 7 says in words."""

from collections.abc import Sequence

from skipless.recipes.language import LanguageRecipe
from skipless.report.trust import ONE_THREAD, without_spread

TITLE = "Table 7: a language model without skips"
DESCRIPTION = (
    "One language model of Llama's architecture: with skip connections, without them, and without them but started by "
    "the paper's initialisation, in three readings of it, or by ours. Models are compared by how well they predict "
    "held-out text. The paper compares zero-shot accuracies, which a small model cannot move off chance."
)


def differences(recipe: LanguageRecipe) -> list[str]:
    """What is otherwise than in the paper."""
    said = [
        "The paper does not say how its scheme is read for a gated MLP, nor whether beta is compensated for the "
        "softmax's 1 / sqrt(d_h). As it stands, (0, 0.5), attention starts diffuse. `compensated` has the logits of "
        "the formula; `sharp` is (0, 3) with gates that start equal.",
        "The paper trains by AdamW alone.",
    ]
    if recipe.scale == "tiny":
        said.append(
            "The paper's model has 110 M parameters and 5.4e9 tokens of C4: compare orders and gaps, not values."
        )
    return said


def notes(seeds: Sequence[int], *, tuned: bool, paper: bool, counted: int) -> list[str]:
    """How far to trust the numbers.

    Args:
        seeds: finished runs of each cell.
        tuned: whether learning rates were tuned for these runs.
        paper: whether the runs are of scale paper, which the report does not make itself.
        counted: training tokens that were counted for the floors.
    """
    said = ["Losses are on documents that no run was trained on."]
    if tuned:
        said.append(
            "Every cell's learning rate is the best of three, by one run of another seed, on documents that are "
            "neither trained on nor in the table."
        )
    elif paper:
        said.append("Learning rates are those that the runs were given by --lr; without it all are 1e-3, untuned.")
    else:
        said.append(
            "Learning rates are those of `skipless train language`, for its own text and 300 steps: each the best of "
            "three, but the plain skipless model and the paper's reading, which learn at none, have those of ours. "
            "--tune chooses each anew."
        )
    said.append(f"The counts are of {counted:,} training tokens; a short run sees fewer.")
    said.append(
        "A loss at that of the frequencies of tokens is how a model without skips fails: all numbers stay finite, and "
        "nothing of the tokens gets through the blocks."
    )
    said.append(
        "Of the paper's tasks BoolQ alone carries its average gain, and both of its numbers there are below the most "
        "frequent answer's."
    )
    said += without_spread(seeds)
    if not paper:
        said.append(ONE_THREAD)
    return said
