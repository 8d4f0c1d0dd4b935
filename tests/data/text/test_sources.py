"""Every layout gives the same documents, and whatever cannot be read is named with its place and a remedy."""

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from reference.text_files import (
    DOCUMENTS,
    write_lines_file,
    write_parquet,
    write_saved,
    write_tokenizer,
)

from skipless.choices import Documents
from skipless.data.text import TextConfig, TextData, load_tokenizer, prepare_text
from skipless.data.text.source import find_text
from skipless.errors import InputError

Write = Callable[[Path], object]


def texts(data: TextData) -> set[str]:
    return {
        data.tokenizer.decode(split.document(i).tolist())
        for split in (data.train, data.val)
        for i in range(split.documents)
    }


def _text_files(folder: Path) -> None:
    folder.mkdir()
    for i, text in enumerate(DOCUMENTS):
        (folder / f"{i:03}.txt").write_bytes(text.encode("utf-16" if i % 2 else "utf-8-sig"))


def _halves(folder: Path) -> None:
    write_lines_file(folder / "en/c4.00000-of-00002.json.gz", DOCUMENTS[:20])
    write_lines_file(folder / "en/c4.00001-of-00002.json.gz", DOCUMENTS[20:])
    (folder / "README.md").write_text("# none of it")
    (folder / "tokenizer.json").write_text("{}")
    (folder / ".hidden.jsonl").write_text("{")


