import pytest
import timm
import torch
from safetensors.torch import save_file

from skipless.errors import InputError
from skipless.init import SkiplessInit
from skipless.models import REGISTERED, block_views, create_model, inspect_init
from skipless.models.vit_view import find_vit

TINY = {"img_size": 28, "depth": 1, "embed_dim": 48, "num_heads": 2, "num_classes": 5}


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
@pytest.mark.parametrize("patch", [14, 16])
def test_every_size_and_patch_is_registered(size: str, patch: int) -> None:
    name = f"skipless_vit_{size}_patch{patch}_224"
    assert name in REGISTERED
    assert timm.is_model(name)
    model = timm.create_model(name, **{**TINY, "img_size": 2 * patch})
    assert model.patch_embed.patch_size == (patch, patch)
    assert {view.skips for view in block_views(model)} == {()}
    assert model(torch.randn(1, 3, 2 * patch, 2 * patch)).shape == (1, 5)
    assert abs(inspect_init(model).blocks[0].scale_vo / 9 - 1) < 1e-3


@pytest.mark.parametrize("name", REGISTERED)
def test_every_registered_name_builds(name: str) -> None:
    assert not any(view.skips for view in block_views(timm.create_model(name, **{**TINY, "img_size": 64})))


def test_the_real_sizes_are_timms() -> None:
    model = timm.create_model("skipless_vit_tiny_patch16_224", depth=1)
    twin = timm.create_model("vit_tiny_patch16_224", depth=1)
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in twin.named_parameters()}
    assert model.pretrained_cfg["input_size"] == (3, 224, 224)


def test_it_takes_timms_keywords_and_ours(tmp_path) -> None:
    kwargs = {
        **TINY,
        "img_size": 32,
        "reg_tokens": 2,
        "qk_norm": True,
        "in_chans": 1,
        "global_pool": "avg",
        "class_token": False,
    }
    model = timm.create_model("skipless_vit_small_patch16_224", **kwargs)
    assert model(torch.randn(1, 1, 32, 32)).shape == (1, 5)
    path = tmp_path / "w.pth"
    torch.save(model.state_dict(), path)
    loaded = timm.create_model("skipless_vit_small_patch16_224", checkpoint_path=str(path), **kwargs)
    assert torch.equal(loaded.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv.weight)
    features = timm.create_model(
        "skipless_vit_small_patch16_224", features_only=True, **{**TINY, "img_size": 32, "depth": 3}
    )
    assert len(features(torch.randn(1, 3, 32, 32))) == 3
    ours = timm.create_model(
        "skipless_vit_small_patch16_224",
        init=SkiplessInit(0.0, 1.0, 2.0),
        sub_blocks=("attn",),
        generator=torch.Generator().manual_seed(0),
        **TINY,
    )
    assert {view.skips for view in block_views(ours)} == {("mlp",)}
    assert abs(inspect_init(ours).blocks[0].scale_vo - 4) < 1e-3


def test_pretrained_and_drop_path_are_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match="no pretrained weights exist for skipless_vit_tiny_patch16_224"):
        timm.create_model("skipless_vit_tiny_patch16_224", pretrained=True)
    with pytest.raises(InputError, match="drop path"):
        timm.create_model("skipless_vit_tiny_patch16_224", **{**TINY, "depth": 2}, drop_path_rate=0.1)


def test_what_timm_saves_comes_back_skipless(tmp_path) -> None:
    sizes = {"img_size": 32, "embed_dim": 48, "num_heads": 2, "depth": 2, "num_classes": 5}
    init = {"alpha": 0.0, "beta": 2.0, "c": 1.0}
    model = timm.create_model("skipless_vit_tiny_patch16_224", init=init, sub_blocks=("attn",), **sizes).eval()
    timm.models.save_for_hf(model, tmp_path / "saved", model_args={**sizes, "init": init, "sub_blocks": ["attn"]})
    back = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True).eval()
    assert {view.skips for view in block_views(back)} == {("mlp",)}
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(back(x), model(x))


def test_weights_of_a_file_are_loaded_as_timms_maintainer_recommends(tmp_path) -> None:
    sizes = {**TINY, "img_size": 32}
    name = "skipless_vit_tiny_patch16_224"
    model = timm.create_model(name, **sizes).eval()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    overlay = {"file": str(tmp_path / "w.safetensors"), "num_classes": 5}
    loaded = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **sizes).eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(x), model(x))
    assert not any(view.skips for view in block_views(loaded))
    assert (loaded.pretrained_cfg["file"], loaded.pretrained_cfg["architecture"]) == (overlay["file"], name)
    held = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay={"state_dict": model.state_dict(), "num_classes": 5}, **sizes
    )
    assert torch.equal(held.eval()(x), model(x))
    other = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **{**sizes, "num_classes": 3})
    assert torch.equal(other.blocks[0].mlp.fc1.weight, model.blocks[0].mlp.fc1.weight)
    assert other.head.weight.shape == (3, 48)
    grey = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, in_chans=1, **sizes)
    torch.testing.assert_close(grey.patch_embed.proj.weight, model.patch_embed.proj.weight.sum(1, keepdim=True))
    untrained = timm.create_model(name, pretrained_cfg_overlay={"mean": (0.1, 0.2, 0.3)}, **sizes)
    assert find_vit(untrained).mean == (0.1, 0.2, 0.3)
    with pytest.raises(FileNotFoundError):
        timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": "/no/file.safetensors"}, **sizes)


@pytest.mark.parametrize("pretrained", [False, True])
@pytest.mark.parametrize("tag", ["augreg_in21k_ft_in1k", "augreg_in21k", "dino", "nope"])
def test_tags_of_residual_weights_are_refused(tag: str, pretrained: bool) -> None:
    """They would be loaded into a network that was not trained with them."""
    for arguments in (
        {"model_name": f"skipless_vit_small_patch16_224.{tag}"},
        {"model_name": "skipless_vit_small_patch16_224", "pretrained_cfg": tag},
    ):
        with pytest.raises(InputError, match=f"skipless_vit_small_patch16_224 has no pretrained tag '{tag}'"):
            timm.create_model(**arguments, pretrained=pretrained, **TINY)


@pytest.mark.parametrize("overlay", [None, {}, {"mean": (0.5, 0.5, 0.5)}, {"file": None}, {"url": ""}])
def test_an_overlay_without_weights_gives_none(overlay) -> None:
    with pytest.raises(InputError, match="no pretrained weights exist"):
        timm.create_model("skipless_vit_tiny_patch16_224", pretrained=True, pretrained_cfg_overlay=overlay, **TINY)


def test_ours_is_what_suits_the_model() -> None:
    torch.manual_seed(0)
    model = timm.create_model("skipless_vit_tiny_patch16_224", init="ours", depth=2)
    assert inspect_init(model, SkiplessInit.for_model(model)).flags == ()
    torch.manual_seed(0)
    twin = create_model("vit_tiny_patch16_224", init="ours", depth=2)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))
