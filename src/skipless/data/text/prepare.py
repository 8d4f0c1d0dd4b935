"""prepare_text: text tokenised once into memory-mapped files.

A folder is whole once it has its `text.json`, which is written last. What is under way lies in `.partial`, with a
journal of how far it has come: a killed preparation goes on from there, and ends with the same bytes.
"""

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from skipless.data.text.bpe import bpe_vocabulary, train_bpe
from skipless.data.text.config import TextConfig
from skipless.data.text.prepared import FORMAT, RECORD, TextData, open_text, read_record
from skipless.data.text.source import TextSource, find_text
from skipless.data.text.split_writer import PAIRS
from skipless.data.text.tokenizer import TOKENIZER_FILE, FileTokenizer, Tokenizer, load_tokenizer
from skipless.data.text.writing import PARTIAL, Preparation
from skipless.errors import InputError
from skipless.progress import progress_bar

Progress = Callable[[int, int], None]


def prepare_text(
    config: TextConfig, out: Path | str, *, remake: bool = False, progress: Progress | None = None
) -> TextData:
    """Tokenise the text of a config into a folder, or open it if that was done.

    Args:
        config: which text, and by which tokenizer; its context does not matter.
        out: the folder.
        remake: whether a folder of other text, or of files that have changed since, is made anew.
        progress: called with the files read and the number of all files; by default a bar on standard error.

    Raises:
        InputError: if a document cannot be read; if a split has no document; if the folder holds other text, and
            `remake` is not set; if it cannot be written.

    Example:
        >>> from tempfile import mkdtemp
        >>> data = prepare_text(TextConfig("pydoc"), mkdtemp() + "/pydoc")
        >>> data.train.ids.dtype, int(data.train.ids[0]), int(data.train.ids[-1]) == data.end
        (dtype('uint16'), 256, True)
    """
    out = Path(out).expanduser()
    source = find_text(config)
    identity = _identity(config, source)
    if _is_ready(out, identity, remake):
        return open_text(out)
    with _written_alone(out):
        if not _is_ready(out, identity, remake):
            (out / RECORD).unlink(missing_ok=True)
            with progress_bar("text", "files", show=progress is None, after=2.0) as shown:
                tokenizer = _tokenizer(config, source, out / PARTIAL)
                work = Preparation(source, tokenizer, config.validation, out / PARTIAL, identity)
                work.run(progress or shown)
                _publish(out, tokenizer)
    return open_text(out)


def asked_identity(config: TextConfig) -> dict[str, Any]:
    """What decides the tokens of a config, as JSON."""
    return _identity(config, find_text(config))


def _tokenizer(config: TextConfig, source: TextSource, partial: Path) -> Tokenizer:
    """The tokenizer of a config; a BPE of the text's own is trained first."""
    if (vocabulary := bpe_vocabulary(config.tokenizer)) is None:
        return load_tokenizer(config.tokenizer, config.end_token)
    if config.end_token is not None:
        raise InputError(f"end_token {config.end_token!r}: {config.tokenizer} has an end of its own; leave it out")
    return train_bpe(source, config.validation, vocabulary, partial / TOKENIZER_FILE)


def _identity(config: TextConfig, source: TextSource) -> dict[str, Any]:
    own = bpe_vocabulary(config.tokenizer) is not None
    return {
        "format": FORMAT,
        "files": source.states(),
        "tokenizer": config.tokenizer if own else load_tokenizer(config.tokenizer, config.end_token).sha256,
        "validation": config.validation,
        "field": source.field,
        "documents": source.parts,
    }


def _is_ready(out: Path, identity: dict[str, Any], remake: bool) -> bool:
    """Whether the folder holds what is asked for; what else it holds is refused, unless it is to be made anew."""
    about = read_record(out)
    if about is None or about.get("asked") == identity:
        return about is not None
    before = about.get("asked") or {}
    changed = ", ".join(name for name, value in identity.items() if before.get(name) != value)
    if not remake:
        raise InputError(
            f"{str(out)!r} holds text of {about.get('source')!r} whose {changed} differ from what is asked for now; "
            "give another --out, or remove the folder to make it anew"
        )
    return False


@contextmanager
def _written_alone(out: Path) -> Iterator[None]:
    """Write to a folder as the only process; others wait for it. Errors of the disk are the user's."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with (out / ".lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"another process prepares {str(out)!r}: waiting for it", file=sys.stderr, flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise InputError(
            f"cannot write to {str(out)!r} ({error}); make room there or choose another --out; the same command goes on"
        ) from error


def _publish(out: Path, tokenizer: Tokenizer) -> None:
    """Move what is whole out of `.partial`, the record last. It can be cut off and done again."""
    partial = out / PARTIAL
    if isinstance(tokenizer, FileTokenizer):
        shutil.copyfile(tokenizer.file, out / TOKENIZER_FILE)
    for name in ("train", "val"):
        if (partial / name).is_dir():
            (partial / name / PAIRS).unlink(missing_ok=True)
            shutil.rmtree(out / name, ignore_errors=True)
            os.replace(partial / name, out / name)
    os.replace(partial / RECORD, out / RECORD)
    shutil.rmtree(partial)
