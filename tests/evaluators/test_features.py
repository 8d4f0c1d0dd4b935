"""Features beside timm's own forward and attention, the store beside the features, and what may go wrong on disk."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from reference.scenes import Squares
from timm.layers import Format
from torch.nn.functional import scaled_dot_product_attention

from skipless.data.folder import UnreadableImage
from skipless.errors import InputError
from skipless.evaluators.features import store_builder
from skipless.evaluators.features.extraction import FeatureConfig, ImageTransform, features, pad_to_patch
from skipless.evaluators.features.store import SHARD, FeatureStore, store_bytes
from skipless.evaluators.features.store_builder import build_store, files_identity
from skipless.models import block_views, create_model, remove_skips_
from skipless.models.vit_view import find_vit

SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
ALL = FeatureConfig(kinds=("tokens", "q", "k", "v"), norm="none")


def vit(name: str = "vit_tiny_patch16_224", *, skip: bool = True, **kwargs):
    return create_model(name, skip=skip, seed=0, **{**SIZES, **kwargs})


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"reg_tokens": 3},
        {"class_token": False, "global_pool": "avg"},
        {"no_embed_class": True, "reg_tokens": 2},
        {"qk_norm": True},
        {"dynamic_img_size": True},
        {"pos_embed": "none"},
        {"pre_norm": True, "qkv_bias": False},
    ],
)
def test_tokens_are_timms_and_projections_give_its_attention(skip: bool, kwargs: dict) -> None:
    model, images = vit(skip=skip, **kwargs).eval(), torch.randn(2, 3, 32, 32)
    views = block_views(model)
    inputs, outputs = {}, {}
    hooks = [
        view.attn.register_forward_hook(lambda _m, x, y, i=i: (inputs.update({i: x[0]}), outputs.update({i: y}))[0])
        for i, view in enumerate(views)
    ]
    with torch.no_grad():
        expected = [
            torch.cat([prefix, patches], dim=1) if model.num_prefix_tokens else patches
            for patches, prefix in (
                model.forward_intermediates(
                    images, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
                )
                if model.num_prefix_tokens
                else [
                    (patches, None)
                    for patches in model.forward_intermediates(images, output_fmt="NLC", intermediates_only=True)
                ]
            )
        ]
    for hook in hooks:
        hook.remove()
    found = features(model, images, ALL, batch_size=1)
    for index, view in enumerate(views):
        tokens = torch.cat([found[index, "tokens"].prefix, found[index, "tokens"].patches], dim=1)
        assert torch.allclose(tokens, expected[index], atol=1e-5)
        assert found[index, "tokens"].prefix.shape[1] == model.num_prefix_tokens
        assert found[index, "tokens"].grid == (4, 4)
        heads = []
        for kind in ("q", "k", "v"):
            part = torch.cat([found[index, kind].prefix, found[index, kind].patches], dim=1)
            heads.append(part.unflatten(2, (2, 12)).transpose(1, 2))
        q, k, v = view.query_norm(heads[0]), view.key_norm(heads[1]), heads[2]
        mixed = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        attention = mixed @ view.w_o + view.output.b
        assert torch.allclose(attention, outputs[index], atol=1e-5)


def test_the_final_norm_goes_on_every_blocks_tokens_and_on_nothing_else() -> None:
    model, images = vit(), torch.randn(2, 3, 32, 32)
    model.norm.weight.data.uniform_(0.5, 2)
    plain = features(model, images, ALL)
    normed = features(model, images, replace(ALL, norm="final"))
    assert torch.allclose(normed[2, "tokens"].patches, model.eval().forward_features(images)[:, 1:], atol=1e-5)
    for block in range(3):
        assert torch.allclose(normed[block, "tokens"].patches, model.norm(plain[block, "tokens"].patches), atol=1e-5)
        assert torch.equal(normed[block, "k"].patches, plain[block, "k"].patches)
    pooled = vit(class_token=False, global_pool="avg")
    assert find_vit(pooled).final_norm is pooled.fc_norm


@pytest.mark.parametrize("size", [(48, 32), (16, 16), (40, 64)])
def test_any_size_gives_what_timms_dynamic_size_gives_and_leaves_the_model_alone(size: tuple[int, int]) -> None:
    model, dynamic = vit(reg_tokens=1), vit(reg_tokens=1, dynamic_img_size=True)
    dynamic.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = dynamic.eval().forward_features(images)[:, 2:]
    found = features(model, images, FeatureConfig(blocks=(-1,)))[2, "tokens"]
    assert torch.allclose(found.patches, expected, atol=1e-5)
    assert found.grid == (size[0] // 8, size[1] // 8)
    with pytest.raises(AssertionError, match="doesn't match model"):  # timm's own check is back
        model(images)


@pytest.mark.parametrize("size", [(35, 35), (32, 37)])
@pytest.mark.parametrize("dynamic_img_pad", [False, True])
def test_the_size_that_the_model_was_built_for_need_not_be_whole_patches(
    size: tuple[int, int], dynamic_img_pad: bool
) -> None:
    model = vit(img_size=size, class_token=False, global_pool="avg").eval()
    grid = (4, 4)
    if dynamic_img_pad:
        grid = (-(-size[0] // 8), -(-size[1] // 8))
        model.patch_embed.dynamic_img_pad = model.dynamic_img_size = True
        model.patch_embed.flatten, model.patch_embed.output_fmt = False, Format.NHWC
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = model.forward_features(images)
    found = features(model, images, FeatureConfig(blocks=(-1,), norm="none"))[2, "tokens"]
    assert found.grid == grid
    assert torch.equal(found.patches, expected)
    assert model.patch_embed.strict_img_size
    with pytest.raises(InputError, match="are not whole patches"):
        features(model, torch.randn(2, 3, 36, 36))
    dynamic = vit(img_size=size, dynamic_img_size=True)
    with pytest.raises(InputError, match="are not whole patches"):  # which timm asks of this one too
        features(dynamic, images)


def test_a_chunk_is_one_forward_pass_that_stops_at_the_last_block_asked_for() -> None:
    model, calls = vit(), []
    for i, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, i=i: calls.append(i))
    features(model, torch.randn(4, 3, 32, 32), FeatureConfig(blocks=(0, 1), kinds=("q", "k", "tokens")), batch_size=2)
    assert calls == [0, 1, 0, 1]


def test_modes_autocast_and_gradients_are_left_as_they_were() -> None:
    model = vit(proj_drop_rate=0.5).train()
    model.blocks[1].eval()
    modes = [module.training for module in model.modules()]
    images = torch.randn(2, 3, 32, 32)
    first, second = features(model, images)[2, "tokens"], features(model, images)[2, "tokens"]
    assert torch.equal(first.patches, second.patches)  # no dropout
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    torch.nn.Linear(24, 1)(first.patches).sum().backward()  # a head can be trained on them
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = features(model, images)[2, "tokens"].patches
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(under, first.patches)
    coarse = features(model, images, FeatureConfig(precision="bf16"))[2, "tokens"].patches
    assert 0 < (coarse - first.patches).abs().max() < 0.1
    with pytest.raises(InputError):
        features(model, torch.randn(2, 3, 30, 32))
    assert [module.training for module in model.modules()] == modes
    assert features(model.double(), images.double())[2, "tokens"].patches.dtype == torch.float64


def test_bad_requests_are_one_line(unchecked: None) -> None:
    model = vit()
    for words, call in (
        ("30 x 32 are not whole patches", lambda: features(model, torch.zeros(1, 3, 30, 32))),
        ("have 1 channels, the model takes 3", lambda: features(model, torch.zeros(1, 1, 32, 32))),
        ("0 images", lambda: features(model, torch.zeros(0, 3, 32, 32))),
        ("name each of 0 to 2", lambda: features(model, torch.zeros(1, 3, 32, 32), FeatureConfig(blocks=(3,)))),
        ("at most once", lambda: FeatureConfig(blocks=(0, -3)).keys(3)),
        ("choose from tokens, q, k, v", lambda: FeatureConfig(kinds=("keys",))),
        ("choose from final, none", lambda: FeatureConfig(norm="last")),
        ("no adapter for `Linear`", lambda: find_vit(torch.nn.Linear(1, 1))),
        ("names no block", lambda: FeatureConfig(blocks=())),
    ):
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_transforms_resize_or_pad() -> None:
    image, _ = Squares(1).load(0)
    model = vit()
    resized = ImageTransform.of(model, 30)(image)
    assert resized.shape == (3, 32, 32)
    native = ImageTransform.of(model)(image.resize((45, 33)))
    assert native.shape == (3, 40, 48)
    assert native[:, 33:].eq(0).all()
    assert native[:, :, 45:].eq(0).all()
    assert native[0, :33, :45].ne(0).any()
    white = ImageTransform(mean=(0.5,), std=(0.25,), patch=(8, 8))(image.point(lambda _: 255))
    assert white.shape == (1, 40, 48)
    assert white.eq(2).all()
    with pytest.raises(InputError, match=r"182 x 182 patches of 8 x 8 are more than 32768 tokens; resize .*--size"):
        ImageTransform.of(model)(image.resize((1450, 1450)))
    with pytest.raises(InputError, match="more than 32768 tokens"):
        ImageTransform.of(model, 1600)
    with pytest.raises(InputError, match="smaller than a patch"):
        ImageTransform.of(model)(image.resize((5, 40)))
    with pytest.raises(InputError, match="multiple of the patch"):
        ImageTransform(mean=(0.5,), std=(0.25,), patch=(8, 8), size=(30, 32))
    assert pad_to_patch(torch.ones(2, 8, 9), (8, 4)).shape == (2, 8, 12)


def test_pictures_of_sixteen_bits_are_scaled_and_floats_refused(tmp_path: Path) -> None:
    transform = ImageTransform(mean=(0.0,), std=(1.0,), patch=(8, 8))
    deep = Image.fromarray(np.full((8, 8), 257 * 51, np.uint16))
    assert torch.equal(transform(deep), torch.full((1, 8, 8), 51 / 255))
    assert torch.equal(replace(transform, mean=(0.0,) * 3, std=(1.0,) * 3)(deep), torch.full((3, 8, 8), 51 / 255))
    floats = Image.fromarray(np.ones((8, 8), np.float32))
    with pytest.raises(UnreadableImage, match="^'picture' is no readable image .in mode F"):
        transform(floats)
    floats.save(tmp_path / "x.tif")
    with Image.open(tmp_path / "x.tif") as opened, pytest.raises(UnreadableImage, match=r"^'.*x\.tif' is no"):
        transform(opened)


# The store


def store(
    folder: Path, model=None, data: Squares | None = None, messages: list[str] | None = None, **kwargs
) -> FeatureStore:
    model = vit() if model is None else model
    data = Squares(SHARD + 5) if data is None else data
    transform = kwargs.pop("transform", ImageTransform.of(model, 16))
    notify = (lambda _: None) if messages is None else messages.append
    return build_store(
        model,
        lambda i: data.load(i)[0],
        len(data),
        data="squares",
        transform=transform,
        folder=folder,
        notify=notify,
        **kwargs,
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp16", 1e-3), ("fp32", 0)])
def test_the_store_gives_the_features(tmp_path: Path, dtype, tolerance: float) -> None:
    model, data, messages = vit(reg_tokens=1), Squares(SHARD + 5), []
    built = store(tmp_path, model, data, messages, dtype=dtype, config=ALL)
    transform = ImageTransform.of(model, 16)
    for images in (range(SHARD), range(SHARD, SHARD + 5)):
        direct = features(model, torch.stack([transform(data.load(i)[0]) for i in images]), ALL)
        for (block, kind), expected in direct.items():
            found = built.read(block, kind, images)
            assert torch.allclose(found.patches, expected.patches, rtol=tolerance, atol=tolerance)
            assert torch.allclose(found.prefix, expected.prefix, rtol=tolerance, atol=tolerance)
            assert found.grid == (2, 2)
    chosen = built.take(1, "v", [33, 2], np.array([[3, 0], [1, 2]]))
    assert torch.equal(chosen[0], built.read(1, "v", [33]).patches[0, [3, 0]])
    assert torch.equal(chosen[1], built.read(1, "v", [2]).patches[0, [1, 2]])
    exact = store_bytes(SHARD + 5, 6, [24] * 12, dtype)
    assert exact < built.nbytes < exact + 12 * 2 * 200  # numpy's headers
    assert f"need {exact / 1e9:.2f} GB" in messages[0]


def test_no_backbone_runs_twice(tmp_path: Path) -> None:
    model, data = vit(), Squares(SHARD + 5)
    store(tmp_path, model, data, config=FeatureConfig(blocks=(0,)))
    calls = []
    model.blocks[0].register_forward_hook(lambda *_: calls.append(0))
    store(tmp_path, model, data, config=FeatureConfig(blocks=(0,)))
    assert calls == []
    both = store(tmp_path, model, data, config=FeatureConfig(blocks=(0, 1)))
    assert len(calls) == 2
    assert both.keys == ((0, "tokens"), (1, "tokens"))
    assert len(list(tmp_path.iterdir())) == 1


def test_another_model_data_transform_or_precision_is_another_store(tmp_path: Path) -> None:
    model, small = vit(), Squares(3)
    folders = [store(tmp_path, model, small, config=FeatureConfig(blocks=(0,))).folder]
    skipless = remove_skips_(vit())  # the same parameters under the same names
    for key, value in model.state_dict().items():
        assert torch.equal(skipless.state_dict()[key], value)
    folders.append(store(tmp_path, skipless, small, config=FeatureConfig(blocks=(0,))).folder)
    model.blocks[2].mlp.fc2.bias.data[3] += 1e-3
    folders.append(store(tmp_path, model, small, config=FeatureConfig(blocks=(0,))).folder)
    folders.append(store(tmp_path, model, Squares(4), config=FeatureConfig(blocks=(0,))).folder)
    folders.append(store(tmp_path, model, small, config=FeatureConfig(), transform=ImageTransform.of(model, 32)).folder)
    folders.append(store(tmp_path, model, small, config=FeatureConfig(precision="bf16")).folder)
    folders.append(store(tmp_path, model, small, dtype="fp32").folder)
    assert len(set(folders)) == len(folders)
    plain = store(tmp_path, model, small, config=FeatureConfig(norm="none"))
    final = store(tmp_path, model, small, config=FeatureConfig(norm="final"))
    assert not torch.equal(plain.read(0, "tokens", [0]).patches, final.read(0, "tokens", [0]).patches)


class Interrupted(Exception):
    pass


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    model, data, seen = vit(), Squares(3 * SHARD), []

    def load(index: int):
        seen.append(index)
        if len(seen) == SHARD + 7:
            raise Interrupted
        return data.load(index)[0]

    arguments = {"data": "squares", "transform": ImageTransform.of(model, 16), "folder": tmp_path}
    with pytest.raises(Interrupted):
        build_store(model, load, len(data), notify=lambda _: None, **arguments)
    built = build_store(model, load, len(data), notify=lambda _: None, **arguments)
    assert seen[SHARD + 7 :] == list(range(SHARD, 3 * SHARD))
    whole = store(tmp_path / "whole", model, data)
    for image in (0, SHARD - 1, SHARD, 3 * SHARD - 1):
        assert torch.equal(built.take(2, "tokens", [image]), whole.take(2, "tokens", [image]))
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.slow
def test_a_killed_process_leaves_no_half_file(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from reference.scenes import Squares
from skipless.evaluators.features.store_builder import build_store
from skipless.evaluators.features.extraction import ImageTransform
from skipless.models import create_model
model = create_model("vit_tiny_patch16_224", skip=True, seed=0, img_size=32, patch_size=8, embed_dim=24, depth=3,
                     num_heads=2)
save = __import__("numpy").save
def half(file, array):
    if "b01" in file.name and "00001" in file.name:
        file.write(b"half of it"); file.flush(); os._exit(9)
    save(file, array)
__import__("numpy").save = half
data = Squares(37)
build_store(model, lambda i: data.load(i)[0], 37, data="squares", transform=ImageTransform.of(model, 16),
            folder=Path(sys.argv[1]))
"""
    root = str(Path(__file__).parents[1])
    died = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), root], capture_output=True, check=False, env=os.environ
    )
    assert died.returncode == 9
    messages: list[str] = []
    built = store(tmp_path, messages=messages)
    whole = store(tmp_path / "whole")
    assert torch.equal(built.take(1, "tokens", [SHARD + 1]), whole.take(1, "tokens", [SHARD + 1]))
    assert messages[0] == "features of 32 of 37 images from before"
    assert "5 images" in messages[1]


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "json"])
def test_a_corrupt_shard_alone_is_made_again_with_a_message(tmp_path: Path, damage: str) -> None:
    model, data = vit(), Squares(SHARD + 5)
    before = store(tmp_path, model, data).take(1, "tokens", list(range(SHARD)))
    file = next(tmp_path.rglob("b01.tokens.final/00000.npy"))
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[-100] ^= 4
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(content[:-10])
    elif damage == "remove":
        file.unlink()
    else:
        file.with_suffix(".json").write_text('{"crc32": 3')
    data.reads, messages = 0, []
    after = store(tmp_path, model, data, messages).take(1, "tokens", list(range(SHARD)))
    assert torch.equal(before, after)
    assert data.reads == SHARD
    assert len(messages) == 3
    assert "features of 5 of" in messages[1]  # what is good is told, too
    assert "b01.tokens.final/00000.npy" in messages[0]
    assert "computed again" in messages[0]


