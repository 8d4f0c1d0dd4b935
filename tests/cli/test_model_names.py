"""Names of models that are no plain ViTs, or no names of timm's: every verb refuses them in one line, or is right."""

import pytest
from reference.command import skipless
from reference.tiny_images import images

from skipless.models import create_model, load_timm

OTHERS = (
    "resnet18",
    "convnext_atto",
    "mobilenetv3_small_050",
    "mixer_s32_224",
    "swin_tiny_patch4_window7_224",
    "cait_xxs24_224",
    "vit_relpos_small_patch16_224",
    "naflexvit_base_patch16_gap",
    "vit_tiny_r_s16_p8_224",
)
WRONG = {
    "": "timm has no model ''",
    "vit_tiny_patch16_225": "did you mean",
    "skipless_resnet18": "timm has no model 'skipless_resnet18'",
    "vit_tiny_patch16_224.nope": "Invalid pretrained tag (nope)",
    "timm/vit_tiny_patch16_224": "Use 'hf-hub:timm/vit_tiny_patch16_224'",
    "local-dir:": "no model id",
    "local-dir:/nowhere": "/nowhere",
    "ftp:x/y": "source 'ftp'",
}


def words_of(verb: str, name: str, tmp_path) -> list[str]:
    data = ["--data", str(tmp_path / "images"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    return {
        "measure": ["measure", name, "--tokens", "4", "--blocks", "0", "--iterations", "3"],
        "init": ["init", name],
        "eval": ["eval", name, "knn", *data],
        "plan": ["plan", name],
    }[verb]


@pytest.mark.parametrize("name", OTHERS)
def test_what_no_adapter_knows_is_refused_by_measure(capsys, tmp_path, name: str) -> None:
    code, printed, told = skipless(capsys, *words_of("measure", name, tmp_path))
    assert (code, printed, told.count("\n")) == (2, "", 1)
    assert "supported: timm's" in told


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["init", "eval", "plan"])
@pytest.mark.parametrize("name", OTHERS[:-1])
def test_what_no_adapter_knows_is_refused(capsys, tmp_path, name: str, verb: str) -> None:
    images(tmp_path / "images")
    code, printed, told = skipless(capsys, *words_of(verb, name, tmp_path))
    assert (code, printed, told.count("\n")) == (2, "", 1)
    assert "supported: timm's" in told


@pytest.mark.parametrize("verb", ["measure", "init", "eval", "plan"])
@pytest.mark.parametrize("name", WRONG)
def test_what_timm_does_not_have_is_refused(capsys, tmp_path, name: str, verb: str) -> None:
    images(tmp_path / "images")
    code, printed, told = skipless(capsys, *words_of(verb, name, tmp_path))
    assert (code, printed, told.count("\n")) == (2, "", 1)
    expected = "is a model of local-dir" if "/nowhere" in name and verb in ("init", "plan") else WRONG[name]
    assert expected in told


def test_a_tag_of_a_residual_model_names_no_twin(capsys, tmp_path) -> None:
    for verb in ("measure", "eval"):
        name = "skipless_vit_tiny_patch16_224.augreg_in21k"
        code, _, told = skipless(capsys, *words_of(verb, name, tmp_path))
        assert (code, told.count("\n")) == (2, 1)
        assert "has no pretrained tag 'augreg_in21k'" in told
    assert load_timm("vit_tiny_patch16_224.augreg_in21k", depth=1).num_classes == 21843


def test_measure_takes_what_the_adapter_knows(capsys, tmp_path) -> None:
    """Wide images too: a model that is not square was given square ones."""
    from timm.models import save_for_hf

    kwargs = {"img_size": (32, 64), "depth": 1, "embed_dim": 24, "num_heads": 2}
    model = create_model("vit_tiny_patch16_224", **kwargs)
    save_for_hf(model, tmp_path / "saved", model_args=kwargs)
    name = f"local-dir:{tmp_path / 'saved'}"
    code, printed, told = skipless(capsys, "measure", name, "--blocks", "0")
    assert code == 0, told
    assert "1 image of N(0, 1) pixels" in printed
    code, _, told = skipless(capsys, "measure", name, "--blocks", "0", "--data", "digits")
    assert (code, told.count("\n")) == (2, 1)
    assert "takes images of 32 x 64" in told
