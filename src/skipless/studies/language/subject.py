"""The language model that a study measures, with its tokenizer, and what its numbers depend on."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from skipless.choices import Documents
from skipless.data.text import TextData, load_tokenizer
from skipless.errors import InputError
from skipless.evaluators.features.store_builder import tensors_hash
from skipless.models import block_views, load_tokenizer as load_saved_tokenizer
from skipless.models.libraries.hf_tokenizer import check_vocabulary
from skipless.recipes.language import LanguageRecipe
from skipless.recipes.source import ModelSource
from skipless.recipes.text_models import is_causal, run_text, run_tokenizer, saved_text


@dataclass(frozen=True, eq=False)
class Subject:
    """A language model to measure.

    Attributes:
        model: from ids to logits.
        context: tokens that it sees at most.
        tokenizer: loads its tokenizer: ours, or of a folder of Hugging Face's transformers'.
        text: loads a text by its tokenizer: that of a name, or its own; and what a document is in it.
    """

    model: nn.Module
    context: int
    tokenizer: Callable[[], Any]
    text: Callable[[str | None, Documents | None], TextData]

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this model from others: weights, skips, and kinds of modules."""
        try:
            views = block_views(self.model)
            skips = [[*view.skips, *(map(str, view.skip_gains) if view.is_decayed else ())] for view in views]
        except InputError:
            skips = None  # no adapter knows it: its modules say what they are
        modules = hashlib.sha256(repr(self.model).encode()).hexdigest()
        return {"weights": tensors_hash(self.model), "skips": skips, "modules": modules}


def subject(source: ModelSource, *, tokenizer: str | None = None, context: int | None = None) -> Subject:
    """What a study measures of an opened model.

    Args:
        source: a run of a language model, or a checkpoint of Hugging Face's.
        tokenizer: a tokenizer file or `bytes` in place of its own.
        context: tokens at most, in place of its own number.

    Raises:
        InputError: if it is no model that predicts next tokens, or the context is longer than it takes.
    """
    model, recipe, folder = source.model, source.recipe, source.folder
    if source.context is None or folder is None or not (isinstance(recipe, LanguageRecipe) or is_causal(model)):
        raise InputError(
            f"{source.name!r} is no model that predicts next tokens: `language` takes a run of `skipless train "
            "language`, or a folder of a causal model of Hugging Face's"
        )
    if context is not None and context < 1:
        raise InputError(f"--context {context}: give 1 or more tokens")
    if context is not None and context > source.context:
        raise InputError(
            f"--context {context}: the model has places for {source.context} tokens; give as many or fewer"
        )
    length = source.context if context is None else context

    def own_tokenizer() -> Any:
        if isinstance(recipe, LanguageRecipe):
            found: Any = run_tokenizer(recipe, folder, tokenizer)
        elif tokenizer is not None:
            found = load_tokenizer(tokenizer)
        else:
            return load_saved_tokenizer(folder, model)
        check_vocabulary(model, found.vocabulary, found.name)
        return found

    def text(data: str | None, documents: Documents | None) -> TextData:
        found = (
            run_text(recipe, folder, data, tokenizer, documents)
            if isinstance(recipe, LanguageRecipe)
            else saved_text(folder, length, data, tokenizer, documents)
        )
        check_vocabulary(model, found.vocabulary, found.about["tokenizer"]["name"])
        return found

    return Subject(model, length, own_tokenizer, text)