def test_unreadable_images_are_left_out_and_named(tmp_path: Path) -> None:
    model, data = vit(), Squares(SHARD + 5, broken=(3, SHARD))
    built = store(tmp_path, model, data)
    assert built.failures == {3: "'image-3.png' is cut short", SHARD: f"'image-{SHARD}.png' is cut short"}
    assert 3 not in built.good
    assert len(built.good) == SHARD + 3
    whole = store(tmp_path / "whole", model)
    for image in (2, 4, SHARD - 1, SHARD + 1):
        assert torch.equal(built.take(0, "tokens", [image]), whole.take(0, "tokens", [image]))
    with pytest.raises(InputError, match="images of one size together"):
        built.take(0, "tokens", [3])
    assert store(tmp_path, model, data).failures == built.failures  # from disk
    with pytest.raises(InputError, match="none of 2 images can be read"):
        store(tmp_path, model, Squares(2, broken=(0, 1)))
    # Readable again once another block is asked for: rows of the two must not be mixed up.
    mended = store(tmp_path, model, Squares(SHARD + 5), config=FeatureConfig(kinds=("tokens", "k")))
    assert mended.failures == {}
    assert torch.equal(mended.take(0, "tokens", [4]), whole.take(0, "tokens", [4]))
    mixed = store(tmp_path, model, Squares(SHARD + 5, broken=(1,)), config=FeatureConfig(kinds=("k", "v")))
    assert set(mixed.failures) == {1}
    again = store(tmp_path, model, Squares(SHARD + 5), config=FeatureConfig(kinds=("tokens", "k")))
    assert torch.equal(again.take(0, "k", [4]), mended.take(0, "k", [4]))


