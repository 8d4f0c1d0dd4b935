"""load_text: the text of a config, prepared if it has not been."""

import hashlib
import json
from pathlib import Path

from skipless.data.builtin import cache_folder
from skipless.data.text.bpe import bpe_vocabulary
from skipless.data.text.config import TextConfig
from skipless.data.text.prepare import asked_identity, prepare_text
from skipless.data.text.prepared import RECORD, TextData, open_text
from skipless.data.text.tokenizer import load_tokenizer
from skipless.errors import InputError


def load_text(config: TextConfig, *, cache: Path | None = None) -> TextData:
    """Open the text of a config; what is not prepared yet is tokenised into the cache first, once.

    Of several processes that ask for the same text, one prepares it, and the others wait.

    Args:
        config: which text.
        cache: parent folder of what is prepared; by default `~/.cache/skipless/text`.

    Raises:
        InputError: if the text or the tokenizer cannot be read, or a prepared folder has another tokenizer.

    Example:
        >>> data = load_text(TextConfig("pydoc"))
        >>> data.vocabulary, data.train.documents + data.val.documents > 50
        (257, True)
    """
    folder = Path(config.data).expanduser()
    if (folder / RECORD).is_file():
        return _checked(open_text(folder), config)
    identity = asked_identity(config)
    place = {**identity, "files": [state[0] for state in identity["files"]]}  # of changed files, the same folder
    digest = hashlib.sha256(json.dumps(place, sort_keys=True).encode()).hexdigest()[:16]
    return prepare_text(config, (cache or cache_folder() / "text") / digest, remake=True)


def _checked(data: TextData, config: TextConfig) -> TextData:
    if config.tokenizer is None:
        return data
    held = data.about["tokenizer"]
    if bpe_vocabulary(config.tokenizer) is not None:
        same, why = held["name"] == config.tokenizer, "it was not trained"
    else:
        same = load_tokenizer(config.tokenizer, config.end_token).sha256 == held["sha256"]
        why = "their hashes differ"
    if not same:
        raise InputError(
            f"{str(data.folder)!r} was tokenised by {held['name']!r}, not {config.tokenizer!r} ({why}); leave the "
            "tokenizer out, or prepare the text again with the other"
        )
    return data
