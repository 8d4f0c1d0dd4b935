"""`skipless plan`: what a person types, and what they read."""

import json

import pytest
from reference.command import skipless


def test_a_row_for_every_combination(capsys) -> None:
    models = ("vit_tiny_patch16_224", "vit_small_patch16_224")
    code, printed, _ = skipless(capsys, "plan", *models, "--devices", "1", "8", "--optimizer", "adamw", "soap")
    assert code == 0
    tables = printed.split("\n\n")
    for table in tables[:2]:
        lines = table.splitlines()
        assert len(lines) == 2 + 8
        assert len({line.count("|") for line in lines}) == 1
    assert "passes 0.35 (--mfu)" in tables[2]
    assert "NVIDIA H100 data sheet" in tables[2]


def test_muon_is_planned_where_it_is_asked_for(capsys) -> None:
    both = ("plan", "vit_tiny_patch16_224", "--devices", "8", "--strategy", "fsdp")
    _, printed, _ = skipless(capsys, *both)
    assert "muon" not in printed
    code, printed, _ = skipless(capsys, *both, "--optimizer", "muon")
    assert code == 0
    assert "| vit_tiny_patch16_224 | muon " in printed
    assert "fsdp; Muon's updates computed whole on each of them" in printed


def test_json_holds_every_number_and_what_is_assumed(capsys) -> None:
    command = ("plan", "vit_small_patch16_224", "--recipe", "dino", "--devices", "8", "--mfu", "0.4", "--json")
    code, printed, _ = skipless(capsys, *command)
    assert code == 0
    values = json.loads(printed)
    assert values["assumptions"]["mfu"] == 0.4
    adamw, soap = values["runs"]
    assert adamw["memory"]["optimizer"] == pytest.approx(8 * adamw["parameters"], rel=1e-3)
    assert soap["memory_total"] == pytest.approx(sum(soap["memory"].values()))
    passes = adamw["forward_flops_per_image"] + adamw["backward_flops_per_image"] + adamw["teacher_flops_per_image"]
    assert adamw["flops_per_image"] == passes


def test_a_row_for_every_depth(capsys) -> None:
    flags = ("--depth", "3", "2", "--optimizer", "adamw", "--devices", "1")
    code, printed, _ = skipless(capsys, "plan", "vit_tiny_patch16_224", *flags)
    assert code == 0
    assert "vit_tiny_patch16_224, 3 blocks | adamw" in printed
    assert "vit_tiny_patch16_224, 2 blocks | adamw" in printed


def test_depth_and_length_reach_the_recipe(capsys) -> None:
    common = ("plan", "vit_small_patch16_224", "--recipe", "dino", "--optimizer", "adamw", "--devices", "8", "--json")
    full, short = (
        json.loads(skipless(capsys, *common, *more)[1])["runs"][0]
        for more in ((), ("--depth", "9", "--epochs", "200", "--batch-size", "512"))
    )
    assert full["steps"] == 300 * 1251
    assert short["steps"] == 200 * 2502
    assert short["parameters"] < full["parameters"]
    assert 0.7 < short["forward_flops_per_image"] / full["forward_flops_per_image"] < 0.8


def test_a_language_model_is_planned_by_windows_of_text(capsys) -> None:
    common = ("plan", "--recipe", "language", "--devices", "8")
    code, printed, _ = skipless(capsys, *common)
    assert code == 0
    assert "GFLOP / window" in printed
    assert "tokens/s, each GPU" in printed
    assert "of each window: 4,096 tokens, of 32,000 ids" in printed
    full, short = (
        json.loads(skipless(capsys, *common, "--json", *more)[1])["runs"][0]
        for more in ((), ("--depth", "6", "--steps", "100", "--context", "1024", "--vocabulary", "1000"))
    )
    assert full["parameters"] == 109_529_856
    assert (short["steps"], short["context"], short["vocabulary"]) == (100, 1024, 1000)
    assert short["forward_flops_per_window"] < full["forward_flops_per_window"] / 8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["vit_bse_patch16_224"], "timm has no model 'vit_bse_patch16_224'; did you mean"),
        (["resnet18"], "no adapter for `ResNet`; supported: timm's plain VisionTransformer"),
        (["efficientnet_b0"], "no adapter for `EfficientNet`"),
        (["--gpu", "h1000"], "no data sheet of the GPU 'h1000'"),
        (["--gpu", "v100"], "has no bf16; give --precision fp16 or fp32"),
        (["--devices", "3"], "--devices 3 does not divide the batch"),
        (["--devices", "0"], "--devices 0"),
        (["--depth", "0"], "--depth 0"),
        (["--mfu", "1.5"], "mfu 1.5 is no share"),
        (["--micro-batch", "0"], "--micro-batch 0"),
        (["--images", "10"], "batch_size 4096 does not fit a training set of 10"),
        (["--recipe", "dino", "--epochs", "5"], "warmup_teacher_temp_epochs=30"),
        (["--context", "512"], "--context: of text, and 'table1' is trained on images"),
        (["--recipe", "language", "--images", "10", "--epochs", "2"], "--epochs --images: of images, and 'language'"),
        (["--recipe", "language", "--vocabulary", "1"], "vocabulary 1"),
        (["--recipe", "language", "--micro-batch", "5"], "a device's 64 windows of a step"),
        (["vit_base_patch16_224", "--recipe", "language"], "language has a model of its own"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(capsys, arguments, words) -> None:
    code, printed, complaint = skipless(capsys, "plan", *arguments)
    assert code == 2
    assert words in complaint
    assert complaint.startswith("skipless: ")
    assert complaint.count("\n") == 1
    assert not printed
