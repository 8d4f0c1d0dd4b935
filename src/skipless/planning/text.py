"""TextWorkload: the FLOPs and the memory of a language model's training, a window of text at a time."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from skipless.display import Table
from skipless.errors import InputError
from skipless.models import BlockView, block_views
from skipless.models.text_view import find_text
from skipless.optim import build_optimizer
from skipless.planning.activations import SINGLE, Keeping, blocks_bytes, norm_bytes
from skipless.planning.flops import block_flops
from skipless.planning.work import Workload, refresh_frequency
from skipless.recipes.language import LanguageRecipe
from skipless.tasks import LanguageModel

PAPER_VOCABULARY = 32_000
"""Token ids of the paper's language model (A.8)."""

_ID = 8  # bytes of a token id, int64


@dataclass(frozen=True, eq=False, repr=False)
class TextWorkload(Workload):
    """The work of a language model's training run, independent of the machine.

    What is said of an image elsewhere is said of a window of text here: a sample of `context` tokens.

    Attributes:
        context: tokens of a window.
        vocabulary: number of token ids.
    """

    context: int = 0
    vocabulary: int = 0

    @property
    def unit(self) -> str:
        """What a sample is."""
        return "window"

    @property
    def rate(self) -> tuple[str, int]:
        """What a loader's speed is counted in, and how many of it a sample has."""
        return "tokens", self.context

    def sample_json(self) -> dict[str, Any]:
        """What of each sample goes through the model, for JSON."""
        return {"context": self.context, "vocabulary": self.vocabulary}

    @property
    def sample(self) -> str:
        """What of each sample goes through the model."""
        return f"of each window: {self.context:,} tokens, of {self.vocabulary:,} ids"

    def _summary(self) -> str:
        tokens = self.steps * self.fit.batch_size * self.context
        return f"{self.parameters:,} parameters, {self.steps:,} steps, {tokens:,} tokens in windows of {self.context:,}"

    def tables(self) -> tuple[Table, ...]:
        """The work in numbers."""
        rows = [
            ("trained parameters", f"{self.parameters:,}"),
            ("steps", f"{self.steps:,}"),
            ("tokens of the run", f"{self.steps * self.fit.batch_size * self.context:,}"),
            ("forward pass of a window", f"{self.forward / 1e9:,.2f} GFLOP"),
            ("backward pass of a window", f"{self.backward / 1e9:,.2f} GFLOP"),
            ("evaluations", f"{self.evaluations} of {self.evaluated:,} windows"),
        ]
        return (Table(("work", "value"), rows, self.sample, align="lr"),)

    @cached_property
    def forward(self) -> int:
        """FLOPs of the forward pass of a window: of its blocks, and of a prediction at each token.

        Causal attention is counted whole, as is usual, though a kernel may leave out what is masked.
        """
        found = find_text(self.backbone)
        blocks = sum(block_flops(view, self.context) for view in found.views)
        return blocks + 2 * self.context * found.dim * self.vocabulary

    @cached_property
    def backward(self) -> int:
        """FLOPs of the backward pass of a window; the lookup of embeddings is no product in either pass."""
        return 2 * self.forward

    @cached_property
    def teaching(self) -> int:
        """There is no teacher."""
        return 0

    @cached_property
    def evaluation(self) -> int:
        """FLOPs of all evaluations of the run."""
        return self.evaluations * self.evaluated * self.forward

    def kept(self, keeping: Keeping) -> int:
        """Return the bytes that autograd saves for each window.

        With checkpointing this is the peak of the backward pass: the inputs of all blocks, and one block's activations.
        """
        views = block_views(self.backbone)
        return blocks_bytes(views, self.context, keeping) + self._ends(views[-1], keeping)

    def kept_once(self, keeping: Keeping) -> int:
        """Nothing is saved once for any number of windows but the angles of positions, which are small."""
        return 0

    def loaded(self) -> int:
        """Return the bytes of one window as the loader gives it: ids."""
        return _ID * (self.context + 1)

    def _ends(self, last: BlockView, keeping: Keeping) -> int:
        """Bytes of the last norm, the predictions' input, and logits: cast ones if the loss reads them in parts."""
        tokens, found = self.context, find_text(self.backbone)
        chunk = self.task.config.loss_chunk if isinstance(self.task, LanguageModel) else 0
        norm = norm_bytes(found.final_norm, tokens, last.dim, keeping, skip="mlp" in last.skips)
        inputs = tokens * last.dim * keeping.width
        return norm + inputs + tokens * self.vocabulary * (keeping.width if tokens > chunk else SINGLE)


def text_workload(recipe: LanguageRecipe, *, windows: int | None = None, vocabulary: int | None = None) -> TextWorkload:
    """Return the workload of a language recipe; its text and its tokenizer are not needed.

    Args:
        recipe: the recipe.
        windows: windows of the training text; by default as many as the recipe's steps take.
        vocabulary: number of token ids; by default the paper's 32,000.

    Raises:
        InputError: if the model cannot be built, or is not one of text.

    Example:
        >>> from skipless.experiments.language.recipe import language
        >>> work = text_workload(language("paper", data="c4/"))
        >>> work.parameters, work.steps, round(work.forward / 1e12, 2)
        (109529856, 20480, 1.52)
    """
    ids = PAPER_VOCABULARY if vocabulary is None else vocabulary
    if ids < 2:
        raise InputError(f"vocabulary {ids}: give the number of token ids, at least 2")
    if windows is None and recipe.fit.steps is None:
        raise InputError("how long is a run of epochs? Give `windows`, the training text's, or the recipe fit.steps")
    windows = (recipe.fit.steps or 1) * recipe.fit.batch_size if windows is None else windows
    with torch.device("meta"):
        task: Any = recipe.blank_task(recipe.fit.total_steps(windows), ids)
    find_text(task.model)
    held_out = recipe.held_out or windows * recipe.data.context
    return TextWorkload(
        task=task,
        optimizer=build_optimizer(task, recipe.optimizer),
        fit=recipe.fit,
        student=(),
        teacher=(),
        images=windows,
        evaluated=-(-held_out // recipe.data.context),
        frequency=refresh_frequency(recipe.optimizer),
        context=recipe.data.context,
        vocabulary=ids,
    )