LAYOUTS: dict[str, Write] = {
    "text": _text_files,
    "c4": _halves,
    "jsonl": lambda folder: write_lines_file(folder / "a.jsonl"),
    "parquet": lambda folder: (
        write_parquet(folder / "0.parquet", DOCUMENTS[:20]), write_parquet(folder / "1.parquet", DOCUMENTS[20:])
    ),
    "save_to_disk": write_saved,
    "paragraphs": lambda folder: (folder.mkdir(), (folder / "a.md").write_text("\n \n\n".join(DOCUMENTS))),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_documents(layout: str, tmp_path: Path) -> None:
    LAYOUTS[layout](tmp_path / "data")
    data = prepare_text(TextConfig(str(tmp_path / "data"), validation=0.3), tmp_path / "out")
    assert texts(data) == set(DOCUMENTS)
    assert data.val.documents


def test_patterns_and_braces_name_files(tmp_path: Path) -> None:
    _halves(tmp_path / "c4")
    for pattern in ("c4/en/*.json.gz", "c4/en/c4.{00000..00001}-of-00002.json.gz"):
        source = find_text(TextConfig(str(tmp_path / pattern)))
        assert [file.file.name for file in source.files] == [f"c4.0000{i}-of-00002.json.gz" for i in (0, 1)]
    with pytest.raises(InputError, match=r"no text .*\(1 of 3 files are missing, .*c4.00002-of"):
        find_text(TextConfig(str(tmp_path / "c4/en/c4.{00000..00002}-of-00002.json.gz")))


@pytest.mark.parametrize(
    ("names", "train", "val"),
    [
        (("c4-train.0.jsonl", "c4-train.1.jsonl", "c4-validation.0.jsonl", "c4-test.jsonl"), 2, 1),
        (("train/0.jsonl", "val/0.jsonl", "test/0.jsonl"), 1, 1),
        (("a.jsonl", "b.jsonl", "val.jsonl"), 2, 1),
    ],
)
def test_files_are_named_for_splits(names: tuple[str, ...], train: int, val: int, tmp_path: Path) -> None:
    for i, name in enumerate(names):
        write_lines_file(tmp_path / "data" / name, DOCUMENTS[5 * i : 5 * i + 5])
    data = prepare_text(TextConfig(str(tmp_path / "data")), tmp_path / "out")
    assert (data.train.documents, data.val.documents) == (5 * train, 5 * val)


def test_files_for_a_test_are_not_trained_on(tmp_path: Path) -> None:
    write_lines_file(tmp_path / "data/train.jsonl", DOCUMENTS[:30])
    write_lines_file(tmp_path / "data/test.jsonl", DOCUMENTS[30:])
    data = prepare_text(TextConfig(str(tmp_path / "data"), validation=0.3), tmp_path / "out")
    assert texts(data) == set(DOCUMENTS[:30])
    assert data.val.documents


def test_a_text_file_falls_into_what_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one\ntwo\n\n\nthree\nfour\n\n" + "\n\n".join(DOCUMENTS))
    hows: tuple[Documents, ...] = ("auto", "line", "file")
    found = {how: find_text(TextConfig(str(file), documents=how)).read(0) for how in hows}
    parts = {how: [one.text for one in documents] for how, documents in found.items()}
    assert parts["auto"][:2] == ["one\ntwo", "three\nfour"]
    assert parts["line"][:4] == ["one", "two", "three", "four"]
    assert parts["file"] == [file.read_text()]
    places = [one.place for one in find_text(TextConfig(str(file))).read(0)]
    assert places[:3] == [f"{file}:1", f"{file}:5", f"{file}:8"]


def _bytes(name: str, content: bytes) -> Write:
    return lambda folder: (folder.mkdir(), (folder / name).write_bytes(content))


GOOD = json.dumps({"text": DOCUMENTS[0]}).encode() + b"\n"
FAULTS: dict[str, tuple[Write, str]] = {
    "latin-1": (_bytes("a.txt", b"one\ntwo\ncaf\xe9\n"), r"a.txt:3 is not UTF-8 \(byte 0xe9.*iconv -f latin1 -t utf-8"),
    "latin-1 in JSON": (_bytes("a.jsonl", GOOD + b'{"text": "\xe9"}\n'), r"a.jsonl:2 is not UTF-8 \(byte 0xe9"),
    "broken JSON": (_bytes("a.jsonl", GOOD + GOOD + b'{"text": "a\n'), r"a.jsonl:3 is no JSON .*repair it"),
    "a list": (_bytes("a.json", b'[{"text": "a"}]'), r"a.json:1 is JSON of a list, not an object; .*jq -c"),
    "no field": (
        _bytes("a.jsonl", GOOD + b'{"texts": "a", "id": 1}\n'),
        r"a.jsonl:2 has no field 'text'; did you mean texts\? it has 'texts', 'id'; name the text's by --field",
    ),
    "a number": (_bytes("a.jsonl", GOOD + b'{"text": 1}\n'), r"a.jsonl:2: field 'text' is a int, not text"),
    "half a pair": (_bytes("a.jsonl", GOOD + b'{"text": "\\ud800"}\n'), r"a.jsonl:2: .* no text that UTF-8 can hold"),
    "cut off gzip": (_bytes("a.jsonl.gz", gzip.compress(GOOD * 50)[:-9]), r"a.jsonl.gz' cannot be read to its end"),
    "no gzip": (_bytes("a.jsonl.gz", GOOD), r"a.jsonl.gz' cannot be read to its end \(Not a gzipped file"),
    "no Parquet": (_bytes("a.parquet", b"none"), r"a.parquet' cannot be read \(.*fetch it again"),
    "no column": (
        lambda folder: write_parquet(folder / "a.parquet", field="content"),
        r"a.parquet has no field 'text'; .*it has 'url', 'content'",
    ),
    "no Arrow": (_bytes("a.arrow", b"nothing of it at all"), r"a.arrow' cannot be read"),
    "nothing": (_bytes("a.jsonl", b'{"text": " "}\n{"text": ""}\n'), r"has no text in any of its documents"),
    "no file": (_bytes("a.png", b""), r"no text in '.*data' \(looked for .arrow, .parquet"),
    "one document": (_bytes("a.jsonl", GOOD), r"none of the 1 documents of .* is for (validation|training)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_read_is_named(fault: str, tmp_path: Path) -> None:
    write, message = FAULTS[fault]
    write(tmp_path / "data")
    with pytest.raises(InputError, match=message) as caught:
        prepare_text(TextConfig(str(tmp_path / "data")), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out/text.json").exists()


def test_empty_documents_are_left_out_and_counted(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", [DOCUMENTS[0], None, "", " \n", *DOCUMENTS])
    data = prepare_text(TextConfig(str(file), validation=0.3), tmp_path / "out")
    assert data.empty == 3
    assert f"3 documents without text were left out, {file}, row 2 first" in str(data)


@pytest.mark.parametrize(("given", "message"), [
    ("pydocs", "no text 'pydocs': did you mean pydoc?"),
    ("no/such/folder", "nor a file, folder or pattern that exists"),
])  # fmt: skip
def test_names_that_stand_for_nothing(given: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_text(TextConfig(given))


@pytest.mark.parametrize(
    ("field", "message"),
    [({"context": 0}, "context 0 is too short"), ({"validation": 1.0}, "validation 1.0 is no share")],
)
def test_configs_that_make_no_sense(field: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TextConfig(**field)


def test_a_tokenizer_neither_cuts_nor_pads_nor_takes_text_for_a_special_token(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(write_tokenizer(tmp_path / "tokenizer.json", cuts=True)))
    text = "the cat <|endoftext|> sat on a mat and ran over the hills " * 3
    (ids,) = tokenizer.encode([text])
    assert tokenizer.end not in ids
    assert tokenizer.decode([*ids.tolist(), tokenizer.end]) == text
    assert [len(each) for each in tokenizer.encode(["a", "a" * 50])][1] > 6


def test_the_end_of_documents_is_found_or_asked_for(tmp_path: Path) -> None:
    file = write_tokenizer(tmp_path / "tokenizer.json", specials=("<stop>", "</s>", "<fin>"))
    assert load_tokenizer(str(tmp_path)).end == 1
    assert load_tokenizer(str(file), "<fin>").end == 2
    hashes = {load_tokenizer(str(file), name).sha256 for name in (None, "<fin>")}
    assert len(hashes) == 2
    for stated in ("<stop>", {"content": "<stop>"}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": stated}))
        assert load_tokenizer(str(file)).end == 0
    with pytest.raises(InputError, match="has no token '<fim>' to end documents; did you mean <fin>"):
        load_tokenizer(str(file), "<fim>")
    bare = write_tokenizer(tmp_path / "bare/tokenizer.json", specials=())
    with pytest.raises(InputError, match="does not say which token ends a document .*--end-token"):
        load_tokenizer(str(bare))
    with pytest.raises(InputError, match="byte tokenizer has an end of its own"):
        load_tokenizer("bytes", "<fin>")


@pytest.mark.parametrize(("content", "message"), [(b"{", "is no tokenizer file"), (b"{}", "is no tokenizer file")])
def test_files_that_are_no_tokenizers(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_tokenizer(str(tmp_path))
    with pytest.raises(InputError, match="no tokenizer 'byte': did you mean bytes"):
        load_tokenizer("byte")


def test_tokens_for_what_cannot_be_expressed_are_counted(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path / "t/tokenizer.json", words=True)
    config = TextConfig(str(write_lines_file(tmp_path / "a.jsonl")), str(tokenizer), validation=0.3)
    data = prepare_text(config, tmp_path / "out")
    unknown = data.tokenizer.unknown
    assert data.unknown == sum(int((split.ids == unknown).sum()) for split in (data.train, data.val)) > 0
    assert "cannot express: bits per byte are too low" in str(data)


@pytest.mark.parametrize(("module", "given"), [("tokenizers", "tokenizer"), ("pyarrow", "data")])
def test_missing_libraries_say_how_they_are_installed(
    module: str, given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_parquet(tmp_path / "a.parquet")
    tokenizer = str(write_tokenizer(tmp_path / "t/tokenizer.json")) if given == "tokenizer" else None
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"is read by {module}: pip install '{module}>="):
        prepare_text(TextConfig(str(file), tokenizer), tmp_path / "out")
