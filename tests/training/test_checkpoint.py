import errno
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from reference.tiny_run import STEPS, same, tensors, tiny_task, train
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from skipless.errors import InputError
from skipless.training import load_weights, save_weights
from skipless.training.run_folder import atomic as files, checkpoint
from skipless.training.run_folder.checkpoint import CHECKPOINT, PREVIOUS, load_checkpoint, save_checkpoint
from skipless.training.run_folder.folder import RunFolder
from skipless.training.run_folder.serialization import join_tensors, split_tensors

STATE: dict[str, Any] = {
    "step": 3,
    "rate": 0.1,
    "infinite": float("inf"),
    "nothing": None,
    "flag": True,
    "pair": (1, [2.5, "three"]),
    "state": {0: {"moment": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)), "Q": [torch.eye(2), None]}},
    "dtypes": [torch.tensor([1, -2], dtype=torch.bfloat16), torch.tensor(7), torch.tensor([True]), torch.zeros(0, 3)],
}


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=True)
        return type(one) is type(other) and len(one) == len(other) and all(equal(a, b) for a, b in pairs)
    return type(one) is type(other) and one == other


def test_any_state_comes_back_with_its_types(tmp_path: Path) -> None:
    assert equal(load_checkpoint(save_checkpoint(tmp_path, STATE)), STATE)


def test_what_was_read_does_not_change_with_the_file(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, {"x": torch.arange(1000.0)})
    state = load_checkpoint(path)
    path.write_bytes(bytes(path.stat().st_size))  # in place: a view of the file would follow
    assert torch.equal(state["x"], torch.arange(1000.0))


def test_keys_that_look_like_marks_come_back() -> None:
    tricky = {"@tensor": "x", "plain": {"@tuple": [1], "": 2, 3: {}}}
    assert join_tensors(*split_tensors(tricky)) == tricky


def test_state_that_cannot_be_saved_is_no_secret() -> None:
    with pytest.raises(TypeError, match="optimizer/state/0/rule holds a function"):
        split_tensors({"optimizer": {"state": {0: {"rule": equal}}}})


@pytest.mark.parametrize("optimizer", ["AdamW", "SOAP"])
def test_optimizers_come_back_bit_for_bit(optimizer: str, tmp_path: Path) -> None:
    train(tmp_path, optimizer)
    state = load_checkpoint(tmp_path / CHECKPOINT)
    assert equal(join_tensors(*split_tensors(state["optimizer"])), state["optimizer"])
    assert state["optimizer"]["state"]
    assert state["step"] == STEPS


def test_aliases_and_views_are_saved(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    state = {"tied": [base, base], "view": base[1:], "transposed": base.t()}
    assert equal(load_checkpoint(save_checkpoint(tmp_path, state)), state)


def test_the_one_before_is_kept(tmp_path: Path) -> None:
    for step in range(3):
        save_checkpoint(tmp_path, {"step": step})
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([CHECKPOINT, PREVIOUS])
    assert [load_checkpoint(tmp_path / name)["step"] for name in (CHECKPOINT, PREVIOUS)] == [2, 1]


def damage(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    elif how == "flipped tensor":
        content[-5] ^= 1
    elif how == "flipped state":
        content = content.replace(b'\\"step\\": ', b'\\"step\\":1')
    elif how == "empty":
        content = bytearray()
    file.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "flipped tensor", "flipped state", "empty"])
def test_a_damaged_checkpoint_is_named_and_the_previous_one_serves(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path)
    before = tensors(tmp_path)
    (tmp_path / "result.json").unlink()
    damage(tmp_path / CHECKPOINT, how)
    with pytest.raises(InputError, match=rf"'.*{CHECKPOINT}' is corrupt.*put {PREVIOUS} in its place"):
        load_checkpoint(tmp_path / CHECKPOINT)
    train(tmp_path, progress="lines")
    assert f"Going on from {PREVIOUS}. resumed at step 12 of 15" in capsys.readouterr().err
    assert same(tensors(tmp_path), before)
    (tmp_path / "result.json").unlink()
    damage(tmp_path / CHECKPOINT, how)
    (tmp_path / PREVIOUS).write_bytes(b"")
    with pytest.raises(InputError, match=f"'.*{PREVIOUS}' is corrupt"):
        train(tmp_path)


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / CHECKPOINT)
    with pytest.raises(InputError, match="is no checkpoint of this version"):
        load_checkpoint(tmp_path / CHECKPOINT)


