"""What a person types, and what they read."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from reference.command import every_command, skipless
from reference.tiny_images import images
from safetensors.torch import load_file

from skipless import cli
from skipless.recipes import open_file

TINY = ["--epochs", "1", "--device", "cpu", "--progress", "none"]
FEW = [*TINY, "--batch-size", "512"]  # two steps of digits


def test_train_resumes_and_eval_agrees(capsys, tmp_path) -> None:
    out = tmp_path / "s1"
    command = ("train", "table1", "--data", "digits", "--no-skip", "--optimizer", "soap", "--out", str(out), *TINY)
    code, printed, _ = skipless(capsys, *command)
    assert code == 0
    assert "43 steps" in printed
    result = json.loads((out / "result.json").read_text())
    code, printed, _ = skipless(capsys, "eval", str(out), "top1")
    assert code == 0
    assert f"top1 {result['top1']:.5g}" in printed
    record = json.loads((out / "run.json").read_text())
    assert record["recipe"]["model"]["init"]["beta"] == 2.5
    assert skipless(capsys, *command)[0] == 0


@pytest.mark.slow
def test_classes_are_known_by_their_names(capsys, tmp_path) -> None:
    """A run tells red from blue; folders of the same pictures name, order or lack the classes otherwise."""
    own, swapped, one, other = (images(tmp_path / name, train=40) for name in ("own", "swapped", "one", "other"))
    out = tmp_path / "run"
    command = ("train", "scenes", "--data", str(own), "--out", str(out), *TINY, "--epochs", "4", "--batch-size", "8")
    code, printed, told = skipless(capsys, *command)
    assert code == 0, told
    assert json.loads((out / "run.json").read_text())["classes"] == ["class0", "class1"]
    (top1,) = re.findall(r"top1 \S+", printed)
    assert top1 != "top1 50"
    for split in ("train", "val"):
        (swapped / split / "class0").rename(swapped / split / "class2")  # the last now, and strange
        shutil.rmtree(one / split / "class0")
        (other / split / "class0").rename(other / split / "zebra")
        (other / split / "class1").rename(other / split / "class0")
        (other / split / "zebra").rename(other / split / "class1")
    assert top1 in skipless(capsys, "eval", str(out), "top1")[1]
    code, printed, _ = skipless(capsys, "eval", str(out), "top1", "--data", str(one))
    assert (code, "n 4" in printed) == (0, True)
    right = float(re.findall(r"top1 (\S+)", skipless(capsys, "eval", str(out), "top1", "--data", str(other))[1])[0])
    assert right == pytest.approx(100 - float(top1.split()[1]))
    code, _, told = skipless(capsys, "eval", str(out), "top1", "--data", str(swapped))
    assert code == 2
    assert "1 of the data's 2 classes (first: 'class2') are none of the 2 that the model has learned" in told
    shutil.rmtree(own)
    shutil.copytree(swapped, own)
    code, _, told = skipless(capsys, *command)
    assert code == 2
    assert "was trained on 2 classes ('class0' to 'class1')" in told
    (out / "checkpoint.safetensors").unlink()
    (out / "checkpoint-previous.safetensors").unlink(missing_ok=True)
    (out / "result.json").unlink()
    assert skipless(capsys, *command)[0] == 0  # nothing is left that had learned the others


def test_flags_reach_the_recipe(monkeypatch, tmp_path) -> None:
    seen = []

    class Enough(Exception):
        pass

    def run(recipe, out):
        seen.append(recipe)
        raise Enough

    monkeypatch.setattr("skipless.recipes.run", run)
    for flags in (["--skip"], ["--no-init"], ["--alpha", "0.5", "--c", "1", "--lr", "0.1"]):
        with pytest.raises(Enough):
            cli.main(["train", "table1", "--out", str(tmp_path), *flags])
    skip, bare, tuned = seen
    assert skip.model.skip
    assert skip.model.init is None
    assert not bare.model.skip
    assert bare.model.init is None
    assert (tuned.model.init.alpha, tuned.model.init.beta, tuned.model.init.c) == (0.5, 2.5, 1.0)
    assert tuned.optimizer.lr == 0.1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "table1", "--data", "/nowhere", "--out", "OUT"], "no data '/nowhere'"),
        (["train", "table1", "--scale", "paper", "--out", "OUT"], "give its folder (train/, val/) with --data"),
        (["train", "table1", "--skip", "--alpha", "2", "--out", "OUT"], "--alpha: part of the initialisation"),
        (["train", "table1", "--c", "-1", "--out", "OUT"], "c=-1.0 must be a positive number"),
        (["train", "table1", "--epochs", "0", "--out", "OUT"], "epochs 0"),
        (["train", "table1", "--precision", "fp16", "--device", "cpu", "--out", "OUT"], "'fp16' needs a CUDA device"),
        (["train", "table1", "--batch-size", "5000", "--out", "OUT"], "batch_size 5000"),
        (["train", "table1", "--out", "FILE/x"], "cannot use"),
        (["eval", "/nowhere"], "is no run folder"),
        (["init", "vit_bse_patch16_224"], "timm has no model 'vit_bse_patch16_224'; did you mean"),
        (["init", "resnet18"], "no adapter for `ResNet`; supported: timm's plain"),
        (["init", "vit_tiny_patch16_224", "--factors", "partition"], "needs alpha=0"),
        (["reproduce", "table1", "--seeds", "0"], "--seeds 0"),
        (["reproduce", "table1", "--scale", "paper"], "needs ImageNet-1k"),
        (["reproduce", "table1", "--jobs", "0", "--epochs", "1", "--out", "OUT"], "--jobs 0"),
        (["train", "table1", "--threads", "0", "--out", "OUT"], "--threads 0"),
        (["train", "table1", "--seed", "99999999999999999999", "--out", "OUT"], "seed 99999999999999999999"),
        (["train", "table1", "--scale", "paper", "--data", "digits", "--out", "OUT"], "smaller than a patch of 16"),
        (["train", "table1", "--data", "digits", "--device", "cuda", "--out", "OUT"], "no device 'cuda'"),
        (["init", "vit_tiny_patch16_224", "--out", "w.pth"], "give a name that ends in .safetensors"),
        (["init", "vit_tiny_patch16_224.nope"], "timm cannot build"),
        (["init", "vit_tiny_patch16_224", "--out", "/dev/null/w.safetensors"], "cannot write to '/dev/null'"),
        (["reproduce", "token-graying", "--epochs", "7"], "--epochs changes nothing of token-graying: leave it out"),
        (["reproduce", "table6", "--scale", "vit-s", "--data", "x"], "--data changes nothing of table6 at vit-s"),
        (["reproduce", "token-graying", "--data", "no/such"], "no data 'no/such'"),
        (["plan", "resnet50"], "no adapter for `ResNet`; supported: timm's plain"),
        (["init", "crossvit_tiny_240"], "no adapter for `CrossVit`"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(capsys, tmp_path, arguments, words) -> None:
    file = tmp_path / "file"
    file.touch()
    arguments = [part.replace("OUT", str(tmp_path / "out")).replace("FILE", str(file)) for part in arguments]
    code, printed, complaint = skipless(capsys, *arguments)
    assert code == 2
    assert words in complaint
    assert complaint.startswith("skipless: ")
    assert complaint.count("\n") == 1
    assert not printed


@pytest.mark.parametrize(
    "arguments", [["train", "table9", "--out", "x"], ["fly"], ["train", "table1"], ["eval", "x", "top7"]]
)
def test_unknown_words_exit_with_2(capsys, arguments) -> None:
    code, _, complaint = skipless(capsys, *arguments)
    assert code == 2
    assert complaint


def test_a_checkpoint_of_another_model_is_refused_by_name(capsys, tmp_path) -> None:
    out, other = tmp_path / "a", tmp_path / "w.safetensors"
    assert skipless(capsys, "train", "table1", "--out", str(out), *FEW)[0] == 0
    assert skipless(capsys, "init", "vit_tiny_patch16_224", "--out", str(other))[0] == 0
    code, _, complaint = skipless(capsys, "eval", str(out), "--weights", str(other))
    assert code == 2
    assert "w.safetensors" in complaint
    assert "shape" in complaint or "size" in complaint


def test_a_corrupt_checkpoint_and_a_record_that_is_none(capsys, tmp_path) -> None:
    out = tmp_path / "a"
    assert skipless(capsys, "train", "table1", "--out", str(out), *FEW)[0] == 0
    file = out / "checkpoint.safetensors"
    whole = bytearray(file.read_bytes())
    whole[-100] ^= 1
    file.write_bytes(whole)
    code, _, complaint = skipless(capsys, "eval", str(out))
    assert code == 2
    assert "corrupt" in complaint
    assert str(file) in complaint
    (out / "run.json").write_text("[]")
    code, _, complaint = skipless(capsys, "eval", str(out))
    assert code == 2
    assert "is no run folder" in complaint


def test_a_corrupt_image_is_named(capsys, tmp_path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
        (tmp_path / split / "cat" / "1.jpg").write_bytes(b"no image")
    command = ["train", "table1", "--data", str(tmp_path), "--epochs", "1", "--batch-size", "1", "--accumulation", "1"]
    command += ["--workers", "0", "--precision", "fp32", "--progress", "none", "--out", str(tmp_path / "out")]
    code, _, complaint = skipless(capsys, *command, "--skip")
    assert code == 2
    assert "1.jpg' is no readable image" in complaint


def test_so_many_corrupt_images_are_replaced_as_asked_for(capsys, tmp_path) -> None:
    folder = images(tmp_path / "images")
    (folder / "train/class0/0.png").write_bytes(b"no image")
    command = ["train", "scenes", "--data", str(folder), "--skip", "--out", str(tmp_path / "out"), "--workers", "0"]
    command += ["--batch-size", "16", *TINY]
    code, _, complaint = skipless(capsys, *command)
    assert (code, "0.png' is no readable image" in complaint) == (2, True)
    assert skipless(capsys, *command, "--corrupt-limit", "0.1")[0] == 0
    assert "class0/0.png" in (tmp_path / "out/corrupt.txt").read_text()


def test_a_full_disk_is_one_line_and_keeps_the_run(capsys, tmp_path, monkeypatch) -> None:
    from skipless.training.run_folder import checkpoint

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "a"
    monkeypatch.setattr(checkpoint, "save_file", full)
    code, _, complaint = skipless(capsys, "train", "table1", "--out", str(out), *FEW)
    assert code == 2
    assert "No space left on device" in complaint
    assert complaint.count("\n") == 1
    monkeypatch.undo()
    assert skipless(capsys, "train", "table1", "--out", str(out), *FEW)[0] == 0


def test_init_prints_the_inspection_and_writes_what_timm_loads(capsys, tmp_path) -> None:
    file = tmp_path / "w.safetensors"
    code, printed, _ = skipless(
        capsys, "init", "vit_tiny_patch16_224", "--preset", "dino_vit_small", "--out", str(file)
    )
    assert code == 0
    assert "blocks.11" in printed
    assert "nothing departs from the scheme" in printed
    weights = load_file(file)
    s = torch.linalg.svdvals(weights["blocks.7.attn.proj.weight"])
    torch.testing.assert_close(s, torch.full_like(s, 3.0))
    opened = open_file(file)
    assert opened.title == "w, untrained"
    assert torch.equal(opened.model.state_dict()["blocks.7.attn.proj.weight"], weights["blocks.7.attn.proj.weight"])


def test_init_by_ours_departs_from_nothing(capsys) -> None:
    code, printed, _ = skipless(capsys, "init", "vit_tiny_patch16_224", "--ours")
    assert code == 0
    assert "nothing departs from the scheme" in printed


@pytest.mark.parametrize("other", ["--skip", "--no-init"])
def test_ours_is_refused_where_nothing_is_initialised(capsys, tmp_path, other: str) -> None:
    code, _, complaint = skipless(capsys, "train", "table1", "--ours", other, "--out", str(tmp_path / "o"), *TINY)
    assert code == 2
    assert "leave out --skip and --no-init" in complaint


def test_a_run_by_ours_has_its_rate_decay_and_scheme(capsys, tmp_path) -> None:
    out = tmp_path / "o"
    assert skipless(capsys, "train", "table1", "--ours", "--block-lr", "0.5", "--out", str(out), *FEW)[0] == 0
    recipe = json.loads((out / "run.json").read_text())["recipe"]
    assert recipe["model"]["init"]["mlp"] == "mirrored"
    assert (recipe["optimizer"]["block_lr"], recipe["optimizer"]["weight_decay"]) == (0.5, 0.1)


def test_doctor_names_what_there_is(capsys) -> None:
    code, printed, _ = skipless(capsys, "doctor")
    assert code == 0
    for word in ("torch", "digits", "Fashion-MNIST", "GPU", "GiB free"):
        assert word in printed


def test_the_module_and_the_help_work() -> None:
    done = subprocess.run([sys.executable, "-m", "skipless", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    for verb in ("train", "eval", "reproduce", "init", "doctor"):
        assert verb in done.stdout


def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    command = [sys.executable, "-m", "skipless", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 1
        assert process.stderr.read() == ""


def test_no_verb_has_more_than_sixty_options(capsys) -> None:
    for command in every_command():
        printed = skipless(capsys, *command, "--help")[1]
        options = set(re.findall(r"^\W*(--[a-z0-9-]+)", printed, re.M))
        assert 1 <= len(options) <= 60, command
