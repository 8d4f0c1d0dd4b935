"""What the report says in words."""

from collections.abc import Sequence

from skipless.experiments.sine.cells import SineRuns
from skipless.report.trust import ONE_THREAD, held_out, image_noise, without_spread

TITLE = "Sine-activated low-rank adapters"
DESCRIPTION = (
    "A vision transformer is trained on half of the classes of a data set and then fine-tuned to the other half: by "
    "LoRA, by LoRA at the alpha' that the sine equals to first order, by sine-activated LoRA, and by DoRA, at few "
    "ranks and with A and B rounded to few bits. The head alone and all weights stand beside them."
)


def differences() -> list[str]:
    """What is otherwise than in the papers."""
    return [
        "The papers fine-tune language models, CLIP and diffusion models. Ours are models of Table 1, trained here, on "
        "classes that they have not seen: no weights are downloaded, and the adapters have much to do.",
        "The same: (alpha / r) sin(w B A) / g with g = sqrt(n) and alpha = 2 r, A and B drawn as PEFT draws them, "
        "AdamW without weight decay, k-means codebooks of A and of B after training, the sine after them.",
        "Adapters are in every linear map of the blocks. The head is new, is trained along, and is never rounded.",
        "Not in the papers: LoRA at alpha', and a learning rate for each cell of its own. While w B A is small the "
        "sine is LoRA at alpha', so that without it a gain may be one of the scale alone.",
        "The authors use w = 200 with layers of 4,096 inputs, where alpha' is 3.1 alpha. Here layers have 32 to 256, "
        "where it is 35 to 12.5 alpha: smaller frequencies stand beside it.",
        "DoRA has no sine here: the papers' Sine-DoRA takes the sine of activations in the forward and of weights in "
        "the norm.",
    ]


def notes(images: int, found: Sequence[SineRuns], *, tuned: bool, grid: Sequence[float]) -> list[str]:
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
            f"Every cell's learning rate is the best of {len(grid)} ({tried} times where its method starts), by one "
            "run on images held out of training, of the first seed's model. It is chosen at full precision."
        )
        if ends := [one.cell for one in found if _at_end(one)]:
            cells = "; ".join(f"{cell.line}{f', rank {cell.rank}' if cell.rank else ''}" for cell in ends)
            said.append(f"The best rate ends its grid, so that a better one may lie beyond: {cells}.")
    else:
        said.append(
            "Learning rates are where the grids of --tune have their middle, and not tuned: differences between "
            "methods may be those of their rates."
        )
    said += image_noise((value for one in found for value in one.top1()), images)
    said.append("All methods have the same images, so that their differences have less noise.")
    said += without_spread([len(one.top1()) for one in found])
    said.append("Seeds differ in the model that is fine-tuned, in A, in the head and in the order of images.")
    said.append(ONE_THREAD)
    return said


def _at_end(one: SineRuns) -> bool:
    return len(one.tried) > 1 and one.runs[0].learning_rate in (min(one.tried), max(one.tried))