def full_disk(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_loses_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fills_up(values: dict, path: Path, metadata: dict) -> None:
        path.write_bytes(bytes(2_000_000))
        full_disk()

    calls, original = 0, checkpoint.save_file

    def second_fails(values: dict, path: Path, metadata: dict) -> None:
        nonlocal calls
        calls += 1
        (fills_up if calls == 2 else original)(values, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", second_fails)
    message = (
        r"cannot write '.*checkpoint.safetensors' \(.*No space left.*; 2.0 MB written, \d+.\d MB free\); make room"
    )
    with pytest.raises(InputError, match=message):
        train(tmp_path)
    assert load_checkpoint(tmp_path / CHECKPOINT)["step"] == 4
    assert not list(tmp_path.glob(".*.tmp"))
    assert train(tmp_path).steps == STEPS


def test_an_error_of_safetensors_is_told_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", fails)
    with pytest.raises(InputError, match=r"cannot write '.*checkpoint.safetensors' \(I/O error: No space left"):
        save_checkpoint(tmp_path, {"x": torch.zeros(1)})


@pytest.mark.parametrize("room", [0, 5])
def test_a_disk_that_fills_up_elsewhere_is_told_too(room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.FileIO):
        def write(self, text: object) -> int:
            return room or full_disk()

    with RunFolder(tmp_path) as folder, Full(tmp_path / "full", "wb") as full:
        monkeypatch.setitem(folder._logs, "metrics.jsonl", full)
        with pytest.raises(InputError, match=r"cannot write '.*metrics.jsonl' \(.*No space left"):
            folder.log({"step": 1})
        monkeypatch.setattr(files.os, "fsync", full_disk)
        with pytest.raises(InputError, match=r"cannot write '.*run.json'"):
            folder.write("run.json", {})
    assert not (tmp_path / "run.json").exists()


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot use '.*file/run' as a run folder"):
        train(tmp_path / "file" / "run")


def test_a_lock_is_free_again_though_a_forked_worker_lives_on(tmp_path: Path) -> None:
    (parent_reads, child_writes), (child_reads, parent_writes) = os.pipe(), os.pipe()
    with RunFolder(tmp_path):
        child = os.fork()
        if child == 0:
            os.close(parent_writes)
            os.write(child_writes, b"forked")
            os.read(child_reads, 1)  # until the parent is done
            os._exit(0)
        os.read(parent_reads, 6)
    try:
        with RunFolder(tmp_path), pytest.raises(InputError, match="another process"), RunFolder(tmp_path):
            raise AssertionError("locked twice")
    finally:
        for descriptor in (parent_reads, child_writes, child_reads, parent_writes):
            os.close(descriptor)
        os.waitpid(child, 0)


def test_records_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"status": ')
    with pytest.raises(InputError, match=r"'.*result.json' is not readable JSON"):
        train(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(folder)
    return folder


def test_weights_come_from_a_run_a_checkpoint_or_a_file(run: Path, tmp_path: Path) -> None:
    trained = {
        name.removeprefix("task/model."): value for name, value in tensors(run).items() if name.startswith("task/")
    }
    plain = save_weights(load_weights(tiny_task().model, run), tmp_path / "new" / "plain.safetensors")
    assert same(load_file(plain), trained)
    for source in (run, str(run / CHECKPOINT), plain):
        model = tiny_task().model
        assert load_weights(model, source) is model
        assert same(model.state_dict(), trained)


def test_weights_of_another_model_are_refused_and_change_nothing(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"of another model \(of another shape: cls_token \(1, 1, 16\) instead of"):
        load_weights(tiny_task(dim=32).model, run)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_file(
        {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2), "head": torch.ones(1)}, tmp_path / "a.safetensors"
    )
    with pytest.raises(InputError, match=r"\(missing: 1.weight, 1.bias; unexpected: head\); build the model"):
        load_weights(model, tmp_path / "a.safetensors")
    assert same(model.state_dict(), before)


def test_weights_that_cannot_be_read_are_refused(run: Path, tmp_path: Path) -> None:
    model = tiny_task().model
    with pytest.raises(InputError, match=r"no weights at '.*nowhere'; give a run folder"):
        load_weights(model, tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no weights at '.*checkpoint.safetensors'"):
        load_weights(model, tmp_path)
    (tmp_path / "model.pth").write_bytes(b"")
    with pytest.raises(InputError, match=r"'.*model.pth' is no .safetensors file"):
        load_weights(model, tmp_path / "model.pth")
    for how in ("cut", "flipped tensor"):
        shutil.copy(run / CHECKPOINT, tmp_path / CHECKPOINT)
        damage(tmp_path / CHECKPOINT, how)
        with pytest.raises(InputError, match="corrupt"):
            load_weights(model, tmp_path)


def test_permissions_are_the_usual_ones(run: Path) -> None:
    modes = {file.stat().st_mode for file in run.iterdir() if file.name != ".lock"}
    assert len(modes) == 1
    assert json.loads((run / "result.json").read_text())["steps"] == STEPS


def test_a_folder_that_vanished_is_one_clear_line(tmp_path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        save_checkpoint(tmp_path / "gone", {"step": 1})


def test_equal_weights_and_notes_make_equal_files(tmp_path) -> None:
    """Evaluations are kept by the bytes of the file that they are of."""
    model = torch.nn.Linear(3, 2)
    note = {"skipless": json.dumps({"model": "größe", "kwargs": {"a": [1, 2]}}), "zoo": "1", "alpha": "2"}
    files = [save_weights(model, tmp_path / f"{i}.safetensors", note=note) for i in range(12)]
    assert len({file.read_bytes() for file in files}) == 1
    with safe_open(files[0], framework="pt") as opened:
        assert opened.metadata() == {"format": "pt", **note}
        assert torch.equal(opened.get_tensor("weight"), model.weight)
