"""`skipless eval SOURCE quantisation`: a classifier's run, a model by name, a language model."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from reference.checkpoints import write_checkpoint
from reference.command import skipless
from reference.tiny_language import write_lines

from skipless.data import ImageConfig, load_images
from skipless.data.loading.loader import EvalLoader
from skipless.evaluators import linear_classification_probe
from skipless.evaluators.quantisation import is_quantised, quantise_
from skipless.recipes import ModelSource, table1
from skipless.studies import QuantisationConfig, quantisation_study

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
FEW = ("--precisions", "w8a8", "W2A2", "--inputs", "6", "--batch-size", "4")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "s1"
    recipe = table1("digits", "skip", "adamw").with_(fit__steps=3, fit__workers=0, fit__progress="none")
    recipe.with_(fit__device="cpu", model__kwargs={**recipe.model.kwargs, "depth": 2}).run(out)
    return out


def result(home: Path) -> tuple[Path, dict[str, Any]]:
    (file,) = home.glob("quantisation-*/result.json")
    return file.parent, json.loads(file.read_text(encoding="utf-8"))


def test_a_classifiers_run_is_scored_by_its_classifier(run: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["eval", str(run), "quantisation", *FEW, "--device", "cpu", "--out", str(tmp_path)]
    code, out, err = skipless(capsys, *words)
    assert code == 0, err
    folder, found = result(tmp_path)
    assert found["metric"]["name"] == "top-1, %"
    assert list(found["scores"]) == ["unquantised", "W8A8", "W2A2"]
    assert found["lost"]["W2A2"]["absolute"] == found["scores"]["unquantised"] - found["scores"]["W2A2"]
    assert found["activations"]["inputs"] == 6
    assert "W8A8" in out
    page = (folder / "index.html").read_text(encoding="utf-8")
    for wanted in ("Few bits", "largest class", "Histograms by block", "of which skip", "8 bit, token"):
        assert wanted in page
    journal = (folder / "journal-0.jsonl").read_bytes()
    assert skipless(capsys, *words)[0] == 0
    assert (folder / "journal-0.jsonl").read_bytes() == journal
    assert result(tmp_path)[1]["scores"] == found["scores"]


@pytest.mark.parametrize(
    "words",
    [
        ("--rotate", "haar"),
        ("--static", "--activations-per", "tensor", "--activation-grid", "asymmetric", "--calibration", "5", "--ends"),
    ],
)
def test_its_options(run: Path, tmp_path: Path, capsys: Any, words: tuple[str, ...]) -> None:
    given = ["eval", str(run), "quantisation", *FEW, *words, "--device", "cpu", "--out", str(tmp_path)]
    code, _, err = skipless(capsys, *given)
    assert code == 0, err
    table = (result(tmp_path)[0] / "table.md").read_text(encoding="utf-8")
    assert ("rotated (haar)" if "haar" in words else "static, 5 inputs") in table


def test_a_model_without_a_classifier_is_scored_by_neighbours_and_a_probe(tmp_path: Path) -> None:
    vit = timm.create_model("vit_tiny_patch16_224", img_size=8, patch_size=4, in_chans=1, embed_dim=24, depth=1,
                            num_heads=3, num_classes=0).eval()  # fmt: skip
    source = ModelSource("tiny", vit, False, statistics=((0.3,), (0.4,)))
    config = QuantisationConfig(("W8A8",), inputs=4, batch_size=256, k=5)
    found = quantisation_study(source, config, data="digits", out=tmp_path)
    assert found.metric.name == "k-NN top-1 of the last block, k = 5, %"
    assert found.metric.trivial is not None
    assert found.scores["unquantised"] > 2 * found.metric.trivial[1]
    assert abs(found.lost("W8A8")[0]) < 3
    assert not is_quantised(vit)
    whole, rounded = found.probe["unquantised"], found.probe["W8A8"]
    assert whole is not None
    assert rounded is not None
    assert whole > 2 * found.metric.trivial[1]
    assert abs(whole - rounded) < 5
    assert "linear probe, %" in found.tables()[0].markdown()
    assert quantisation_study(source, config, data="digits", out=tmp_path).probe == found.probe, "read from the folder"
    assert result(tmp_path)[1]["probe"] == found.probe


def test_a_probe_scores_the_features_of_the_rounded_model(tmp_path: Path) -> None:
    """Its top-1 is that of a probe trained on features which are made with the rounded weights."""
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=8, patch_size=4, in_chans=1, embed_dim=24, depth=1,
                            num_heads=3, num_classes=0).eval()  # fmt: skip
    source = ModelSource("tiny", vit, False, statistics=((0.3,), (0.4,)))
    found = quantisation_study(
        source, QuantisationConfig(("W2",), inputs=4, batch_size=256), data="digits", out=tmp_path
    )
    quantise_(vit, 2, None)
    digits = load_images(ImageConfig(data="digits", augmentation="none", image_size=8))
    train, val = (class_tokens(vit, split.normalised_by((0.3,), (0.4,))) for split in (digits.train, digits.val))
    probed = linear_classification_probe(
        {0: train}, digits.train.labels, {0: val}, digits.val.labels, classes=10, select="holdout"
    )
    assert found.probe["W2"] == pytest.approx(probed.blocks[0].top1, abs=0.6)
    assert found.probe["W2"] != pytest.approx(found.probe["unquantised"], abs=0.6)


@torch.no_grad()
def class_tokens(vit: Any, split: Any) -> torch.Tensor:
    return torch.cat([vit.forward_features(images)[:, 0] for images, _ in EvalLoader(split, batch_size=999)])


def test_other_channels_are_refused(tmp_path: Path, capsys: Any) -> None:
    words = ["eval", "skipless_vit_tiny_patch16_224", "quantisation", "--data", "digits", *FEW]
    code, _, err = skipless(capsys, *words, "--device", "cpu", "--out", str(tmp_path))
    assert code == 2
    assert "3 channels" in err


def test_a_language_model_is_scored_by_bits_per_byte(tmp_path: Path, capsys: Any) -> None:
    checkpoint = write_checkpoint(tmp_path / "llama")
    data = write_lines(tmp_path / "data")
    words = ["eval", str(checkpoint), "quantisation", "--data", str(data), "--documents", "line", *FEW]
    code, _, err = skipless(capsys, *words, "--device", "cpu", "--out", str(tmp_path / "out"))
    assert code == 0, err
    found = result(tmp_path / "out")[1]
    assert found["metric"] == {"name": "bits per byte", "rises": False, "trivial": None}
    assert found["lost"]["W2A2"]["absolute"] == found["scores"]["W2A2"] - found["scores"]["unquantised"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--precisions", "W16A16"), "--precisions W16A16: give bits"),
        (("--inputs", "0"), "--inputs 0: give at least 1"),
        (("--static",), "--activations-per tensor"),
        (("--held-out", "5"), "--held-out is for language models"),
        (("--tokenizer", "bytes"), "--tokenizer and --documents are for language models"),
    ],
)
def test_refusals(run: Path, tmp_path: Path, capsys: Any, words: tuple[str, ...], said: str) -> None:
    code, _, err = skipless(capsys, "eval", str(run), "quantisation", *words, "--device", "cpu", "--out", str(tmp_path))
    assert code == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_a_model_without_data_is_refused(tmp_path: Path, capsys: Any) -> None:
    code, _, err = skipless(capsys, "eval", "vit_tiny_patch16_224", "quantisation", "--out", str(tmp_path))
    assert code == 2
    assert "quantisation needs --data" in err
