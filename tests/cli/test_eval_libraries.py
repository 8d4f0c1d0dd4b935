"""`skipless eval` on models of other libraries: saved ViTs of Hugging Face's, and torchvision's."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from reference.command import skipless

from skipless import cli
from skipless.evaluators.features.extraction import FeatureConfig, features
from skipless.models import from_pretrained, remove_skips_
from skipless.models.vit_view import find_vit
from skipless.recipes import ModelConfig, open_model, table1

TINY = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of images: dark and light noise."""
    folder, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for label, base in (("dark", 40), ("light", 200)):
            (folder / split / label).mkdir(parents=True)
            for index in range(count):
                pixels = generator.normal(base, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("scenes") / "voc"
    cli.main(["data", "scenes", "--train", "4", "--val", "3", "--size", "64", "--objects", "digits", "--out", str(out)])
    return str(out)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved ViT without skips, and how its images are normalised."""
    folder = tmp_path_factory.mktemp("models") / "vit"
    torch.manual_seed(0)
    config = transformers.ViTConfig(**TINY, intermediate_size=24, num_labels=2)
    remove_skips_(transformers.ViTForImageClassification(config)).save_pretrained(folder)
    said = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7], "image_processor_type": "ViTImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    return folder


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """A small vision transformer of torchvision's, by a name of its own."""
    from torchvision.models import vision_transformer
    from torchvision.models._api import BUILTIN_MODELS, register_model

    sizes = {"patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 24}

    def build(*, weights: None = None, image_size: int = 32, **kwargs: Any) -> torch.nn.Module:
        return vision_transformer.VisionTransformer(image_size=image_size, **{**sizes, **kwargs})

    register_model("vit_small_for_tests")(build)
    yield
    del BUILTIN_MODELS["vit_small_for_tests"]


@pytest.fixture(scope="module")
def torchvision_run(small: None, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = table1("digits", "skipless", "adamw", data=str(photos)).with_(
        model=ModelConfig("vit_small_for_tests", library="torchvision"), data__image_size=32, fit__epochs=1,
        fit__batch_size=8, fit__workers=0, fit__progress="none", fit__device="cpu",
    )  # fmt: skip
    home = tmp_path_factory.mktemp("runs") / "t1"
    recipe.run(home)
    return home


def test_a_saved_vit_is_opened_as_it_was_saved(vit: Path) -> None:
    source = open_model(f"hf:{vit}")
    assert (source.name, source.trained, source.image_size, source.context) == ("vit", True, 32, None)
    assert source.statistics == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    assert all(not view.skips for view in find_vit(source.model).views)
    images = torch.randn(2, 3, 32, 32)
    chosen = FeatureConfig(blocks=(-1,))
    one, other = (features(model, images, chosen)[1, "tokens"] for model in (source.model, from_pretrained(vit)))
    torch.testing.assert_close(one.patches, other.patches)


STUDIES = {
    "knn": ("--ks", "3"),
    "linear-classifier": ("--epochs", "2"),
    "linear-probe": ("--protocol", "patch", "--epochs", "1"),
}


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("named", ["vit", "torchvision_run"])
def test_its_features_are_evaluated(
    named: str, study: str, photos: Path, scenes: str, tmp_path: Path, capsys, request
) -> None:
    folder: Path = request.getfixturevalue(named)
    data = scenes if study == "linear-probe" else str(photos)
    words = ["eval", str(folder), study, *STUDIES[study], "--data", data, "--out", str(tmp_path)]
    if (named, study) == ("torchvision_run", "linear-probe"):
        code, _, err = skipless(capsys, *words)
        assert (code, err.splitlines()[-1].endswith("resize them, by --size 32 of a study")) == (2, True)
        words += ["--size", "32"]
    code, printed, err = skipless(capsys, *words)
    assert code == 0, err
    assert folder.name in printed
    assert list(tmp_path.glob("*/result.json"))


def test_a_checkpoint_of_torchvisions_is_evaluated_by_its_name(
    small: None, photos: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    from safetensors.torch import save_file
    from torchvision.models import get_model

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    weights = get_model("vit_small_for_tests").state_dict()
    save_file(weights, tmp_path / "weights.safetensors")
    name = "torchvision:vit_small_for_tests"
    opened = open_model(name, weights=tmp_path / "weights.safetensors")
    assert opened.trained
    assert all(torch.equal(value, weights[key]) for key, value in opened.model.state_dict().items())
    other = get_model("vit_small_for_tests", num_classes=7, image_size=16).state_dict()
    save_file(other, tmp_path / "other.safetensors")
    assert open_model(name, weights=tmp_path / "other.safetensors").image_size == 16
    words = ["knn", "--ks", "3", "--data", str(photos), "--weights", "weights.safetensors"]
    code, printed, err = skipless(capsys, "eval", name, *words)
    assert code == 0, err
    assert "block 1" in printed
    assert list((tmp_path / "eval").glob("torchvision--vit_small_for_tests/knn-*/result.json"))
    code, printed, err = skipless(capsys, "eval", "weights.safetensors", *words[:-2], "--model", name)
    assert code == 0, err
    assert list((tmp_path / "eval").glob("weights/knn-*/result.json"))


def test_a_run_of_a_vit_of_hugging_faces_opens(photos: Path, tmp_path: Path, capsys) -> None:
    sizes = {**{key: value for key, value in TINY.items() if key != "image_size"}, "intermediate_size": 24}
    recipe = table1("digits", "skipless", "adamw", data=str(photos)).with_(
        model=ModelConfig("ViTForImageClassification", kwargs=sizes, library="transformers"),
        data__image_size=32, fit__epochs=1, fit__batch_size=8, fit__workers=0, fit__progress="none", fit__device="cpu",
    )  # fmt: skip
    recipe.run(tmp_path / "v1")
    source = open_model(str(tmp_path / "v1"))
    assert (source.image_size, source.trained) == (32, True)
    code, printed, err = skipless(capsys, "eval", str(tmp_path / "v1"), "knn", "--ks", "3")
    assert code == 0, err
    assert "| v1, untrained |" in printed


def test_a_run_of_torchvisions_is_not_exported_to_timm(torchvision_run: Path, tmp_path: Path, capsys) -> None:
    code, _, err = skipless(capsys, "export", str(torchvision_run), "--out", str(tmp_path / "x.safetensors"))
    assert (code, err.count("\n")) == (2, 1)
    assert "is a run of torchvision's 'vit_small_for_tests'; backbones are written for timm. Load it in Python" in err


def test_what_a_saved_model_cannot_be_asked_for(vit: Path, tmp_path: Path, photos: Path, capsys) -> None:
    headless = Path(shutil.copytree(vit, tmp_path / "vit"))
    (headless / "model.safetensors").unlink()
    cases = [
        (["eval", str(headless), "knn", "--data", str(photos)], "has no weights (model.safetensors)"),
        (["eval", "hf:nowhere", "knn", "--data", str(photos)], "there is no folder 'nowhere'; download it first"),
        (["eval", str(vit), "knn", "--pretrained", "--data", str(photos)], "--pretrained is for timm's names"),
        (["eval", str(vit), "knn"], "--data"),
        (["eval", str(vit), "language", "--data", "pydoc"], "is no model that predicts next tokens"),
    ]
    for words, message in cases:
        code, _, err = skipless(capsys, *words)
        assert code == 2, words
        assert message in err.splitlines()[-1], err
