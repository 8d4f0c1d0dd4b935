"""fast_tokenizer: the tokenizer of a run as one of transformers, for what takes only these."""

from pathlib import Path
from typing import Any

from skipless.errors import InputError
from skipless.optional import how_to_install, is_installed

BYTES_END = "<|endoftext|>"
"""What the byte tokenizer's end of a document is called there."""


def fast_tokenizer(file: Path | None = None, end_token: str = BYTES_END) -> Any:
    """Make one of transformers' tokenizers that gives the ids of ours, with an end of document before each text.

    In training a document stands behind the end of the one before. That end is thus its beginning, its end and its
    padding token.

    Args:
        file: a `tokenizer.json`; None makes the tokenizer whose ids are the bytes of UTF-8, and 256 the end.
        end_token: what ends a document.

    Raises:
        InputError: if transformers is missing.

    Example:
        >>> tokenizer = fast_tokenizer()
        >>> tokenizer("hé").input_ids, tokenizer.decode([104, 195, 169])
        ([256, 104, 195, 169], 'hé')
    """
    if not is_installed("transformers"):
        raise InputError(f"such tokenizers are transformers': {how_to_install('transformers')}")
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    made = _of_bytes(end_token) if file is None else Tokenizer.from_file(str(file))
    made.no_truncation()
    made.no_padding()
    end = made.token_to_id(end_token)
    made.post_processor = processors.TemplateProcessing(single=f"{end_token} $A", special_tokens=[(end_token, end)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token=end_token,
        eos_token=end_token,
        pad_token=end_token,
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,  # such a token's name in a text is text
    )


def check_vocabulary(model: Any, vocabulary: int, tokenizer: str) -> None:
    """Refuse a tokenizer with more ids than a model has.

    Raises:
        InputError: that says how many there are of each.
    """
    embedded = getattr(model, "get_input_embeddings", lambda: None)()
    rows = None if embedded is None else embedded.weight.shape[0]
    if rows is not None and vocabulary > rows:
        raise InputError(
            f"the tokenizer {tokenizer!r} has {vocabulary} ids, the model {rows}: it is another model's; give its own"
        )


def _of_bytes(end_token: str) -> Any:
    """Every byte as its own token, in the letters that byte-level tokenizers write bytes in."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    made = Tokenizer(models.BPE(vocab={letter: byte for byte, letter in enumerate(_letters())}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(end_token, special=True)])
    return made


def _letters() -> list[str]:
    """The letter of each byte: itself where it can be seen, else the next of those from 256 on (GPT-2's convention)."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte if byte in seen else next(others)) for byte in range(256)]
