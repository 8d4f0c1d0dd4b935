"""A preparation that is killed, shared or repeated ends with the bytes of an undisturbed one."""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from reference.text_files import DOCUMENTS, write_lines_file, write_tokenizer
from reference.tiny_run import die, killed

from skipless.data.text import TextConfig, load_text, prepare_text, split_writer, writing
from skipless.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TextConfig:
    monkeypatch.setattr(writing, "JOURNAL_BYTES", 150)
    monkeypatch.setattr(writing, "_BATCH_DOCUMENTS", 3)
    for i in range(4):
        write_lines_file(tmp_path / f"data/{i}.jsonl", DOCUMENTS[10 * i : 10 * i + 10])
    return TextConfig(str(tmp_path / "data"), validation=0.3)


def dying(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, call: int, *, after: bool) -> None:
    function: Callable[..., object] = getattr(owner, name)
    calls = 0

    def wrapped(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            die()
        result = function(*args, **kwargs)
        if calls == call:
            die()
        return result

    monkeypatch.setattr(owner, name, wrapped)


MOMENTS = [
    *((writing, "_write_json", call, after) for call in (1, 2, 5, 7) for after in (False, True)),
    *((split_writer.SplitWriter, "add", call, False) for call in (1, 7, 23, 40)),
    *((split_writer.SplitWriter, "finish", call, after) for call in (1, 2) for after in (False, True)),
    *((os, "replace", call, after) for call in (3, 8) for after in (False, True)),
]  # fmt: skip


@pytest.mark.parametrize("moment", range(len(MOMENTS)))
def test_killed_anywhere_it_ends_where_it_would_have(moment: int, config: TextConfig, tmp_path: Path) -> None:
    owner, name, call, after = MOMENTS[moment]
    expected = prepare_text(config, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        dying(patch, owner, name, call, after=after)
        killed(lambda: prepare_text(config, tmp_path / "out"))
    data = prepare_text(config, tmp_path / "out")
    assert data.identity == expected.identity
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.parametrize("last", range(1, 4))
def test_killed_while_it_is_moved_into_place(last: int, config: TextConfig, tmp_path: Path) -> None:
    expected = prepare_text(config, tmp_path / "whole")
    moves = 0
    replace = os.replace

    def moved(source: Path, target: Path) -> None:
        nonlocal moves
        replace(source, target)
        moves += Path(source).name in ("train", "val", "text.json")
        if moves == last:
            die()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", moved)
        killed(lambda: prepare_text(config, tmp_path / "out"))
    assert prepare_text(config, tmp_path / "out").identity == expected.identity
    named = {name for name in files(tmp_path / "out") if not name.startswith(".partial")}
    assert named == set(files(tmp_path / "whole"))


def test_a_killed_one_goes_on_and_does_not_start_again(config: TextConfig, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        dying(patch, split_writer.SplitWriter, "add", 35, after=False)
        killed(lambda: prepare_text(config, tmp_path / "out"))
    added = []
    add = split_writer.SplitWriter.add
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split_writer.SplitWriter, "add", lambda *given: (added.append(given), add(*given)))
        prepare_text(config, tmp_path / "out")
    assert 5 <= len(added) < 20


def test_a_journal_of_what_is_gone_is_of_no_use(config: TextConfig, tmp_path: Path) -> None:
    expected = prepare_text(config, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        dying(patch, split_writer.SplitWriter, "add", 35, after=False)
        killed(lambda: prepare_text(config, tmp_path / "out"))
    (tmp_path / "out/.partial/train/tokens.bin").write_bytes(b"")
    assert prepare_text(config, tmp_path / "out").identity == expected.identity
    (tmp_path / "out/text.json").unlink()
    assert prepare_text(config, tmp_path / "out").identity == expected.identity


def test_several_processes_prepare_one_folder(config: TextConfig, tmp_path: Path) -> None:
    expected = prepare_text(config, tmp_path / "whole")
    add = split_writer.SplitWriter.add

    def slowly(*given: object) -> None:
        time.sleep(0.002)
        add(*given)  # pyright: ignore[reportArgumentType]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split_writer.SplitWriter, "add", slowly)
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=prepare_text, args=(config, tmp_path / "out")) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert prepare_text(config, tmp_path / "out").identity == expected.identity


def test_changed_files_and_tokenizers_are_noticed(config: TextConfig, tmp_path: Path) -> None:
    made = prepare_text(config, tmp_path / "out")
    before = files(tmp_path / "out")
    tokenizer = str(write_tokenizer(tmp_path / "t/tokenizer.json"))
    for changed, what in ((TextConfig(config.data, tokenizer, validation=0.3), "tokenizer"),
                          (TextConfig(config.data, validation=0.4), "validation")):  # fmt: skip
        with pytest.raises(InputError, match=f"whose {what} differ from what is asked for now; give another --out"):
            prepare_text(changed, tmp_path / "out")
    write_lines_file(tmp_path / "data/1.jsonl", [*DOCUMENTS[10:20], "and one more"])
    with pytest.raises(InputError, match="whose files differ"):
        prepare_text(config, tmp_path / "out")
    assert files(tmp_path / "out") == before
    assert prepare_text(config, tmp_path / "out", remake=True).identity != made.identity


def test_the_cache_is_made_anew_where_files_have_changed(config: TextConfig, tmp_path: Path) -> None:
    first = load_text(config, cache=tmp_path / "cache")
    os.utime(tmp_path / "data/1.jsonl", (1, 1))
    touched = load_text(config, cache=tmp_path / "cache")
    assert touched.identity == first.identity
    write_lines_file(tmp_path / "data/1.jsonl", DOCUMENTS[10:19])
    assert load_text(config, cache=tmp_path / "cache").identity != first.identity
    assert len([place for place in (tmp_path / "cache").iterdir() if place.is_dir()]) == 1
    other = TextConfig(config.data, validation=0.3, documents="line")
    load_text(other, cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_named(config: TextConfig, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match=r"cannot write to '.*out' .*choose another --out"):
        prepare_text(config, tmp_path / "out")
