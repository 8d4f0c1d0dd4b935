"""A byte-level BPE of the text's own: trained on its training documents, by the library `tokenizers`."""

import re
from collections.abc import Iterator
from pathlib import Path

from skipless.data.text.source import TextSource, split_by_hash
from skipless.data.text.tokenizer import FileTokenizer
from skipless.errors import InputError
from skipless.optional import how_to_install

TRAINED_BYTES = 2**25
"""Bytes of training text that a BPE is trained on, the first ones: half a minute of a core."""
END = "<|endoftext|>"
_NAME = re.compile(r"bpe-(\d+)")
_LEAST = 257  # the bytes, and the end


def bpe_vocabulary(named: str | None) -> int | None:
    """The number of ids that a name such as `bpe-2048` asks for; None for any other name.

    Raises:
        InputError: if that is less than the bytes and the end of a document need.

    Example:
        >>> bpe_vocabulary("bpe-2048"), bpe_vocabulary("bytes")
        (2048, None)
    """
    found = _NAME.fullmatch(named or "")
    if found is not None and int(found[1]) < _LEAST:
        raise InputError(f"tokenizer {named!r}: 256 bytes and an end need {_LEAST} ids; give bpe-{_LEAST} or more")
    return None if found is None else int(found[1])


def train_bpe(source: TextSource, validation: float, vocabulary: int, file: Path) -> FileTokenizer:
    """Train a byte-level BPE on a source's training documents, write it, and open it. Equal text gives an equal one.

    Args:
        source: the text.
        validation: share of its documents that is held out.
        vocabulary: number of ids.
        file: the `tokenizer.json` to write.

    Raises:
        InputError: if `tokenizers` is missing, or the text has no room for so many ids.
    """
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as error:
        raise InputError(f"a BPE is trained by tokenizers: {how_to_install('tokenizers')}") from error
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_texts(source, validation), trainer)
    if (found := tokenizer.get_vocab_size()) != vocabulary:
        raise InputError(f"the text of {source.named!r} gives a BPE of {found} ids at most; give bpe-{found} or less")
    file.parent.mkdir(exist_ok=True)
    temporary = file.with_name(f".{file.name}")
    tokenizer.save(str(temporary))
    temporary.replace(file)
    opened = FileTokenizer(file, END)
    opened.name = f"bpe-{vocabulary}"
    return opened


def _training_texts(source: TextSource, validation: float) -> Iterator[str]:
    size = 0
    for index, file in enumerate(source.files):
        for document in source.read(index) if file.split != "val" else ():
            content = document.text.encode()
            if (file.split or split_by_hash(content, validation)) == "train":
                yield document.text
                size += len(content)
                if size >= TRAINED_BYTES:
                    return
