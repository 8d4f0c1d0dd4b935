"""Tokenizers: bytes, which need no file, and any file of the library `tokenizers`."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from skipless.errors import InputError, did_you_mean
from skipless.optional import how_to_install

TOKENIZER_FILE = "tokenizer.json"
BYTES = "bytes"
_BYTE_VALUES = 256
# Names of the token that ends a document: GPT-2 and its kin, Llama 1 and 2, Llama 3, T5's style, Gemma, BERT.
_USUAL_ENDS = ("<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<|eos|>", "[EOS]", "[SEP]")


@runtime_checkable
class Tokenizer(Protocol):
    """Turns text into ids and back.

    Attributes:
        name: as given.
        vocabulary: number of ids; the largest is one less.
        end: id of the end of a document.
        unknown: id of what the tokenizer cannot express; None if it can express any text.
        sha256: hash of all that decides the ids.
    """

    name: str
    vocabulary: int
    end: int
    unknown: int | None
    sha256: str

    def encode(self, texts: Sequence[str], /) -> list[np.ndarray]:
        """Return the ids of each text, without special tokens."""
        ...

    def decode(self, ids: Sequence[int], /) -> str:
        """Return the text of ids, without special tokens."""
        ...


class ByteTokenizer:
    """The bytes of UTF-8 as ids 0 to 255; 256 is the end of a document.

    Example:
        >>> tokenizer = ByteTokenizer()
        >>> [ids.tolist() for ids in tokenizer.encode(["hi", "é"])], tokenizer.end
        ([[104, 105], [195, 169]], 256)
        >>> tokenizer.decode([195, 169, 256])
        'é'
    """

    name = BYTES
    vocabulary = _BYTE_VALUES + 1
    end = _BYTE_VALUES
    unknown: int | None = None
    sha256 = hashlib.sha256(b"skipless bytes 1").hexdigest()

    def encode(self, texts: Sequence[str], /) -> list[np.ndarray]:
        """Return the bytes of each text."""
        return [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]

    def decode(self, ids: Sequence[int], /) -> str:
        """Return the text; bytes that are no UTF-8 become question marks, ends are left out."""
        return bytes(index for index in map(int, ids) if index < _BYTE_VALUES).decode(errors="replace")


class FileTokenizer:
    """A `tokenizer.json` of the library `tokenizers`.

    Nothing is cut off or padded, whatever the file asks for, and no special token is added. A special token's name in a
    document is ordinary text.

    Args:
        file: the file.
        end_token: name of the token that ends a document; None takes what a `tokenizer_config.json` beside the file
            calls `eos_token`, or a usual name.

    Raises:
        InputError: if `tokenizers` is missing, the file cannot be read, or it has no such token.
    """

    def __init__(self, file: Path, end_token: str | None = None) -> None:
        try:
            from tokenizers import Tokenizer as Loaded
        except ImportError as error:
            raise InputError(f"{str(file)!r} is read by tokenizers: {how_to_install('tokenizers')}") from error
        try:
            content = file.read_bytes()
            self._tokenizer: Any = Loaded.from_buffer(content)
        except Exception as error:  # tokenizers raises Exception itself
            raise InputError(f"{str(file)!r} is no tokenizer file ({error}); give a whole tokenizer.json") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True
        ids: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        if not ids:
            raise InputError(f"{str(file)!r} has an empty vocabulary; train the tokenizer first")
        name = _end_name(file, ids, end_token)
        self.name, self.file, self.end_token = str(file), file, name
        self.vocabulary, self.end = max(ids.values()) + 1, ids[name]
        self.unknown = ids.get(_unknown_name(content))
        self.sha256 = hashlib.sha256(content + b"\0" + name.encode()).hexdigest()

    def encode(self, texts: Sequence[str], /) -> list[np.ndarray]:
        """Return the ids of each text; several texts are encoded by as many threads as there are cores."""
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, dtype=np.int64) for one in found]

    def decode(self, ids: Sequence[int], /) -> str:
        """Return the text of ids, without special tokens."""
        return self._tokenizer.decode([int(index) for index in ids], skip_special_tokens=True)


def load_tokenizer(named: str | None, end_token: str | None = None) -> Tokenizer:
    """Return the tokenizer of a name: `bytes`, a `tokenizer.json`, or a folder that holds one; None is `bytes`.

    Raises:
        InputError: if there is no such file, or it cannot be used.

    Example:
        >>> load_tokenizer("bytes").vocabulary
        257
    """
    if named in (None, BYTES):
        if end_token is not None:
            raise InputError(f"end_token {end_token!r}: the byte tokenizer has an end of its own; leave it out")
        return ByteTokenizer()
    file = Path(named).expanduser()
    if file.is_dir():
        file /= TOKENIZER_FILE
    if not file.is_file():
        near = did_you_mean(named, (BYTES,))
        raise InputError(
            f"no tokenizer {named!r}: {near}give 'bytes', a {TOKENIZER_FILE}, or a folder that holds one (a "
            "SentencePiece model has to be converted: transformers saves a fast tokenizer as that file)"
        )
    return FileTokenizer(file, end_token)


def _end_name(file: Path, ids: dict[str, int], given: str | None) -> str:
    stated = given or _stated_end(file.with_name("tokenizer_config.json"))
    if stated is not None:
        if stated not in ids:
            near = did_you_mean(stated, ids)
            raise InputError(f"{str(file)!r} has no token {stated!r} to end documents; {near}give another --end-token")
        return stated
    found = next((name for name in _USUAL_ENDS if name in ids), None)
    if found is None:
        raise InputError(
            f"{str(file)!r} does not say which token ends a document ({', '.join(_USUAL_ENDS)} are not in it): name "
            "one of its tokens by --end-token"
        )
    return found


def _stated_end(file: Path) -> str | None:
    """What a `tokenizer_config.json` calls the end of a text; None where it does not say."""
    try:
        stated = json.loads(file.read_text(encoding="utf-8")).get("eos_token")
    except (OSError, ValueError, AttributeError):
        return None
    name = stated.get("content") if isinstance(stated, dict) else stated
    return name if isinstance(name, str) else None


def _unknown_name(content: bytes) -> str:
    """Name of the token for what cannot be expressed; of a model that falls back to bytes, none."""
    model = json.loads(content).get("model", {})
    name = model.get("unk_token")
    if name is None and isinstance(model.get("unk_id"), int):  # Unigram
        name = model["vocab"][model["unk_id"]][0]
    return "" if name is None or model.get("byte_fallback") else str(name)
