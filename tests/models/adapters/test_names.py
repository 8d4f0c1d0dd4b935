"""Models of these libraries by name: in recipes, on the command line, and as registered twins."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from skipless.errors import InputError
from skipless.models import (
    REGISTERED,
    block_views,
    create_model,
    inspect_init,
    register_adapter,
    unregister_adapter,
)
from skipless.models.adapters.known import adapters
from skipless.models.libraries import model_builder
from skipless.models.libraries.torchvision_factory import load_named
from skipless.recipes.source import open_model, place_of

SMALL = {"num_layers": 2, "hidden_dim": 24, "num_heads": 2, "mlp_dim": 48}


@pytest.fixture
def tiny_torchvision(monkeypatch) -> None:
    """`vit_b_16` of two narrow blocks: its real size takes seconds to draw."""
    from torchvision.models import vision_transformer

    whole = vision_transformer._vision_transformer

    def small(**kwargs):
        return whole(**{**kwargs, **SMALL})

    monkeypatch.setattr(vision_transformer, "_vision_transformer", small)


OPTIONS = {"positions": "kept", "seed": 0, "kwargs": {}}


@pytest.mark.usefixtures("tiny_torchvision")
def test_a_recipe_names_torchvisions_models() -> None:
    from skipless.init import SkiplessInit

    build = model_builder("torchvision")
    scheme = SkiplessInit(1.8, 1.0, 2.0)
    model = build("vit_b_16", 32, 3, 7, skip=False, init=scheme, **OPTIONS)
    assert {view.skips for view in block_views(model)} == {()}
    assert abs(inspect_init(model).blocks[0].scale_vo - 4) < 1e-3
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert not model(torch.randn(2, 3, 32, 32)).any(), "its head starts at zero"
    again = build("vit_b_16", 32, 3, 7, skip=False, init=scheme, **OPTIONS)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
    assert {view.skips for view in block_views(build("vit_b_16", 32, 3, 7, skip=True, init=None, **OPTIONS))} == {
        ("attn", "mlp")
    }


@pytest.mark.usefixtures("unchecked", "tiny_torchvision")
def test_what_torchvision_does_not_build_is_told_in_a_line() -> None:
    build = model_builder("torchvision")
    for arguments, told in (
        (("vit_b_61", 32, 3, 7), "no vision transformer 'vit_b_61'; did you mean vit_b_16"),
        (("resnet18", 32, 3, 7), "no vision transformer 'resnet18'"),
        (("vit_b_16", 32, 1, 7), "takes images of 3 channels, not 1"),
        (("vit_b_16", 33, 3, 7), "torchvision cannot build 'vit_b_16'.*indivisible"),
        (("vit_b_16", 32, 3, 0), "needs a head"),
    ):
        with pytest.raises(InputError, match=told):
            build(*arguments, skip=False, init=None, **OPTIONS)
    with pytest.raises(InputError, match="no vision transformer 'vit_x'"):
        load_named("torchvision:vit_x")


@pytest.mark.usefixtures("tiny_torchvision")
def test_a_name_after_torchvision_opens_a_model(tmp_path: Path) -> None:
    source = open_model("torchvision:vit_b_16")
    assert (source.name, source.trained, source.image_size) == ("torchvision--vit_b_16", False, 224)
    assert type(source.model).__name__ == "VisionTransformer"
    other = load_named("torchvision:vit_b_16", seed=1)
    save_file(other.state_dict(), tmp_path / "w.safetensors")
    loaded = open_model("torchvision:vit_b_16", weights=tmp_path / "w.safetensors")
    assert loaded.trained
    assert torch.equal(loaded.model.conv_proj.weight, other.conv_proj.weight)
    assert place_of("hf-hub:timm/vit.dino") == "timm--vit.dino"


def test_dinov3_has_twins() -> None:
    assert "skipless_vit_small_patch16_dinov3" in REGISTERED
    assert "skipless_vit_tiny_patch16_dinov3_qkvb" in REGISTERED
    assert not any("sapiens" in name or "eva02" in name for name in REGISTERED)
    torch.manual_seed(0)
    twin = timm.create_model("skipless_vit_small_patch16_dinov3", embed_dim=48, num_heads=2, depth=2)
    assert {view.skips for view in block_views(twin)} == {()}
    assert not any(view.layer_scales for view in block_views(twin))
    ours = create_model("vit_small_patch16_dinov3", init="ours", seed=0, embed_dim=48, num_heads=2, depth=2)
    assert {view.skips for view in block_views(ours)} == {()}


class _Nothing:
    SUPPORTED = "nothing at all"

    def blocks(self, model: nn.Module) -> list[tuple[str, nn.Module]]:
        return []

    vits = blocks
    view = check_removable = remove_skips_ = note_removed_ = blocks


def test_an_adapter_is_known_until_it_is_taken_back() -> None:
    mine = register_adapter(_Nothing())
    try:
        assert register_adapter(mine) in adapters()
        with pytest.raises(InputError, match="nothing at all"):
            block_views(nn.Linear(2, 2))
    finally:
        unregister_adapter(mine)
    unregister_adapter(mine)
    assert mine not in adapters()


def test_what_is_no_adapter_is_told_what_it_lacks(unchecked) -> None:
    with pytest.raises(InputError, match=r"is no adapter: it lacks SUPPORTED, blocks, .*see docs/adapters.md"):
        register_adapter(object())
