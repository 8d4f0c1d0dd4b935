"""The same documents in every layout, and a tokenizer file."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reference.tiny_language import sentence

DOCUMENTS = tuple(sentence(i, words=3 + i % 9) for i in range(40))


def write_lines_file(file: Path, texts: Sequence[str] = DOCUMENTS, field: str = "text") -> Path:
    """JSON lines, gzipped where the name says so; C4's have more fields."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(
        json.dumps({field: text, "url": f"https://example.com/{i}"}) + "\n" for i, text in enumerate(texts)
    )
    file.write_bytes(gzip.compress(content.encode()) if file.suffix == ".gz" else content.encode())
    return file


def write_parquet(file: Path, texts: Sequence[str | None] = DOCUMENTS, field: str = "text") -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table({"url": list(range(len(texts))), field: list(texts)}), file, row_group_size=7)
    return file


def write_saved(folder: Path, texts: Sequence[str] = DOCUMENTS) -> Path:
    """What `datasets` writes in `save_to_disk`: two Arrow streams, listed in `state.json`, and JSON beside them."""
    import pyarrow as pa

    folder.mkdir(parents=True, exist_ok=True)
    half = len(texts) // 2
    names = [f"data-{i:05}-of-00002.arrow" for i in range(2)]
    for name, part in zip(names, (texts[:half], texts[half:]), strict=True):
        table = pa.table({"text": list(part)})
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=6)
    (folder / "cache-1234.arrow").write_bytes(b"none of its data")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def write_tokenizer(
    file: Path, *, vocabulary: int = 300, specials: Sequence[str] = ("<|endoftext|>",), **kind: Any
) -> Path:
    """A byte-level BPE as a `tokenizer.json`; of other kinds, words with `unknown`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    file.parent.mkdir(parents=True, exist_ok=True)
    if kind.get("words"):
        tokenizer: Any = Tokenizer(models.WordLevel(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer: Any = trainers.WordLevelTrainer(vocab_size=8, special_tokens=["[UNK]", *specials])
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=list(specials), show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )  # fmt: skip
    tokenizer.train_from_iterator(DOCUMENTS, trainer)
    if kind.get("cuts"):
        tokenizer.enable_truncation(4)
        tokenizer.enable_padding(length=6)
    tokenizer.save(str(file))
    return file
