"""`skipless data text`: what it prints, and how the printed folder serves as data."""

from pathlib import Path

import pytest
from reference.command import skipless
from reference.text_files import DOCUMENTS, write_lines_file, write_tokenizer


def test_it_tokenises_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_lines_file(tmp_path / "a.jsonl.gz", field="content")
    words = [
        "data",
        "text",
        "--data",
        str(file),
        "--field",
        "content",
        "--validation",
        "0.3",
        "--out",
        str(tmp_path / "t"),
    ]
    code, out, _ = skipless(capsys, *words)
    assert code == 0
    assert f"{tmp_path / 't'}: made" in out
    assert "unigram entropy, nats" in out
    counts = [line.split() for line in out.splitlines() if line.startswith(("training", "validation"))]
    assert sum(int(row[1]) for row in counts) == len(DOCUMENTS)
    assert sum(int(row[3].replace(",", "")) for row in counts) == sum(len(text.encode()) for text in DOCUMENTS)
    code, again, _ = skipless(capsys, *words)
    assert (code, again) == (0, out.replace("made", "already there"))


def test_a_tokenizer_file_and_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_lines_file(tmp_path / "a.jsonl")
    tokenizer = write_tokenizer(tmp_path / "t/tokenizer.json", specials=("<stop>",))
    words = ["data", "text", "--data", str(file), "--tokenizer", str(tokenizer), "--out", str(tmp_path / "out")]
    code, _, err = skipless(capsys, *words)
    assert code == 2
    assert "name one of its tokens by --end-token" in err
    code, out, _ = skipless(capsys, *words, "--end-token", "<stop>", "--validation", "0.3")
    assert code == 0
    assert "vocabulary 2" in out


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'{"text": "a"}\n{"t', "a.jsonl:2 is no JSON"), (b'{"body": "a"}', "name the text's by --field")],
)
def test_faults_are_one_line(content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    code, out, err = skipless(capsys, "data", "text", "--data", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "t"))
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