def test_images_keep_their_own_sizes(tmp_path: Path) -> None:
    model, data = vit(), Squares(5)
    sizes = [(40, 30), (33, 47), (40, 30), (8, 8), (64, 24)]
    transform = ImageTransform.of(model)
    built = build_store(
        model,
        lambda i: data.load(i)[0].resize(sizes[i]),
        5,
        data="sizes",
        transform=transform,
        folder=tmp_path,
        dtype="fp32",
        notify=lambda _: None,
    )
    assert built.grids == ((4, 5), (6, 5), (4, 5), (1, 1), (3, 8))
    for i, size in enumerate(sizes):
        direct = features(model, transform(data.load(i)[0].resize(size))[None])[1, "tokens"]
        assert torch.allclose(built.read(1, "tokens", [i]).patches, direct.patches, atol=1e-5)
    with pytest.raises(InputError, match="images of one size together"):
        built.read(1, "tokens", [0, 1])


def test_a_full_disk_is_one_line_and_what_is_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = vit(), Squares(SHARD + 5)
    save = np.save

    def full(file, array) -> None:
        if "00001" in file.name:
            raise OSError(28, "No space left on device")
        save(file, array)

    with monkeypatch.context() as patched:
        patched.setattr(store_builder.np, "save", full)
        with pytest.raises(InputError, match=r"No space left on device.*goes on from here") as caught:
            store(tmp_path, model, data)
        assert "\n" not in str(caught.value)
        patched.setattr(store_builder.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
        with pytest.raises(InputError, match=r"need .* GB .* are free; make room"):
            store(tmp_path / "new", model, data)
    data.reads = 0
    store(tmp_path, model, data)
    assert data.reads == 5


def test_features_that_are_no_numbers_or_too_large_are_refused(tmp_path: Path) -> None:
    model = vit()
    model.blocks[1].mlp.fc2.bias.data[0] = 1e6
    with pytest.raises(InputError, match="beyond fp16; keep them as fp32"):
        store(tmp_path, model, config=FeatureConfig(norm="none"))
    store(tmp_path, model, Squares(2), config=FeatureConfig(norm="none"), dtype="fp32")
    model.blocks[1].mlp.fc2.bias.data[0] = float("nan")
    with pytest.raises(InputError, match="tokens of block 1 are not finite"):
        store(tmp_path, model, Squares(2))


def test_files_are_identified_by_path_size_and_time(tmp_path: Path) -> None:
    files = [tmp_path / "a", tmp_path / "b"]
    files[0].write_text("one")
    first = files_identity(files)
    assert first == files_identity(files)
    files[1].write_text("two")
    assert files_identity(files) != first
    os.utime(files[0], ns=(0, 5))
    assert len({first, files_identity(files), files_identity(files[:1])}) == 3
    assert json.dumps(first)
