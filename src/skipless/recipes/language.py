"""LanguageRecipe: a causal model trained to predict the next token of text (A.8)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from skipless.choices import Measured
from skipless.data.text.config import TextConfig
from skipless.errors import InputError
from skipless.frozen import added
from skipless.recipes.begun import is_begun, recorded
from skipless.recipes.recipe import Evaluate, Loaded, Measure, Passes, Prepared, Recipe
from skipless.tasks.language_config import LanguageConfig

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from skipless.data import TextData
else:  # a recipe is described without torch, which is imported when it is run
    Module = Tensor = TextData = Any

EVALUATED_TOKENS = 2**14
"""Tokens of an evaluation that go through the model at once."""

MEASURED_TEXTS, MEASURED_TOKENS = 4, 16
"""Windows that conditioning is measured at, and their length: K of 16 tokens at d = 64 has 1,024 rows."""

ACTIVATION_TOKENS = 2048
"""Tokens that the activations of a model in training are measured at, in windows as long as those of training."""


@dataclass(frozen=True, kw_only=True, repr=False)
class LanguageRecipe(Recipe):
    """One language model.

    A sample is a window of `data.context` tokens, so a step takes `fit.batch_size * data.context` tokens. The model is
    built for the vocabulary of the text's tokenizer and for the context; see `ModelConfig.build_language`.

    Attributes:
        data: its text.
        objective: the loss, and the monitor of models that learn nothing.
        held_out: tokens of the held-out text that each evaluation takes, up to the end of a document; 0 takes all.
        held_out_after: tokens of the held-out text that are left to others: no document that is begun in them is taken.
    """

    data: TextConfig
    objective: LanguageConfig
    held_out: int = 0
    held_out_after: int = added(0)
    reads_text: ClassVar[bool] = True
    metric: ClassVar[str] = "bits_per_byte"
    lower_is_better: ClassVar[bool] = True
    metric_unit: ClassVar[str] = ""
    options: ClassVar[Mapping[str, str]] = {
        **{name: path for name, path in Recipe.options.items() if name != "corrupt_limit"},
        "weight_decay": "optimizer__weight_decay",
        "steps": "fit__steps",
        "evaluate_steps": "fit__evaluate_steps",
        "warmup_steps": "schedule__warmup_steps",
        "tokenizer": "data__tokenizer",
        "context": "data__context",
        "documents": "data__documents",
        "validation": "data__validation",
        "held_out": "held_out",
        "loss_chunk": "objective__loss_chunk",
        "on_stuck": "objective__on_stuck",
    }

    def __post_init__(self) -> None:
        for name, tokens in (("held_out", self.held_out), ("held_out_after", self.held_out_after)):
            if tokens < 0:
                raise InputError(f"{name} {tokens}: give tokens, 0 or more")

    def load(self) -> Loaded:
        """Windows of the training text; the text is prepared if it has not been."""
        from skipless.data.text import TextWindows, load_text

        text = load_text(self.data)
        return Loaded(TextWindows(text.train, self.data.context), None, text)

    def prepare(self, out: Path, loaded: Loaded) -> Prepared:
        """The language model; a folder that has learned other text is refused."""
        from skipless.tasks import LanguageModel

        text = loaded.text
        assert text is not None
        if is_begun(out):
            _refuse_other_text(out, text, self.data.data)
        total = self.fit.total_steps(len(loaded.train))
        task = LanguageModel(
            self._model(text.vocabulary),
            self.objective,
            bytes_per_token=text.train.bytes_per_token,
            unigram_entropy=text.train.unigram_entropy,
            warmup=self.schedule.warmup_of(total),
        )
        about = {
            "source": text.source,
            "vocabulary": text.vocabulary,
            "bytes_per_token": text.train.bytes_per_token,
            "unigram_entropy": text.train.unigram_entropy,
            "identity": text.identity,
        }
        return Prepared(task, self.evaluation(text), {"text": about})

    def measurement(self, name: Measured, loaded: Loaded) -> Measure:
        """Conditioning at the first short windows of the held-out text, activations at whole ones."""
        from skipless.conditioning.measurement.tracking import measure_at
        from skipless.evaluators.quantisation.statistics.tracking import track_activations

        assert loaded.text is not None
        context = self.data.context
        if name == "conditioning":
            return measure_at(held_out_windows(loaded.text, MEASURED_TEXTS, min(MEASURED_TOKENS, context)))
        return track_activations(held_out_windows(loaded.text, max(1, ACTIVATION_TOKENS // context), context))

    def blank_task(self, steps: int, classes: int) -> Module:
        """The language model for a vocabulary of so many."""
        from skipless.tasks import LanguageModel

        return LanguageModel(self.model.build_language(classes, self.data.context, 0, blank=True), self.objective)

    def passes(self, evaluated: int) -> Passes:
        """It has no images to count."""
        raise InputError(
            f"{self.name!r} is a language model, which sees no images; skipless.planning.text_workload counts its work"
        )

    def evaluation(self, data: Any, most: int | None = None) -> Evaluate:
        """Bits per byte, loss and perplexity on the held-out text."""
        from skipless.evaluators import score_text

        asked = [tokens for tokens in (self.held_out, most) if tokens]

        def evaluate(model: Module) -> dict[str, float]:
            context = self.data.context
            batch = max(1, EVALUATED_TOKENS // context)
            part = {"most": min(asked, default=None), "after": self.held_out_after}
            score = score_text(model, data.val, context=context, batch_size=batch, **part)
            found = {"bits_per_byte": score.bits_per_byte, "loss": score.loss, "perplexity": score.perplexity}
            return {**found, "n": float(score.tokens)}

        return evaluate

    def evaluated(self, data: Any, most: int | None = None) -> int:
        """Held-out tokens."""
        left = data.val.tokens - 1 - self.held_out_after
        return min([left, *(tokens for tokens in (self.held_out, most) if tokens)])

    def _model(self, vocabulary: int) -> Module:
        """The model; where this process only takes shards of the first one's weights, its shapes alone."""
        import torch

        from skipless.training.processes.launch import takes_shards_only

        if not takes_shards_only(self.fit.strategy):
            return self.model.build_language(vocabulary, self.data.context, self.fit.seed)
        with torch.device("meta"):
            return self.model.build_language(vocabulary, self.data.context, self.fit.seed, blank=True)


def held_out_windows(text: TextData, count: int, length: int) -> Tensor:
    """The first windows of the held-out text, as token ids `(count, length)`.

    Raises:
        InputError: if it has fewer tokens.
    """
    import torch

    if text.val.tokens < count * length:
        raise InputError(f"{count} windows of {length} tokens to measure at: the held-out text has {text.val.tokens:,}")
    return torch.from_numpy(text.val.ids[: count * length].astype("int64")).view(count, length)


def _refuse_other_text(out: Path, text: TextData, named: str) -> None:
    before = (recorded(out, "text") or {}).get("identity")
    if before is not None and before != text.identity:
        what = ", ".join(name for name, value in text.identity.items() if before.get(name) != value)
        raise InputError(
            f"{str(out)!r} was trained on other text than {named!r} is now ({what} differ); give another --out, or the "
            "text and the tokenizer of before"
        )
