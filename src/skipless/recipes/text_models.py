"""Language models of run folders and of Hugging Face's folders, their tokenizers and their text."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from skipless.choices import Documents
from skipless.data.text import TextConfig, TextData, Tokenizer, load_text, load_tokenizer
from skipless.data.text.bpe import bpe_vocabulary
from skipless.data.text.prepared import RECORD
from skipless.errors import InputError
from skipless.models.text_view import find_texts
from skipless.recipes.begun import recorded
from skipless.recipes.language import LanguageRecipe
from skipless.training import load_weights

SAVED = "config.json"
"""What tells a folder of `save_pretrained` from one of `skipless train`."""


def language_model(recipe: LanguageRecipe, folder: Path, weights: Path | None, untrained: bool) -> nn.Module:
    """The model of a language run, with the run's last weights or those of a file, or as it was before its first step.

    Neither its text nor its tokenizer is needed: the run's record says how many ids there are.

    Raises:
        InputError: if the weights are not there or another model's.
    """
    vocabulary = (recorded(folder, "text") or {}).get("vocabulary")
    if not isinstance(vocabulary, int):
        vocabulary = load_text(recipe.data).vocabulary
    sizes = (vocabulary, recipe.data.context, recipe.fit.seed)
    model = recipe.model.build_language(*sizes, blank=not untrained)  # what is loaded need not be drawn
    return model if untrained else load_weights(model, weights or folder)


def saved_model(folder: Path) -> tuple[nn.Module, int | None]:
    """The model of a folder that Hugging Face's `save_pretrained` has written; of one of text, its context in tokens.

    Raises:
        InputError: as `skipless.models.from_pretrained`.
    """
    from skipless.models import from_pretrained

    model = from_pretrained(folder)
    texts = find_texts(model)
    if not texts and not is_causal(model):
        return model.float(), None  # images are read in this precision
    length = texts[0].length if texts else getattr(model.config, "max_position_embeddings", None)
    return model, length or 2048  # as lm-eval takes for models that do not say


def is_causal(model: Any) -> bool:
    """Whether a model of Hugging Face's predicts next tokens; BERT and models of images do not."""
    return callable(getattr(model, "can_generate", None)) and model.can_generate()


def saved_statistics(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """By what a folder's image processor normalises images; None where there is none that says it."""
    try:
        held = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        return tuple(map(float, held["image_mean"])), tuple(map(float, held["image_std"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_tokenizer(recipe: LanguageRecipe, folder: Path, named: str | None = None) -> Tokenizer:
    """The tokenizer of a run. One that was trained on the run's text, or lies in prepared text, is taken from there.

    Args:
        recipe: of the run.
        folder: of the run.
        named: where the tokenizer lies now, if not where it was.

    Raises:
        InputError: if it is not there any more, or is another one by now.
    """
    data = recipe.data if named is None else replace(recipe.data, tokenizer=named, data="")
    prepared = (Path(data.data).expanduser() / RECORD).is_file()
    of_text = prepared or (data.tokenizer is not None and bpe_vocabulary(data.tokenizer) is not None)
    found = load_text(data).tokenizer if of_text else load_tokenizer(data.tokenizer, data.end_token)
    before = _identity(folder).get("tokenizer")
    if before is not None and before != found.sha256:
        raise InputError(
            f"{str(folder)!r} was trained with another tokenizer than {data.tokenizer or found.name!r} (their hashes "
            "differ): name that of before by --tokenizer"
        )
    return found


def run_text(
    recipe: LanguageRecipe, folder: Path, data: str | None, tokenizer: str | None, documents: Documents | None = None
) -> TextData:
    """The text of a run, or another text by the run's tokenizer.

    Args:
        recipe: of the run.
        folder: of the run.
        data: another text; None takes the run's own.
        tokenizer: where the run's tokenizer lies now, if not where it was.
        documents: what a document is in another text; None takes what the run took.

    Raises:
        InputError: if text or tokenizer are not there, or the run's own text has changed.
    """
    if data is not None:
        name, end = _tokenizer_file(run_tokenizer(recipe, folder, tokenizer))
        asked = {"data": data, "tokenizer": name, "end_token": end}
        return load_text(replace(recipe.data, documents=documents or recipe.data.documents, **asked))
    if documents is not None:
        raise InputError(
            f"--documents {documents} is for another text than the run's own: give --data, or leave it out"
        )
    if tokenizer is not None:
        run_tokenizer(recipe, folder, tokenizer)
    text = load_text(replace(recipe.data, tokenizer=tokenizer or recipe.data.tokenizer))
    before = _identity(folder)
    changed = [name for name, value in text.identity.items() if before.get(name, value) != value]
    if changed:
        raise InputError(
            f"{str(folder)!r} was trained on other text than {recipe.data.data!r} is now ({', '.join(changed)} "
            "differ): name a text by --data"
        )
    return text


def saved_text(
    folder: Path, context: int, data: str | None, tokenizer: str | None, documents: Documents | None = None
) -> TextData:
    """A text by the tokenizer of a folder that Hugging Face's `save_pretrained` has written.

    Raises:
        InputError: if no text is named, or the tokenizer is not there.
    """
    if data is None:
        raise InputError(f"{str(folder)!r} does not say on which text it is to be measured: give --data")
    if tokenizer is None and not (folder / "tokenizer.json").is_file():
        raise InputError(
            f"{str(folder)!r} has no tokenizer.json: give --tokenizer, or copy that of the model's own folder there"
        )
    return load_text(TextConfig(data, tokenizer or str(folder), context, documents=documents or "auto"))


def _identity(folder: Path) -> dict[str, Any]:
    return dict((recorded(folder, "text") or {}).get("identity") or {})


def _tokenizer_file(tokenizer: Any) -> tuple[str, str | None]:
    """The name by which a tokenizer is loaded again, and its end of a document."""
    file = getattr(tokenizer, "file", None)
    return (tokenizer.name, None) if file is None else (str(file), tokenizer.end_token)
